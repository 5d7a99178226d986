package lock

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// EntityType is what kind of process an entity is (CEPH_ENTITY_TYPE_* in
// src/include/msgr.h).
type EntityType uint8

// The types of entities.
const (
	Monitor EntityType = 0x01
	MDS     EntityType = 0x02
	OSD     EntityType = 0x04
	Client  EntityType = 0x08
	Manager EntityType = 0x10
	Auth    EntityType = 0x20
)

var entityTypes = map[EntityType]string{
	Monitor: "mon", MDS: "mds", OSD: "osd", Client: "client", Manager: "mgr", Auth: "auth",
}

func (t EntityType) String() string {
	if s, ok := entityTypes[t]; ok {
		return s
	}
	return fmt.Sprintf("entity-type-%d", uint8(t))
}

// EntityName names a process of the cluster for as long as its connection lives:
// a client's number is its global id, new for every connection.
//
//	u8 type; i64 number
type EntityName struct {
	Type EntityType
	Num  int64 // negative: none
}

// ClientName is the name of the client with that global id.
func ClientName(globalID uint64) EntityName {
	return EntityName{Type: Client, Num: int64(globalID)}
}

// String is the name as Ceph prints it: "client.4123", or "client.?" without a
// number.
func (n EntityName) String() string {
	if n.Num < 0 {
		return n.Type.String() + ".?"
	}
	return n.Type.String() + "." + strconv.FormatInt(n.Num, 10)
}

// ParseEntityName parses what String prints.
func ParseEntityName(s string) (EntityName, error) {
	kind, num, ok := strings.Cut(s, ".")
	if ok {
		for t, name := range entityTypes {
			if name != kind {
				continue
			}
			if num == "?" {
				return EntityName{Type: t, Num: -1}, nil
			}
			if n, err := strconv.ParseInt(num, 10, 64); err == nil && n >= 0 {
				return EntityName{Type: t, Num: n}, nil
			}
		}
	}
	return EntityName{}, fmt.Errorf("%q is not the name of an entity, such as client.4123", s)
}

// Encode appends the name.
func (n EntityName) Encode(e *encoding.Encoder) {
	e.U8(uint8(n.Type))
	e.I64(n.Num)
}

// DecodeEntityName reads a name.
func DecodeEntityName(d *encoding.Decoder) EntityName {
	return EntityName{Type: EntityType(d.U8()), Num: d.I64()}
}
