package lock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addr(s string) EntityAddr {
	a, err := ParseEntityAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

// golden has the bytes of the calls' inputs and of records.
var golden = []struct {
	name string
	got  []byte // encoded by us
	hex  string
}{
	{
		"lock, as librbd sends it",
		Lock(Request{Name: RBDName, Type: Exclusive, Cookie: RBDCookie(94213), Tag: RBDTag}).In,
		`0101 34000000 08000000 7262645f6c6f636b 01 0a000000 6175746f203934323133
		 08000000 696e7465726e616c 00000000 00000000 00000000 00`,
	},
	{
		"unlock",
		Unlock("n", "ck").In,
		"0101 0b000000 01000000 6e 02000000 636b",
	},
	{
		"break_lock",
		Break("n", LockerID{ClientName(0x1234), "ck"}).In,
		"0101 14000000 01000000 6e 08 3412000000000000 02000000 636b",
	},
	{
		"get_info",
		GetInfo("n").In,
		"0101 05000000 01000000 6e",
	},
	{
		"assert_locked",
		Assert("n", Shared, "ck", "t").In,
		"0101 11000000 01000000 6e 02 02000000 636b 01000000 74",
	},
	{
		"set_cookie",
		SetCookie("n", Exclusive, "ck", "t", "new").In,
		"0101 18000000 01000000 6e 01 02000000 636b 01000000 74 03000000 6e6577",
	},
	{
		"a lock's state",
		encode(Info{
			Type: Exclusive, Tag: "t",
			Lockers: []Locker{
				{LockerID{ClientName(2), "b"}, LockerInfo{Address: addr("v1:[fe80::1]:0/9"), Expiration: time.Unix(5, 6)}},
				{LockerID{ClientName(1), "a"}, LockerInfo{Address: addr("v1:127.0.0.1:0/7"), Description: "d"}},
			},
		}),
		`0101 a9000000 02000000
		 0101 0e000000 08 0100000000000000 01000000 61
		 0101 30000000 00000000 00000000 01 0101 1c000000 01000000 07000000 10000000 0200 0000 7f000001 0000000000000000 01000000 64
		 0101 0e000000 08 0200000000000000 01000000 62
		 0101 3b000000 05000000 06000000 01 0101 28000000 01000000 09000000 1c000000 0a00 0000 00000000 fe800000000000000000000000000001 00000000 00000000
		 01 01000000 74`,
	},
}

// capturedLock is the attribute lock.rbd_lock of the header of an image that "rbd
// bench" of 16.2.15 had open; "rbd lock ls" printed the rest.
const (
	capturedLock = `01016d00000001000000010121000000083210000000000000140000006175746f20313430363931383534343031373630
		01012f00000000000000000000000101011c000000010000008cb77bdd10000000020000007f0000010000000000000000000000
		000108000000696e7465726e616c`
	capturedOwner  = "client.4146"
	capturedCookie = "auto 140691854401760"
	capturedAddr   = "127.0.0.1:0/3715872652"
)

func encode(i Info) []byte {
	var e encoding.Encoder
	i.Encode(&e)
	return e.Bytes()
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		if want := unhex(t, g.hex); !bytes.Equal(g.got, want) {
			t.Errorf("%s: encodes to\n%x, want\n%x", g.name, g.got, want)
		}
	}
}

func TestCapturedLock(t *testing.T) {
	got, err := DecodeInfo(unhex(t, capturedLock))
	if err != nil {
		t.Fatal(err)
	}
	if got.Type != Exclusive || got.Tag != RBDTag || len(got.Lockers) != 1 {
		t.Fatalf("%+v", got)
	}
	l := got.Lockers[0]
	if l.Entity.String() != capturedOwner || l.Cookie != capturedCookie || l.Address.String() != "v1:"+capturedAddr ||
		l.Address.Blocklist() != capturedAddr || !l.Expiration.IsZero() || l.Description != "" {
		t.Errorf("%+v", l)
	}
	if again := encode(got); !bytes.Equal(again, unhex(t, capturedLock)) {
		t.Errorf("encodes to\n%x", again)
	}
	if h, ok := ParseRBDCookie(got.Lockers[0].Cookie); !ok || RBDCookie(h) != capturedCookie {
		t.Errorf("cookie of watch %d, %v", h, ok)
	}
}

func TestDamagedInfo(t *testing.T) {
	for name, in := range map[string]string{
		"absurd count":      "0101 09000000 ffffffff 01 00000000",
		"future reader":     "0909 09000000 00000000 01 00000000",
		"struct too long":   "0101 ff000000 00000000 01 00000000",
		"addr marker":       "0101 3c000000 01000000 0101 0d000000 08 0100000000000000 00000000 0101 15000000 0000000000000000 07 000000000000000000000000 01 00000000",
		"addr family":       "0101 48000000 01000000 0101 0d000000 08 0100000000000000 00000000 0101 21000000 0000000000000000 01 0101 0e000000 01000000 01000000 02000000 0100 00000000 01 00000000",
		"addr of one byte":  "0101 48000000 01000000 0101 0d000000 08 0100000000000000 00000000 0101 20000000 0000000000000000 01 0101 0d000000 01000000 01000000 01000000 02 00000000 01 00000000",
		"string past end":   "0101 09000000 00000000 01 05000000",
		"empty":             "",
		"nothing but start": "0101",
	} {
		i, err := DecodeInfo(unhex(t, in))
		var corrupt *encoding.CorruptError
		if !errors.As(err, &corrupt) || corrupt.What != "lock.Info" {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
}

func TestEntityNames(t *testing.T) {
	for _, s := range []string{"client.4123", "osd.0", "mon.2", "mgr.14", "mds.1", "auth.3", "client.?"} {
		n, err := ParseEntityName(s)
		if err != nil || n.String() != s {
			t.Errorf("%s: %v, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "client", "client.", "client.x", "client.-1", "nobody.1"} {
		if n, err := ParseEntityName(s); err == nil {
			t.Errorf("%q: %v", s, n)
		}
	}
	if ClientName(4123).String() != "client.4123" {
		t.Error(ClientName(4123))
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		in, str, blocklist string
		want               EntityAddr
	}{
		{"127.0.0.1:0/12", "127.0.0.1:0/12", "127.0.0.1:0/12", EntityAddr{AddrAny, 12, netip.MustParseAddrPort("127.0.0.1:0")}},
		{"any:10.0.0.1:6800/4294967295", "10.0.0.1:6800/4294967295", "10.0.0.1:6800/4294967295", EntityAddr{AddrAny, 4294967295, netip.MustParseAddrPort("10.0.0.1:6800")}},
		{"v1:10.0.0.1:0/1", "v1:10.0.0.1:0/1", "10.0.0.1:0/1", EntityAddr{AddrLegacy, 1, netip.MustParseAddrPort("10.0.0.1:0")}},
		{"v2:[fe80::1]:3300/0", "v2:[fe80::1]:3300/0", "[fe80::1]:3300/0", EntityAddr{AddrMsgr2, 0, netip.MustParseAddrPort("[fe80::1]:3300")}},
		{"-", "-", "", EntityAddr{}},
	} {
		a, err := ParseEntityAddr(c.in)
		if err != nil || a != c.want || a.String() != c.str || a.Blocklist() != c.blocklist {
			t.Errorf("%s: %+v %q %q, %v", c.in, a, a.String(), a.Blocklist(), err)
		}
		var e encoding.Encoder
		a.Encode(&e)
		if again := DecodeEntityAddr(encoding.NewDecoder("addr", e.Bytes())); again != a {
			t.Errorf("%s: encodes to %x, decodes to %+v", c.in, e.Bytes(), again)
		}
	}
	for _, s := range []string{"", "10.0.0.1:0", "10.0.0.1/5", "10.0.0.1:0/x", "10.0.0.1:0/4294967296", "host:0/1"} {
		if a, err := ParseEntityAddr(s); err == nil {
			t.Errorf("%q: %+v", s, a)
		}
	}

	own, err := ParseEntityAddrs("[v2:10.0.0.1:0/17,v1:10.0.0.1:0/17]")
	if err != nil || len(own) != 2 || !own[0].SameInstance(own[1]) || !own[1].SameInstance(addr("10.0.0.1:0/17")) {
		t.Errorf("vector: %v, %v", own, err)
	}
	if one, err := ParseEntityAddrs("[fe80::1]:0/17"); err != nil || len(one) != 1 || one[0] != addr("[fe80::1]:0/17") {
		t.Errorf("IPv6 is no vector: %v, %v", one, err)
	}
	if _, err := ParseEntityAddrs("[v2:10.0.0.1:0/17,]"); err == nil {
		t.Error("half a vector")
	}
	for _, other := range []string{"10.0.0.1:0/18", "10.0.0.2:0/17", "10.0.0.1:1/17", "-"} {
		if own[0].SameInstance(addr(other)) {
			t.Errorf("%s is not %s", own[0], other)
		}
	}
	if blank := (EntityAddr{}); blank.SameInstance(blank) {
		t.Error("no address is nobody's")
	}
}

// TestLegacyAddress reads the encoding that releases before Kraken used.
func TestLegacyAddress(t *testing.T) {
	b := unhex(t, "00000000 07000000 0002 1a90 c0a80001"+strings.Repeat("00", 120))
	d := encoding.NewDecoder("addr", b)
	if a := DecodeEntityAddr(d); a.String() != "v1:192.168.0.1:6800/7" || d.Err() != nil || d.Remaining() != 0 {
		t.Errorf("%v, %v, %d bytes left", a, d.Err(), d.Remaining())
	}
	d = encoding.NewDecoder("addr", make([]byte, 136))
	if a := DecodeEntityAddr(d); a != (EntityAddr{}) || d.Err() != nil {
		t.Errorf("blank: %+v, %v", a, d.Err())
	}
}

func TestRBDCookies(t *testing.T) {
	if h, ok := ParseRBDCookie("auto 140354632365040"); !ok || h != 140354632365040 {
		t.Error(h, ok)
	}
	for _, c := range []string{"", "auto", "auto ", "auto x", "auto -1", "mine 5", "auto 5 6", "auto5"} {
		if h, ok := ParseRBDCookie(c); ok {
			t.Errorf("%q is of watch %d", c, h)
		}
	}
}
