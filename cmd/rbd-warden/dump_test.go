package main

import "testing"

func TestParseImageSpec(t *testing.T) {
	for in, want := range map[string]imageSpec{
		"rbd/vm": {"rbd", "", "vm"}, "rbd/tenant/vm": {"rbd", "tenant", "vm"}, "a b/c d": {"a b", "", "c d"},
	} {
		if got, err := parseImageSpec(in); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "vm", "/vm", "rbd/", "rbd//vm", "a/b/c/d"} {
		if got, err := parseImageSpec(in); err == nil {
			t.Errorf("%q: got %+v", in, got)
		}
	}
}
