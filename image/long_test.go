//go:build long && live

package image

func init() { thorough = true }
