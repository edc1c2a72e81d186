package holder

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

const (
	// smallWrite is what may be kept back under LEASE_PIECES at a time. What is
	// longer is a good request as it is.
	smallWrite = 64 << 10
	// refusals is how many WRITEs of a domain ask for no pieces after one that was
	// refused them.
	refusals = 8
	// crowdedFor is how long no whole domains are asked for after another node has
	// taken one back.
	crowdedFor = 2 * time.Second
)

// writers is how all handles of this node write a file together in strong mode,
// where others write, too: what each will write next is wished for under
// LEASE_PIECES, so that ranks that interleave with those of other nodes keep their
// writes back nevertheless.
type writers struct {
	mu      sync.Mutex         // innermost
	pattern collective.Pattern // guarded by mu
}

// ahead is what will be written of e, as far as that can be foreseen.
func (w *writers) ahead(e extent.Extent) []extent.Extent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pattern.Ahead(e)
}

func (w *writers) forget(who uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pattern.Forget(who)
}

// wrote takes note of a write of e, before it begins.
func (h *Handle) wrote(e extent.Extent) {
	f := h.file
	if h.mode != strong || f.h.opt.NoCollective || e.Len > smallWrite {
		return
	}
	w := &f.writers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pattern.Add(h.number, e)
}

// crowded takes note that another node has taken a lease on a domain back, to write
// or to read there.
func (f *File) crowded() { f.crowd.Store(time.Now().Add(crowdedFor).UnixNano()) }

// wishing is what a WRITE that asks for the leases of flags wishes for, and which
// of them it had better ask for: not for a whole domain that will have to be given
// back at once.
func (d *domain) wishing(ctx context.Context, flags uint32, kept bool) (context.Context, uint32) {
	if flags&ionclient.LeasePieces == 0 {
		return ctx, flags
	}
	d.mu.Lock()
	skip := kept || d.f.h.opt.NoCollective || d.refused > 0
	d.refused = max(0, d.refused-1)
	d.mu.Unlock()
	if skip {
		return ctx, flags &^ ionclient.LeasePieces
	}
	next := d.f.writers.ahead(d.ext)
	if len(next) > 0 && time.Now().UnixNano() < d.f.crowd.Load() {
		flags &^= ionclient.LeaseWrite | ionclient.LeaseData
	}
	return ionclient.Wishing(ctx, next), flags
}

// grantPiecesLocked takes note of LEASE_PIECES, or of what was given or refused
// instead to who has asked for leases. mu is held for writing.
func (d *domain) grantPiecesLocked(g ionclient.Grant) {
	if d.tenure != g.Tenure || !d.tenure.Valid() {
		d.leases, d.pieces = 0, nil
		d.dropLocked()
	}
	d.tenure = g.Tenure
	d.pieces = extent.Normalize(append(d.pieces, g.Pieces...))
}

// answered takes note of what a WRITE that asked for the leases asked was given.
func (d *domain) answered(asked, given uint32) {
	if asked&ionclient.LeasePieces == 0 || given&(ionclient.LeaseWrite|ionclient.LeasePieces) != 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = refusals
}

// mineLocked reports whether e is under LEASE_PIECES for sure. mu is held.
func (d *domain) mineLocked(e extent.Extent) bool {
	i, _ := slices.BinarySearchFunc(d.pieces, e.Off, func(p extent.Extent, off int64) int {
		if p.End() <= off {
			return -1
		}
		return 1
	})
	return i < len(d.pieces) && d.pieces[i].Contains(e) && d.tenure.Valid()
}

// keepPiece is keep for bytes under LEASE_PIECES. Those are sent alone: other ones
// may have to wait until another node has sent what it keeps back there, and that
// one for these. So nothing is kept back in a chunk with other bytes that are on
// their way or about to be; it waits for these, which takes no longer than to be sent
// behind them would.
func (f *File) keepPiece(ctx context.Context, chunk extent.Extent, off int64, p []byte, how manner) bool {
	how.pieces = true
	for range maxPatience {
		kept, behind := f.tryPiece(chunk, off, p, how)
		if kept || behind == nil {
			return kept
		}
		_ = await(ctx, behind) // whoever has written that is told
	}
	return false
}

// tryPiece is keepPiece, unless other bytes are in the way, which behind carries.
func (f *File) tryPiece(chunk extent.Extent, off int64, p []byte, how manner) (kept bool, behind *batch) {
	d, e := f.domain(off), extent.Extent{Off: off, Len: int64(len(p))}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e.Len > smallWrite || !d.mineLocked(e) {
		return false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.chunkLocked(chunk)
	defer f.tidyLocked(c)
	switch {
	case c.next != nil && !c.how.pieces:
		if !c.next.wanted {
			return false, nil
		}
		return false, c.next
	case c.flying != nil && !c.sends.pieces:
		return false, c.flying
	case c.others > 0 || !f.data.TryWrite(off, [][]byte{p}):
		return false, nil
	}
	f.dirtiedLocked(c, e.Len, how, false)
	return true, nil
}

// beginOthers returns when nothing under LEASE_PIECES is in a chunk or being sent,
// and keeps it so until endOthers.
func (f *File) beginOthers(ctx context.Context, chunk extent.Extent) error {
	for {
		f.mu.Lock()
		c := f.chunkLocked(chunk)
		var b *batch
		switch {
		case c.next != nil && c.how.pieces:
			b = f.wantLocked(c)
		case c.flying != nil && c.sends.pieces:
			b = c.flying
		default:
			c.others++
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		if err := await(ctx, b); err != nil && err != errAgain {
			return err
		}
	}
}

// endOthersLocked undoes beginOthers. mu is held.
func (f *File) endOthersLocked(c *chunk) {
	c.others--
	f.tidyLocked(c)
}
