package config

import (
	"fmt"
	"slices"
	"strings"
)

// Entity is a name that cephx knows, as in "client.rbd-mirror.a".
type Entity struct {
	Type string `json:"type"` // "client" and so on
	ID   string `json:"id"`
}

// DefaultEntity is whom a client of Ceph is if nobody says otherwise.
var DefaultEntity = Entity{Type: "client", ID: "admin"}

// entityTypes are the types that Ceph knows.
var entityTypes = []string{"auth", "mon", "osd", "mds", "mgr", "client"}

// ParseEntity reads TYPE.ID.
func ParseEntity(s string) (Entity, error) {
	typ, id, ok := strings.Cut(s, ".")
	if !ok || id == "" || !slices.Contains(entityTypes, typ) {
		return Entity{}, fmt.Errorf("%q is not of the form TYPE.ID with a TYPE of %s",
			s, strings.Join(entityTypes, ", "))
	}
	return Entity{Type: typ, ID: id}, nil
}

func (e Entity) String() string { return e.Type + "." + e.ID }
