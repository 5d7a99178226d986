package mem

import (
	"slices"
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
