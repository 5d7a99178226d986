//go:build live && long

package mem

func init() { anySeed = true }
