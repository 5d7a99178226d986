package membership

import "time"

// deaths waits for the ends of other members' processes, as far as they can be seen from this
// host. It belongs to the service's goroutine, but for what sends to gone.
//
// It judges nobody: it only tells when KnownDead is to be asked. While every process is either
// awaited or cannot be seen from here, nothing is asked at all.
type deaths struct {
	awaits func(identity string, gone func()) (stop func(), waits bool)
	gone   chan string // identities whose process is said to have ended
	over   chan struct{}

	known  map[string]func() // by identity, what ends the waiting; nil if it is to be asked about
	asked  int               // how many are to be asked about
	ticker *time.Ticker      // while there are some
}

func newDeaths(await func(identity string, gone func()) (stop func(), waits bool)) *deaths {
	if await == nil {
		await = func(string, func()) (func(), bool) { return nil, false }
	}
	return &deaths{awaits: await, gone: make(chan string), over: make(chan struct{}), known: map[string]func(){}}
}

// await waits for the deaths of those, and of nobody else.
func (d *deaths) await(identities map[string]struct{}) {
	for identity, stop := range d.known {
		if _, wanted := identities[identity]; wanted {
			continue
		}
		if stop == nil {
			d.asked--
		} else {
			stop()
		}
		delete(d.known, identity)
	}
	for identity := range identities {
		if _, known := d.known[identity]; known {
			continue
		}
		stop, waits := d.awaits(identity, func() {
			select {
			case d.gone <- identity:
			case <-d.over:
			}
		})
		if !waits {
			stop = nil
			d.asked++
		}
		d.known[identity] = stop
	}
	d.wind()
}

// doubt has KnownDead asked about someone whose process is said to have ended, until it agrees.
func (d *deaths) doubt(identity string) {
	if stop := d.known[identity]; stop != nil {
		stop()
		d.known[identity] = nil
		d.asked++
		d.wind()
	}
}

func (d *deaths) wind() {
	switch {
	case d.asked > 0 && d.ticker == nil:
		d.ticker = time.NewTicker(knownDeadInterval)
	case d.asked == 0 && d.ticker != nil:
		d.ticker.Stop()
		d.ticker = nil
	}
}

// ask tells when KnownDead is to be asked; never while nobody is to be asked about.
func (d *deaths) ask() <-chan time.Time {
	if d.ticker == nil {
		return nil
	}
	return d.ticker.C
}

func (d *deaths) close() {
	close(d.over)
	d.await(nil)
}
