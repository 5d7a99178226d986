package mem

import "testing"

// The sums are the specification's own examples and those of an OSD (see TestLiveObjects).
func TestXXH32(t *testing.T) {
	for in, want := range map[string]uint32{"": 0x02cc5d05, "abc": 0x32d153ff} {
		if got := xxh32([]byte(in), 0); got != want {
			t.Errorf("%q: %#x, want %#x", in, got, want)
		}
	}
}
