package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// located is an image and the worker that told of it last.
type located struct {
	worker int
	image  report.Image
}

// resolve finds what a target names in what the workers told last; a refusal says what is
// known instead. An image may be found at two workers while it moves.
func resolve(d report.Daemon, t *controlv1.Target) ([]located, *controlv1.CommandReply) {
	var (
		byName, byID []located
		all          []located
		known        []string // pools
		near         []string // images of the pool
	)
	for i, w := range d.Workers {
		for _, p := range w.Pools {
			known = append(known, join(p.Name, p.Namespace))
			if t.GetPool() != "" && p.Name != t.GetPool() || t.GetNamespace() != "" && p.Namespace != t.GetNamespace() ||
				t.GetImage() != "" && p.Namespace != t.GetNamespace() {
				continue
			}
			for _, image := range p.Images {
				l := located{i, image}
				all = append(all, l)
				switch t.GetImage() {
				case "":
				case image.GlobalID:
					byID = append(byID, l)
				case image.Name:
					byName = append(byName, l)
				default:
					near = append(near, nameOf(image))
				}
			}
		}
	}
	slices.Sort(known)
	known = slices.Compact(known)
	isPool := func(k string) bool {
		return k == join(t.GetPool(), t.GetNamespace()) || t.GetNamespace() == "" && strings.HasPrefix(k, t.GetPool()+"/")
	}
	switch {
	case t.GetPool() != "" && !slices.ContainsFunc(known, isPool):
		return nil, refused(syscall.ENOENT, "pool %s is not mirrored by this daemon, which knows of %s", join(t.GetPool(), t.GetNamespace()), list(known, 8, "no pool"))
	case t.GetImage() == "":
		return all, nil
	}
	spec := join(t.GetPool(), t.GetNamespace()) + "/" + t.GetImage()
	switch ids := distinct(append(byName, byID...)); {
	case len(ids) > 1:
		return nil, refused(syscall.ENOTUNIQ, "%s is ambiguous: images %s; name it by its global id", spec, strings.Join(ids, " and "))
	case len(ids) == 0:
		slices.SortStableFunc(near, func(a, b string) int { return nearness(b, t.GetImage()) - nearness(a, t.GetImage()) })
		return nil, refused(syscall.ENOENT, "no image %s is mirrored by this daemon, which knows of %s there", spec, list(slices.Compact(near), 5, "no image"))
	}
	return append(byName, byID...), nil
}

// distinct are the global ids of images, each once.
func distinct(images []located) []string {
	var ids []string
	for _, l := range images {
		if !slices.Contains(ids, l.image.GlobalID) {
			ids = append(ids, l.image.GlobalID)
		}
	}
	return ids
}

// nearness is how many characters two names have in common at their start.
func nearness(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// list is the first few of some names in a sentence.
func list(names []string, atMost int, none string) string {
	switch {
	case len(names) == 0:
		return none
	case len(names) > atMost:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:atMost], ", "), len(names)-atMost)
	}
	return strings.Join(names, ", ")
}

func join(pool, namespace string) string {
	if namespace == "" {
		return pool
	}
	return pool + "/" + namespace
}

func nameOf(i report.Image) string {
	if i.Name == "" {
		return i.GlobalID
	}
	return i.Name
}

// refusePause refuses to pause what is stopped: there is no lock to keep, and starting it
// is more than was asked for.
func refusePause(verb controlv1.Verb, found []located) *controlv1.CommandReply {
	for _, l := range found {
		if verb == controlv1.Verb_VERB_PAUSE && l.image.Stopped {
			return refused(syscall.EBUSY, "image %s is stopped, and holds no lock that a pause could keep: start it first", specOf(l.image))
		}
	}
	return nil
}

// commandMessage is a command as images take it; nil if there is no such command.
func commandMessage(r *controlv1.CommandRequest) messages.ToImage {
	switch r.GetVerb() {
	case controlv1.Verb_VERB_START, controlv1.Verb_VERB_RESUME:
		return messages.StartImage{}
	case controlv1.Verb_VERB_STOP:
		return messages.StopImage{Reason: wordsOf(r)}
	case controlv1.Verb_VERB_RESTART:
		return messages.RestartImage{}
	case controlv1.Verb_VERB_PAUSE:
		return messages.PauseImage{Reason: wordsOf(r)}
	case controlv1.Verb_VERB_FLUSH:
		return messages.FlushImage{}
	}
	return nil
}

// wordsOf is what the status says of what a command stops or pauses.
func wordsOf(r *controlv1.CommandRequest) string {
	switch {
	case r.GetWords() != "":
		return report.Bounded(report.OneLine(r.GetWords()), maxWords)
	case r.GetVerb() == controlv1.Verb_VERB_PAUSE:
		return "paused"
	}
	return "stopped" // rbd-mirror's word
}

// maxWords bounds what a status says of who stopped an image, in bytes.
const maxWords = 200

// wishOf is what a command means for the time to come; false if nothing.
func wishOf(r *controlv1.CommandRequest) (config.Halt, bool) {
	wish, ok := pool.Wish(commandMessage(r))
	wish.Pool, wish.Namespace, wish.GlobalID = r.GetTarget().GetPool(), r.GetTarget().GetNamespace(), r.GetTarget().GetImage()
	return wish, ok
}
