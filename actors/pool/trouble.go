package pool

import (
	"errors"
	"fmt"

	"github.com/rbdwarden/rbdwarden/report"
)

// The words of rbd-mirror for what keeps it from mirroring a pool
// (src/tools/rbd_mirror/PoolReplayer.cc). Operators' checks look for them.
const (
	NoRemoteCluster = "unable to connect to remote cluster"             // an error
	NoRemotePool    = "unable to access remote pool"                    // a warning
	NoRemotePoller  = "unable to initialize remote pool poller"         // an error
	NoPeerConfig    = "mirroring peer config-key query failed"          // a warning
	noImageList     = "unable to initialize default namespace replayer" // an error
)

// ConnectError says why the peer's pool cannot be worked with: in rbd-mirror's words, and
// in detail.
type ConnectError struct {
	Words string
	Level string // of report.Callout
	Err   error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("%s: %v", e.Words, e.Err) }

func (e *ConnectError) Unwrap() error { return e.Err }

// callouts are the service map's lines for an error: rbd-mirror's words, then what they
// leave out, which must not make it worse.
func callouts(err error, words, level string) []report.Callout {
	var known *ConnectError
	if errors.As(err, &known) {
		words, level, err = known.Words, known.Level, known.Err
	}
	return []report.Callout{{Level: level, Text: words}, {Level: report.LevelInfo, Text: err.Error()}}
}

// healthOf is the health that callouts make.
func healthOf(callouts []report.Callout) report.Health {
	health := report.HealthOK
	for _, c := range callouts {
		switch c.Level {
		case report.LevelError:
			return report.HealthError
		case report.LevelWarning:
			health = report.HealthWarning
		}
	}
	return health
}
