package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// start starts the side's daemon beside the secondary, as an operator who configures nothing.
func (r *Round) start(flags ...string) *harness.Daemon {
	r.Helper()
	path := harness.Upstream
	if r.Side == Ours {
		path = harness.Ours(r)
	}
	c := r.Pair.Secondary
	r.daemons++
	// Two daemons of one user must not have one pid file.
	pid := filepath.Join(c.RunDir(), fmt.Sprintf("bench-%d.pid", r.daemons))
	return harness.StartDaemon(r, c, path, append(flags, "--pid-file", pid)...)
}

// tell gives a command to a daemon's admin socket.
func (r *Round) tell(d *harness.Daemon, command string) {
	r.Helper()
	if out, err := lab.Admin(r.Ctx, d.Socket, map[string]any{"prefix": command}); err != nil {
		r.Fatalf("%s: %v %s", command, err, out)
	}
}

// tick is the unit of times in /proc/PID/stat (USER_HZ, which is 100 on every Linux that Debian builds for).
const tick = 10 * time.Millisecond

// cpuOf is the processor time that processes, and their children that have ended, have used so far.
func cpuOf(pids ...int) (total time.Duration) {
	for _, pid := range pids {
		total += cpuTime(fmt.Sprintf("/proc/%d/stat", pid))
	}
	return total
}

// cpuTime reads utime, stime, cutime and cstime, fields 14 to 17 (proc(5)).
func cpuTime(path string) (total time.Duration) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	// Fields are counted behind the command's name, the second, which may hold blanks.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 15 {
		return 0
	}
	for _, field := range fields[11:15] {
		var ticks int64
		if _, err := fmt.Sscan(field, &ticks); err == nil {
			total += time.Duration(ticks) * tick
		}
	}
	return total
}

// residentOf is the memory that processes have resident, in bytes. A page that several share counts once, in parts (Pss).
func residentOf(pids ...int) int64 { return memoryOf("smaps_rollup", "Pss", pids...) }

// peakOf is the sum of the most memory that each process has had resident, in bytes, shared pages included (VmHWM).
func peakOf(pids ...int) int64 { return memoryOf("status", "VmHWM", pids...) }

// memoryOf is what a line of a file below /proc/PID says, in bytes, of all processes together.
func memoryOf(file, key string, pids ...int) (total int64) {
	for _, pid := range pids {
		var kib int64
		if n, _ := fmt.Sscanf(value(fmt.Sprintf("/proc/%d/%s", pid, file), key), "%d kB", &kib); n == 1 {
			total += kib << 10
		}
	}
	return total
}
