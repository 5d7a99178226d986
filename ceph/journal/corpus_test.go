package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// reencoders decode one value of a type that Ceph's corpus names, and encode it.
var reencoders = map[string]func(b []byte) ([]byte, error){
	"journal.Entry": func(b []byte) ([]byte, error) {
		e, n, err := DecodeEntry(b)
		if err != nil {
			return nil, err
		}
		return append(Marshal(e), b[n:]...), nil
	},
	"librbd.journal.EventEntry": func(b []byte) ([]byte, error) {
		v, err := DecodeEvent(b)
		if err != nil {
			return nil, err
		}
		return Marshal(v), nil
	},
	"librbd.journal.ClientData": func(b []byte) ([]byte, error) {
		m, err := DecodeClientData(b)
		if err != nil {
			return nil, err
		}
		return EncodeClientData(m), nil
	},
	"librbd.journal.TagData": func(b []byte) ([]byte, error) {
		t, err := DecodeTagData(b)
		if err != nil {
			return nil, err
		}
		return Marshal(t), nil
	},
	"cls.journal.Client":            recode[*Client](),
	"cls.journal.Tag":               recode[*Tag](),
	"cls.journal.ObjectPosition":    recode[*ObjectPosition](),
	"cls.journal.ObjectSetPosition": recode[*ObjectSetPosition](),
}

func recode[P interface {
	*T
	encodable
	Decode(*encoding.Decoder)
}, T any]() func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		d := encoding.NewDecoder("test", b)
		p := P(new(T))
		p.Decode(d)
		if err := d.Err(); err != nil {
			return nil, err
		}
		return Marshal(p), nil
	}
}

// TestCorpus decodes what real daemons of several releases have stored, and
// encodes it to the same bytes.
func TestCorpus(t *testing.T) {
	root := os.Getenv("WARDEN_CORPUS")
	if root == "" {
		root = "../../../shared/corpus"
	}
	releases, err := os.ReadDir(root)
	if err != nil {
		t.Skip("Ceph's object corpus is not here:", err)
	}
	for _, release := range releases {
		for name, recode := range reencoders {
			t.Run(release.Name()+"/"+name, func(t *testing.T) {
				files, err := os.ReadDir(filepath.Join(root, release.Name(), name))
				if err != nil || len(files) == 0 {
					t.Fatalf("no samples: %v", err)
				}
				for _, f := range files {
					b, err := os.ReadFile(filepath.Join(root, release.Name(), name, f.Name()))
					if err != nil {
						t.Fatal(err)
					}
					got, err := recode(b)
					if err != nil {
						t.Errorf("%s: %v", f.Name(), err)
					} else if !bytes.Equal(got, b) {
						t.Errorf("%s:\n got %x\nwant %x", f.Name(), got, b)
					}
				}
			})
		}
	}
}
