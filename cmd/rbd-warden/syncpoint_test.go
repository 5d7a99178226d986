package main

import (
	"testing"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

func TestOwnerSilence(t *testing.T) {
	locked := func(client uint64) cls.Info {
		return cls.Info{Lockers: []cls.Locker{{LockerID: cls.LockerID{Entity: cls.ClientName(client), Cookie: "auto 1"}}}}
	}
	alive := []rados.Watcher{{ClientID: 7, Cookie: 1}}
	start := time.Unix(1000, 0)
	var o ownerWatch
	for _, step := range []struct {
		name     string
		info     cls.Info
		watchers []rados.Watcher
		after    time.Duration
		want     time.Duration
	}{
		{"unlocked", cls.Info{}, nil, 0, -1},
		{"owner watches", locked(7), alive, time.Second, -1},
		{"silent at first sight", locked(7), nil, 2 * time.Second, 0},
		{"still silent", locked(7), nil, 9 * time.Second, 7 * time.Second},
		{"another one is silent", locked(8), alive, 10 * time.Second, 0},
		{"came back", locked(7), alive, 11 * time.Second, -1},
		{"silent again", locked(7), nil, 20 * time.Second, 0},
	} {
		if got := o.silence(step.info, step.watchers, start.Add(step.after)); got != step.want {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}
