package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// osdOp is an operation of a client that an OSD has answered.
//
// It is read off two lines of the OSD's log with debug_ms = 1 (src/msg/async/AsyncConnection.cc, src/messages/MOSDOp.h,
// MOSDOpReply.h). What comes in is not decoded yet and so names the client, the operation's number and the placement
// group; the answer names the object, what was done, the result, and the version that the placement group came to by it:
//
//	TIME THREAD 1 -- OWN <== client.4114 127.0.0.1:0/1841125837 12 ==== osd_op(client.4114.0:7 1.6 1.b74753e6 (undecoded) ...
//	TIME THREAD 1 -- OWN --> 127.0.0.1:0/1841125837 -- osd_op_reply(7 rbd_data.1014.0 [write 0~4096] v21'9 uv9 ondisk = 0) ...
type osdOp struct {
	client string // client.4114
	pool   string // its number
	object string
	what   string // its steps
	// version is that of the placement group after it: of operations on one object the later has the higher. 0: it changed
	// nothing.
	version uint64
	result  int
	// came and answered are places in the log, in the order of its lines; at is when the answer was written there.
	came, answered int
	at             time.Time
}

// changed says whether the operation has changed its object.
func (o osdOp) changed() bool { return o.version > 0 && o.result == 0 }

// osdLog reads operations off an OSD's log, piece by piece.
type osdLog struct {
	line    int
	clients map[string]string // by address
	open    map[string]osdOp  // by client and number: those without an answer
	done    map[string]bool   // those that have one: what is sent again is answered again, and done once
}

func newOSDLog() *osdLog {
	return &osdLog{clients: map[string]string{}, open: map[string]osdOp{}, done: map[string]bool{}}
}

// read takes in what there is, up to the last whole line, and answers how many bytes that were.
func (l *osdLog) read(r io.Reader, each func(osdOp)) (size int64, err error) {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		text, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		size += int64(len(text))
		l.line++
		if err := l.take(text, each); err != nil {
			return size, fmt.Errorf("%w in line %d: %s", err, l.line, strings.TrimSpace(text))
		}
	}
}

var errLogForm = errors.New("an OSD's log does not have the form that is known")

// take takes a line in.
func (l *osdLog) take(text string, each func(osdOp)) error {
	if _, rest, ok := strings.Cut(text, " <== client."); ok {
		if head, op, ok := strings.Cut(rest, " ==== osd_op("); ok {
			return l.comes("client."+head, op)
		}
		return nil
	}
	if _, rest, ok := strings.Cut(text, " -- osd_op_reply("); ok {
		return l.answered(text, rest, each)
	}
	return nil
}

// comes takes in a request: "client.4114 ADDRESS 12" and "client.4114.0:7 1.6 ...".
func (l *osdLog) comes(head, op string) error {
	from, words := strings.Fields(head), strings.Fields(op)
	if len(from) < 2 || len(words) < 2 {
		return errLogForm
	}
	id, tid, ok := strings.Cut(words[0], ":")
	pool, _, dotted := strings.Cut(words[1], ".")
	if !ok || !dotted || !strings.HasPrefix(id, from[0]+".") {
		return errLogForm
	}
	l.clients[from[1]] = from[0]
	key := from[0] + ":" + tid
	if _, again := l.open[key]; !again && !l.done[key] { // it may be sent twice: what was sent first counts
		l.open[key] = osdOp{client: from[0], pool: pool, came: l.line}
	}
	return nil
}

// answered takes in an answer: "7 OBJECT [STEPS] v21'9 uv9 ondisk = 0) ...".
func (l *osdLog) answered(line, rest string, each func(osdOp)) error {
	front, _, _ := strings.Cut(line, " -- osd_op_reply(")
	address := front[strings.LastIndexByte(front, ' ')+1:]
	tid, rest, ok1 := strings.Cut(rest, " ")
	object, rest, ok2 := strings.Cut(rest, " [")
	steps, rest, ok3 := strings.Cut(rest, "] v")
	if !ok1 || !ok2 || !ok3 {
		return errLogForm
	}
	stamp, _, _ := strings.Cut(line, " ")
	at, err := time.Parse("2006-01-02T15:04:05-0700", stamp) // with any fraction of a second
	if err != nil {
		return fmt.Errorf("%w: %w", errLogForm, err)
	}
	epoch, rest, ok := strings.Cut(rest, "'")
	digits, rest, _ := strings.Cut(rest, " ")
	version, err := strconv.ParseUint(digits, 10, 64)
	_, result, ok5 := strings.Cut(rest, " = ")
	if !ok || err != nil || !ok5 || strings.Trim(epoch, "0123456789") != "" {
		return errLogForm
	}
	key := l.clients[address] + ":" + tid
	op, known := l.open[key]
	if !known {
		return nil // answered already, or it came before the log told of such
	}
	delete(l.open, key)
	l.done[key] = true
	end := strings.IndexAny(result, " )")
	if end < 0 {
		return errLogForm
	}
	if op.result, err = strconv.Atoi(result[:end]); err != nil {
		return fmt.Errorf("%w: %w", errLogForm, err)
	}
	op.object, op.what, op.version, op.answered, op.at = object, steps, version, l.line, at
	each(op)
	return nil
}
