package work

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

const (
	mailbox   = "mailbox.%d"     // of a pair
	pollEach  = time.Millisecond // between two looks
	maxUnseen = 30 * time.Second // beyond the visibility, until an item counts as never seen
)

// exchange: rank p of the first half writes items, one over the other, that rank
// p + size/2 waits for.
func (r *rank) exchange() error {
	half := r.Size / 2
	name := fmt.Sprintf(mailbox, r.Rank%half)
	r.sample = sample{unit: r.Transfer, part: 1 << 32, seed: r.Seed}
	if r.Rank < half {
		f, err := r.open(name, unix.O_WRONLY|unix.O_CREAT)
		if err != nil {
			return err
		}
		if err := f.close(); err != nil {
			return err
		}
	}
	if err := r.barrier("made"); err != nil {
		return err
	}
	var written, seen []moment
	err := r.phase("exchange", r.Workload.Count, func() (err error) {
		if r.Rank < half {
			written, err = r.produce(name)
		} else {
			seen, err = r.consume(name)
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.compareTimes(written, seen)
}

// moment is when an item was written, or seen first.
type moment struct {
	item int
	at   int64
}

// publish makes what was written seen by others as the workload says. The file
// may be another one afterwards.
func (r *rank) publish(f *file, name string) (*file, error) {
	how := r.Workload.Sync
	if how == experiment.SyncMode {
		switch r.Config.Mode {
		case history.Commit, history.Laminated:
			how = experiment.SyncFsync
		case history.Session:
			how = experiment.SyncClose
		}
	}
	switch how {
	case experiment.SyncFsync:
		return f, f.fsync()
	case experiment.SyncClose:
		if err := f.close(); err != nil {
			return nil, err
		}
		return r.open(name, unix.O_WRONLY)
	}
	return f, nil
}

// produce writes the items, at irregular intervals so that they do not keep
// step with who polls, and tells who waits for a message. It returns when the
// write of each had returned.
func (r *rank) produce(name string) (written []moment, err error) {
	f, err := r.open(name, unix.O_WRONLY)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(uint64(r.Seed), uint64(r.Rank)))
	buf := make([]byte, r.Transfer)
	for item := 1; item <= r.Workload.Count; item++ {
		time.Sleep(time.Duration((0.5 + rng.Float64()) * float64(r.Workload.Interval)))
		f.code.Fill(buf, 0, uint8(item))
		if err := f.write(buf, 0, uint8(item)); err != nil {
			return nil, err
		}
		written = append(written, moment{item, monotonic()})
		if f, err = r.publish(f, name); err != nil {
			return nil, err
		}
		if r.Workload.Notify == experiment.Message {
			if err := r.link.send(message{Tell: &told{r.Rank + r.Size/2, item}}); err != nil {
				return nil, err
			}
		}
		if err := r.op(r.Transfer); err != nil {
			return nil, err
		}
	}
	return written, f.close()
}

// watch reads a mailbox.
type watch struct {
	*rank
	f      *file // nil if it is opened for each look
	name   string
	buf    []byte
	latest int             // the newest item that was seen
	stale  []history.Event // the last look that saw nothing new, not recorded yet
}

// look reads the mailbox once and returns the item in it. Of looks that see
// nothing new only the last one is recorded.
func (w *watch) look() (item int, err error) {
	kept := len(w.report.Events[w.name])
	f := w.f
	if f == nil {
		if f, err = w.open(w.name, unix.O_RDONLY); err != nil {
			return 0, err
		}
	}
	n, err := f.read(w.buf, 0)
	if err != nil {
		return 0, err
	}
	if w.f == nil {
		if err := f.close(); err != nil {
			return 0, err
		}
	}
	item = whole(f.code.Decode(w.buf[:n], 0), n == len(w.buf))
	look := slices.Clone(w.report.Events[w.name][kept:])
	w.report.Events[w.name] = w.report.Events[w.name][:kept]
	if item <= w.latest {
		w.stale = look
		return item, nil
	}
	w.report.Events[w.name] = append(append(w.report.Events[w.name], w.stale...), look...)
	w.stale, w.latest = nil, item
	return item, nil
}

// whole returns the item that a read saw, 0 if it saw parts of several.
func whole(runs []history.Run, full bool) int {
	if len(runs) != 1 || !full {
		return 0
	}
	return int(runs[0].Value)
}

// consume waits for each item, or a later one. It returns when each that was
// seen was seen first.
func (r *rank) consume(name string) (seen []moment, err error) {
	w := &watch{rank: r, name: name, buf: make([]byte, r.Transfer)}
	if r.Config.Mode != history.Session { // a session sees nothing new until it opens again
		if w.f, err = r.open(name, unix.O_RDONLY); err != nil {
			return nil, err
		}
	}
	for next := 1; next <= r.Workload.Count; next++ {
		if r.Workload.Notify == experiment.Message {
			m, err := r.link.receive()
			if err != nil || m.Tell == nil {
				return nil, fmt.Errorf("no message of item %d: %w", next, err)
			}
			if w.latest < m.Tell.Item {
				if _, err := w.look(); err != nil {
					return nil, err
				}
				if w.latest < m.Tell.Item {
					r.report.Unseen++
				}
				seen = note(seen, w.latest)
			}
		}
		if seen, err = r.await(w, next, seen); err != nil {
			return nil, err
		}
		if err := r.op(r.Transfer); err != nil {
			return nil, err
		}
	}
	if w.f != nil {
		return seen, w.f.close()
	}
	return seen, nil
}

// await looks until an item, or a later one, is there.
func (r *rank) await(w *watch, next int, seen []moment) ([]moment, error) {
	for since := monotonic(); w.latest < next; {
		if _, err := w.look(); err != nil {
			return nil, err
		}
		if seen = note(seen, w.latest); w.latest >= next {
			break
		}
		if time.Duration(monotonic()-since) > r.Visibility+maxUnseen {
			return nil, fmt.Errorf("item %d of %s was never seen, the last one was %d", next, w.name, w.latest)
		}
		time.Sleep(pollEach)
	}
	return seen, nil
}

// note adds the moment of an item if it is newer than all before.
func note(seen []moment, item int) []moment {
	if item > 0 && (len(seen) == 0 || seen[len(seen)-1].item < item) {
		return append(seen, moment{item, monotonic()})
	}
	return seen
}

// compareTimes tells how long each item was not seen. The writer hands its times
// to the reader beside the file system.
func (r *rank) compareTimes(written, seen []moment) error {
	half := r.Size / 2
	if r.Rank < half {
		for _, w := range written {
			if err := r.link.send(message{Tell: &told{r.Rank + half, int(w.at)}}); err != nil {
				return err
			}
		}
		return nil
	}
	for item := 1; item <= r.Workload.Count; item++ {
		m, err := r.link.receive()
		if err != nil || m.Tell == nil {
			return fmt.Errorf("no time of item %d: %w", item, err)
		}
		i := slices.IndexFunc(seen, func(s moment) bool { return s.item >= item })
		// It may be seen before the write has returned: then it was never stale.
		r.report.Staleness = append(r.report.Staleness, max(0, float64(seen[i].at-int64(m.Tell.Item))/1e9))
	}
	return nil
}
