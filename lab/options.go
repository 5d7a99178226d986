package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Store is the kind of object store that the cluster's OSD keeps its data in.
type Store string

const (
	// Memstore keeps all data in the OSD's memory: quick to start, gone with the process.
	Memstore Store = "memstore"
	// Bluestore keeps data in a sparse file in the cluster's directory, as production does on a device.
	Bluestore Store = "bluestore"
)

// Options says what cluster to start. The zero value starts a memstore cluster in a new temporary directory.
type Options struct {
	// Dir is the cluster's directory. It must not exist, or be empty. Empty: a new directory under os.TempDir.
	Dir string
	// Name tells clusters apart for people: it becomes the mirroring site's name. Empty: "lab".
	Name string
	// Store is the OSD's object store. Empty: Memstore.
	Store Store
	// Conf holds extra lines for ceph.conf. They are appended to [global]; a line may open another section.
	Conf []string
	// Timeout bounds the start as a whole. Zero: 90 seconds.
	Timeout time.Duration
	// Guard, where it is not empty, holds the arguments with which this very program, started anew, calls Guard for
	// the directory appended to them. The guard stops the cluster when this process dies without having done so.
	Guard []string

	parent string // see description.Parent
}

// ErrNotLab is the error for a directory which holds no cluster of this package.
var ErrNotLab = errors.New("not a directory of rbd-warden lab")

// socketRoom is what an admin socket's name needs behind the directory: "/run/ceph-client.<user>.<pid>.<handle>.asok".
const socketRoom = 60

// socketMax is the longest path that fits a Unix socket's address on Linux (sun_path, 108 bytes with the final NUL).
const socketMax = 107

// withDefaults answers the options with every empty field filled in and the directory made, absolute and free of
// symbolic links.
func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = "lab"
	}
	if o.Store == "" {
		o.Store = Memstore
	}
	if o.Store != Memstore && o.Store != Bluestore {
		return o, fmt.Errorf("lab: unknown store %q (want %s or %s)", o.Store, Memstore, Bluestore)
	}
	if o.Timeout == 0 {
		o.Timeout = 90 * time.Second
	}
	var err error
	if o.Dir, err = makeDir(o.Dir); err != nil {
		return o, fmt.Errorf("lab: %w", err)
	}
	if len(o.Dir)+socketRoom > socketMax {
		return o, fmt.Errorf("lab: directory %s is too long for admin sockets: %d bytes, at most %d",
			o.Dir, len(o.Dir), socketMax-socketRoom)
	}
	return o, nil
}

// makeDir creates the directory where needed and answers its canonical path. A directory with contents is refused.
func makeDir(dir string) (string, error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "warden-lab-")
		if err != nil {
			return "", err
		}
		dir = made
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return "", fmt.Errorf("directory %s is not empty", dir)
	}
	return canonical(dir)
}

// canonical is the one spelling of a directory's path that marks are compared by.
func canonical(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
