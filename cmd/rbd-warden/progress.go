package main

import (
	"os"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progressBar shows how far something is on a terminal, and nothing elsewhere.
type progressBar struct {
	p    *mpb.Progress // nil: nothing is shown
	bar  *mpb.Bar
	best atomic.Uint64
}

func newProgressBar(out *os.File, wanted bool, what string) *progressBar {
	info, err := out.Stat()
	if !wanted || err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progressBar{}
	}
	p := mpb.New(mpb.WithOutput(out), mpb.WithWidth(60))
	bar := p.New(0, mpb.BarStyle(),
		mpb.PrependDecorators(decor.Name(what+" "), decor.CountersNoUnit("%d/%d objects ")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)),
		mpb.BarRemoveOnComplete(),
	)
	return &progressBar{p: p, bar: bar}
}

// shownEvery spares the bar most of the calls about images with millions of objects.
const shownEvery = 64

// set may be called by many goroutines, and out of order.
func (b *progressBar) set(done, total uint64) {
	if b.p == nil || done%shownEvery != 0 && done != total {
		return
	}
	for {
		best := b.best.Load()
		if done <= best {
			return
		}
		if b.best.CompareAndSwap(best, done) {
			break
		}
	}
	b.bar.SetTotal(int64(total), false)
	b.bar.SetCurrent(int64(done))
}

// end takes the bar away.
func (b *progressBar) end() {
	if b.p == nil {
		return
	}
	b.bar.Abort(true)
	b.p.Wait()
}
