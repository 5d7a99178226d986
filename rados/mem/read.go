package mem

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/rados"
)

// read performs the operation on copies of its steps, so that an answer that nobody
// waits for any more harms nobody.
func (s *Store) read(who *Client, key objectKey, op *rados.ReadOp) ([]*rados.ReadStep, error) {
	o := s.objects[key]
	if o == nil {
		return nil, syscall.ENOENT
	}
	if len(op.Steps) == 1 && op.Steps[0].Kind == rados.ReadListSnaps {
		step := *op.Steps[0]
		var err error
		step.Clones, step.Seq, err = o.list()
		return []*rados.ReadStep{&step}, err
	}
	at, exists := o.at(op.Snap)
	if !exists {
		return nil, syscall.ENOENT
	}
	t := &transaction{store: s, who: who, base: o}
	steps := make([]*rados.ReadStep, len(op.Steps))
	for i, in := range op.Steps {
		step := *in
		if err := t.readStep(at, &step); err != nil {
			return nil, err
		}
		steps[i] = &step
	}
	return steps, nil
}

// deliver copies the results to where the caller looks for them.
func deliver(op *rados.ReadOp, steps []*rados.ReadStep) {
	for i, s := range steps {
		*op.Steps[i] = *s
	}
}

func (t *transaction) readStep(at *state, s *rados.ReadStep) (err error) {
	switch s.Kind {
	case rados.ReadAssertExists:
	case rados.ReadAssertVersion:
		return versionIs(t.base, s.Offset)
	case rados.ReadCmpXattr:
		if !bytes.Equal(at.xattrs[s.Name], s.Value) {
			return syscall.ECANCELED
		}
	case rados.ReadData:
		s.Data = at.data.read(s.Offset, s.Length)
	case rados.ReadSparse:
		s.Data, s.Extents = []byte{}, nil
		at.data.allocated(s.Offset, s.Length, func(offset, length uint64) {
			s.Extents = append(s.Extents, rados.Extent{Offset: offset, Length: length})
			s.Data = append(s.Data, at.data.read(offset, length)...)
		})
	case rados.ReadStat:
		s.Size, s.ModTime = at.data.size, at.mtime
	case rados.ReadXattrs:
		s.Pairs = copyPairs(at.xattrs)
	case rados.ReadOmapList:
		s.Pairs, s.More = listOmap(at.omap, s.After, s.Prefix, s.Max)
	case rados.ReadOmapKeys:
		s.Pairs = map[string][]byte{}
		for _, k := range s.Keys {
			if v, ok := at.omap[k]; ok {
				s.Pairs[k] = slices.Clone(v)
			}
		}
	case rados.ReadExec:
		s.Data, err = t.exec(s.Call)
		return err
	case rados.ReadChecksum:
		s.Data, err = checksum(at, s)
		return err
	case rados.ReadListWatchers:
		s.Watchers = t.base.watchers()
	case rados.ReadListSnaps:
		s.Clones, s.Seq, err = t.base.list()
		return err
	default:
		return syscall.EOPNOTSUPP
	}
	return nil
}

func copyPairs(m map[string][]byte) map[string][]byte {
	out := make(map[string][]byte, len(m))
	for k, v := range m {
		out[k] = append([]byte{}, v...)
	}
	return out
}

func listOmap(m map[string][]byte, after, prefix string, limit uint64) (pairs map[string][]byte, more bool) {
	pairs = map[string][]byte{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k <= after || !strings.HasPrefix(k, prefix) {
			continue
		}
		if uint64(len(pairs)) == limit {
			return pairs, true
		}
		pairs[k] = append([]byte{}, m[k]...)
	}
	return pairs, false
}
