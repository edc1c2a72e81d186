package work

import (
	"errors"
	"hash/fnv"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// monotonic is a clock that all processes of a machine share.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // it exists since Linux 2.6
	}
	return ts.Nano()
}

// sample says which calls become part of a history: those of some pieces of a
// file, all of their size, and those that are of no piece.
type sample struct {
	off  bool
	seed int64
	unit int64  // size of a piece
	part uint64 // of 1<<32 pieces
}

// events is about how many calls on pieces are to be in a history.
const events = 240

// newSample returns a sample of a workload that makes so many calls, in all
// ranks, on pieces of a size.
func newSample(seed, unit int64, calls int) sample {
	return sample{seed: seed, unit: unit, part: uint64(min(1, float64(events)/float64(max(1, calls))) * (1 << 32))}
}

// has reports whether piece i of the file called name is in the sample.
func (s sample) has(name string, i int64) bool {
	h := fnv.New64a()
	h.Write([]byte(name))
	x := h.Sum64() ^ uint64(s.seed) + uint64(i)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return !s.off && (x^x>>31)>>32 < s.part
}

// file is an open file of a rank.
type file struct {
	*rank
	fd   int
	name string // within the directory of the run
	num  int    // of all that the rank has opened
	code *Code
}

// timed makes a call and returns the times of it. In a phase it counts under the
// name op.
func (r *rank) timed(op string, call func() error) (begin, end int64, err error) {
	begin = monotonic()
	for {
		if err = call(); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	end = monotonic()
	if r.part != nil {
		h := r.part.Latency[op]
		h.Add(end - begin)
		r.part.Latency[op] = h
	}
	return begin, end, err
}

// record adds an event to the history of a file.
func (r *rank) record(name string, e history.Event) {
	if r.sample.off {
		return
	}
	if r.report.Events == nil {
		r.report.Events = map[string][]history.Event{}
	}
	e.Proc, e.Node = r.Rank, r.Node
	r.report.Events[name] = append(r.report.Events[name], e)
}

func (r *rank) open(name string, flags int) (*file, error) {
	f := &file{rank: r, name: name, num: r.files}
	r.files++
	begin, end, err := r.timed("open", func() (err error) {
		f.fd, err = unix.Open(r.path(name), flags|unix.O_CLOEXEC, 0o644)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: r.path(name), Err: err}
	}
	f.code = r.code(name)
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return nil, errors.Join(&os.PathError{Op: "fstat", Path: r.path(name), Err: err}, unix.Close(f.fd))
	}
	r.record(name, history.Event{Op: history.Open, FD: f.num, Name: name, Flags: flags, Ino: st.Ino, Call: begin, Return: end})
	return f, nil
}

// simple makes a call of which only the times are of interest.
func (f *file) simple(op history.Op, e history.Event, call func() error) error {
	begin, end, err := f.timed(string(op), call)
	if err != nil {
		return &os.PathError{Op: string(op), Path: f.path(f.name), Err: err}
	}
	e.Op, e.FD, e.Call, e.Return = op, f.num, begin, end
	f.record(f.name, e)
	return nil
}

func (f *file) close() error {
	return f.simple(history.Close, history.Event{}, func() error { return unix.Close(f.fd) })
}

func (f *file) fsync() error {
	return f.simple(history.Fsync, history.Event{}, func() error { return unix.Fsync(f.fd) })
}

func (f *file) seal() error {
	return f.simple(history.Chmod, history.Event{Flags: 0o444}, func() error { return unix.Fchmod(f.fd, 0o444) })
}

func (f *file) lock(off, n int64) error {
	return f.flock(history.Lock, unix.F_SETLKW, unix.F_WRLCK, off, n)
}

func (f *file) unlock(off, n int64) error {
	return f.flock(history.Unlock, unix.F_SETLK, unix.F_UNLCK, off, n)
}

func (f *file) flock(op history.Op, cmd, typ int, off, n int64) error {
	l := unix.Flock_t{Type: int16(typ), Start: off, Len: n}
	return f.simple(op, history.Event{Off: off, Len: n, Flags: typ}, func() error { return unix.FcntlFlock(uintptr(f.fd), cmd, &l) })
}

// write writes all of buf at off, which is what write value puts there.
func (f *file) write(buf []byte, off int64, value uint8) error {
	n := 0
	begin, end, err := f.timed("write", func() (err error) {
		n, err = unix.Pwrite(f.fd, buf, off)
		return err
	})
	if err == nil && n < len(buf) {
		err = errors.New("a short write")
	}
	e := history.Event{Op: history.Write, FD: f.num, Value: value, Call: begin, Return: end}
	if err != nil {
		if !errors.As(err, &e.Errno) {
			e.Errno = syscall.EIO
		}
		f.pieces(buf, off, e) // it may have been done all the same
		return &os.PathError{Op: "write", Path: f.path(f.name), Err: err}
	}
	f.pieces(buf, off, e)
	return nil
}

// read reads as much of buf at off as there is.
func (f *file) read(buf []byte, off int64) (n int, err error) {
	begin, end, err := f.timed("read", func() (err error) {
		n, err = unix.Pread(f.fd, buf, off)
		return err
	})
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: f.path(f.name), Err: err}
	}
	f.pieces(buf[:n], off, history.Event{Op: history.Read, FD: f.num, Len: int64(len(buf)), Call: begin, Return: end})
	return n, nil
}

// pieces records what a call did to the pieces of the file that are in the
// sample: a call on several is one on each of them. A read of Len bytes may
// have got fewer.
func (f *file) pieces(buf []byte, off int64, e history.Event) {
	unit := f.sample.unit
	if unit == 0 {
		return
	}
	stop := off + max(e.Len, int64(len(buf)))
	for i := off / unit; i*unit < stop; i++ {
		if !f.sample.has(f.name, i) {
			continue
		}
		from, to := max(off, i*unit), min(stop, (i+1)*unit)
		got := buf[min(from-off, int64(len(buf))):min(to-off, int64(len(buf)))]
		e.Off, e.Len, e.N = from, to-from, int64(len(got))
		if e.Op == history.Read {
			e.Seen = f.code.Decode(got, from)
		}
		if f.LostNode >= 0 && slices.ContainsFunc(e.Seen, func(r history.Run) bool { return r.Value == 0 }) {
			continue // a lost write leaves a hole, which the sample cannot tell from an end of the file
		}
		f.record(f.name, e)
	}
}

// verify reads buf at off, compares it with what write value puts there, and
// tells of a mistake if it is not that; if maybe is set, bytes that were never
// written are none.
func (f *file) verify(buf []byte, off int64, value uint8, maybe bool) error {
	n, err := f.read(buf, off)
	if err != nil {
		return err
	}
	f.report.Verified += int64(len(buf))
	f.compare(buf[:n], int64(len(buf)), off, value, maybe)
	return nil
}

func (f *file) compare(got []byte, want, off int64, value uint8, maybe bool) {
	wrong := f.code.Wrong(got, off, value) + want - int64(len(got))
	if wrong > 0 && maybe {
		wrong = 0
		for _, run := range f.code.Decode(got, off) {
			if run.Value != value && run.Value != 0 {
				wrong += run.Len
			}
		}
	}
	if wrong > 0 {
		f.mistake(wrong, "%s: %d of %d bytes at %d are not those of write %d but of %v", f.name, wrong, want, off, value, first(f.code.Decode(got, off)))
	}
}

// first are some runs to be shown.
func first(runs []history.Run) []history.Run { return runs[:min(len(runs), 4)] }
