package holder

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/internal/round"
)

// domainReads names what READs may be carried out together: those of a file
// domain, on the same grounds.
type domainReads struct {
	d *domain
	r right
}

// wish is a read's part of a round of READs.
type wish struct {
	exts []extent.Extent // of one chunk
	got  brought
	fate atomic.Int32 // of got; waiting, then one of the others
}

const (
	waiting int32 = iota
	given         // the reader has it
	left          // the reader has not waited for it
)

// newReads makes the rounds of READs where nothing may be kept: who comes while
// one is on its way is answered by the next, which asks once for all that is
// missing to anybody, chunk by chunk. A round is of a whole domain, so that ranks
// that have lost touch with each other come together again.
func (h *Holder) newReads() *round.Group[domainReads, *wish, struct{}] {
	return round.New(round.Options[domainReads, *wish]{
		Bytes:      func(w *wish) int64 { return extent.Total(w.exts) },
		OneAtATime: true,
		Journal:    h.opt.Journal,
		Name:       func(k domainReads) (string, uint64) { return "read", k.d.f.handle },
	}, readAll)
}

type readCall = round.Call[domainReads, *wish, struct{}]

// readAll carries out a round.
func readAll(ctx context.Context, key domainReads, calls []*readCall) {
	byChunk := make(map[int64][]*readCall)
	for _, c := range calls {
		at := c.Q.exts[0].Off / maxChunk
		byChunk[at] = append(byChunk[at], c)
	}
	chunks := slices.Sorted(maps.Keys(byChunk))
	outcomes := make([]collective.Outcome, len(chunks))
	each(len(chunks), func(i int) { outcomes[i] = key.readChunk(ctx, byChunk[chunks[i]]) })
	sum := &calls[0].Outcome
	for _, o := range outcomes {
		sum.Extents += o.Extents
		sum.Runs += o.Runs
		sum.Requests += o.Requests
		sum.Moved += o.Moved
	}
}

// readChunk carries out a round's calls of one chunk.
func (key domainReads) readChunk(ctx context.Context, calls []*readCall) (o collective.Outcome) {
	var exts []extent.Extent
	for _, c := range calls {
		exts = append(exts, c.Q.exts...)
	}
	o.Extents, o.Requests = len(exts), 1
	exts = extent.Normalize(exts)
	o.Runs = len(exts)
	x, at := key.d.fetching(exts, false)
	got, err := key.d.fetch(ctx, x, at, key.r)
	if err != nil {
		for _, c := range calls {
			c.Err = err
		}
		return o
	}
	o.Moved = int64(got.Len())
	for _, c := range calls {
		got.Ref()
		c.Q.got = got
		if !c.Q.fate.CompareAndSwap(waiting, given) {
			got.Release()
		}
	}
	got.Release()
	return o
}

// ask has a READ bring exts, one that begins after the call. It may bring more,
// if it is for others as well, as it is where what comes may not be kept.
func (d *domain) ask(ctx context.Context, exts []extent.Extent, r right) (brought, error) {
	f := d.f
	chunk := chunkAt(exts[0].Off, f.h.client.View().DomainSize)
	if !chunk.Contains(extent.Hull(exts)) || !d.isDenied() || f.h.opt.NoCollective || f.h.opt.Race != nil {
		x, at := d.fetching(exts, false)
		began := time.Now()
		got, err := d.fetch(ctx, x, at, r)
		if err == nil {
			f.note(collective.CallerOf(ctx).Member, got, missing, began)
		}
		return got, err
	}
	w := &wish{exts: exts}
	_, err := f.h.reads.Do(ctx, domainReads{d, r}, collective.CallerOf(ctx).Member, w)
	if err == nil {
		return w.got, nil
	}
	if !w.fate.CompareAndSwap(waiting, left) {
		w.got.Release()
	}
	return brought{}, err
}
