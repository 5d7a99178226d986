package notify

import (
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// decoders has a decoder for every known operation. Each gets the version of the
// message, because fields came later.
var decoders = map[Op]func(d *encoding.Decoder, version uint8) Payload{
	OpAcquiredLock: func(d *encoding.Decoder, v uint8) Payload {
		return AcquiredLock{clientSince2(d, v)}
	},
	OpReleasedLock: func(d *encoding.Decoder, v uint8) Payload {
		return ReleasedLock{clientSince2(d, v)}
	},
	OpRequestLock: func(d *encoding.Decoder, v uint8) Payload {
		p := RequestLock{Client: clientSince2(d, v)}
		if v >= 3 {
			p.Force = d.Bool()
		}
		return p
	},
	OpHeaderUpdate: func(*encoding.Decoder, uint8) Payload { return HeaderUpdate{} },
	OpAsyncProgress: func(d *encoding.Decoder, _ uint8) Payload {
		return AsyncProgress{decodeAsyncRequestID(d), d.U64(), d.U64()}
	},
	OpAsyncComplete: func(d *encoding.Decoder, _ uint8) Payload {
		return AsyncComplete{decodeAsyncRequestID(d), d.I32()}
	},
	OpFlatten: func(d *encoding.Decoder, _ uint8) Payload { return Flatten{decodeAsyncRequestID(d)} },
	OpResize: func(d *encoding.Decoder, v uint8) Payload {
		p := Resize{Size: d.U64(), Request: decodeAsyncRequestID(d), AllowShrink: true}
		if v >= 4 {
			p.AllowShrink = d.Bool()
		}
		return p
	},
	OpSnapCreate: func(d *encoding.Decoder, v uint8) Payload {
		s := decodeSnap(d, v)
		if v == 5 { // the only request that had the namespace in that version
			s.ns = decodeSnapNamespace(d)
		}
		p := SnapCreate{Name: s.name, Namespace: s.ns, Request: s.id}
		if v >= 7 {
			p.Flags = d.U64()
		}
		return p
	},
	OpSnapRemove: func(d *encoding.Decoder, v uint8) Payload {
		s := decodeSnap(d, v)
		return SnapRemove{s.name, s.ns, s.id}
	},
	OpSnapRename: func(d *encoding.Decoder, v uint8) Payload {
		snap := d.U64()
		s := decodeSnap(d, v)
		return SnapRename{snap, s.name, s.ns, s.id}
	},
	OpSnapProtect: func(d *encoding.Decoder, v uint8) Payload {
		s := decodeSnap(d, v)
		return SnapProtect{s.name, s.ns, s.id}
	},
	OpSnapUnprotect: func(d *encoding.Decoder, v uint8) Payload {
		s := decodeSnap(d, v)
		return SnapUnprotect{s.name, s.ns, s.id}
	},
	OpRebuildObjectMap: func(d *encoding.Decoder, _ uint8) Payload {
		return RebuildObjectMap{decodeAsyncRequestID(d)}
	},
	OpRename: func(d *encoding.Decoder, v uint8) Payload {
		return Rename{d.String(), requestSince7(d, v)}
	},
	OpUpdateFeatures: func(d *encoding.Decoder, v uint8) Payload {
		return UpdateFeatures{d.U64(), d.Bool(), requestSince7(d, v)}
	},
	OpMigrate: func(d *encoding.Decoder, _ uint8) Payload { return Migrate{decodeAsyncRequestID(d)} },
	OpSparsify: func(d *encoding.Decoder, _ uint8) Payload {
		return Sparsify{decodeAsyncRequestID(d), d.U64()}
	},
	OpQuiesce:   func(d *encoding.Decoder, _ uint8) Payload { return Quiesce{decodeAsyncRequestID(d)} },
	OpUnquiesce: func(d *encoding.Decoder, _ uint8) Payload { return Unquiesce{decodeAsyncRequestID(d)} },
	OpMetadataUpdate: func(d *encoding.Decoder, _ uint8) Payload {
		p := MetadataUpdate{Key: d.String()}
		if d.Bool() {
			v := d.String()
			p.Value = &v
		}
		p.Request = decodeAsyncRequestID(d)
		return p
	},
}

func clientSince2(d *encoding.Decoder, version uint8) ClientID {
	if version < 2 {
		return ClientID{}
	}
	return decodeClientID(d)
}

func requestSince7(d *encoding.Decoder, version uint8) AsyncRequestID {
	if version < 7 {
		return AsyncRequestID{}
	}
	return decodeAsyncRequestID(d)
}

// snap is what all requests about a snapshot share.
//
//	string name; namespace (since version 6); request id (since version 7)
type snap struct {
	name string
	ns   SnapNamespace
	id   AsyncRequestID
}

func decodeSnap(d *encoding.Decoder, version uint8) (s snap) {
	s.name = d.String()
	if version >= 6 {
		s.ns = decodeSnapNamespace(d)
	}
	s.id = requestSince7(d, version)
	return s
}

func (s snap) encode(e *encoding.Encoder, version uint8) {
	e.String(s.name)
	if version >= 6 {
		s.ns.Encode(e)
	}
	s.id.encodeSince7(e, version)
}

func (c ClientID) encodeSince2(e *encoding.Encoder, version uint8) {
	if version >= 2 {
		c.encode(e)
	}
}

func (id AsyncRequestID) encodeSince7(e *encoding.Encoder, version uint8) {
	if version >= 7 {
		id.encode(e)
	}
}

func (p AcquiredLock) encode(e *encoding.Encoder, v uint8) { p.Client.encodeSince2(e, v) }

func (p ReleasedLock) encode(e *encoding.Encoder, v uint8) { p.Client.encodeSince2(e, v) }

func (p RequestLock) encode(e *encoding.Encoder, v uint8) {
	p.Client.encodeSince2(e, v)
	if v >= 3 {
		e.Bool(p.Force)
	}
}

func (p HeaderUpdate) encode(*encoding.Encoder, uint8) {}

func (p AsyncProgress) encode(e *encoding.Encoder, _ uint8) {
	p.Request.encode(e)
	e.U64(p.Offset)
	e.U64(p.Total)
}

func (p AsyncComplete) encode(e *encoding.Encoder, _ uint8) {
	p.Request.encode(e)
	e.I32(p.Result)
}

func (p Flatten) encode(e *encoding.Encoder, _ uint8) { p.Request.encode(e) }

func (p Resize) encode(e *encoding.Encoder, v uint8) {
	e.U64(p.Size)
	p.Request.encode(e)
	if v >= 4 {
		e.Bool(p.AllowShrink)
	}
}

func (p SnapCreate) encode(e *encoding.Encoder, v uint8) {
	snap{p.Name, p.Namespace, p.Request}.encode(e, v)
	if v == 5 {
		p.Namespace.Encode(e)
	}
	if v >= 7 {
		e.U64(p.Flags)
	}
}

func (p SnapRemove) encode(e *encoding.Encoder, v uint8) {
	snap{p.Name, p.Namespace, p.Request}.encode(e, v)
}

func (p SnapRename) encode(e *encoding.Encoder, v uint8) {
	e.U64(p.SnapID)
	snap{p.Name, p.Namespace, p.Request}.encode(e, v)
}

func (p SnapProtect) encode(e *encoding.Encoder, v uint8) {
	snap{p.Name, p.Namespace, p.Request}.encode(e, v)
}

func (p SnapUnprotect) encode(e *encoding.Encoder, v uint8) {
	snap{p.Name, p.Namespace, p.Request}.encode(e, v)
}

func (p RebuildObjectMap) encode(e *encoding.Encoder, _ uint8) { p.Request.encode(e) }

func (p Rename) encode(e *encoding.Encoder, v uint8) {
	e.String(p.Name)
	p.Request.encodeSince7(e, v)
}

func (p UpdateFeatures) encode(e *encoding.Encoder, v uint8) {
	e.U64(p.Features)
	e.Bool(p.Enabled)
	p.Request.encodeSince7(e, v)
}

func (p Migrate) encode(e *encoding.Encoder, _ uint8) { p.Request.encode(e) }

func (p Sparsify) encode(e *encoding.Encoder, _ uint8) {
	p.Request.encode(e)
	e.U64(p.SparseSize)
}

func (p Quiesce) encode(e *encoding.Encoder, _ uint8) { p.Request.encode(e) }

func (p Unquiesce) encode(e *encoding.Encoder, _ uint8) { p.Request.encode(e) }

func (p MetadataUpdate) encode(e *encoding.Encoder, _ uint8) {
	e.String(p.Key)
	e.Bool(p.Value != nil)
	if p.Value != nil {
		e.String(*p.Value)
	}
	p.Request.encode(e)
}

func (p Unknown) encode(e *encoding.Encoder, _ uint8) { e.Raw(p.Raw) }
