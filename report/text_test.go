package report

import (
	"testing"
	"time"
	"unicode/utf8"
)

func TestBoundedCutsBetweenCharacters(t *testing.T) {
	const text = "aä€𝄞 and more"
	for max := 3; max <= len(text)+1; max++ {
		got := Bounded(text, max)
		if len(got) > max || !utf8.ValidString(got) {
			t.Errorf("%d bytes: %q", max, got)
		}
	}
	if got := Bounded(text, len(text)); got != text {
		t.Errorf("cut although it fits: %q", got)
	}
	if got := Bounded("\xff\xff\xff\xff\xff", 4); got != "..." {
		t.Errorf("%q", got)
	}
}

func TestShortCause(t *testing.T) {
	c := &Cause{What: "worker 0", Why: WhyOOM, Limit: "host", When: time.Unix(0, 0)}
	if got := c.Short(200); got != "1970-01-01 00:00:00 UTC worker 0: OOM kill by the limit of host" {
		t.Errorf("%q", got)
	}
	if got := (*Cause)(nil).Short(9); got != "" {
		t.Errorf("%q", got)
	}
	if got := OneLine("a\nb\r\nc"); got != "a; b; c" {
		t.Errorf("%q", got)
	}
}
