package journal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

func crcText(b []byte) string { return fmt.Sprintf("%08x", wire.CRC(b)) }

func dataFields(prefix string, b []byte) []field {
	return []field{{prefix + "_length", len(b)}, {prefix + "_crc32c", crcText(b)}}
}

func snapFields(op wire.OpTID, n wire.SnapshotNamespace, name string) []field {
	return []field{{"op", op}, {"namespace", namespaceText(n.Type)}, {"snap", name}}
}

func namespaceText(t wire.SnapshotNamespaceType) string {
	switch t {
	case wire.UserSnapshot:
		return "user"
	case wire.GroupSnapshot:
		return "group"
	case wire.TrashSnapshot:
		return "trash"
	case wire.MirrorSnapshot:
		return "mirror"
	}
	return fmt.Sprintf("unknown (%d)", uint32(t))
}

// eventFields are an event's fields; payloads as length and checksum.
func eventFields(event wire.Event) []field {
	switch v := event.(type) {
	case wire.AioDiscard:
		return []field{{"image_offset", v.Offset}, {"image_length", v.Length}, {"granularity", v.Granularity}}
	case wire.AioWrite:
		return append([]field{{"image_offset", v.Offset}, {"image_length", v.Length}}, dataFields("data", v.Data)...)
	case wire.AioWriteSame:
		return append([]field{{"image_offset", v.Offset}, {"image_length", v.Length}}, dataFields("data", v.Data)...)
	case wire.AioCompareAndWrite:
		f := []field{{"image_offset", v.Offset}, {"image_length", v.Length}}
		return append(append(f, dataFields("compare", v.CompareData)...), dataFields("data", v.WriteData)...)
	case wire.OpFinish:
		return []field{{"op", v.Op}, {"result", v.Result}}
	case wire.SnapCreate:
		return snapFields(v.Op, v.Namespace, v.Name)
	case wire.SnapRemove:
		return snapFields(v.Op, v.Namespace, v.Name)
	case wire.SnapProtect:
		return snapFields(v.Op, v.Namespace, v.Name)
	case wire.SnapUnprotect:
		return snapFields(v.Op, v.Namespace, v.Name)
	case wire.SnapRollback:
		return snapFields(v.Op, v.Namespace, v.Name)
	case wire.SnapRename:
		return []field{{"op", v.Op}, {"snap_id", v.SnapID}, {"old_snap", v.OldName}, {"snap", v.NewName}}
	case wire.Rename:
		return []field{{"op", v.Op}, {"name", v.Name}}
	case wire.Resize:
		return []field{{"op", v.Op}, {"image_size", v.Size}}
	case wire.Flatten:
		return []field{{"op", v.Op}}
	case wire.SnapLimit:
		return []field{{"op", v.Op}, {"limit", v.Limit}}
	case wire.UpdateFeatures:
		return []field{{"op", v.Op}, {"features", v.Features}, {"enabled", v.Enabled}}
	case wire.MetadataSet:
		return []field{{"op", v.Op}, {"key", v.Key}, {"value", v.Value}}
	case wire.MetadataRemove:
		return []field{{"op", v.Op}, {"key", v.Key}}
	case wire.Unknown:
		return dataFields("raw", v.Raw)
	}
	return nil // AioFlush, DemotePromote
}

func clientFields(meta wire.ClientMeta) []field {
	switch m := meta.(type) {
	case wire.ImageClientMeta:
		return []field{{"type", "image"}, {"tag_class", m.TagClass}, {"resync_requested", m.ResyncRequested}}
	case wire.MirrorPeerClientMeta:
		var points, seqs []string
		for _, p := range m.SyncPoints {
			s := p.SnapName
			if p.FromSnapName != "" {
				s += "<" + p.FromSnapName
			}
			if p.ObjectNumber != nil {
				s += fmt.Sprintf("@%d", *p.ObjectNumber)
			}
			points = append(points, s)
		}
		for _, local := range slices.Sorted(maps.Keys(m.SnapSeqs)) {
			seqs = append(seqs, fmt.Sprintf("%d:%d", local, m.SnapSeqs[local]))
		}
		fields := []field{{"type", "mirror peer"}, {"image_id", m.ImageID}, {"peer_state", m.State.String()},
			{"sync_object_count", m.SyncObjectCount}, {"sync_points", strings.Join(points, ",")}, {"snap_seqs", strings.Join(seqs, ",")}}
		if len(m.Covered.Open) > 0 {
			fields = append(fields, field{"covered", m.Covered.At}, field{"open_at_covered", m.Covered.Open})
		}
		return fields
	case wire.CLIClientMeta:
		return []field{{"type", "cli"}}
	case wire.UnknownClientMeta:
		return append([]field{{"type", fmt.Sprintf("unknown (%d)", m.Type)}}, dataFields("raw", m.Raw)...)
	}
	return nil
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }
