package ionserver

import (
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// replayed is the order of what mounts replay of one file after a restart:
// each byte is to have the value with the latest stamp, in whatever order they
// come. It is pure.
//
// Bytes that a mount calls prepared are known to be at the PVFS2 servers, or
// later ones are. They need not be written, unless older bytes that were
// replayed by somebody else, who did not know, have to give way to them.
type replayed struct {
	spans []replaySpan // sorted by Off, none overlap
}

// replaySpan is bytes whose latest known value has this stamp.
type replaySpan struct {
	extent.Extent
	stamp   int64
	written bool // by a replay
}

// Admit returns what of ext is to be written with the value that has this
// stamp, in order.
func (r *replayed) Admit(ext extent.Extent, stamp int64, prepared bool) (write []extent.Extent) {
	var out []replaySpan
	var mine []replaySpan
	at := ext.Off
	take := func(e extent.Extent, write bool) {
		if !e.Empty() {
			mine = append(mine, replaySpan{e, stamp, write})
		}
	}
	for _, s := range r.spans {
		both := s.Intersect(ext)
		if both.Empty() {
			out = append(out, s)
			continue
		}
		take(extent.Extent{Off: at, Len: both.Off - at}, !prepared)
		at = both.End()
		if s.stamp >= stamp {
			out = append(out, s)
			continue
		}
		out = append(out, s.cut(s.Off, both.Off)...)
		out = append(out, s.cut(both.End(), s.End())...)
		take(both, !prepared || s.written)
	}
	take(extent.Extent{Off: at, Len: ext.End() - at}, !prepared)
	for _, s := range mine {
		if s.written {
			write = append(write, s.Extent)
		}
	}
	r.spans = append(out, mine...)
	slices.SortFunc(r.spans, func(a, b replaySpan) int { return int(min(max(a.Off-b.Off, -1), 1)) })
	return extent.Normalize(write)
}

// cut is the part of s from off to end, if there is one.
func (s replaySpan) cut(off, end int64) []replaySpan {
	if off >= end {
		return nil
	}
	return []replaySpan{{extent.Extent{Off: off, Len: end - off}, s.stamp, s.written}}
}

// replay answers REPLAY.
func (c *call) replay() (*rpc.Frame, error) {
	var m ionpb.ReplayReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	s, err := c.spread(m.Pieces, int64(c.Data.Len()))
	if err != nil {
		return nil, err
	}
	if err := c.checkOwner(s.hull); err != nil {
		return nil, err
	}
	data, err := c.payload(s)
	if err != nil {
		return nil, err
	}
	if m.Stamp <= 0 {
		return nil, errno.New("ionserver.replay", syscall.EINVAL)
	}
	if !c.srv.inGrace(time.Now()) {
		return nil, errno.New("ionserver.replay: too late", syscall.ESTALE)
	}
	o := c.srv.owner
	f := o.get(c.Handle)
	defer o.put(f)
	if err := c.beginWrite(f, false); err != nil {
		return nil, err
	}
	defer f.endWrite()
	release, err := o.lockRange(c, c.ctx, f, s.hull, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := o.file(c.ctx, f); err != nil {
		return nil, err
	}
	for _, e := range s.exts {
		if err := c.replayPart(f, e, takePieces(&data, e.Len), &m); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp = max(f.stamp, m.Stamp) // not before the bytes are there: a write-back tells that up to it they are stable
	f.unstable.add(c.sess.id, m.Stamp)
	return okay(nil)
}

// supersede has whatever is replayed of exts from now on give way to what is there.
func (f *ownedFile) supersede(exts []extent.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.replayed == nil {
		f.replayed = new(replayed)
	}
	for _, e := range exts {
		f.replayed.Admit(e, math.MaxInt64, false)
	}
}

// replayPart writes what of ext has no later value than pieces, which m is about.
func (c *call) replayPart(f *ownedFile, ext extent.Extent, pieces [][]byte, m *ionpb.ReplayReq) error {
	f.mu.Lock()
	if f.replayed == nil {
		f.replayed = new(replayed)
	}
	write := f.replayed.Admit(ext, m.Stamp, m.Prepared)
	f.mu.Unlock()
	for at := ext.Off; len(write) > 0; write = write[1:] {
		e := write[0]
		takePieces(&pieces, e.Off-at)
		if err := c.keep(f, e.Off, takePieces(&pieces, e.Len)); err != nil {
			return err
		}
		at = e.End()
	}
	return nil
}
