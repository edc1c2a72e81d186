package work

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

// nest is how many transfers a block of the nested pattern has.
const nest = 8

// Layout says where the transfers of the ranks of a checkpoint lie.
type Layout struct {
	Pattern  string
	Ranks    int
	Units    int   // transfers of each rank
	Transfer int64 // bytes
}

// File is the name of the file of a rank.
func (l Layout) File(rank int) string {
	if l.Pattern == experiment.FilePerProcess {
		return fmt.Sprintf("checkpoint.%d", rank)
	}
	return "checkpoint"
}

// Offset is where transfer i of a rank begins in its file.
func (l Layout) Offset(rank, i int) int64 {
	at := 0
	switch l.Pattern {
	case experiment.Segmented:
		at = rank*l.Units + i
	case experiment.Strided:
		at = i*l.Ranks + rank
	case experiment.Nested:
		block := i / nest
		n := min(nest, l.Units-block*nest) // transfers of this block
		at = block*nest*l.Ranks + rank*n + n - 1 - i%nest
	case experiment.FilePerProcess:
		at = i
	}
	return int64(at) * l.Transfer
}

func (r *rank) layout() Layout {
	w := r.Workload
	return Layout{Pattern: w.Pattern, Ranks: r.Size, Units: int(w.Size / r.Transfer), Transfer: r.Transfer}
}

// checkpoint: all ranks write at once; then each reads what others wrote.
func (r *rank) checkpoint() error {
	l := r.layout()
	r.sample = newSample(r.Seed, r.Transfer, 2*l.Units*r.Size)
	err := r.phase("write", l.Units, func() error { return r.dump(l) })
	if err != nil {
		return err
	}
	r.visible()
	others := []int{r.partner()}
	if len(r.lost) > 0 { // who is left also sees to those that nobody else does
		others = append(others, (r.Rank+1)%r.Size)
	}
	for _, other := range slices.Compact(others) {
		if err := r.readBack(l, other); err != nil {
			return fmt.Errorf("verification: %w", err)
		}
	}
	return nil
}

// dump writes the rank's part of a checkpoint.
func (r *rank) dump(l Layout) error {
	f, err := r.open(l.File(r.Rank), unix.O_WRONLY|unix.O_CREAT)
	if err != nil {
		return err
	}
	buf := make([]byte, l.Transfer)
	for i := range l.Units {
		off := l.Offset(r.Rank, i)
		f.code.Fill(buf, off, value(r.Rank))
		if err := f.write(buf, off, value(r.Rank)); err != nil {
			return errors.Join(err, f.close())
		}
		if r.part == nil {
			continue
		}
		if err := r.op(l.Transfer); err != nil {
			return err
		}
	}
	if r.Workload.Sync == experiment.SyncFsync {
		if err := f.fsync(); err != nil {
			return errors.Join(err, f.close())
		}
	}
	if r.Config.Mode == history.Laminated && l.Pattern == experiment.FilePerProcess {
		if err := f.seal(); err != nil {
			return errors.Join(err, f.close())
		}
	}
	return f.close()
}

// restart: each rank reads what another wrote before.
func (r *rank) restart() error {
	l := r.layout()
	r.sample = newSample(r.Seed, r.Transfer, 2*l.Units*r.Size)
	if err := r.dump(l); err != nil {
		return fmt.Errorf("preparation: %w", err)
	}
	if err := r.barrier("written"); err != nil {
		return err
	}
	r.visible()
	return r.phase("read", l.Units, func() error { return r.readBack(l, r.partner()) })
}

// readBack reads and verifies the part of another rank. If that is lost, what it
// wrote may be as well.
func (r *rank) readBack(l Layout, other int) error {
	f, err := r.open(l.File(other), unix.O_RDONLY)
	if err != nil {
		if errors.Is(err, unix.ENOENT) && r.isLost(other) {
			return nil
		}
		return err
	}
	buf := make([]byte, l.Transfer)
	for i := range l.Units {
		if err := f.verify(buf, l.Offset(other, i), value(other), r.isLost(other)); err != nil {
			return errors.Join(err, f.close())
		}
		if r.part == nil {
			continue
		}
		if err := r.op(l.Transfer); err != nil {
			return err
		}
	}
	return f.close()
}
