package main

import "testing"

func TestImageTarget(t *testing.T) {
	for _, c := range []struct {
		target, pool, namespace, image string
		ok                             bool
	}{
		{"rbd/vm", "rbd", "", "vm", true},
		{"rbd/ns/vm", "rbd", "ns", "vm", true},
		{"rbd//vm", "rbd", "", "vm", true},
		{"vm", "", "", "", false},
		{"rbd/", "", "", "", false},
		{"/vm", "", "", "", false},
		{"a/b/c/d", "", "", "", false},
		{"", "", "", "", false},
	} {
		pool, namespace, image, err := imageTarget(c.target)
		if (err == nil) != c.ok || pool != c.pool || namespace != c.namespace || image != c.image {
			t.Errorf("%q: %q %q %q %v", c.target, pool, namespace, image, err)
		}
	}
}
