package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Dump prints all that is in an image's journal: header, clients, tags, and every
// entry of every object, object by object. Where an object is damaged it says so
// and goes on behind the damage; the error tells of what kept it from reading.
//
// As text, a line is its kind and name=value pairs. With asJSON each line is a JSON
// object whose "kind" is journal, client, tag, object, entry, corrupt (bytes that
// are no entry) or incomplete (an entry that is cut off at the object's end).
func Dump(ctx context.Context, io rados.IOContext, imageID string, w io.Writer, asJSON bool) error {
	j, err := Open(ctx, io, imageID)
	if err != nil {
		return err
	}
	defer j.Close()
	d := &dumper{j: j, w: w, json: asJSON}
	m := j.Metadata()
	d.header(m)
	if err := d.tags(ctx); err != nil {
		return err
	}
	for s := m.MinimumSet; s <= m.ActiveSet; s++ {
		for o := range m.SplayWidth {
			if err := d.object(ctx, s.Object(m.SplayWidth, o)); err != nil {
				return err
			}
		}
	}
	return d.err
}

type dumper struct {
	j    *Journal
	w    io.Writer
	json bool
	err  error // of writing
}

// field is one name and value of a line.
type field struct {
	name  string
	value any
}

func (d *dumper) line(kind string, fields ...field) {
	if d.err != nil {
		return
	}
	if d.json {
		_, d.err = d.w.Write(jsonLine(kind, fields))
		return
	}
	var b strings.Builder
	b.WriteString(kind)
	for _, f := range fields {
		if s, ok := f.value.(string); ok && (s == "" || strings.ContainsAny(s, " \t\n=\"")) {
			fmt.Fprintf(&b, " %s=%q", f.name, s)
		} else {
			fmt.Fprintf(&b, " %s=%v", f.name, f.value)
		}
	}
	b.WriteByte('\n')
	_, d.err = io.WriteString(d.w, b.String())
}

// jsonLine keeps the order of the fields, which a map would lose.
func jsonLine(kind string, fields []field) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{%q:%q", "kind", kind)
	for _, f := range fields {
		v, err := json.Marshal(f.value)
		if err != nil {
			v, _ = json.Marshal(fmt.Sprint(f.value))
		}
		fmt.Fprintf(&b, ",%q:%s", f.name, v)
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func (d *dumper) header(m Metadata) {
	d.line("journal",
		field{"header", d.j.HeaderObject()}, field{"order", m.Order}, field{"splay_width", m.SplayWidth},
		field{"pool_id", m.PoolID}, field{"minimum_set", m.MinimumSet}, field{"active_set", m.ActiveSet},
		field{"next_tag_tid", m.NextTag})
	for _, c := range m.Clients {
		fields := []field{{"id", c.ID}, {"state", c.State.String()}, {"commit_position", positionText(c.CommitPosition)}}
		if meta, err := wire.DecodeClientData(c.Data); err != nil {
			fields = append(fields, field{"error", err.Error()})
		} else {
			fields = append(fields, clientFields(meta)...)
		}
		d.line("client", fields...)
	}
}

func positionText(s wire.ObjectSetPosition) string {
	parts := make([]string, len(s))
	for i, p := range s {
		parts[i] = fmt.Sprintf("%d/%d@%d", p.Tag, p.Entry, p.Object)
	}
	return strings.Join(parts, ",")
}

// tags lists the header's tags as they are stored: asking the class would leave
// out those that a client no longer needs.
func (d *dumper) tags(ctx context.Context) error {
	for after := ""; ; {
		var op rados.ReadOp
		page := op.ListOmap(after, "tag_", wire.MaxReturn)
		if err := d.j.header.Read(ctx, d.j.HeaderObject(), &op); err != nil {
			return fmt.Errorf("list journal tags: %w", err)
		}
		for _, key := range sortedKeys(page.Pairs) {
			after = key
			d.tag(key, page.Pairs[key])
		}
		if !page.More || len(page.Pairs) == 0 {
			return nil
		}
	}
}

func (d *dumper) tag(key string, value []byte) {
	tag, err := wire.DecodeTag(value)
	if err != nil {
		d.line("corrupt", field{"object", d.j.HeaderObject()}, field{"key", key}, field{"error", err.Error()})
		return
	}
	fields := []field{{"tid", tag.TID}, {"class", tag.Class}}
	if data, err := wire.DecodeTagData(tag.Data); err != nil {
		fields = append(fields, field{"error", err.Error()})
	} else {
		p := data.Predecessor
		fields = append(fields, field{"mirror_uuid", data.MirrorUUID}, field{"predecessor_mirror_uuid", p.MirrorUUID},
			field{"predecessor_commit_valid", p.CommitValid}, field{"predecessor_tag_tid", p.Tag}, field{"predecessor_entry_tid", p.Entry})
	}
	d.line("tag", fields...)
}

// window is how much of an object is read at a time, unless one entry is larger.
const window = 4 << 20

// object prints the entries of one object.
func (d *dumper) object(ctx context.Context, n wire.ObjectNumber) error {
	name := d.j.DataObject(n)
	corruptFrom, reason := int64(-1), ""
	endCorrupt := func(to uint64) {
		if corruptFrom >= 0 {
			d.line("corrupt", field{"object", name}, field{"from", corruptFrom}, field{"to", to}, field{"error", reason})
			corruptFrom = -1
		}
	}
	at, need := uint64(0), 0
	for {
		r := d.j.read(ctx, n, at, uint64(max(window, need)))
		var corrupt *CorruptError
		if r.err != nil && !errors.As(r.err, &corrupt) {
			return r.err
		}
		if at == 0 && !r.missing {
			d.line("object", field{"number", n}, field{"object", name})
		}
		if len(r.entries) > 0 {
			endCorrupt(r.entries[0].Offset)
		}
		for _, e := range r.entries {
			d.entry(e)
		}
		at, need = at+uint64(r.parsed), r.need
		switch {
		case corrupt != nil:
			if corruptFrom < 0 {
				corruptFrom, reason = int64(corrupt.Offset), corrupt.Err.Error()
			}
			next, found, err := d.seek(ctx, n, corrupt.Offset+1)
			if err != nil {
				return err
			}
			at, need = next, 0
			if !found {
				endCorrupt(next)
				return nil
			}
		case r.atEnd && need > 0:
			next, found, err := d.seek(ctx, n, at+1)
			if err != nil {
				return err
			}
			if found { // a damaged length, more likely than an entry within an entry
				if corruptFrom < 0 {
					corruptFrom, reason = int64(at), "an entry that does not end"
				}
				at, need = next, 0
				continue
			}
			endCorrupt(at)
			d.line("incomplete", field{"object", name}, field{"offset", at}, field{"size", next - at}, field{"needs", need})
			return nil
		case r.atEnd:
			endCorrupt(at)
			return nil
		}
	}
}

// seek finds the next place from offset on that looks like the start of an entry,
// or else the object's end.
func (d *dumper) seek(ctx context.Context, n wire.ObjectNumber, offset uint64) (at uint64, found bool, err error) {
	for {
		var op rados.ReadOp
		data := op.Read(offset, window)
		if err := d.j.data.Read(ctx, d.j.DataObject(n), &op); err != nil {
			return 0, false, fmt.Errorf("read journal: %w", err)
		}
		if i := bytes.Index(data.Data, wire.EntryMagic()); i >= 0 {
			return offset + uint64(i), true, nil
		}
		if len(data.Data) < window {
			return offset + uint64(len(data.Data)), false, nil
		}
		offset += window - uint64(len(wire.EntryMagic())) + 1
	}
}

func (d *dumper) entry(e Entry) {
	fields := []field{{"tag", e.Position.Tag}, {"entry", e.Position.Entry}, {"object", e.Position.Object},
		{"offset", e.Offset}, {"size", e.Size()}}
	v, err := d.j.event(e)
	if err != nil {
		fields = append(fields, field{"payload_length", len(e.Payload)}, field{"payload_crc32c", crcText(e.Payload)}, field{"error", err.Error()})
		d.line("entry", fields...)
		return
	}
	fields = append(fields, field{"event", v.Event.Type().String()})
	fields = append(fields, eventFields(v.Event)...)
	if !v.Timestamp.IsZero() {
		fields = append(fields, field{"timestamp", v.Timestamp.UTC().Format(time.RFC3339Nano)})
	}
	d.line("entry", fields...)
}
