package mem

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

func decodeTag(b []byte) (journal.Tag, error) {
	return decodeStored("journal.Tag", b, (*journal.Tag).Decode)
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
