package harness

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/lab"
)

// Churn is a Writer that does everything else, too, that is done to an image and gets into its journal: snapshots and all
// that is done to them, sizes, limits, names, features, metadata; and some of what fails on the primary. It knows what
// head, snapshots and metadata must be. It is for one goroutine.
type Churn struct {
	*Writer
	// Image is the image, under its name of the moment.
	Image *Image
	// Limits allows limits for the number of snapshots: not before the image is synced, for sync points count, too.
	Limits bool
	// Log is what was done so far, for whom a difference makes curious.
	Log []Deed

	cluster  *lab.Cluster
	seed     uint64
	most     int // bytes that the image may grow to
	object   int // bytes of a data object
	snaps    []knownSnap
	limit    uint64
	metadata map[string]string
	features rbd.Features
	names    int
	born     string // the image's first name
	remapped bool
}

// Deed is something that a Churn did.
type Deed struct {
	What     string
	At, Size int // the range in bytes; of operations 0
}

// knownSnap is a snapshot with what it must hold.
type knownSnap struct {
	name      string
	protected bool
	contents  []byte
}

// NewChurn opens an image without snapshots on a cluster. The image's first size is the half of the largest that it gets.
func (i *Image) NewChurn(t testing.TB, c *lab.Cluster, seed uint64) *Churn {
	t.Helper()
	ch := &Churn{
		Writer: i.OpenWriter(t, c, seed), Image: i, cluster: c, seed: seed,
		limit: noLimit, metadata: map[string]string{}, born: i.Name,
	}
	ch.most = max(2*len(ch.Contents), 1<<20)
	size, err := ch.disk.objectSize()
	ch.check(err)
	mask, err := ch.disk.features()
	ch.check(err)
	ch.object, ch.features = size, rbd.Features(mask)
	ch.listen()
	return ch
}

// listen keeps a log of what is written.
func (ch *Churn) listen() {
	ch.disk.wrote = func(how string, at, size int) { ch.Log = append(ch.Log, Deed{how, at, size}) }
}

// Reopen closes the image and opens it anew, as after the reboot of a guest: the journal gets a new tag.
func (ch *Churn) Reopen() {
	ch.t.Helper()
	ch.Writer.Close()
	contents := ch.Contents
	ch.seed++
	ch.Writer = ch.Image.OpenWriter(ch.t, ch.cluster, ch.seed)
	ch.listen()
	if string(contents) != string(ch.Contents) {
		ch.t.Fatalf("%s does not hold on the primary what was written to it", ch.Image.Spec())
	}
}

// Do does n rounds: each is a few writes and then an operation.
func (ch *Churn) Do(n int) {
	ch.t.Helper()
	for range n {
		ch.write(1 + ch.random.IntN(12))
		ch.operate()
	}
}

// write does I/O, also such that does not keep to sectors.
func (ch *Churn) write(n int) {
	ch.t.Helper()
	if len(ch.Contents) < 16*sector {
		return
	}
	ch.Write(n)
	at := ch.random.IntN(len(ch.Contents))
	size := min(1+ch.random.IntN(3*ch.object), len(ch.Contents)-at, 1<<20)
	target := ch.Contents[at : at+size]
	switch ch.random.IntN(6) {
	case 0:
		ch.check(ch.disk.writeZeroes(at, size))
		clear(target)
	case 1: // the whole of an object and more
		at = at / ch.object * ch.object
		size = min(ch.object+ch.random.IntN(ch.object), len(ch.Contents)-at)
		ch.check(ch.disk.discard(at, size))
		ch.reread(at, size)
	case 2: // up to the end
		size = min(size, len(ch.Contents))
		at = len(ch.Contents) - size
		ch.check(ch.disk.discard(at, size))
		ch.reread(at, size)
	default:
		data := ch.noise(size)
		ch.check(ch.disk.write(at, data))
		copy(target, data)
	}
}

// operate does one operation, or one that must fail.
func (ch *Churn) operate() {
	ch.t.Helper()
	switch k := ch.random.IntN(100); {
	case k < 24:
		ch.snapCreate()
	case k < 32:
		ch.snapRemove()
	case k < 40:
		ch.snapRename()
	case k < 48:
		ch.snapProtect()
	case k < 54:
		ch.snapRollback()
	case k < 58:
		ch.snapLimit()
	case k < 70:
		ch.resizeAnyhow()
	case k < 74:
		ch.rename()
	case k < 80:
		ch.changeFeatures()
	case k < 92:
		ch.changeMetadata()
	default:
		ch.say("reopen")
		ch.Reopen()
	}
}

func (ch *Churn) say(format string, args ...any) {
	ch.Log = append(ch.Log, Deed{What: fmt.Sprintf(format, args...)})
}

// wants fails the test unless an operation ended as it must: with an error number, or well if that is 0.
func (ch *Churn) wants(err error, errno syscall.Errno) {
	ch.t.Helper()
	if errno == 0 && err != nil || errno != 0 && !errors.Is(err, errno) {
		ch.t.Fatalf("%s, %s: %v, want %v", ch.Image.Spec(), ch.Log[len(ch.Log)-1].What, err, errno)
	}
}

// newName is a name that nothing has had, or that something had a while ago.
func (ch *Churn) newName(kind string) string {
	ch.names++
	name := fmt.Sprintf("%s%d", kind, ch.names%7)
	if slices.ContainsFunc(ch.snaps, func(s knownSnap) bool { return s.name == name }) {
		name = fmt.Sprintf("%s-%d", kind, ch.names)
	}
	return name
}

// some picks a snapshot; -1 if there is none.
func (ch *Churn) some() int {
	if len(ch.snaps) == 0 {
		return -1
	}
	return ch.random.IntN(len(ch.snaps))
}

func (ch *Churn) snapCreate() {
	ch.t.Helper()
	if len(ch.snaps) >= 9 {
		ch.snapRemove()
		return
	}
	name := ch.newName("snap")
	ch.say("create %s", name)
	if uint64(len(ch.snaps)) >= ch.limit {
		ch.wants(ch.disk.snapCreate(name), syscall.EDQUOT) // journalled, and fails then
		return
	}
	ch.wants(ch.disk.snapCreate(name), 0)
	ch.snaps = append(ch.snaps, knownSnap{name: name, contents: slices.Clone(ch.Contents)})
}

func (ch *Churn) snapRemove() {
	ch.t.Helper()
	n := ch.some()
	if n < 0 {
		return
	}
	s := ch.snaps[n]
	ch.say("remove %s", s.name)
	if s.protected {
		ch.wants(ch.disk.snapRemove(s.name), syscall.EBUSY)
		return
	}
	ch.wants(ch.disk.snapRemove(s.name), 0)
	ch.snaps = slices.Delete(ch.snaps, n, n+1)
}

func (ch *Churn) snapRename() {
	ch.t.Helper()
	n := ch.some()
	if n < 0 {
		return
	}
	from, to := ch.snaps[n].name, ch.newName("renamed")
	if m := ch.some(); ch.random.IntN(4) == 0 && m != n {
		to = ch.snaps[m].name
		ch.say("rename %s to %s, which is taken", from, to)
		ch.wants(ch.disk.snapRename(from, to), syscall.EEXIST)
		return
	}
	ch.say("rename %s to %s", from, to)
	ch.wants(ch.disk.snapRename(from, to), 0)
	ch.snaps[n].name = to
}

func (ch *Churn) snapProtect() {
	ch.t.Helper()
	n := ch.some()
	if n < 0 {
		return
	}
	s := &ch.snaps[n]
	if s.protected {
		ch.say("unprotect %s", s.name)
		ch.wants(ch.disk.snapUnprotect(s.name), 0)
	} else {
		ch.say("protect %s", s.name)
		ch.wants(ch.disk.snapProtect(s.name), 0)
	}
	s.protected = !s.protected
}

func (ch *Churn) snapRollback() {
	ch.t.Helper()
	n := ch.some()
	if n < 0 {
		return
	}
	s := ch.snaps[n]
	ch.say("roll back to %s, %d bytes", s.name, len(s.contents))
	ch.wants(ch.disk.snapRollback(s.name), 0)
	ch.Contents = slices.Clone(s.contents)
}

// snapLimit sets a limit that is reached soon, or ends it.
func (ch *Churn) snapLimit() {
	ch.t.Helper()
	if !ch.Limits {
		return
	}
	limit := uint64(len(ch.snaps) + ch.random.IntN(2))
	switch {
	case ch.limit != noLimit:
		limit = noLimit
	case len(ch.snaps) > 0 && ch.random.IntN(3) == 0:
		limit = uint64(len(ch.snaps) - 1)
		ch.say("limit %d, below what there is", limit)
		ch.wants(ch.disk.snapLimit(limit), syscall.ERANGE)
		return
	}
	ch.say("limit %d", limit)
	ch.wants(ch.disk.snapLimit(limit), 0)
	ch.limit = limit
}

// resizeAnyhow grows or shrinks the image to a size that seldom is a round one.
func (ch *Churn) resizeAnyhow() {
	ch.t.Helper()
	size := ch.random.IntN(ch.most + 1)
	switch ch.random.IntN(8) {
	case 0:
		size = 0
	case 1, 2:
		size = size / ch.object * ch.object
	case 3, 4:
		size = min(ch.most, len(ch.Contents)+ch.random.IntN(ch.object+1))
	}
	ch.say("resize to %d", size)
	ch.Resize(uint64(size))
}

func (ch *Churn) rename() {
	ch.t.Helper()
	to := ch.newName(ch.born + "-moved")
	for to == ch.Image.Name { // which librbd refuses
		to = ch.newName(ch.born + "-moved")
	}
	ch.say("rename the image to %s", to)
	ch.wants(renameImage(ch.ioctx, ch.Image.Name, to), 0)
	ch.Image.Name = to
}

const mapFeatures = rbd.FeatureObjectMap | rbd.FeatureFastDiff

func (ch *Churn) changeFeatures() {
	ch.t.Helper()
	switch {
	case ch.features.Has(rbd.FeatureObjectMap):
		ch.say("disable object map")
		ch.wants(ch.disk.setFeatures(uint64(mapFeatures), false), 0)
		ch.features &^= mapFeatures
	case ch.random.IntN(3) > 0:
		ch.say("enable object map")
		ch.wants(ch.disk.setFeatures(uint64(mapFeatures), true), 0)
		ch.features |= mapFeatures
		ch.remapped = true
	case ch.features.Has(rbd.FeatureDeepFlatten):
		ch.say("disable deep flatten")
		ch.wants(ch.disk.setFeatures(uint64(rbd.FeatureDeepFlatten), false), 0)
		ch.features &^= rbd.FeatureDeepFlatten
	default:
		ch.say("enable deep flatten, which cannot be")
		ch.wants(ch.disk.setFeatures(uint64(rbd.FeatureDeepFlatten), true), syscall.EINVAL)
	}
}

func (ch *Churn) changeMetadata() {
	ch.t.Helper()
	keys := []string{"owner", "a key", "conf_rbd_qos_iops_limit", "conf_rbd_qos_bps_limit", "conf_rbd_cache", "\u00fcber"}
	values := map[string]string{"conf_rbd_cache": "false"}
	key := keys[ch.random.IntN(len(keys))]
	if _, there := ch.metadata[key]; there && ch.random.IntN(2) == 0 {
		ch.say("remove metadata %q", key)
		ch.wants(ch.disk.metadataRemove(key), 0)
		delete(ch.metadata, key)
		return
	}
	value := values[key]
	if value == "" {
		value = fmt.Sprint(1_000_000_000 + ch.random.IntN(1_000_000))
	}
	ch.say("set metadata %q to %q", key, value)
	ch.wants(ch.disk.metadataSet(key, value), 0)
	ch.metadata[key] = value
}

// AssertOn fails the test unless the image is on a cluster what was made of it: size, features, limit, metadata,
// snapshots in their order, and the contents of everything. It closes the writer first.
func (ch *Churn) AssertOn(t testing.TB, c *lab.Cluster) {
	t.Helper()
	ch.Writer.Close()
	failed, i := false, ch.Image
	where := -1 // something is different there
	complain := func(what string, got, want any) {
		failed = true
		t.Errorf("%s of %s on %s: %v, want %v", what, i.Spec(), c.Name(), got, want)
	}
	info := i.InfoOn(t, c)
	if info.Size != uint64(len(ch.Contents)) {
		complain("size", info.Size, len(ch.Contents))
	}
	var snaps []Snap
	for _, s := range ch.snaps {
		snaps = append(snaps, Snap{Name: s.name, Size: uint64(len(s.contents)), Protected: fmt.Sprint(s.protected)})
	}
	if got := i.SnapsOn(t, c); fmt.Sprint(got) != fmt.Sprint(snaps) {
		complain("snapshots", got, snaps)
	}
	d := i.open(t, c)
	defer d.close()
	if got, want := d.features(t), uint64(ch.features); got != want {
		complain("features", rbd.Features(got), rbd.Features(want))
	}
	if got, want := d.limit(t), ch.limit; got != want {
		complain("snapshot limit", got, want)
	}
	if got := i.MetadataOn(t, c); !maps.Equal(got, ch.metadata) {
		complain("metadata", got, ch.metadata)
	}
	if at, what := d.difference(t, "", ch.Contents); what != "" {
		where = at
		complain("contents", what, "those that were written")
	}
	for _, s := range ch.snaps {
		if at, what := d.difference(t, s.name, s.contents); what != "" {
			where = at
			complain("contents of "+s.name, what, "those of when it was taken")
		}
	}
	if failed {
		t.Logf("%s, seed %d, in order:", i.Spec(), ch.seed)
		for _, d := range ch.Log {
			switch {
			case d.Size == 0:
				t.Logf("    %s", d.What)
			case d.At <= where && where < d.At+d.Size:
				t.Logf("    %s %d bytes at %d", d.What, d.Size, d.At)
			}
		}
	}
}

// CheckObjectMaps runs rbd's check of object maps on a cluster where the image is primary, and names the states in which
// it found something: "" is the head. A map that the image got anew knows nothing, on either side, until somebody rebuilds
// it, which comes first here.
//
// A compare-and-write that finds other bytes makes the map say that its object has changed; the check knows better. So it
// is with librbd's own maps, and a replica may have that flaw where its primary has it.
func (ch *Churn) CheckObjectMaps(t testing.TB, c *lab.Cluster) (flawed []string) {
	t.Helper()
	if !ch.features.Has(rbd.FeatureObjectMap) {
		return nil
	}
	for _, snap := range append([]knownSnap{{}}, ch.snaps...) {
		spec := ch.Image.Spec()
		if snap.name != "" {
			spec += "@" + snap.name
		}
		if ch.remapped {
			Run(t, c, "rbd", "object-map", "rebuild", "--no-progress", spec)
		}
		Run(t, c, "rbd", "object-map", "check", "--no-progress", spec)
		var info Info
		decode(t, Run(t, c, "rbd", "info", "--format", "json", spec), &info)
		if len(info.Flags) > 0 {
			flawed = append(flawed, snap.name)
		}
	}
	return flawed
}
