package main

import "testing"

func TestTargets(t *testing.T) {
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
		got, err := parseTarget(c.target, true)
		if (err == nil) != c.ok || got.GetPool() != c.pool || got.GetNamespace() != c.namespace || got.GetImage() != c.image {
			t.Errorf("%q: %v %v", c.target, got, err)
		}
	}
	for target, ok := range map[string]bool{"rbd": true, "rbd/ns": true, "": false, "/ns": false, "a/b/c": false} {
		if got, err := parseTarget(target, false); (err == nil) != ok || got.GetImage() != "" {
			t.Errorf("%q: %v %v", target, got, err)
		}
	}
}
