package config

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// Table lists every option in the order of their documentation: Ceph's, then ours.
func Table() []Option { return slices.Concat(table, wardenTable) }

// Defaults are the values of an operator who changes nothing.
func Defaults() Options {
	var o Options
	for _, opt := range Table() {
		if err := opt.set(&o, opt.Default); err != nil {
			panic(err)
		}
	}
	return o
}

// Load asks get for every option. get's error must wrap syscall.ENOENT for an option
// that it does not know; then the option's other names are tried, and at last it has
// its default. All options that are wrong are in the error, each as a ValueError.
func Load(get func(name string) (string, error)) (Options, error) {
	o := Defaults()
	var errs []error
	for _, opt := range Table() {
		value, err := first(get, append([]string{opt.Name}, opt.Aliases...))
		switch {
		case errors.Is(err, syscall.ENOENT):
		case err != nil:
			errs = append(errs, fmt.Errorf("read option %s: %w", opt.Name, err))
		default:
			if err := opt.set(&o, value); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return o, errors.Join(errs...)
}

// first asks for the names in turn until one is known.
func first(get func(string) (string, error), names []string) (string, error) {
	var err error
	for _, n := range names {
		var v string
		if v, err = get(n); !errors.Is(err, syscall.ENOENT) {
			return v, err
		}
	}
	return "", err
}

// With is o with some options changed, for example by the settings that an image or
// a pool carries in its metadata. Names outside the table are passed over: they
// concern others.
func (o Options) With(s Settings) (Options, error) {
	var errs []error
	for _, opt := range Table() {
		for _, n := range slices.Concat([]string{opt.Name}, opt.Aliases) {
			if v, ok := s[n]; ok {
				if err := opt.set(&o, v); err != nil {
					errs = append(errs, err)
				}
				break
			}
		}
	}
	return o, errors.Join(errs...)
}
