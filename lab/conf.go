package lab

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// confName is the name of the configuration file in a cluster's directory.
const confName = "ceph.conf"

// monHost is the address of the monitor, both protocols, as ceph.conf spells it.
func monHost(port int) string {
	return fmt.Sprintf("[v2:127.0.0.1:%d,v1:127.0.0.1:%d]", port, port+1)
}

// confText renders ceph.conf. The monitor gathers changes for 0.05 s, not for a second, before it commits them: one monitor
// has nobody to spare, and every snapshot waits for such a commit. [global] comes last, so that extra lines without a
// section of their own belong to it.
func confText(d description, extra []string) string {
	if d.Store == Memstore {
		// Memstore's count of used bytes falls below zero when objects shrink, and the OSD then takes itself for full. This
		// makes the OSD add up its placement groups' sizes instead (src/osd/OSD.cc, OSDService::set_statfs).
		extra = append([]string{"[osd]", "fake statfs for testing = 6442450944", "[global]"}, extra...)
	}
	return fmt.Sprintf(`[mon]
mon data = %[1]s/mon
mon data avail warn = 1
mon data avail crit = 1
paxos propose interval = 0.05
paxos min wait = 0.01
auth allow insecure global id reclaim = false
keyring = %[1]s/daemon.keyring
[mgr]
mgr data = %[1]s/mgr
mgr initial modules =
keyring = %[1]s/daemon.keyring
[osd]
osd data = %[1]s/osd
osd objectstore = %[2]s
keyring = %[1]s/daemon.keyring
osd memory target = 1073741824
memstore device bytes = 6442450944
bluestore block size = 10737418240
bluestore block wal create = false
bluestore block db create = false
[client]
keyring = %[1]s/$name.keyring
[global]
fsid = %[3]s
mon host = %[4]s
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
run dir = %[1]s/run
log file = %[1]s/log/$name.log
pid file = %[1]s/run/$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 2000
ms bind ipv6 = false
%[5]s
`, d.Dir, d.Store, d.FSID, monHost(d.MonPort), strings.Join(extra, "\n"))
}

// keyring builds the text of a keyring file, one entry a user.
type keyring struct{ text strings.Builder }

// add appends a user with a key and capabilities given as pairs of service and capability.
func (k *keyring) add(user, key string, caps ...string) {
	fmt.Fprintf(&k.text, "[%s]\n\tkey = %s\n", user, key)
	for i := 0; i+1 < len(caps); i += 2 {
		fmt.Fprintf(&k.text, "\tcaps %s = \"%s\"\n", caps[i], caps[i+1])
	}
}

// newKey makes a cephx secret: u16 type (1, AES), u32 seconds and u32 nanoseconds of its creation, u16 length and the
// secret, little-endian, in base64. (src/auth/Crypto.h, CryptoKey)
func newKey(now time.Time) string {
	const aes, size = 1, 16
	secret := make([]byte, size)
	rand.Read(secret)
	var b []byte
	b = binary.LittleEndian.AppendUint16(b, aes)
	b = binary.LittleEndian.AppendUint32(b, uint32(now.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(now.Nanosecond()))
	b = binary.LittleEndian.AppendUint16(b, size)
	return base64.StdEncoding.EncodeToString(append(b, secret...))
}

// newUUID makes a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
