package work

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// prepare writes the files that the rank is to write of those that all will
// read, name of each and size alike, and seals them if the mode can.
func (r *rank) prepare(name string, files int, size int64) error {
	for i := r.Rank; i < files; i += r.Size {
		f, err := r.open(fmt.Sprintf(name, i), unix.O_WRONLY|unix.O_CREAT)
		if err != nil {
			return err
		}
		step := min(size, max(r.Transfer, 1<<20/r.Transfer*r.Transfer)) // whole pieces
		buf := make([]byte, step)
		for off := int64(0); off < size; off += step {
			b := buf[:min(step, size-off)]
			f.code.Fill(b, off, value(r.Rank))
			if err := f.write(b, off, value(r.Rank)); err != nil {
				return errors.Join(err, f.close())
			}
		}
		if r.Config.Mode == history.Laminated {
			if err := f.seal(); err != nil {
				return errors.Join(err, f.close())
			}
		}
		if err := f.close(); err != nil {
			return err
		}
	}
	if err := r.barrier("prepared"); err != nil {
		return err
	}
	r.visible()
	return nil
}

const inputFile = "samples.%d"

// input: each rank reads small pieces of the files in an order of its own.
func (r *rank) input() error {
	w := r.Workload
	r.sample = newSample(r.Seed, r.Transfer, w.Count*r.Size+w.Files*int(w.Size/r.Transfer))
	if err := r.prepare(inputFile, w.Files, w.Size); err != nil {
		return fmt.Errorf("preparation: %w", err)
	}
	return r.phase("read", w.Count, func() error {
		rng := rand.New(rand.NewPCG(uint64(r.Seed), uint64(r.Rank)))
		buf := make([]byte, r.Transfer)
		open := map[int]*file{}
		for range w.Count {
			i, piece := rng.IntN(w.Files), rng.Int64N(w.Size/r.Transfer)
			f := open[i]
			if f == nil {
				var err error
				if f, err = r.open(fmt.Sprintf(inputFile, i), unix.O_RDONLY); err != nil {
					return err
				}
				open[i] = f
			}
			if err := f.verify(buf, piece*r.Transfer, value(i%r.Size), false); err != nil {
				return err
			}
			if err := r.op(r.Transfer); err != nil {
				return err
			}
			if w.Reopen {
				if err := f.close(); err != nil {
					return err
				}
				delete(open, i)
			}
		}
		for _, f := range open {
			if err := f.close(); err != nil {
				return err
			}
		}
		return nil
	})
}
