//go:build live

package live

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// freeze stops the busiest worker and the daemon process above it, which so cannot kill it. The other workers take its
// images. When it goes on, it must write nothing any more and end, fenced; only then its daemon goes on, too.
func (s *stage) freeze() {
	s.Helper()
	const what = "SIGSTOP of a worker and of its daemon"
	victim, hit := s.choose()
	pid, before := s.daemon.Workers()[victim], s.ps()
	defer syscall.Kill(s.daemon.PID(), syscall.SIGCONT)
	s.fault(what, hit, func() time.Time {
		syscall.Kill(s.daemon.PID(), syscall.SIGSTOP)
		syscall.Kill(pid, syscall.SIGSTOP)
		return time.Now()
	})
	s.load.Hold()
	copies := s.rest()
	syscall.Kill(pid, syscall.SIGCONT)
	goes := time.Now()
	ended := harness.AwaitEnd(s, pid, recovery)
	if changed := copies.Changed(s.load.CopyVersions(s)); len(changed) > 0 {
		s.Errorf("a worker whose images another one runs has changed %d objects, %s among them", len(changed), changed[0])
	}
	s.Logf("%s: when it went on, it ended after %.1f s, and none of %d objects had changed", what, ended.Sub(goes).Seconds(), len(copies))
	syscall.Kill(s.daemon.PID(), syscall.SIGCONT)
	s.load.Start(s, s.pause)
	s.verdict(what, victim, before, fenced)
}

// rest waits until the copies of the load's images do not change any more, and answers their versions.
func (s *stage) rest() (copies harness.Versions) {
	s.Helper()
	since := time.Now()
	harness.Eventually(s, recovery, func() string {
		now := s.load.CopyVersions(s)
		if changed := copies.Changed(now); copies == nil || len(changed) > 0 {
			copies, since = now, time.Now()
		}
		if quiet := time.Since(since); quiet < 3*time.Second { // more than an idle mirror's commit takes
			return fmt.Sprintf("the copies are at rest for %v", quiet)
		}
		return ""
	})
	return copies
}

// fenced is a worker's own word for why it ended.
func fenced(c report.Cause) bool {
	return c.Why == report.WhyError && c.Class == "fenced" || c.Why == report.WhyExit && c.Code == 77 && !strings.Contains(c.Text, "panic")
}
