package main

import (
	"strconv"
	"strings"
	"sync"

	"github.com/rbdwarden/rbdwarden/messages"
)

// injectPanic is the option of an injection.
const injectPanic = "rbd_warden_inject_panic"

// injection makes an image's actor panic, in tests of supervision. It counts in each worker
// process anew.
type injection struct {
	mu    sync.Mutex
	image string // POOL[/NAMESPACE]/IMAGE or global id; "" for none
	left  int64
}

func newInjection(option string) *injection {
	i := new(injection)
	i.Set(option)
	return i
}

// Set takes the option's value: IMAGE, or IMAGE=N for more than one panic. What is left of
// the one before is forgotten.
func (i *injection) Set(option string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.image, i.left = option, 1
	if name, times, ok := strings.Cut(option, "="); ok {
		if n, err := strconv.ParseInt(times, 10, 64); err == nil {
			i.image, i.left = name, n
		}
	}
}

// For asks whether an image is to panic now, which counts as a panic.
func (i *injection) For(key messages.ImageKey) func(spec string) bool {
	return func(spec string) bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.left <= 0 || i.image != spec && i.image != key.GlobalID {
			return false
		}
		i.left--
		return true
	}
}
