package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/admin"
	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// Commands of a worker about options and about librados: "librados config show" is what
// the admin socket of its connection to the local cluster answers to "config show".
const (
	libradosCommand = "librados"
	configSet       = "config set"
)

// encodeArgs puts an admin socket's arguments into those of a call.
func encodeArgs(args admin.Args) map[string]string {
	out := make(map[string]string, len(args))
	for name, values := range args {
		b, err := json.Marshal(values)
		if err != nil {
			panic(err) // strings always encode
		}
		out[name] = string(b)
	}
	return out
}

// callConfig does a command about options, or hands one to librados.
func (w *wiring) callConfig(ctx context.Context, r *controlv1.CallRequest) (string, []byte, error) {
	if prefix, ok := strings.CutPrefix(r.Command, libradosCommand+" "); ok {
		b, err := w.askLibrados(ctx, prefix, r.Arguments)
		return "", b, err
	}
	if r.Command != configSet {
		return "", nil, fmt.Errorf("this worker does not know the command %q: %w", r.Command, syscall.ENOTSUP)
	}
	live, err := w.setLive(r.Arguments["var"], r.Arguments["val"])
	if err != nil || !live {
		return "", nil, err
	}
	return tookEffect, nil, nil
}

// tookEffect is how a worker says that it works by a new value already.
const tookEffect = "took effect"

// setLive changes what can be changed while images are replayed.
func (w *wiring) setLive(name, value string) (live bool, err error) {
	switch name {
	case "debug_rbd_mirror":
		level, err := config.ParseLogLevel(value)
		if err != nil {
			return false, err
		}
		zerolog.SetGlobalLevel(logLevel(level))
		return true, nil
	case "rbd_mirror_concurrent_image_syncs":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return false, fmt.Errorf("%q is no number: %w", value, syscall.EINVAL)
		}
		w.syncs.SetLimit(int(n))
		return true, nil
	case config.ReplayLimit.Option(), config.SyncLimit.Option():
		rate, err := config.ParseSize(value)
		if err != nil {
			return false, fmt.Errorf("%q: %w: %w", value, err, syscall.EINVAL)
		}
		for _, k := range config.LimitKinds {
			if k.Option() == name {
				w.limits.SetDaemon(k, rate)
			}
		}
		return true, nil
	case injectPanic:
		w.inject.Set(value)
		return true, nil
	}
	return false, nil
}

// askLibrados asks the admin socket of the connection to the local cluster.
func (w *wiring) askLibrados(ctx context.Context, prefix string, args map[string]string) ([]byte, error) {
	if w.socket == "" {
		return nil, fmt.Errorf("librados has no admin socket here: %w", syscall.ENOTSUP)
	}
	decoded := map[string]any{}
	for name, text := range args {
		var values []string
		if err := json.Unmarshal([]byte(text), &values); err != nil {
			return nil, fmt.Errorf("argument %s: %w", name, syscall.EINVAL)
		}
		decoded[name] = values
		if len(values) == 1 && name != "val" {
			decoded[name] = values[0]
		}
	}
	return admin.Ask(ctx, w.socket, prefix, decoded)
}

// librarySocket is the option that gives a connection an admin socket of its own, in
// rbd-mirror's place for it (src/tools/rbd_mirror/PoolReplayer.cc); "" if the daemon
// has none either.
func librarySocket(p config.Process) string {
	if p.AdminSocket == "" || p.RunDir == "" {
		return ""
	}
	return filepath.Join(p.RunDir, "$name.$pid.$cluster.$cctid.asok")
}

// socketOf is the path of a connection's admin socket, "" if it has none: librados goes on
// without one where it cannot make it.
func socketOf(c *librados.Cluster) string {
	path, err := c.Option("admin_socket")
	if err != nil || path == "" {
		return ""
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// removeStaleLibrarySockets removes what workers left that were killed.
func removeStaleLibrarySockets(p config.Process) {
	if p.RunDir != "" {
		removeStale(filepath.Join(p.RunDir, "client.*.*.*.*.asok"))
	}
}
