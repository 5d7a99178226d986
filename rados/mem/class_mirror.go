package mem

import (
	"slices"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
)

// The mirroring methods of the class rbd. Source: ceph/ceph src/cls/rbd/cls_rbd.cc,
// namespace mirror, as of Ceph 16. Statuses are in class_mirror_status.go.

const (
	keyMirrorMode  = "mirror_mode"
	keyMirrorUUID  = "mirror_uuid"
	prefixPeer     = "mirror_peer_"
	prefixImage    = "image_"
	prefixGlobal   = "global_"
	prefixInstance = "instance_"
	prefixImageMap = "image_map_"
)

var mirrorPoolMethods = map[string]method{
	"mirror_mode_get":           rbdGet(keyMirrorMode),
	"mirror_mode_set":           mirrorModeSet,
	"mirror_uuid_get":           mirrorUUIDGet,
	"mirror_uuid_set":           mirrorUUIDSet,
	"mirror_peer_list":          mirrorPeerList,
	"mirror_peer_ping":          mirrorPeerPing,
	"mirror_peer_add":           mirrorPeerAdd,
	"mirror_peer_remove":        rbdRemoveAnyway(prefixPeer),
	"mirror_peer_set_client":    mirrorPeerSet(func(p *mirror.Peer, in *encoding.Decoder) { p.ClientName = in.String() }),
	"mirror_peer_set_direction": mirrorPeerSet(func(p *mirror.Peer, in *encoding.Decoder) { p.Direction = mirror.Direction(in.U8()) }),
	"mirror_peer_set_cluster":   mirrorPeerSetSite,
}

var mirrorImageMethods = map[string]method{
	"mirror_image_list":         mirrorImageList,
	"mirror_image_get_image_id": rbdGetByKey(prefixGlobal),
	"mirror_image_get":          rbdGetByKey(prefixImage),
	"mirror_image_set":          mirrorImageSet,
	"mirror_image_remove":       mirrorImageRemove,
}

var mirrorPlacementMethods = map[string]method{
	"mirror_instances_list":   mirrorInstancesList,
	"mirror_instances_add":    mirrorInstancesAdd,
	"mirror_instances_remove": rbdRemove(prefixInstance),
	"mirror_image_map_list":   rbdListValues(prefixImageMap, rbdRaw),
	"mirror_image_map_update": mirrorImageMapUpdate,
	"mirror_image_map_remove": rbdRemoveAnyway(prefixImageMap),
}

func (c *classContext) mirrorMode() (mirror.Mode, error) {
	b, err := c.omap(keyMirrorMode)
	if err != nil {
		return mirror.ModeDisabled, ignoreMissing(err)
	}
	d := encoding.NewDecoder(keyMirrorMode, b)
	return mirror.Mode(d.U32()), d.Err()
}

// mustMirror is EINVAL while mirroring is disabled.
func (c *classContext) mustMirror() error {
	mode, err := c.mirrorMode()
	if err == nil && mode == mirror.ModeDisabled {
		return syscall.EINVAL
	}
	return err
}

func mirrorModeSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	mode := mirror.Mode(in.U32())
	if c.input() != nil || mode > mirror.ModePool {
		return syscall.EINVAL
	}
	if mode != mirror.ModeDisabled {
		if _, err := c.omap(keyMirrorUUID); err != nil {
			return syscall.EINVAL
		}
		return c.put(keyMirrorMode, func(e *encoding.Encoder) { e.U32(uint32(mode)) })
	}
	peers, err := c.peers()
	if err != nil {
		return err
	}
	if len(peers) > 0 {
		return syscall.EBUSY
	}
	if err := ignoreMissing(c.remove(keyMirrorMode)); err != nil {
		return err
	}
	return ignoreMissing(c.remove(keyMirrorUUID))
}

// The mirror uuid is stored without its length.
func mirrorUUIDGet(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	v, err := c.omap(keyMirrorUUID)
	out.Blob(v)
	return err
}

func mirrorUUIDSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	if c.input() != nil || id == "" {
		return syscall.EINVAL
	}
	mode, err := c.mirrorMode()
	if err != nil {
		return err
	}
	if mode != mirror.ModeDisabled {
		return syscall.EINVAL
	}
	return c.set(keyMirrorUUID, []byte(id))
}

func (c *classContext) peers() ([]mirror.Peer, error) {
	keys, pairs := c.list("", prefixPeer, everything)
	var out []mirror.Peer
	for _, k := range keys {
		p, err := mirror.DecodePeer(pairs[k])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (c *classContext) putPeer(p mirror.Peer) error { return c.put(prefixPeer+p.UUID, p.Encode) }

func mirrorPeerList(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	peers, err := c.peers()
	out.U32(uint32(len(peers)))
	for _, p := range peers {
		p.Encode(out)
	}
	return err
}

func validPeer(p mirror.Peer) bool {
	if p.UUID == "" || p.SiteName == "" || p.Direction > mirror.DirectionRXTX {
		return false
	}
	return p.Direction == mirror.DirectionTX || p.ClientName != ""
}

func mirrorPeerPing(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	site, id := in.String(), in.String()
	if err := c.input(); err != nil {
		return err
	}
	if err := c.mustMirror(); err != nil {
		return err
	}
	if site == "" || id == "" {
		return syscall.EINVAL
	}
	peers, err := c.peers()
	if err != nil {
		return err
	}
	p := pinged(peers, site, id)
	p.LastSeen = c.now()
	if !validPeer(p) {
		return syscall.EINVAL
	}
	return c.putPeer(p)
}

// pinged finds the record that a ping belongs to, or makes one.
func pinged(peers []mirror.Peer, site, id string) mirror.Peer {
	bySite := slices.IndexFunc(peers, func(p mirror.Peer) bool { return p.SiteName == site })
	byUUID := -1
	if bySite < 0 || peers[bySite].MirrorUUID != "" && peers[bySite].MirrorUUID != id {
		byUUID = slices.IndexFunc(peers, func(p mirror.Peer) bool { return p.MirrorUUID == id })
	}
	var p mirror.Peer
	switch {
	case bySite >= 0 && byUUID >= 0:
		p = peers[byUUID] // two records: the site's name is not changed
	case byUUID >= 0:
		p = peers[byUUID]
		p.SiteName = site
	case bySite >= 0:
		p = peers[bySite]
		p.MirrorUUID = id
	default:
		return mirror.Peer{UUID: uuid.NewString(), Direction: mirror.DirectionTX, SiteName: site, MirrorUUID: id}
	}
	if p.Direction == mirror.DirectionRX {
		p.Direction = mirror.DirectionRXTX
	}
	return p
}

func mirrorPeerAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	p, err := mirror.DecodePeer(in.Rest())
	if err != nil {
		return syscall.EINVAL
	}
	if err := c.mustMirror(); err != nil {
		return err
	}
	if !validPeer(p) {
		return syscall.EINVAL
	}
	own, err := c.omap(keyMirrorUUID)
	if err != nil {
		return err
	}
	if p.UUID == string(own) || p.Direction == mirror.DirectionTX {
		return syscall.EINVAL
	}
	peers, err := c.peers()
	if err != nil {
		return err
	}
	for _, o := range peers {
		switch {
		case o.UUID == p.UUID:
			return syscall.ESTALE
		case o.SiteName == p.SiteName, p.MirrorUUID != "" && o.MirrorUUID == p.MirrorUUID:
			return syscall.EEXIST
		}
	}
	return c.putPeer(p)
}

func mirrorPeerSet(change func(*mirror.Peer, *encoding.Decoder)) method {
	return func(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
		id := in.String()
		var changed mirror.Peer
		change(&changed, in)
		if err := c.input(); err != nil {
			return err
		}
		b, err := c.omap(prefixPeer + id)
		if err != nil {
			return err
		}
		p, err := mirror.DecodePeer(b)
		if err != nil {
			return err
		}
		change(&p, rewind(c, id))
		return c.putPeer(p)
	}
}

// rewind gives the input again, behind its first string.
func rewind(c *classContext, first string) *encoding.Decoder {
	d := encoding.NewDecoder("input", c.raw)
	d.Raw(4 + len(first))
	return d
}

func mirrorPeerSetSite(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id, site := in.String(), in.String()
	if err := c.input(); err != nil {
		return err
	}
	peers, err := c.peers()
	if err != nil {
		return err
	}
	at := -1
	for i, p := range peers {
		if p.UUID == id {
			at = i
		} else if p.SiteName == site {
			return syscall.EEXIST
		}
	}
	if at < 0 {
		return syscall.ENOENT
	}
	peers[at].SiteName = site
	return c.putPeer(peers[at])
}

// images are the keys and records of up to limit images whose ids come after, but not
// the image map, whose keys look like theirs.
func (c *classContext) images(after string, limit uint64) (ids []string, images []mirror.Image, err error) {
	keys, pairs := c.list(prefixImage+after, prefixImage, limit)
	for _, k := range keys {
		i, err := mirror.DecodeImage(pairs[k])
		if err != nil {
			return nil, nil, err
		}
		ids, images = append(ids, strings.TrimPrefix(k, prefixImage)), append(images, i)
	}
	return ids, images, nil
}

func mirrorImageList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	after, limit := in.String(), in.U64()
	if err := c.input(); err != nil {
		return err
	}
	ids, images, err := c.images(after, limit)
	if err != nil {
		return err
	}
	out.U32(uint32(len(ids)))
	for i, id := range ids {
		out.String(id)
		out.String(images[i].GlobalID)
	}
	return nil
}

func mirrorImageSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	record, err := mirror.DecodeImage(in.Rest())
	if err != nil || c.input() != nil {
		return syscall.EINVAL
	}
	b, err := c.omap(prefixImage + id)
	if err != nil {
		if _, err := c.omap(prefixGlobal + record.GlobalID); err == nil {
			return syscall.EEXIST
		}
		if record.State == mirror.ImageDisabling {
			return syscall.ENOENT
		}
	} else {
		old, err := mirror.DecodeImage(b)
		if err != nil {
			return err
		}
		if old.GlobalID != record.GlobalID {
			return syscall.EINVAL
		}
	}
	if err := c.put(prefixImage+id, record.Encode); err != nil {
		return err
	}
	return c.putText(prefixGlobal+record.GlobalID, id)
}

func mirrorImageRemove(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	if err := c.input(); err != nil {
		return err
	}
	b, err := c.omap(prefixImage + id)
	if err != nil {
		return err
	}
	record, err := mirror.DecodeImage(b)
	if err != nil {
		return err
	}
	if record.State != mirror.ImageDisabling {
		return syscall.EBUSY
	}
	if err := c.remove(prefixImage + id); err != nil {
		return err
	}
	if err := c.remove(prefixGlobal + record.GlobalID); err != nil {
		return err
	}
	return c.removeStatuses(record.GlobalID)
}

func mirrorInstancesList(c *classContext, _ *encoding.Decoder, out *encoding.Encoder) error {
	keys, _ := c.list("", prefixInstance, everything)
	out.U32(uint32(len(keys)))
	for _, k := range keys {
		out.String(strings.TrimPrefix(k, prefixInstance))
	}
	return nil
}

func mirrorInstancesAdd(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	if err := c.input(); err != nil {
		return err
	}
	return c.set(prefixInstance+id, nil)
}

func mirrorImageMapUpdate(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	id := in.String()
	m, err := mirror.DecodeImageMap(in.Rest())
	if err != nil || c.input() != nil {
		return syscall.EINVAL
	}
	return c.put(prefixImageMap+id, m.Encode)
}
