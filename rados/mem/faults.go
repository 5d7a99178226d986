package mem

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/rados"
)

// Kind is the kind of an operation.
type Kind string

// The kinds of operations.
const (
	Read   Kind = "read"
	Write  Kind = "write"
	Notify Kind = "notify"
	Watch  Kind = "watch"
	SnapID Kind = "snapid" // allocation and removal
	// Deliver is no operation, but a notification on its way to a watcher, the Client.
	// Its Delay keeps the watcher's later ones back, too; with Fail it is lost, and with
	// Twice it comes once more.
	Deliver Kind = "deliver"
)

// Op is an operation that is about to be performed.
type Op struct {
	Seq       uint64 // counts all operations on the store
	Client    *Client
	Pool      rados.Pool
	Namespace string
	Object    string
	Kind      Kind
	Read      *rados.ReadOp
	Write     *rados.WriteOp
	Payload   []byte // of a notification
	Cookie    uint64 // of the watch that a notification is delivered to
}

// Verdict says what happens to an operation. The zero value lets it pass.
type Verdict struct {
	Delay time.Duration   // before it reaches the object
	Until <-chan struct{} // it reaches the object when this is closed, if it is not nil
	Fail  error           // it is not performed, and gives this error
	// CrashBefore and CrashAfter end the client: the operation is not performed, or
	// it is, but nobody hears of it.
	CrashBefore, CrashAfter bool
	Late                    time.Duration // performed; the answer comes later
	Lose                    bool          // performed; no answer ever comes
	Hide                    error         // performed; the answer is this error
	Twice                   bool          // see Deliver
}

// Faults judges operations. It is called with no lock held, from the goroutine that
// started the operation.
type Faults interface {
	Judge(Op) Verdict
}

// FaultFunc is a Faults that is a function.
type FaultFunc func(Op) Verdict

// Judge calls f.
func (f FaultFunc) Judge(op Op) Verdict { return f(op) }

// Chaos is trouble at random, the same for the same seed and order of operations.
// Probabilities are between 0 and 1.
type Chaos struct {
	Seed     uint64
	MaxDelay time.Duration // each way
	Fail     float64       // not performed, ETIMEDOUT
	Hide     float64       // performed, ETIMEDOUT
	Crash    float64       // before or after

	mu  sync.Mutex
	rng *rand.Rand
}

// Judge implements Faults.
func (c *Chaos) Judge(op Op) (v Verdict) {
	if op.Kind == Deliver {
		return Verdict{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rng == nil {
		c.rng = rand.New(rand.NewPCG(c.Seed, 0))
	}
	// Always the same number of draws, so that one probability does not shift others.
	delay, late := c.rng.Float64(), c.rng.Float64()
	fail, hide, crash, after := c.rng.Float64(), c.rng.Float64(), c.rng.Float64(), c.rng.Float64()
	v.Delay = time.Duration(delay * float64(c.MaxDelay))
	v.Late = time.Duration(late * float64(c.MaxDelay))
	switch {
	case crash < c.Crash:
		v.CrashBefore, v.CrashAfter = after < 0.5, after >= 0.5
	case fail < c.Fail:
		v.Fail = syscall.ETIMEDOUT
	case hide < c.Hide:
		v.Hide = syscall.ETIMEDOUT
	}
	return v
}
