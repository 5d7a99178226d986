package lock

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// AddrType is the protocol that an address is for (entity_addr_t::type_t).
type AddrType uint32

// The types of addresses.
const (
	AddrNone   AddrType = 0
	AddrLegacy AddrType = 1 // msgr1, printed as "v1:"
	AddrMsgr2  AddrType = 2 // msgr2, printed as "v2:"
	AddrAny    AddrType = 3 // either, printed without a prefix
)

// EntityAddr is the address of one process's messenger. Its nonce tells processes
// apart that use the same IP address and port: clients have port 0.
//
// Encoded with marker 1 (every release since Kraken):
//
//	u8 1
//	struct v1 {
//	  u32 type
//	  u32 nonce
//	  u32 length of the rest: 0, 16 (IPv4) or 28 (IPv6, or none)
//	  u16 family: 0 none, 2 IPv4, 10 IPv6
//	  IPv4: port (2 bytes, big-endian), address (4 bytes), 8 zeros
//	  IPv6: port (2 bytes, big-endian), flow info (4), address (16), scope (4)
//	}
//
// The form before it, which we only read:
//
//	u32 0; u32 nonce; 128 bytes of sockaddr_storage with the family big-endian
type EntityAddr struct {
	Type  AddrType
	Nonce uint32
	Addr  netip.AddrPort // invalid if the address is blank
}

const (
	familyNone = 0
	familyIPv4 = 2
	familyIPv6 = 10

	sizeIPv4    = 16  // sizeof(struct sockaddr_in)
	sizeIPv6    = 28  // sizeof(struct sockaddr_in6)
	sizeStorage = 128 // sizeof(struct sockaddr_storage)
)

// IsBlank tells whether there is no address to reach or fence anybody at.
func (a EntityAddr) IsBlank() bool { return !a.Addr.IsValid() }

// SameInstance tells whether two addresses are of one and the same process. The
// type does not matter: a client has the same address and nonce in both
// protocols, and cls_lock stores all addresses as legacy ones.
func (a EntityAddr) SameInstance(b EntityAddr) bool {
	return !a.IsBlank() && a.Blocklist() == b.Blocklist()
}

// String prints the address as Ceph does: "v1:192.168.0.7:0/4711".
func (a EntityAddr) String() string {
	switch a.Type {
	case AddrNone:
		return "-"
	case AddrLegacy:
		return "v1:" + a.Blocklist()
	case AddrMsgr2:
		return "v2:" + a.Blocklist()
	}
	return a.Blocklist()
}

// Blocklist is the address without its type, "192.168.0.7:0/4711" or
// "[fe80::1]:0/4711": what "osd blocklist add" takes and what librados prints for
// watchers. Empty if the address is blank.
func (a EntityAddr) Blocklist() string {
	if a.IsBlank() {
		return ""
	}
	// Ceph prints no zone, and its parser knows none.
	plain := netip.AddrPortFrom(a.Addr.Addr().WithZone(""), a.Addr.Port())
	return plain.String() + "/" + strconv.FormatUint(uint64(a.Nonce), 10)
}

// ParseEntityAddr parses what String or Blocklist print.
func ParseEntityAddr(s string) (EntityAddr, error) {
	a := EntityAddr{Type: AddrAny}
	rest := s
	for _, p := range []struct {
		prefix string
		t      AddrType
	}{{"v1:", AddrLegacy}, {"v2:", AddrMsgr2}, {"any:", AddrAny}} {
		if r, ok := strings.CutPrefix(s, p.prefix); ok {
			a.Type, rest = p.t, r
		}
	}
	if rest == "-" {
		return EntityAddr{}, nil
	}
	hostPort, nonce, ok := strings.Cut(rest, "/")
	if !ok {
		return EntityAddr{}, fmt.Errorf("address %q has no nonce: want ip:port/nonce", s)
	}
	n, err := strconv.ParseUint(nonce, 10, 32)
	if err != nil {
		return EntityAddr{}, fmt.Errorf("address %q has a bad nonce", s)
	}
	a.Nonce = uint32(n)
	if a.Addr, err = netip.ParseAddrPort(hostPort); err != nil {
		return EntityAddr{}, fmt.Errorf("address %q: %w", s, err)
	}
	return a, nil
}

// ParseEntityAddrs parses an address or an address vector,
// "[v2:10.0.0.1:0/17,v1:10.0.0.1:0/17]".
func ParseEntityAddrs(s string) ([]EntityAddr, error) {
	// An IPv6 address starts with a bracket, too, but does not end with one.
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	var addrs []EntityAddr
	for part := range strings.SplitSeq(s, ",") {
		a, err := ParseEntityAddr(part)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// Encode appends the address.
func (a EntityAddr) Encode(e *encoding.Encoder) {
	e.U8(1)
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(a.Type))
		e.U32(a.Nonce)
		var sock []byte
		port, ip := a.Addr.Port(), a.Addr.Addr()
		switch {
		case a.IsBlank():
			sock = make([]byte, sizeIPv6)
		case ip.Is4():
			sock = make([]byte, sizeIPv4)
			binary.LittleEndian.PutUint16(sock, familyIPv4)
			binary.BigEndian.PutUint16(sock[2:], port)
			copy(sock[4:], ip.AsSlice())
		default:
			sock = make([]byte, sizeIPv6)
			binary.LittleEndian.PutUint16(sock, familyIPv6)
			binary.BigEndian.PutUint16(sock[2:], port)
			copy(sock[8:], ip.AsSlice())
			if scope, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
				binary.LittleEndian.PutUint32(sock[24:], uint32(scope))
			}
		}
		e.U32(uint32(len(sock)))
		e.Raw(sock)
	})
}

// DecodeEntityAddr reads an address in either form.
func DecodeEntityAddr(d *encoding.Decoder) (a EntityAddr) {
	switch marker := d.U8(); {
	case d.Err() != nil:
	case marker == 0:
		d.Raw(3)
		a.Nonce = d.U32()
		sock := d.Raw(sizeStorage)
		if d.Err() != nil {
			return EntityAddr{}
		}
		if family := binary.BigEndian.Uint16(sock); family != familyNone {
			a.Type = AddrLegacy
			a.Addr = decodeSock(d, family, sock[2:])
		}
	case marker == 1:
		d.Struct(1, func(d *encoding.Decoder, _ uint8) {
			a.Type = AddrType(d.U32())
			a.Nonce = d.U32()
			sock := d.Blob()
			switch {
			case d.Err() != nil || len(sock) == 0:
			case len(sock) < 2:
				d.Fail("socket address of %d bytes", len(sock))
			default:
				a.Addr = decodeSock(d, binary.LittleEndian.Uint16(sock), sock[2:])
			}
		})
	default:
		d.Fail("address with marker %d", marker)
	}
	if d.Err() != nil {
		return EntityAddr{}
	}
	return a
}

// decodeSock reads what follows the family in a socket address.
func decodeSock(d *encoding.Decoder, family uint16, b []byte) netip.AddrPort {
	switch {
	case family == familyNone:
		return netip.AddrPort{}
	case family == familyIPv4 && len(b) >= 6:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[2:6])), binary.BigEndian.Uint16(b))
	case family == familyIPv6 && len(b) >= 22:
		ip := netip.AddrFrom16([16]byte(b[6:22]))
		// An address's zone is a number here: names of interfaces mean nothing on
		// another host. Ceph neither prints it nor compares it in text.
		if len(b) >= 26 {
			if scope := binary.LittleEndian.Uint32(b[22:]); scope != 0 && !ip.Is4In6() {
				ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
			}
		}
		return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b))
	}
	d.Fail("socket address of family %d and %d bytes", family, len(b)+2)
	return netip.AddrPort{}
}
