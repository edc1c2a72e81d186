package pvfs

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	smallReply   = wire.MaxRequest - 40 // bytes of data that a SMALL_IO response holds
	smallRequest = wire.MaxRequest - 400
	maxPiece     = 1 << 30 // bytes of one extent in a request

	// maxSmallParts is how many separate ranges of a datafile a SMALL_IO may
	// have. Servers stop without a word when they find the 64th, even if its
	// bytes go on. Source: OrangeFS src/server/small-io.sm.
	maxSmallParts = 63
)

// transfer is one read or write: a call for each server that has some of its
// bytes, or several if the extents do not fit into one request.
type transfer struct {
	f       *File
	p       *placement
	dir     wire.IOType
	account *Account // where it is counted besides; may be nil
	calls   []*call
	first   []*call // by server: the call of a contiguous transfer
	src     source
}

func newTransfer(ctx context.Context, f *File, p *placement, dir wire.IOType) *transfer {
	t, ok := f.c.moves.Get().(*transfer)
	if !ok {
		t = new(transfer)
	}
	t.f, t.p, t.dir, t.account = f, p, dir, accountOf(ctx)
	return t
}

// free gives back t and the calls that are still its own.
func (t *transfer) free() {
	for i, k := range t.calls {
		if k != nil {
			k.free()
		}
		t.calls[i] = nil
	}
	clear(t.first)
	c := t.f.c
	t.calls, t.first, t.src = t.calls[:0], t.first[:0], source{}
	t.f, t.p, t.account = nil, nil, nil
	c.moves.Put(t)
}

// source is a cursor over the caller's memory.
type source struct {
	bufs [][]byte
	off  int
}

// next returns up to n bytes.
func (s *source) next(n int64) []byte {
	for s.off == len(s.bufs[0]) {
		s.bufs, s.off = s.bufs[1:], 0
	}
	b := s.bufs[0][s.off:]
	b = b[:min(int64(len(b)), n)]
	s.off += len(b)
	return b
}

// plan makes the calls.
func (t *transfer) plan(w *wanted) error {
	t.src = source{bufs: w.bufs}
	if w.exts == nil {
		return t.planOne(w.one)
	}
	return t.planMany(w.exts)
}

// planOne is the plan of a contiguous transfer: the servers get one and the
// same description.
func (t *transfer) planOne(e extent.Extent) error {
	for len(t.first) < len(t.p.DFiles) {
		t.first = append(t.first, nil)
	}
	for rest := e; !rest.Empty(); {
		var run dist.Run
		run, rest = dist.Next(t.p.dist, rest)
		k := t.first[run.Server]
		if k == nil {
			k = t.newCall(run.Server)
			t.first[run.Server] = k
		}
		t.addRun(k, run)
	}
	typ := wire.Contiguous(e.Len)
	for _, k := range t.calls {
		if err := t.encode(k, typ, e.Off, e.Len, t.fits(k)); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) newCall(server int) *call {
	k := t.f.c.newCall(t.account, wire.OpIO, kindRead, nil)
	k.dist, k.nr = t.p.dist, server
	t.calls = append(t.calls, k)
	return k
}

// addRun takes the memory of a run from the source.
func (t *transfer) addRun(k *call, run dist.Run) {
	for off, left := run.Off, run.Len; left > 0; {
		b := t.src.next(left)
		k.addPiece(b, off)
		off, left = off+int64(len(b)), left-int64(len(b))
	}
}

// share is what one server has of a noncontiguous transfer.
type share struct {
	exts   []extent.Extent // those that it has bytes of, whole
	starts []int           // of each of them: its first piece
	pieces []piece
}

// planMany is the plan of a noncontiguous transfer. Each server is told of the
// extents that it has bytes of, or of all of them if that takes less: what is
// regular in the file need not be so on one server.
func (t *transfer) planMany(exts []extent.Extent) error {
	shares := make([]share, len(t.p.DFiles))
	exts = shorten(exts)
	for _, e := range exts {
		for rest := e; !rest.Empty(); {
			var run dist.Run
			run, rest = dist.Next(t.p.dist, rest)
			s := &shares[run.Server]
			if n := len(s.exts); n == 0 || s.exts[n-1] != e {
				s.exts = append(s.exts, e)
				s.starts = append(s.starts, len(s.pieces))
			}
			for off, left := run.Off, run.Len; left > 0; {
				b := t.src.next(left)
				s.pieces = append(s.pieces, piece{b, off})
				off, left = off+int64(len(b)), left-int64(len(b))
			}
		}
	}
	all := describe(exts)
	for i := range shares {
		s := &shares[i]
		if len(s.pieces) == 0 {
			continue
		}
		own := all
		if len(s.exts) < len(exts) {
			own = describe(s.exts)
		}
		if len(all) == 1 && (len(own) > 1 || len(own[0].typ.Records) > len(all[0].typ.Records)) {
			own, s.exts, s.starts = all, exts, nil
		}
		if err := t.planShare(i, s, own); err != nil {
			return err
		}
	}
	return nil
}

// shorten cuts extents of more than maxPiece bytes into several.
func shorten(exts []extent.Extent) []extent.Extent {
	if !slices.ContainsFunc(exts, func(e extent.Extent) bool { return e.Len > maxPiece }) {
		return exts
	}
	var out []extent.Extent
	for _, e := range exts {
		for ; e.Len > maxPiece; e.Off, e.Len = e.Off+maxPiece, e.Len-maxPiece {
			out = append(out, extent.Extent{Off: e.Off, Len: maxPiece})
		}
		out = append(out, e)
	}
	return out
}

// planShare makes the calls of one server: SMALL_IO if one is enough, else one
// flow, and several only if one datatype cannot hold the extents.
//
// What counts is messages. SMALL_IO takes two; a read by IO two and one for each
// flow buffer of data, a write three and those. So a second SMALL_IO is never
// cheaper than a flow, while a flow is always dearer than the first. CPU time
// agrees, see BenchmarkExtents: client and server together need as much for 64 or
// 126 extents of 100 bytes in two SMALL_IO as in one flow, 1.2 to 1.5 times as
// much for more of them, and more than twice as much for 32 KB in two.
func (t *transfer) planShare(server int, s *share, told []description) error {
	from := 0
	for _, d := range told {
		to := from + d.exts
		lo, hi := 0, len(s.pieces)
		if s.starts != nil {
			lo = s.starts[from]
			if to < len(s.exts) {
				hi = s.starts[to]
			}
		}
		k := t.newCall(server)
		for _, p := range s.pieces[lo:hi] {
			k.addPiece(p.mem, p.off)
		}
		small := t.fits(k) && k.parts() <= maxSmallParts
		if err := t.encode(k, d.typ, 0, extent.Total(s.exts[from:to]), small); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// fits reports whether k's data fit into a SMALL_IO or its response.
func (t *transfer) fits(k *call) bool {
	if t.dir == wire.IORead {
		return k.total <= smallReply
	}
	return k.total <= smallRequest
}

// encode builds k's request: SMALL_IO if small, unless the header is too long.
func (t *transfer) encode(k *call, typ wire.Datatype, off, aggregate int64, small bool) error {
	f, p := t.f, t.p
	d := p.DFiles[k.nr]
	if small {
		k.op, k.kind, k.resp = wire.OpSmallIO, kindSmallRead, &k.scratch.smResp
		carried := int64(0)
		if t.dir == wire.IOWrite {
			k.kind, carried = kindSmallWrite, k.total
		}
		k.scratch.small = wire.SmallIOReq{Handle: d, FSID: f.c.fsid, Dir: t.dir, ServerNr: uint32(k.nr),
			ServerCt: uint32(len(p.DFiles)), Dist: p.wire, Type: typ, Offset: off, Aggregate: aggregate, Total: carried}
		err := k.encode(&k.scratch.small, f.h, d)
		if !errors.Is(err, syscall.EMSGSIZE) || t.dir == wire.IORead {
			return err
		}
	}
	k.op, k.kind, k.resp = wire.OpIO, kindRead, nil
	if t.dir == wire.IOWrite {
		k.kind = kindWrite
	}
	k.scratch.io = wire.IOReq{Handle: d, FSID: f.c.fsid, Dir: t.dir, ServerNr: uint32(k.nr),
		ServerCt: uint32(len(p.DFiles)), Dist: p.wire, Type: typ, Offset: off, Aggregate: aggregate}
	return k.encode(&k.scratch.io, f.h, d)
}

// run carries out all calls at once. On error the caller's memory is free.
func (t *transfer) run(ctx context.Context) error {
	c := t.f.c
	for _, k := range t.calls {
		s, err := c.owner(t.p.DFiles[k.nr])
		if err != nil {
			return err
		}
		k.srv = s
	}
	for _, k := range t.calls {
		k.srv.start(k)
	}
	var first error
	for i, k := range t.calls {
		reusable, err := k.srv.finish(ctx, k)
		if err == nil {
			err = k.status.Err("pvfs." + k.op.String())
		}
		if first == nil {
			first = err
		}
		if !reusable {
			t.calls[i] = nil
		}
	}
	return first
}

// moved is the number of bytes read or written.
func (t *transfer) moved() int64 {
	n := int64(0)
	for _, k := range t.calls {
		n += k.moved
	}
	return n
}

// endOfFile is where the file ends, or any later point than want if it ends
// there. The sizes that the servers told with the data often prove it.
func (t *transfer) endOfFile(ctx context.Context, want int64) (int64, error) {
	p := t.p
	sizes := make([]int64, len(p.DFiles))
	known := make([]bool, len(p.DFiles))
	for _, k := range t.calls {
		sizes[k.nr], known[k.nr] = max(sizes[k.nr], k.bstream), true
	}
	if eof := p.dist.Size(sizes); eof >= want {
		return eof, nil
	}
	missing := false
	for _, ok := range known {
		missing = missing || !ok
	}
	if missing && !p.Stuffed {
		all, err := t.f.c.datafileSizes(ctx, p.DFiles)
		if err != nil {
			return 0, err
		}
		for i := range sizes {
			if !known[i] {
				sizes[i] = all[i]
			}
		}
	}
	return p.dist.Size(sizes), nil
}

// zeroHoles clears what no server had below the end of the file.
func (t *transfer) zeroHoles(eof int64) {
	for _, k := range t.calls {
		skip := k.moved
		for _, p := range k.pieces {
			n := int64(len(p.mem))
			if skip >= n {
				skip -= n
				continue
			}
			if end := min(n, eof-p.off); end > skip {
				clear(p.mem[skip:end])
			}
			skip = 0
		}
	}
}
