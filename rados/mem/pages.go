package mem

import "slices"

// pageSize is the unit in which objects are stored and copied.
const pageSize = 4 << 10

// pages is the data of an object. Its pages are never changed after they are shared:
// a copy of the struct made with clone is a copy of the data.
type pages struct {
	size  uint64
	pages [][]byte // nil: zeros; else pageSize bytes
}

func (p *pages) clone() pages { return pages{size: p.size, pages: slices.Clone(p.pages)} }

// read gives what there is of the range, zeros for holes.
func (p *pages) read(offset, length uint64) []byte {
	if offset >= p.size {
		return []byte{}
	}
	out := make([]byte, min(length, p.size-offset))
	p.copyTo(out, offset)
	return out
}

// copyTo copies what there is from offset on to out, zeros for holes, and tells how much it was.
func (p *pages) copyTo(out []byte, offset uint64) uint64 {
	if offset >= p.size {
		return 0
	}
	out = out[:min(uint64(len(out)), p.size-offset)]
	for n := uint64(0); n < uint64(len(out)); {
		page, at := (offset+n)/pageSize, (offset+n)%pageSize
		step := out[n:][:min(pageSize-at, uint64(len(out))-n)]
		if page < uint64(len(p.pages)) && p.pages[page] != nil {
			copy(step, p.pages[page][at:])
		} else {
			clear(step)
		}
		n += uint64(len(step))
	}
	return uint64(len(out))
}

// write puts data at offset, and fills the gap before it with zeros.
func (p *pages) write(offset uint64, data []byte) {
	end := offset + uint64(len(data))
	p.size = max(p.size, end)
	for need := (p.size + pageSize - 1) / pageSize; uint64(len(p.pages)) < need; {
		p.pages = append(p.pages, nil)
	}
	for n := uint64(0); n < uint64(len(data)); {
		page, at := (offset+n)/pageSize, (offset+n)%pageSize
		fresh := make([]byte, pageSize)
		copy(fresh, p.pages[page])
		n += uint64(copy(fresh[at:], data[n:]))
		p.pages[page] = fresh
	}
}

// zero makes the range, up to the end, read as zeros.
func (p *pages) zero(offset, length uint64) {
	end := min(offset+length, p.size)
	for offset < end {
		page, at := offset/pageSize, offset%pageSize
		step := min(pageSize-at, end-offset)
		switch {
		case page >= uint64(len(p.pages)) || p.pages[page] == nil:
		case step == pageSize:
			p.pages[page] = nil
		default:
			fresh := slices.Clone(p.pages[page])
			clear(fresh[at : at+step])
			p.pages[page] = fresh
		}
		offset += step
	}
}

// truncate sets the size.
func (p *pages) truncate(size uint64) {
	if size < p.size {
		p.zero(size, p.size-size)
		if n := (size + pageSize - 1) / pageSize; uint64(len(p.pages)) > n {
			p.pages = p.pages[:n:n]
		}
	}
	p.size = size
}

// allocated calls fn for the runs of written pages in the range.
func (p *pages) allocated(offset, length uint64, fn func(offset, length uint64)) {
	end := min(offset+length, p.size)
	if offset+length < offset {
		end = p.size
	}
	for offset < end {
		next := min((offset/pageSize+1)*pageSize, end)
		if i := offset / pageSize; i >= uint64(len(p.pages)) || p.pages[i] == nil {
			offset = next
			continue
		}
		from := offset
		for offset < end {
			i := offset / pageSize
			if i >= uint64(len(p.pages)) || p.pages[i] == nil {
				break
			}
			offset = min((i+1)*pageSize, end)
		}
		fn(from, offset-from)
	}
}
