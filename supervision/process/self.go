package process

import (
	"os"
	"strconv"
)

// Out-of-memory scores: the kernel's badness in thousandths is shifted by them.
const (
	// DaemonOOMScore keeps the daemon alive while there is anything else to kill,
	// short of making it immune.
	DaemonOOMScore = -900
	// WorkerOOMScore makes a worker go before most of what runs on a host: its
	// daemon has it back in a moment, without loss.
	WorkerOOMScore = 500
)

// SetOOMScore shifts this process's out-of-memory score. To lower it takes
// CAP_SYS_RESOURCE.
func SetOOMScore(score int) error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(score)), 0)
}

// SetName makes ps show this process under a name other than that of its program
// file: programs started through /proc/self/exe would all be called "exe".
func SetName(name string) {
	// The file names the whole process; prctl would name one thread. If it cannot
	// be written, ps shows another name, and that is all.
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}
