package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/compare"
	"github.com/rbdwarden/rbdwarden/supervision/daemon"
)

// verify holds the flags of `rbd-warden verify`.
type verify struct {
	ceph     cephFlags
	peer     string
	snap     string
	create   bool
	timeout  time.Duration
	objects  int
	json     bool
	progress bool
}

// The exit codes of `rbd-warden verify`, as cmp's.
const (
	exitDiffers   = 1
	exitUndecided = 2
)

func newVerifyCommand() *cobra.Command {
	v := verify{}
	cmd := &cobra.Command{
		Use:   "verify POOL[/NAMESPACE]/IMAGE",
		Short: "Prove that an image's replica is identical at a common snapshot",
		Long: `Compare an image with its replica at a snapshot that both sites have, by checksums that the OSDs compute. Nothing is
written to the replica, and the daemon may go on replaying. The newest common user snapshot is taken unless --snap names
another; --create-snapshot makes one on the primary for the purpose, waits until it is mirrored, and removes it again.

The exit code is 0 if the contents are equal, 1 if they differ, and 2 if that could not be decided.`,
		Example: `  rbd-warden verify rbd/vm-1
  rbd-warden verify rbd/vm-1 --snap nightly --json
  rbd-warden verify rbd/vm-1 --create-snapshot`,
		// A wrong command line must not look like a difference.
		Args: func(cmd *cobra.Command, args []string) error { return undecided(cmd, cobra.ExactArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			r := v.Run(ctx, args[0])
			if err := r.print(cmd.OutOrStdout(), cmd.ErrOrStderr(), v.json); err != nil {
				return err
			}
			return r.exit()
		},
	}
	v.ceph.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&v.peer, "peer", "", "UUID or site name of the peer to compare with (default: the first that has the image)")
	flags.StringVar(&v.snap, "snap", "", "user snapshot to compare at (default: the newest that both sites have)")
	flags.BoolVar(&v.create, "create-snapshot", false, "make a snapshot on the primary for this comparison, and remove it afterwards")
	flags.DurationVar(&v.timeout, "timeout", 10*time.Minute, "how long to wait for a created snapshot to be mirrored")
	flags.IntVar(&v.objects, "objects", 16, "objects that are compared at a time")
	flags.BoolVar(&v.json, "json", false, "print JSON")
	flags.BoolVar(&v.progress, "progress", true, "show progress if stderr is a terminal")
	cmd.SetFlagErrorFunc(undecided)
	return cmd
}

// undecided reports a wrong command line.
func undecided(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "rbd-warden: verify: %v\n", err)
	return &daemon.ExitError{Code: exitUndecided}
}

// verdict is what `rbd-warden verify` prints.
type verdict struct {
	Image    string `json:"image"`
	GlobalID string `json:"global_id,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
	// Result is "equal", "differs" or "undecided", with the Reason.
	Result string    `json:"result"`
	Reason string    `json:"reason,omitempty"`
	Sites  []siteRef `json:"sites,omitempty"`

	ObjectsTotal     uint64           `json:"objects_total"`
	ObjectsCompared  uint64           `json:"objects_compared"`
	ObjectsDiffering uint64           `json:"objects_differing"`
	BytesCompared    uint64           `json:"bytes_compared"`
	BytesDiffering   uint64           `json:"bytes_differing"`
	ChecksumBytes    uint64           `json:"checksum_bytes_moved"`
	DataBytes        uint64           `json:"data_bytes_moved"`
	Seconds          float64          `json:"seconds"`
	Differences      []differenceJSON `json:"differences,omitempty"`
}

// siteRef is one of the copies that were compared.
type siteRef struct {
	Site     string `json:"site"`
	Primary  bool   `json:"primary"`
	ImageID  string `json:"image_id"`
	SnapID   uint64 `json:"snap_id,omitempty"`
	SnapSize uint64 `json:"size"`
}

// differenceJSON is one object that is not the same: its name on either site, and the
// extents of the object in bytes.
type differenceJSON struct {
	Object  uint64     `json:"object"`
	Names   [2]string  `json:"names"`
	Extents []extentAt `json:"extents"`
}

type extentAt struct {
	Offset uint64 `json:"offset"`
	Length uint64 `json:"length"`
}

// Run compares. What keeps it from a decision is in the verdict.
func (v verify) Run(ctx context.Context, target string) verdict {
	out := verdict{Image: target, Result: "undecided"}
	began := time.Now()
	if err := v.decide(ctx, target, &out); err != nil {
		out.Result, out.Reason = "undecided", err.Error()
	}
	out.Seconds = time.Since(began).Round(time.Millisecond).Seconds()
	return out
}

func (v verify) decide(ctx context.Context, target string, out *verdict) error {
	spec, err := parseImageSpec(target)
	if err != nil {
		return err
	}
	if v.create && v.snap != "" {
		return errors.New("--snap and --create-snapshot exclude each other")
	}
	sites, err := openBoth(ctx, v.ceph, spec, v.peer)
	if err != nil {
		return err
	}
	defer sites.Close()
	out.GlobalID = sites.globalID
	primary, replica, err := sortSites(ctx, sites)
	if err != nil {
		return err
	}
	pair, remove, err := v.choose(ctx, primary, replica)
	if err != nil {
		return err
	}
	defer remove()
	return v.compare(ctx, primary, replica, pair, out)
}

// sortSites finds out which copy is the primary's, and that the other is complete.
func sortSites(ctx context.Context, s *bothSites) (primary, replica copySite, err error) {
	here, err := s.here.role(ctx)
	if err != nil {
		return primary, replica, fmt.Errorf("site %s: %w", s.here.name, err)
	}
	there, err := s.there.role(ctx)
	if err != nil {
		return primary, replica, fmt.Errorf("site %s: %w", s.there.name, err)
	}
	primary, replica = s.there, s.here
	copied := here
	if here.primary && !there.primary {
		primary, replica, copied = s.here, s.there, there
	}
	if here.primary && there.primary || copied.primary {
		return primary, replica, errors.New("the image is primary on both sites: neither is the other's replica")
	}
	if copied.resync {
		return primary, replica, fmt.Errorf("a re-sync of the copy on site %s was asked for and is not complete", replica.name)
	}
	incomplete, err := syncing(ctx, primary, replica)
	if err == nil && incomplete {
		err = fmt.Errorf("the copy on site %s is not complete yet", replica.name)
	}
	return primary, replica, err
}

// chosen is the snapshot to compare at, with the headers that have it.
type chosen struct {
	compare.Pair
	a, b *image.Header
}

// choose finds the snapshot, or makes one; remove undoes that.
func (v verify) choose(ctx context.Context, primary, replica copySite) (_ chosen, remove func(), err error) {
	nothing := func() {}
	if v.create {
		return v.makeSnapshot(ctx, primary, replica)
	}
	c := chosen{}
	if c.a, err = primary.header(ctx); err != nil {
		return c, nothing, err
	}
	if c.b, err = replica.header(ctx); err != nil {
		return c, nothing, err
	}
	if v.snap != "" {
		var ok bool
		if c.Pair, ok = compare.Named(c.a, c.b, v.snap); ok {
			return c, nothing, nil
		}
		site := primary.name
		if c.A != nil {
			site = replica.name
		}
		return c, nothing, fmt.Errorf("site %s has no snapshot %s of the image", site, v.snap)
	}
	common := compare.Common(c.a, c.b)
	if len(common) == 0 {
		return c, nothing, errors.New("the sites have no snapshot of the image in common: --create-snapshot makes one for the time of the comparison")
	}
	c.Pair = common[0]
	return c, nothing, nil
}

func (v verify) compare(ctx context.Context, primary, replica copySite, c chosen, out *verdict) error {
	out.Snapshot = c.A.Name
	out.Sites = []siteRef{
		{primary.name, true, primary.id, uint64(c.A.ID), c.A.ImageSize},
		{replica.name, false, replica.id, uint64(c.B.ID), c.B.ImageSize},
	}
	bar := newProgressBar(os.Stderr, v.progress && !v.json, "comparing")
	r, err := compare.Images(ctx, compare.Job{
		A:       compare.Side{IO: primary.io, Header: c.a, Snap: c.A.ID},
		B:       compare.Side{IO: replica.io, Header: c.b, Snap: c.B.ID},
		Objects: v.objects, Progress: func(p compare.Progress) { bar.set(p.ObjectsDone, p.ObjectsTotal) },
	})
	bar.end()
	if err != nil {
		return err
	}
	out.Result = "equal"
	if !r.Equal() {
		out.Result = "differs"
	}
	if r.SizeA != r.SizeB {
		out.Reason = fmt.Sprintf("size is %d bytes on site %s and %d on site %s", r.SizeA, primary.name, r.SizeB, replica.name)
	}
	out.ObjectsTotal, out.ObjectsCompared, out.ObjectsDiffering = r.ObjectsTotal, r.ObjectsCompared, r.ObjectsDiffering
	out.BytesCompared, out.BytesDiffering = r.BytesCompared, r.BytesDiffering
	out.ChecksumBytes, out.DataBytes = r.ChecksumBytes, r.DataBytes
	for _, d := range r.Differences {
		x := differenceJSON{Object: uint64(d.Object), Names: [2]string{c.a.Layout.ObjectName(d.Object), c.b.Layout.ObjectName(d.Object)}}
		for _, e := range d.Extents {
			x.Extents = append(x.Extents, extentAt(e))
		}
		out.Differences = append(out.Differences, x)
	}
	return nil
}

// exit is the error with the exit code of the verdict; nil if the copies are equal.
func (r verdict) exit() error {
	switch r.Result {
	case "equal":
		return nil
	case "differs":
		return &daemon.ExitError{Code: exitDiffers}
	}
	return &daemon.ExitError{Code: exitUndecided}
}

// listed is how many differing objects are shown to people.
const listed = 10

func (r verdict) print(out, complaints io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	if r.Result == "undecided" {
		_, err := fmt.Fprintf(complaints, "rbd-warden: verify %s: %s\n", r.Image, r.Reason)
		return err
	}
	fmt.Fprintf(out, "%s@%s: %s\n", r.Image, r.Snapshot, r.Result)
	if r.Reason != "" {
		fmt.Fprintf(out, "  %s\n", r.Reason)
	}
	fmt.Fprintf(out, "  compared %d of %d objects, %s, in %.1f s\n", r.ObjectsCompared, r.ObjectsTotal, bytesText(int64(r.BytesCompared)), r.Seconds)
	fmt.Fprintf(out, "  moved %s of checksums and %s of data\n", bytesText(int64(r.ChecksumBytes)), bytesText(int64(r.DataBytes)))
	if r.ObjectsDiffering > 0 {
		fmt.Fprintf(out, "  %d objects differ, in %s\n", r.ObjectsDiffering, bytesText(int64(r.BytesDiffering)))
	}
	for i, d := range r.Differences {
		if i == listed {
			fmt.Fprintf(out, "  and %d objects more (--json lists them)\n", r.ObjectsDiffering-listed)
			break
		}
		fmt.Fprintf(out, "  object %d (%s, %s):", d.Object, d.Names[0], d.Names[1])
		for k, e := range d.Extents {
			if k == listed {
				fmt.Fprint(out, " ...")
				break
			}
			fmt.Fprintf(out, " %d~%d", e.Offset, e.Length)
		}
		fmt.Fprintln(out)
	}
	return nil
}
