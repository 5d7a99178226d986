package rados

import (
	"slices"
	"testing"
)

func TestChecksumsDecode(t *testing.T) {
	for name, tc := range map[string]struct {
		kind ChecksumType
		data []byte
		want []uint64
		bad  bool
	}{
		"none":         {kind: XXHash64},
		"none counted": {kind: XXHash64, data: []byte{0, 0, 0, 0}},
		"two of 32":    {kind: CRC32C, data: []byte{2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0}, want: []uint64{1, 0x102}},
		"one of 64":    {kind: XXHash64, data: []byte{1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, want: []uint64{2<<32 | 1}},
		"short":        {kind: XXHash64, data: []byte{2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, bad: true},
		"long":         {kind: XXHash32, data: []byte{1, 0, 0, 0, 1, 0, 0, 0, 2}, bad: true},
		"huge":         {kind: XXHash32, data: []byte{255, 255, 255, 255}, bad: true},
		"unknown type": {kind: 3, data: []byte{0, 0, 0, 0}, bad: true},
	} {
		s := ReadStep{Checksum: tc.kind, Data: tc.data}
		got, err := s.Checksums()
		if (err != nil) != tc.bad || !tc.bad && !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
