package mem

import (
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// The class journal. Source: ceph/ceph src/cls/journal/cls_journal.cc.

const (
	keyOrder        = "order"
	keySplayWidth   = "splay_width"
	keyPoolID       = "pool_id"
	keyMinimumSet   = "minimum_set"
	keyActiveSet    = "active_set"
	keyNextTagTID   = "next_tag_tid"
	keyNextTagClass = "next_tag_class"
	prefixClient    = "client_"
	prefixTag       = "tag_"
	everything      = ^uint64(0)
)

var journalMethods = map[string]method{
	"create":              journalCreate,
	"get_order":           journalGet(keyOrder),
	"get_splay_width":     journalGet(keySplayWidth),
	"get_pool_id":         journalGet(keyPoolID),
	"get_minimum_set":     journalGet(keyMinimumSet),
	"set_minimum_set":     journalSetMinimumSet,
	"get_active_set":      journalGet(keyActiveSet),
	"set_active_set":      journalSetActiveSet,
	"get_client":          journalGetClient,
	"client_register":     journalClientRegister,
	"client_update_data":  journalClientUpdateData,
	"client_update_state": journalClientUpdateState,
	"client_unregister":   journalClientUnregister,
	"client_commit":       journalClientCommit,
	"client_list":         journalClientList,
	"get_next_tag_tid":    journalGet(keyNextTagTID),
	"get_tag":             journalGetTag,
	"tag_create":          journalTagCreate,
	"tag_list":            journalTagList,
	"guard_append":        journalGuardAppend,
	"append":              journalAppend,
}

// journalGet answers with a stored value as it is.
func journalGet(key string) method {
	return func(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
		v, err := c.omap(key)
		out.Raw(v)
		return err
	}
}

func journalCreate(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	order, width, pool := in.U8(), in.U8(), in.I64()
	if err := c.input(); err != nil {
		return err
	}
	if _, err := c.omap(keyOrder); err == nil {
		return syscall.EEXIST
	}
	if err := c.put(keyOrder, func(e *encoding.Encoder) { e.U8(order) }); err != nil {
		return err
	}
	_ = c.put(keySplayWidth, func(e *encoding.Encoder) { e.U8(width) })
	_ = c.put(keyPoolID, func(e *encoding.Encoder) { e.I64(pool) })
	for _, key := range []string{keyActiveSet, keyMinimumSet, keyNextTagTID, keyNextTagClass} {
		_ = c.putU64(key, 0)
	}
	return nil
}

func journalSetMinimumSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	set := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	active, err := c.u64(keyActiveSet)
	if err != nil {
		return err
	}
	if active < set {
		return syscall.EINVAL
	}
	return c.moveSet(keyMinimumSet, set)
}

func journalSetActiveSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	set := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	minimum, err := c.u64(keyMinimumSet)
	if err != nil {
		return err
	}
	if minimum > set {
		return syscall.EINVAL
	}
	return c.moveSet(keyActiveSet, set)
}

// moveSet moves a number forward only.
func (c *classContext) moveSet(key string, to uint64) error {
	from, err := c.u64(key)
	switch {
	case err != nil:
		return err
	case to < from:
		return syscall.ESTALE
	case to == from:
		return nil
	}
	return c.putU64(key, to)
}

func decodeStored[T any](what string, b []byte, read func(*T, *encoding.Decoder)) (v T, err error) {
	d := encoding.NewDecoder(what, b)
	read(&v, d)
	return v, d.Err()
}

func decodeClient(b []byte) (journal.Client, error) {
	return decodeStored("journal.Client", b, (*journal.Client).Decode)
}

func decodeTag(b []byte) (journal.Tag, error) {
	return decodeStored("journal.Tag", b, (*journal.Tag).Decode)
}

func (c *classContext) client(id string) (journal.Client, error) {
	b, err := c.omap(prefixClient + id)
	if err != nil {
		return journal.Client{}, err
	}
	return decodeClient(b)
}

func (c *classContext) putClient(v journal.Client) error {
	return c.put(prefixClient+v.ID, v.Encode)
}

// clients are those whose keys come after, in order.
func (c *classContext) clients(after string, limit uint64) ([]journal.Client, error) {
	keys, pairs := c.list(after, prefixClient, limit)
	var out []journal.Client
	for _, k := range keys {
		v, err := decodeClient(pairs[k])
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func journalGetClient(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	id := in.String()
	if err := c.input(); err != nil {
		return err
	}
	v, err := c.client(id)
	if err != nil {
		return err
	}
	v.Encode(out)
	return nil
}

func journalClientRegister(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id, data := in.String(), in.Blob()
	if err := c.input(); err != nil {
		return err
	}
	if _, err := c.omap(keyOrder); err != nil {
		return err
	}
	if _, err := c.omap(prefixClient + id); err == nil {
		return syscall.EEXIST
	}
	position, err := c.minimumPosition()
	if err != nil {
		return err
	}
	return c.putClient(journal.Client{ID: id, Data: data, CommitPosition: position})
}

// minimumPosition is the commit position of the connected client that is furthest
// behind; none at all if one has none. (Early sources look at the disconnected ones,
// too; Ceph 16.2.15 does not.)
func (c *classContext) minimumPosition() (least journal.ObjectSetPosition, err error) {
	clients, err := c.clients("", everything)
	for _, v := range clients {
		if v.State == journal.Disconnected {
			continue
		}
		newest, ok := v.CommitPosition.Newest()
		if !ok {
			return nil, err
		}
		if first, any := least.Newest(); !any || newest.Tag < first.Tag || newest.Tag == first.Tag && newest.Entry < first.Entry {
			least = v.CommitPosition
		}
	}
	return least, err
}

// changeClient loads a client, changes it and stores it.
func (c *classContext) changeClient(id string, change func(*journal.Client)) error {
	if err := c.input(); err != nil {
		return err
	}
	v, err := c.client(id)
	if err != nil {
		return err
	}
	change(&v)
	return c.putClient(v)
}

func journalClientUpdateData(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id, data := in.String(), in.Blob()
	return c.changeClient(id, func(v *journal.Client) { v.Data = data })
}

func journalClientUpdateState(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id, state := in.String(), journal.ClientState(in.U8())
	return c.changeClient(id, func(v *journal.Client) { v.State = state })
}

func journalClientUnregister(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	if err := c.input(); err != nil {
		return err
	}
	if _, err := c.omap(prefixClient + id); err != nil {
		return err
	}
	if err := c.remove(prefixClient + id); err != nil {
		return err
	}
	return c.expireTags(&id)
}

func journalClientCommit(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	var position journal.ObjectSetPosition
	position.Decode(in)
	if err := c.input(); err != nil {
		return err
	}
	width, err := c.omap(keySplayWidth)
	if err != nil {
		return err
	}
	if len(position) > int(width[0]) {
		return syscall.EINVAL
	}
	return c.changeClient(id, func(v *journal.Client) { v.CommitPosition = position })
}

func journalClientList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	after, limit := in.String(), in.U64()
	if err := c.input(); err != nil {
		return err
	}
	if after != "" {
		after = prefixClient + after
	}
	clients, err := c.clients(after, limit)
	if err != nil {
		return err
	}
	slices.SortFunc(clients, func(a, b journal.Client) int { return strings.Compare(a.ID, b.ID) })
	out.U32(uint32(len(clients)))
	for _, v := range clients {
		v.Encode(out)
	}
	return nil
}

func tagKey(t journal.TagTID) string {
	hex := strconv.FormatUint(uint64(t), 16)
	return prefixTag + strings.Repeat("0", 16-len(hex)) + hex
}

func (c *classContext) tags() ([]journal.Tag, error) {
	keys, pairs := c.list("", prefixTag, everything)
	var out []journal.Tag
	for _, k := range keys {
		t, err := decodeTag(pairs[k])
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func journalGetTag(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	tid := journal.TagTID(in.U64())
	if err := c.input(); err != nil {
		return err
	}
	v, err := c.omap(tagKey(tid))
	out.Raw(v)
	return err
}

func journalTagCreate(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	tag := journal.Tag{TID: journal.TagTID(in.U64()), Class: journal.TagClass(in.U64()), Data: in.Blob()}
	if err := c.input(); err != nil {
		return err
	}
	if _, err := c.omap(tagKey(tag.TID)); err == nil {
		return syscall.EEXIST
	}
	next, err := c.u64(keyNextTagTID)
	if err != nil {
		return err
	}
	if uint64(tag.TID) != next {
		return syscall.ESTALE
	}
	nextClass, err := c.u64(keyNextTagClass)
	if err != nil {
		return err
	}
	if tag.Class == journal.NewTagClass {
		tag.Class = journal.TagClass(nextClass)
		if err := c.putU64(keyNextTagClass, nextClass+1); err != nil {
			return err
		}
	} else if uint64(tag.Class) >= nextClass {
		return syscall.EINVAL
	}
	if err := c.expireTags(nil); err != nil {
		return err
	}
	if err := c.putU64(keyNextTagTID, next+1); err != nil {
		return err
	}
	return c.put(tagKey(tag.TID), tag.Encode)
}

// expireTags removes tags that no connected client needs: those below the least tag
// that one has committed, but for the newest such of each class.
func (c *classContext) expireTags(skip *string) error {
	clients, err := c.clients("", everything)
	if err != nil {
		return err
	}
	least := journal.TagTID(everything)
	for _, v := range clients {
		if skip != nil && v.ID == *skip || v.State == journal.Disconnected {
			continue
		}
		if len(v.CommitPosition) == 0 {
			return nil
		}
		for _, p := range v.CommitPosition {
			least = min(least, p.Tag)
		}
	}
	if least == journal.TagTID(everything) {
		return nil
	}
	tags, err := c.tags()
	if err != nil {
		return err
	}
	used := leastOfClasses(tags, least)
	for _, t := range tags {
		if t.TID < used[t.Class] {
			if err := c.remove(tagKey(t.TID)); err != nil {
				return err
			}
		}
		if t.TID >= least {
			break
		}
	}
	return nil
}

// leastOfClasses tells for each class the newest tag not above the first that is at
// or above least.
func leastOfClasses(tags []journal.Tag, least journal.TagTID) map[journal.TagClass]journal.TagTID {
	used := map[journal.TagClass]journal.TagTID{}
	for _, t := range tags {
		used[t.Class] = t.TID
		if t.TID >= least {
			break
		}
	}
	return used
}

func journalTagList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	after, limit, id := journal.TagTID(in.U64()), in.U64(), in.String()
	var class *journal.TagClass
	if in.Bool() {
		v := journal.TagClass(in.U64())
		class = &v
	}
	if err := c.input(); err != nil {
		return err
	}
	client, err := c.client(id)
	if err != nil {
		return err
	}
	tags, err := c.tags()
	if err != nil {
		return err
	}
	used := map[journal.TagClass]journal.TagTID{}
	if len(client.CommitPosition) > 0 {
		least := journal.TagTID(everything)
		for _, p := range client.CommitPosition {
			least = min(least, p.Tag)
		}
		used = leastOfClasses(tags, least)
	}
	var found []journal.Tag
	for _, t := range tags {
		if after != 0 && t.TID <= after || t.TID < used[t.Class] || class != nil && t.Class != *class {
			continue
		}
		if uint64(len(found)) == limit {
			break
		}
		found = append(found, t)
	}
	out.U32(uint32(len(found)))
	for _, t := range found {
		t.Encode(out)
	}
	return nil
}

func (c *classContext) guardAppend(softMax uint64) error {
	size, err := c.size()
	if err == nil && size >= softMax {
		return syscall.EOVERFLOW
	}
	return nil
}

func journalGuardAppend(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	softMax := in.U64()
	if err := c.input(); err != nil {
		return err
	}
	return c.guardAppend(softMax)
}

// journalAppend pads nothing: the padding depends on the OSD's allocation unit, which
// there is none of here.
func journalAppend(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	softMax, data := in.U64(), in.Blob()
	if err := c.input(); err != nil {
		return err
	}
	if err := c.guardAppend(softMax); err != nil {
		return err
	}
	size, _ := c.size()
	return c.write(size, data)
}
