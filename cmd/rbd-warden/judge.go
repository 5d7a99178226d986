package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// effect is what became of a command for one image so far.
type effect struct {
	settled bool // there is nothing to wait for
	code    syscall.Errno
	text    string
}

// judge compares an image before a command with what it is now. What it says was done is
// done: a stopped image has given up its lock, a paused one changes nothing any more, one
// that was restarted began to replay after the command.
func judge(verb controlv1.Verb, was, is report.Image, here bool, began time.Time) effect {
	switch {
	case !here:
		return effect{settled: true, text: "was " + state(was) + ", is not run here any more"}
	case is.Step == "": // there is no actor of it
		v := effect{code: syscall.EAGAIN, text: "not run at the moment; " + noted(verb) + ": " + explain(is)}
		if verb == controlv1.Verb_VERB_STOP {
			v.settled, v.code = true, 0
		}
		return v
	}
	rests := is.Settled.After(began) // it came to rest since
	done, already := false, false
	switch verb {
	case controlv1.Verb_VERB_STOP:
		done = is.Stopped && is.Step == stoppedStep
		already = done && was.Stopped && was.Step == stoppedStep
	case controlv1.Verb_VERB_PAUSE:
		done = is.Paused && is.Step == pausedStep
		already = done && was.Paused && was.Step == pausedStep
	case controlv1.Verb_VERB_RESTART:
		done = rests && replays(is) && !is.Paused
	default:
		done = replays(is) && !is.Paused
		already = done && replays(was) && !was.Paused
	}
	obeys := is.Stopped == (verb == controlv1.Verb_VERB_STOP) && is.Paused == (verb == controlv1.Verb_VERB_PAUSE)
	atRest := is.Step == stoppedStep && (rests || verb == controlv1.Verb_VERB_PAUSE)
	switch {
	case already:
		return effect{settled: true, text: "is " + state(is) + " already"}
	case done:
		return effect{settled: true, text: "was " + state(was) + ", " + state(is)}
	case obeys && atRest && verb == controlv1.Verb_VERB_PAUSE:
		return effect{settled: true, text: fmt.Sprintf("was %s, holds no lock, and is paused when it replays: %s", state(was), explain(is))}
	case obeys && atRest && is.State == "stopped":
		// There is nothing to replay, and nothing wrong.
		return effect{settled: true, text: fmt.Sprintf("was %s, has nothing to replay: %s", state(was), explain(is))}
	case obeys && atRest:
		return effect{settled: true, code: syscall.EAGAIN, text: fmt.Sprintf("was %s, does not replay: %s", state(was), explain(is))}
	}
	return effect{code: syscall.EAGAIN, text: fmt.Sprintf("was %s, not %s yet: %s", state(was), goal(verb), explain(is))}
}

// Steps of an image (actors/replayer/core.State).
const (
	stoppedStep = "STOPPED"
	pausedStep  = "PAUSED"
)

func replays(i report.Image) bool {
	return i.Step == "REPLAYING" || i.Step == "GET_REMOTE_TAG" || i.Step == "ALLOCATE_LOCAL_TAG"
}

// goal is what a command wants an image to be.
func goal(verb controlv1.Verb) string {
	switch verb {
	case controlv1.Verb_VERB_STOP:
		return "stopped"
	case controlv1.Verb_VERB_PAUSE:
		return "paused"
	}
	return "replaying"
}

// state is what an image is, in a word or two.
func state(i report.Image) string {
	switch {
	case i.Step == pausedStep:
		return "paused"
	case i.Parked:
		return "parked after crashes"
	case i.Stopped && i.Step == stoppedStep:
		return "stopped"
	case i.State == "error":
		return "in an error"
	}
	return strings.ReplaceAll(i.State, "_", " ")
}

// explain is an image's description without what machines read.
func explain(i report.Image) string {
	text, _, _ := strings.Cut(i.Description, ", {")
	if text == "" {
		text = state(i)
	}
	return text
}
