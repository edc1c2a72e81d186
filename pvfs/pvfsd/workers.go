package pvfsd

import (
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// maxIdleWorkers is how many goroutines of one connection wait for more work;
// their stacks have grown to what requests need.
const maxIdleWorkers = 4

// workers runs functions on at most a fixed number of goroutines.
type workers struct {
	g    errgroup.Group
	slot chan struct{} // a token a goroutine
	more chan func()   // unbuffered, to those that wait
	quit chan struct{}
	idle atomic.Int32
}

func newWorkers(limit int) *workers {
	return &workers{slot: make(chan struct{}, limit), more: make(chan func()), quit: make(chan struct{})}
}

// do runs fn, once a goroutine is free. It must not be called from within a
// function that workers runs, nor after wait.
func (w *workers) do(fn func()) {
	select {
	case w.more <- fn:
		return
	default:
	}
	select {
	case w.more <- fn:
	case w.slot <- struct{}{}:
		w.g.Go(func() error {
			defer func() { <-w.slot }()
			w.run(fn)
			return nil
		})
	}
}

func (w *workers) run(fn func()) {
	for {
		fn()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case fn = <-w.more:
			w.idle.Add(-1)
		case <-w.quit:
			return
		}
	}
}

// wait returns when every function has.
func (w *workers) wait() {
	close(w.quit)
	w.g.Wait()
}
