package image

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// MirroringOptions are the options of mirroring that may be set for a single image or
// for its pool, with "rbd config image|pool set". rbd-mirror takes them from the local
// image (src/librbd/ImageCtx.cc, apply_metadata).
type MirroringOptions struct {
	// DeleteDelay is how long the local copy of a removed image stays in the trash.
	DeleteDelay time.Duration
	// ReplayDelay is how old an entry must be to be applied.
	ReplayDelay time.Duration
	// ResyncAfterDisconnect asks for a new copy when the primary has given us up.
	ResyncAfterDisconnect bool
}

// overridePrefix is what the options above have in common in metadata.
const overridePrefix = "conf_rbd_mirroring_"

// ReadMirroringOptions finds the options of an image: the image's own, else the pool's
// (in its default namespace, whatever the image's is), else defaults. A missing image
// has the pool's. Values that cannot be understood count as not set, as for librbd; they
// are in the second result, for a log.
func ReadMirroringOptions(ctx context.Context, io rados.IOContext, id string, defaults MirroringOptions) (MirroringOptions, []string, error) {
	o := defaults
	root := io
	if io.Namespace() != "" {
		var err error
		if root, err = io.Cluster().OpenID(ctx, io.Pool().ID, ""); err != nil {
			return o, nil, err
		}
		defer root.Close()
	}
	var bad []string
	for _, from := range []struct {
		io     rados.IOContext
		object string
	}{{root, rbd.InfoObject}, {io, rbd.HeaderObject(id)}} {
		// Few keys can begin so; a page of them is all.
		pairs, err := rados.Ask(ctx, from.io, from.object, rbd.MetadataList(overridePrefix, 16))
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return o, bad, err
		}
		bad = append(bad, o.apply(pairs)...)
	}
	return o, bad, nil
}

// ApplyMetadata is the options with those that an image's metadata overrides.
func (o MirroringOptions) ApplyMetadata(pairs map[string][]byte) MirroringOptions {
	o.apply(pairs)
	return o
}

// apply overrides options, and tells of values that are none.
func (o *MirroringOptions) apply(pairs map[string][]byte) (bad []string) {
	for key, value := range pairs {
		name, ok := strings.CutPrefix(key, overridePrefix)
		if !ok {
			continue
		}
		var err error
		text := strings.TrimSpace(string(value))
		switch name {
		case "delete_delay":
			err = setSeconds(&o.DeleteDelay, text)
		case "replay_delay":
			err = setSeconds(&o.ReplayDelay, text)
		case "resync_after_disconnect":
			err = setBool(&o.ResyncAfterDisconnect, text)
		}
		if err != nil {
			bad = append(bad, fmt.Sprintf("rbd_mirroring_%s = %q", name, text))
		}
	}
	return bad
}

func setSeconds(into *time.Duration, text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil {
		*into = time.Duration(n) * time.Second
	}
	return err
}

// setBool reads a boolean as Ceph's options are read (src/common/strtol.cc and
// options.cc: true or false in any case, or a number).
func setBool(into *bool, text string) error {
	switch strings.ToLower(text) {
	case "true":
		*into = true
	case "false":
		*into = false
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		*into = n != 0
	}
	return nil
}
