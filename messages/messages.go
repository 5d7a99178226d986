// Package messages is the vocabulary that the actors share: who an image is, and
// the sealed sets of messages that pool and image actors send each other. What
// happens inside one image (bootstrap and replay states) is in
// actors/replayer/core.
package messages

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/report"
)

// PoolKey names a mirrored pool and namespace of the local cluster.
type PoolKey struct {
	Pool      string
	PoolID    int64
	Namespace string
}

func (k PoolKey) String() string {
	if k.Namespace == "" {
		return k.Pool
	}
	return k.Pool + "/" + k.Namespace
}

// ImageKey names a mirrored image: the pool and the global id that its copies on
// all sites share.
type ImageKey struct {
	PoolKey
	GlobalID string
}

func (k ImageKey) String() string { return fmt.Sprintf("%s/%s", k.PoolKey, k.GlobalID) }

// Past is what became of the earlier lives of something that is supervised.
type Past struct {
	Restarts  int
	LastCause *report.Cause // of the last death; nil if there was none
	// Ends are the last deaths, newest last; Reasons counts all by their reason. Both may
	// be empty where only the last cause is known.
	Ends    []report.Cause
	Reasons map[string]uint64
}

// PastOf is the past that a record tells of.
func PastOf(r report.Record) Past {
	return Past{Restarts: r.Restarts, LastCause: r.Last(), Ends: r.Ends, Reasons: r.Reasons}
}

// Plus adds the past of what something is part of: its deaths were this one's, too.
func (p Past) Plus(of Past) Past { return PastOf(p.record().Plus(of.record())) }

func (p Past) record() report.Record {
	r := report.Record{Restarts: p.Restarts, Ends: p.Ends, Reasons: p.Reasons}
	if len(r.Ends) == 0 && p.LastCause != nil {
		r.Ends = []report.Cause{*p.LastCause}
	}
	return r
}

// ToImage is a message that an image actor takes from outside.
type ToImage interface{ toImage() }

type (
	// StartImage starts a stopped image, also one that was stopped or paused by command.
	StartImage struct{}
	// StopImage stops an image until StartImage. Answered by ImageStopped.
	StopImage struct{ Reason string }
	// PauseImage lets an image replay nothing until StartImage or RestartImage: it keeps its
	// lock and its place in the journal. One that does not replay yet is paused when it does.
	PauseImage struct{ Reason string }
	// RestartImage stops the image and starts it at once.
	RestartImage struct{}
	// FlushImage commits what has been read so far as soon as it is safe. Answered by
	// ImageFlushed, at once if the image does not replay.
	FlushImage struct{}
	// NudgeImage says that something changed (a promotion, a notification): an image
	// that waits to try again does so now.
	NudgeImage struct {
		// Unlisted: the remote site does not list the image. One that is stopped knows, or will at its next look.
		Unlisted bool
	}
)

// ImageFlushed answers FlushImage.
type ImageFlushed struct{ Key ImageKey }

// ToImageNamed is a message for the image with that global id, or for all images of the
// pool if it is empty. Those that are found later are stopped, paused or started in the
// same way.
type ToImageNamed struct {
	GlobalID string
	Message  ToImage
}

func (StartImage) toImage()   {}
func (StopImage) toImage()    {}
func (PauseImage) toImage()   {}
func (RestartImage) toImage() {}
func (FlushImage) toImage()   {}
func (NudgeImage) toImage()   {}

// ToPool is a message that a pool actor takes from its images.
type ToPool interface{ toPool() }

type (
	// ImageReport is an image's status, sent whenever it changes.
	ImageReport struct {
		Key    ImageKey
		Report report.Image
	}
	// ImageStopped says that an image has let go of everything.
	ImageStopped struct{ Key ImageKey }
	// ImageFinished says that neither site has the image any more.
	ImageFinished struct{ Key ImageKey }
	// ImagePanicked says why an image's actor is about to end.
	ImagePanicked struct {
		Key          ImageKey
		Value, Stack string
	}
	// ImageStuck says that effects of an image do not end although they were cancelled, and
	// that its actor has let go of them, and has recorded it. If one of them Writes, nobody
	// in this process may run the image again.
	ImageStuck struct {
		Key    ImageKey
		What   string // the effects
		Writes bool
	}
	// ClientFenced says that this process may not write to the cluster any more: it
	// has to end and come back under a new identity.
	ClientFenced struct{ Err error }
)

func (ImageReport) toPool()   {}
func (ImageStopped) toPool()  {}
func (ImageFinished) toPool() {}
func (ImagePanicked) toPool() {}
func (ImageStuck) toPool()    {}
func (ClientFenced) toPool()  {}
