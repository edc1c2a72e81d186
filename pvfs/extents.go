package pvfs

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// wanted is what a caller wants to read or write, in the order in which it is
// asked for: ascending and each byte once.
type wanted struct {
	one   extent.Extent   // all of it, if exts is nil
	exts  []extent.Extent // at least two, sorted, none touch
	bufs  [][]byte        // the memory of one or exts
	asked []extent.Extent // as the caller said it, if that is another list
	again []piece         // memory of bytes that bufs have as well
}

// empty reports whether there is nothing to do.
func (w *wanted) empty() bool { return w.exts == nil && w.one.Empty() }

// end is where the last byte ends.
func (w *wanted) end() int64 {
	if w.exts == nil {
		return w.one.End()
	}
	return w.exts[len(w.exts)-1].End()
}

// below is how many of the bytes that were asked for lie below eof.
func (w *wanted) below(eof int64) int64 {
	exts := w.exts
	if w.asked != nil {
		exts = w.asked
	} else if exts == nil {
		return min(max(eof-w.one.Off, 0), w.one.Len)
	}
	n := int64(0)
	for _, e := range exts {
		n += min(max(eof-e.Off, 0), e.Len)
	}
	return n
}

// contiguous is what ReadAt and WriteAt want.
func contiguous(op string, bufs [][]byte, off int64) (wanted, error) {
	e := extent.Extent{Off: off, Len: sum(bufs)}
	if off < 0 {
		return wanted{}, errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("offset %d", off))
	}
	if e.Len > math.MaxInt64-off {
		return wanted{}, errno.New("pvfs."+op, syscall.EFBIG)
	}
	return wanted{one: e, bufs: bufs}, nil
}

// noncontiguous is what ReadExtents and WriteExtents want.
func noncontiguous(op string, exts []extent.Extent, bufs [][]byte, overlap bool) (wanted, error) {
	total, end, sorted := int64(0), int64(0), true
	for i, e := range exts {
		if e.Off < 0 || e.Len < 0 || e.Len > math.MaxInt64-e.Off || e.Len > math.MaxInt64-total {
			return wanted{}, errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("extent %d, %d bytes at %d", i, e.Len, e.Off))
		}
		if e.Empty() {
			continue
		}
		sorted = sorted && e.Off >= end
		total, end = total+e.Len, e.End()
	}
	if n := sum(bufs); n != total {
		return wanted{}, errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("%d bytes of memory for %d bytes of extents", n, total))
	}
	w := wanted{bufs: bufs}
	if sorted {
		w.exts = make([]extent.Extent, 0, len(exts))
		for _, e := range exts {
			w.add(e)
		}
	} else if w = arrange(exts, bufs); len(w.again) > 0 && !overlap {
		return wanted{}, errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("extents overlap at %d", w.again[0].off))
	}
	if len(w.exts) == 1 {
		w.one = w.exts[0]
	}
	if len(w.exts) < 2 {
		w.exts = nil
	}
	return w, nil
}

// add appends e, which lies behind all that is there.
func (w *wanted) add(e extent.Extent) {
	if n := len(w.exts); n > 0 && w.exts[n-1].End() == e.Off {
		w.exts[n-1].Len += e.Len
	} else if !e.Empty() {
		w.exts = append(w.exts, e)
	}
}

// arrange brings exts and their memory into order.
func arrange(exts []extent.Extent, bufs [][]byte) wanted {
	src, parts := source{bufs: bufs}, make([]piece, 0, len(exts))
	for _, e := range exts {
		for off := e.Off; off < e.End(); {
			b := src.next(e.End() - off)
			parts = append(parts, piece{b, off})
			off += int64(len(b))
		}
	}
	slices.SortStableFunc(parts, func(a, b piece) int { return cmp.Compare(a.off, b.off) })
	w := wanted{asked: exts}
	end := int64(0)
	for _, p := range parts {
		if twice := min(end-p.off, int64(len(p.mem))); twice > 0 {
			w.again = append(w.again, piece{p.mem[:twice], p.off})
			p.mem, p.off = p.mem[twice:], p.off+twice
		}
		if len(p.mem) > 0 {
			w.bufs = append(w.bufs, p.mem)
			w.add(extent.Extent{Off: p.off, Len: int64(len(p.mem))})
			end = p.off + int64(len(p.mem))
		}
	}
	return w
}

// repeat fills the memory of bytes that were asked for more than once.
func (w *wanted) repeat() {
	if len(w.again) == 0 {
		return
	}
	exts := w.exts
	if exts == nil {
		exts = []extent.Extent{w.one}
	}
	have := make([]piece, 0, len(w.bufs))
	src := source{bufs: w.bufs}
	for _, e := range exts {
		for off := e.Off; off < e.End(); {
			b := src.next(e.End() - off)
			have = append(have, piece{b, off})
			off += int64(len(b))
		}
	}
	for _, p := range w.again {
		i := sort.Search(len(have), func(i int) bool { return have[i].off > p.off }) - 1
		for ; len(p.mem) > 0; i++ {
			n := copy(p.mem, have[i].mem[p.off-have[i].off:])
			p.mem, p.off = p.mem[n:], p.off+int64(n)
		}
	}
}

// sum is the number of bytes in bufs.
func sum(bufs [][]byte) int64 {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}
