package holder

import (
	"cmp"
	"context"
	"time"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// Write writes p at off; flags are ionclient.KillPriv and Sync. It returns when
// the bytes are visible to whom the mode promises, and durable with Sync.
// An error means that p was not, or not as a whole, written.
func (h *Handle) Write(ctx context.Context, off int64, p []byte, flags uint32) error {
	e := extent.Extent{Off: off, Len: int64(len(p))}
	if e.Empty() {
		return nil
	}
	f := h.file
	if err := f.beginPut(ctx, h.mode); err != nil {
		return err
	}
	defer f.endPut()
	defer f.changes.Add(1)
	hold, err := f.order.Lock(ctx, e, true)
	if err != nil {
		return err
	}
	defer hold.Release()
	h.wrote(e)
	var waits []*batch
	urgent := flags&ionclient.Sync != 0 || h.sieves(e) || flags&ionclient.KillPriv != 0 && (h.mode == strong || f.hasSetID())
	chunksOf(e, f.h.client.View().DomainSize, func(chunk, part extent.Extent) {
		if err == nil {
			var b *batch
			b, err = f.put(ctx, h.mode, chunk, part.Off, p[part.Off-off:][:part.Len], flags, urgent)
			if b != nil {
				waits = append(waits, b)
			}
		}
	})
	failed := await(ctx, waits...)
	for failed == errAgain {
		failed = f.publish(ctx, e)
	}
	if len(waits) > 0 {
		f.endDirect(e)
	}
	if failed != nil && ctx.Err() == nil { // they must not be tried again later
		f.data.Discard(e)
	}
	return cmp.Or(err, failed)
}

// put writes p, which lies in one chunk, into the cache. If it is urgent or may
// not be kept back it is sent, and put returns the batch that carries it, else
// nil.
func (f *File) put(ctx context.Context, m mode, chunk extent.Extent, off int64, p []byte, flags uint32, urgent bool) (*batch, error) {
	how := manner{flags: flags | m.asksToWrite(), maxAge: m.maxAge(f.h.opt.Visibility)}
	if m.holds() && f.h.opt.Race != nil {
		how.last = time.Now()
	}
	pieces := [][]byte{p}
	if !m.keepsBack(false) && !urgent {
		how.kept, how.deferred = true, true
		if f.keep(chunk, off, pieces, how) || f.keepPiece(ctx, chunk, off, p, how) {
			return nil, nil
		}
		how.kept, how.deferred = false, false
	}
	if err := f.beginOthers(ctx, chunk); err != nil {
		return nil, err
	}
	now := urgent || !m.keepsBack(false)
	e := extent.Extent{Off: off, Len: int64(len(p))}
	if now {
		f.beginDirect(e)
	}
	if err := f.data.Write(ctx, off, pieces); err != nil {
		if now {
			f.endDirect(e)
		}
		f.mu.Lock()
		f.endOthersLocked(f.chunkLocked(chunk))
		f.mu.Unlock()
		return nil, err
	}
	how.deferred = !now
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.chunkLocked(chunk)
	b := f.dirtiedLocked(c, e.Len, how, now)
	f.endOthersLocked(c)
	return b, nil
}

func (f *File) hasSetID() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.setID
}

// keep keeps a write back if there is a lease for that, and room.
//
// A WRITE of what is kept back goes ahead of who waits for the lease to be
// revoked, but one that is under way already may be waiting behind them. So
// nothing is kept back in a chunk of which such a one is being sent.
func (f *File) keep(chunk extent.Extent, off int64, pieces [][]byte, how manner) bool {
	d := f.domain(off)
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.hasLocked(ionclient.LeaseWrite) {
		return false
	}
	f.mu.Lock()
	c := f.chunkLocked(chunk)
	blocked := c.flying != nil && !c.sends.kept
	if !blocked {
		c.how.kept = true // whatever is sent from now on
	}
	f.mu.Unlock()
	if blocked || !f.data.TryWrite(off, pieces) {
		f.mu.Lock()
		f.tidyLocked(c)
		f.mu.Unlock()
		return false
	}
	f.dirtied(chunk, total(pieces), how, false)
	return true
}

func total(pieces [][]byte) (n int64) {
	for _, p := range pieces {
		n += int64(len(p))
	}
	return n
}

// appending counts appends under way, which others may see and this node does not.
func (f *File) appending(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appends += n
}

// Append writes p at the end of the file, and returns where that is and how much
// of p was written; flags are as for Write. It is visible everywhere at once,
// in every mode.
func (h *Handle) Append(ctx context.Context, p []byte, flags uint32) (off int64, n int, err error) {
	f := h.file
	if err := f.publish(ctx, everything); err != nil {
		return 0, 0, err
	}
	f.appending(1)
	defer f.changes.Add(1)
	off, n, err = f.h.client.Append(ctx, f.handle, p, flags)
	f.appending(-1)
	if n > 0 {
		// What lay there before, and was cut off since, must not show.
		e := extent.Extent{Off: off, Len: int64(n)}
		hold, lockErr := f.order.Lock(f.h.life, e, true)
		if lockErr == nil {
			f.data.Drop(e)
			hold.Release()
		}
	}
	return off, n, err
}
