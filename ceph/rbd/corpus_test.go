package rbd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// encoder is what every record can do.
type encoder interface{ Encode(e *encoding.Encoder) }

type namespaceRecord struct{ SnapshotNamespace }

func (n namespaceRecord) Encode(e *encoding.Encoder) { EncodeSnapshotNamespace(e, n.SnapshotNamespace) }

// records has the decoder of every record by its type's name in Ceph.
var records = map[string]func([]byte) (encoder, error){
	"cls.rbd.ParentImageSpec": func(b []byte) (encoder, error) { return DecodeParentSpec(b) },
	"cls.rbd.ChildImageSpec":  func(b []byte) (encoder, error) { return DecodeChildSpec(b) },
	"cls.rbd.SnapshotInfo":    func(b []byte) (encoder, error) { return DecodeSnapshotInfo(b) },
	"cls.rbd.SnapshotNamespace": func(b []byte) (encoder, error) {
		ns, err := DecodeSnapshotNamespace(b)
		return namespaceRecord{ns}, err
	},
	"cls_rbd_parent": func(b []byte) (encoder, error) { return DecodeHeaderParent(b) },
	"cls_rbd_snap":   func(b []byte) (encoder, error) { return DecodeHeaderSnapshot(b) },
}

// TestCorpus decodes and encodes again what real daemons of several releases
// encoded. WARDEN_CORPUS names a folder with RELEASE/TYPE/FILE.
func TestCorpus(t *testing.T) {
	root := os.Getenv("WARDEN_CORPUS")
	if root == "" {
		t.Skip("WARDEN_CORPUS is not set")
	}
	for name, decode := range records {
		files, err := filepath.Glob(filepath.Join(root, "*", name, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: nothing in the corpus: %v", name, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, file, b, decode)
		}
	}
}

// roundTrip fails unless b decodes, and what was decoded encodes to b again.
func roundTrip(t *testing.T, name string, b []byte, decode func([]byte) (encoder, error)) {
	t.Helper()
	r, err := decode(b)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	var e encoding.Encoder
	r.Encode(&e)
	if !bytes.Equal(e.Bytes(), b) {
		t.Errorf("%s: decoded %+v, which encodes to\n%x, not\n%x", name, r, e.Bytes(), b)
	}
}
