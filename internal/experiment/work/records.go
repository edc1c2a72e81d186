package work

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/experiment"
	"github.com/zoidfs/zoidfs/internal/history"
)

// A record of log and update is a number, the rank that wrote it last, a
// checksum of both and of the rest, and the rest:
//
//	number 8 | rank 8 | rest Transfer-20 | CRC-32C 4     little endian
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putRecord makes b a record.
func putRecord(b []byte, number, rank int) {
	binary.LittleEndian.PutUint64(b, uint64(number))
	binary.LittleEndian.PutUint64(b[8:], uint64(rank))
	for i := 16; i < len(b)-4; i++ {
		b[i] = byte(i + number + rank)
	}
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
}

// getRecord reads a record; ok is false if it is not whole.
func getRecord(b []byte) (number, rank int, ok bool) {
	number, rank = int(binary.LittleEndian.Uint64(b)), int(binary.LittleEndian.Uint64(b[8:]))
	return number, rank, crc32.Checksum(b[:len(b)-4], castagnoli) == binary.LittleEndian.Uint32(b[len(b)-4:])
}

const logFile = "log"

// log: all ranks append records to one file.
func (r *rank) log() error {
	count := r.Workload.Count
	r.sample.off = count*r.Size > experiment.MaxVersions // a history knows appended records by their values
	var f *file
	err := r.phase("append", count, func() (err error) {
		if f, err = r.open(logFile, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND); err != nil {
			return err
		}
		buf := make([]byte, r.Transfer)
		for i := range count {
			putRecord(buf, i, r.Rank)
			if err := f.append(buf, uint8(1+r.Rank*count+i)); err != nil {
				return errors.Join(err, f.close())
			}
			if err := r.op(r.Transfer); err != nil {
				return err
			}
		}
		return f.close()
	})
	if err != nil {
		return err
	}
	r.visible()
	return r.checkLog()
}

// append appends all of buf, which is write value.
func (f *file) append(buf []byte, value uint8) error {
	return f.simple(history.Append, history.Event{Len: int64(len(buf)), N: int64(len(buf)), Value: value}, func() error {
		n, err := unix.Write(f.fd, buf)
		if err == nil && n < len(buf) {
			err = errors.New("a short write")
		}
		return err
	})
}

// checkLog reads the log: every record must be there once, whole, and those of
// a rank in the order in which it wrote them.
func (r *rank) checkLog() error {
	f, err := r.open(logFile, unix.O_RDONLY)
	if err != nil {
		return err
	}
	begin := monotonic()
	b, err := f.readAll()
	if err != nil {
		return errors.Join(err, f.close())
	}
	size := int64(r.Size*r.Workload.Count) * r.Transfer
	read := history.Event{Op: history.Read, FD: f.num, Len: size + 1, N: int64(len(b)), Call: begin, Return: monotonic()}
	r.report.Verified += size
	if int64(len(b)) != size {
		r.mistake(max(size, int64(len(b)))-min(size, int64(len(b))), "the log has %d bytes, not %d", len(b), size)
	}
	next := make([]int, r.Size)
	for off := int64(0); off+r.Transfer <= int64(len(b)); off += r.Transfer {
		number, rank, ok := getRecord(b[off : off+r.Transfer])
		if !ok || rank < 0 || rank >= r.Size || number != next[rank] {
			r.mistake(r.Transfer, "the record at %d is number %d of rank %d, whole: %v", off, number, rank, ok)
			return f.close()
		}
		next[rank]++
		read.Seen = append(read.Seen, history.Run{Len: r.Transfer, Value: uint8(1 + rank*r.Workload.Count + number)})
	}
	r.record(logFile, read)
	return f.close()
}

// readAll reads a file to its end, in no history.
func (f *file) readAll() (all []byte, err error) {
	for {
		buf := make([]byte, 1<<20)
		n, err := unix.Pread(f.fd, buf, int64(len(all)))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: f.path(f.name), Err: err}
		case n == 0:
			return all, nil
		default:
			all = append(all, buf[:n]...)
		}
	}
}

const updateFile = "records"

// update: all ranks take records at random, under a lock, and count in them.
func (r *rank) update() error {
	w := r.Workload
	size := int64(w.Records) * r.Transfer
	r.sample.off = 2*w.Count*r.Size > maxLockEvents
	if r.Rank == 0 {
		buf := make([]byte, size)
		for i := range w.Records {
			putRecord(buf[int64(i)*r.Transfer:][:r.Transfer], 0, 0)
		}
		f, err := r.open(updateFile, unix.O_WRONLY|unix.O_CREAT)
		if err != nil {
			return err
		}
		if err := errors.Join(f.write(buf, 0, 1), f.close()); err != nil {
			return err
		}
	}
	if err := r.barrier("made"); err != nil {
		return err
	}
	r.visible()
	err := r.phase("update", w.Count, func() error {
		f, err := r.open(updateFile, unix.O_RDWR)
		if err != nil {
			return err
		}
		rng := rand.New(rand.NewPCG(uint64(r.Seed), uint64(r.Rank)))
		for range w.Count {
			if err := f.count(rng.Int64N(int64(w.Records)) * r.Transfer); err != nil {
				return errors.Join(err, f.close())
			}
			if err := r.op(2 * r.Transfer); err != nil {
				return err
			}
		}
		return f.close()
	})
	if err != nil {
		return err
	}
	r.visible()
	b, err := os.ReadFile(r.path(updateFile))
	if err != nil {
		return err
	}
	return r.checkCounts(b)
}

// maxLockEvents is how many locks and unlocks a history may have.
const maxLockEvents = 600

// count adds one to the record at off.
func (f *file) count(off int64) error {
	if err := f.lock(off, f.Transfer); err != nil {
		return err
	}
	buf := make([]byte, f.Transfer)
	n, err := f.read(buf, off)
	if err != nil {
		return err
	}
	number, _, ok := getRecord(buf)
	if n < len(buf) || !ok {
		f.mistake(f.Transfer, "the record at %d is torn, read %d bytes", off, n)
	}
	putRecord(buf, number+1, f.Rank)
	if err := f.write(buf, off, 1); err != nil {
		return err
	}
	return f.unlock(off, f.Transfer)
}

// checkCounts requires that no count was lost.
func (r *rank) checkCounts(b []byte) error {
	if want := r.Workload.Records * int(r.Transfer); len(b) != want {
		return fmt.Errorf("the file of records has %d bytes, not %d", len(b), want)
	}
	sum, want := 0, r.Workload.Count*r.Size
	for off := int64(0); off < int64(len(b)); off += r.Transfer {
		number, _, ok := getRecord(b[off : off+r.Transfer])
		if !ok {
			r.mistake(r.Transfer, "the record at %d is torn", off)
		}
		sum += number
	}
	r.report.Verified += int64(len(b))
	if sum != want {
		r.mistake(r.Transfer, "%d of %d counts are there", sum, want)
	}
	return nil
}
