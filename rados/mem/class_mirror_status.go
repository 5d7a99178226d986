package mem

import (
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
)

const (
	prefixStatus       = "status_global_"
	prefixRemoteStatus = "remote_status_global_"
)

var mirrorStatusMethods = map[string]method{
	"mirror_image_status_set":         mirrorStatusSet,
	"mirror_image_status_remove":      mirrorStatusRemove,
	"mirror_image_status_get":         mirrorStatusGet,
	"mirror_image_status_list":        mirrorStatusList,
	"mirror_image_status_get_summary": mirrorStatusSummary,
	"mirror_image_status_remove_down": mirrorStatusRemoveDown,
	"mirror_image_instance_get":       mirrorInstanceGet,
	"mirror_image_instance_list":      mirrorInstanceList,
}

// mirrorStatusSet drops the status of an image whose mirroring is not enabled,
// without a word: so does Ceph 16.2.15, though not the sources of early 2020.
func mirrorStatusSet(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	globalID := in.String()
	status, err := mirror.DecodeStatus(in.Rest())
	if err != nil || c.input() != nil {
		return syscall.EINVAL
	}
	if !c.mirrored(globalID) {
		return nil
	}
	key := mirror.StatusKey(globalID, status.MirrorUUID)
	status.MirrorUUID, status.Up, status.LastUpdate = "", false, c.now()
	who := c.caller()
	return c.put(key, mirror.StoredStatus{Writer: who.Entity, Address: sanitized(who.Address), Status: status}.Encode)
}

// mirrored says whether an image of that global id is enabled.
func (c *classContext) mirrored(globalID string) bool {
	id, err := c.text(prefixGlobal + globalID)
	if err != nil {
		return false
	}
	b, err := c.omap(prefixImage + id)
	if err != nil {
		return false
	}
	i, err := mirror.DecodeImage(b)
	return err == nil && i.State == mirror.ImageEnabled
}

// sanitized is the address as all Ceph releases compare it: without the type that
// msgr2 brought (cls::rbd::sanitize_entity_inst).
func sanitized(a lock.EntityAddr) lock.EntityAddr {
	a.Type = lock.AddrAny
	return a
}

func (c *classContext) removeStatuses(globalID string) error {
	keys, _ := c.list("", prefixRemoteStatus+globalID+"_", everything)
	for _, k := range append(keys, prefixStatus+globalID) {
		if err := ignoreMissing(c.remove(k)); err != nil {
			return err
		}
	}
	return nil
}

func mirrorStatusRemove(c *classContext, in *encoding.Decoder, _ *encoding.Encoder) error {
	globalID := in.String()
	if err := c.input(); err != nil {
		return err
	}
	return c.removeStatuses(globalID)
}

// up says whether the writer of a status watches the object.
func (c *classContext) up(s mirror.StoredStatus) bool {
	for _, w := range c.watchers() {
		if s.Writer == lock.ClientName(w.ClientID) && s.Address.Blocklist() == w.Address {
			return true
		}
	}
	return false
}

// status is what all sites say of an image, the local one first; ENOENT if none does.
func (c *classContext) status(globalID string) (s mirror.ImageStatus, err error) {
	remote := prefixRemoteStatus + globalID + "_"
	keys, _ := c.list("", remote, everything)
	for _, k := range append([]string{prefixStatus + globalID}, keys...) {
		b, err := c.omap(k)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		stored, err := mirror.DecodeStoredStatus(b)
		if err != nil {
			return s, err
		}
		site := stored.Status
		site.Up = c.up(stored)
		site.MirrorUUID = mirror.LocalUUID
		if uuid, ok := strings.CutPrefix(k, remote); ok {
			site.MirrorUUID = uuid
		}
		s.Sites = append(s.Sites, site)
	}
	if len(s.Sites) == 0 {
		return s, syscall.ENOENT
	}
	return s, nil
}

func mirrorStatusGet(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	globalID := in.String()
	if err := c.input(); err != nil {
		return err
	}
	s, err := c.status(globalID)
	if err != nil {
		return err
	}
	s.Encode(out)
	return nil
}

func mirrorStatusList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	after, limit := in.String(), in.U64()
	if err := c.input(); err != nil {
		return err
	}
	ids, images, err := c.images(after, limit)
	if err != nil {
		return err
	}
	var statuses encoding.Encoder
	n := 0
	out.U32(uint32(len(ids)))
	for i, id := range ids {
		out.String(id)
		images[i].Encode(out)
		if s, err := c.status(images[i].GlobalID); err == nil {
			statuses.String(id)
			s.Encode(&statuses)
			n++
		}
	}
	out.U32(uint32(n))
	out.Raw(statuses.Bytes())
	return nil
}

func mirrorStatusSummary(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	var peers []mirror.Peer
	if c.more() {
		var err error
		if peers, err = mirror.PeerList().Decode(in.Rest()); err != nil {
			return syscall.EINVAL
		}
	}
	direction, tx := directionOf(peers)
	_, images, err := c.images("", everything)
	if err != nil {
		return err
	}
	counts := map[mirror.StatusState]int32{}
	for _, i := range images {
		s, err := c.status(i.GlobalID)
		if ignoreMissing(err) != nil {
			return err
		}
		counts[summaryState(direction, tx, s)]++
	}
	out.U32(uint32(len(counts)))
	for s := mirror.StatusUnknown; s <= mirror.StatusStopped; s++ {
		if n, ok := counts[s]; ok {
			out.U8(uint8(s))
			out.I32(n)
		}
	}
	return nil
}

func directionOf(peers []mirror.Peer) (direction mirror.Direction, tx []string) {
	if len(peers) == 0 {
		return mirror.DirectionRX, nil
	}
	direction = peers[0].Direction
	for _, p := range peers {
		if p.Direction == mirror.DirectionRX {
			continue
		}
		if !slices.Contains(tx, p.MirrorUUID) {
			tx = append(tx, p.MirrorUUID)
		}
		if p.Direction != direction {
			direction = mirror.DirectionRXTX
		}
	}
	return direction, tx
}

// summaryState is what an image counts as: the worst that the sites say which matter.
func summaryState(direction mirror.Direction, tx []string, s mirror.ImageStatus) mirror.StatusState {
	var states []mirror.StatusState
	if local, ok := s.Local(); ok && local.Up && direction.Receives() {
		states = append(states, local.State)
	}
	missing := 0
	if direction != mirror.DirectionRX {
		missing = len(tx)
		for _, site := range s.Sites {
			if site.MirrorUUID == mirror.LocalUUID {
				continue
			}
			if slices.Contains(tx, site.MirrorUUID) && missing > 0 {
				missing--
			}
			state := site.State
			if !site.Up && state != mirror.StatusError {
				state = mirror.StatusUnknown
			}
			states = append(states, state)
		}
	}
	switch {
	case len(states) == 0 || missing > 0:
		return mirror.StatusUnknown
	case slices.Contains(states, mirror.StatusError):
		return mirror.StatusError
	}
	return slices.Min(states)
}

func mirrorStatusRemoveDown(c *classContext, _ *encoding.Decoder, _ *encoding.Encoder) error {
	for _, prefix := range []string{prefixStatus, prefixRemoteStatus} {
		keys, pairs := c.list("", prefix, everything)
		for _, k := range keys {
			stored, err := mirror.DecodeStoredStatus(pairs[k])
			if err != nil {
				return err
			}
			if c.up(stored) {
				continue
			}
			if err := c.remove(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// instance is the writer of an image's local status; ESTALE if it is down.
func (c *classContext) instance(globalID string) (mirror.StoredStatus, error) {
	b, err := c.omap(prefixStatus + globalID)
	if err != nil {
		return mirror.StoredStatus{}, err
	}
	stored, err := mirror.DecodeStoredStatus(b)
	if err == nil && !c.up(stored) {
		err = syscall.ESTALE
	}
	return stored, err
}

func encodeInstance(out *encoding.Encoder, s mirror.StoredStatus) {
	s.Writer.Encode(out)
	s.Address.Encode(out)
}

func mirrorInstanceGet(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	globalID := in.String()
	if err := c.input(); err != nil {
		return err
	}
	s, err := c.instance(globalID)
	if err != nil {
		return err
	}
	encodeInstance(out, s)
	return nil
}

func mirrorInstanceList(c *classContext, in *encoding.Decoder, out *encoding.Encoder) error {
	after, limit := in.String(), in.U64()
	if err := c.input(); err != nil {
		return err
	}
	ids, images, err := c.images(after, everything)
	if err != nil {
		return err
	}
	var found encoding.Encoder
	n := uint64(0)
	for i, id := range ids {
		if n == limit {
			break
		}
		if s, err := c.instance(images[i].GlobalID); err == nil {
			found.String(id)
			encodeInstance(&found, s)
			n++
		}
	}
	out.U32(uint32(n))
	out.Raw(found.Bytes())
	return nil
}
