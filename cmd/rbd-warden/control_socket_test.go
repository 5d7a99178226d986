package main

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// A daemon that starts while others do keeps its control socket: none of them takes it for a dead daemon's.
func TestSocketsOfDaemonsThatStartTogether(t *testing.T) {
	dir := t.TempDir()
	path := func(pid int) string { return filepath.Join(dir, "site-a."+strconv.Itoa(pid)+".warden.sock") }
	over := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					removeStale(socketPattern(path(1), 1))
				}
			}
		})
	}
	defer others.Wait()
	defer close(over)
	for pid := range 2000 {
		l, err := listenAt(path(pid))
		if err != nil {
			t.Fatal(err)
		}
		if !inUse(path(pid)) {
			t.Fatalf("socket %d is gone", pid)
		}
		if err := os.Remove(path(pid)); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
