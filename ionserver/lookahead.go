package ionserver

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// soon is a fetch of what readers have not asked for yet. The file is held.
type soon struct {
	f     *ownedFile
	fetch *collective.Ahead
	m     collective.Member
}

// lookahead follows the readers of a file here.
func (o *owner) lookahead(handle uint64) collective.Lookahead {
	p := o.srv.placement
	return collective.Lookahead{
		Domain: p.DomainSize(),
		Owned:  func(off int64) bool { return p.Owner(handle, off) == o.srv.self },
		Price:  o.reading.estimate,
	}
}

// lookAhead fetches what is missing of a read together with what the readers of
// the file will ask for next, if they read together all there is; or has that
// fetched while the read goes on, if nothing of it is missing. It returns why what is
// still missing is asked for as it is. The caller holds the range lock of the read.
func (c *call) lookAhead(f *ownedFile, s spread) (alone collective.Choice) {
	o := c.srv.owner
	f.mu.Lock()
	f.ahead.Note(c.sess.id, collective.JobID(c.Job), s.hull, s.bytes, len(s.exts))
	f.mu.Unlock()
	for {
		known, round, most := f.data.Known(s.exts...), o.flows(f).Least, o.aheadMost(f)
		var fetch, behind *collective.Ahead
		f.mu.Lock()
		if known {
			fetch = f.ahead.Next(s.hull, most)
		} else {
			fetch, behind = f.ahead.Miss(s.hull, min(round, most), most)
			alone = f.ahead.Chosen()
		}
		landed := f.flights[behind]
		if fetch != nil {
			f.flights[fetch] = make(chan struct{})
		}
		f.mu.Unlock()
		switch {
		case behind != nil:
			select {
			case <-landed:
				continue
			case <-c.ctx.Done(): // nobody may carry it out any more
			}
		case fetch == nil:
		case known:
			c.fetchLater(f, fetch)
		default:
			o.fetchAhead(c.ctx, f, fetch, c.member())
		}
		return alone
	}
}

// aheadMost is how many bytes of a file are fetched at a time, as far as memory can
// spare it.
func (o *owner) aheadMost(f *ownedFile) int64 {
	st := o.store.Snapshot()
	return min(o.flows(f).Most, st.BytesFree+st.BytesClean/2)
}

// fetchLater has fetch carried out by somebody else, if not too many wait for
// that.
func (c *call) fetchLater(f *ownedFile, fetch *collective.Ahead) {
	o := c.srv.owner
	x := soon{o.get(f.handle), fetch, c.member()}
	select {
	case o.soon <- x:
	default:
		o.landed(f, fetch)
		o.put(x.f)
	}
}

// fetchSoon carries out what fetchLater has put off, until ctx ends.
func (o *owner) fetchSoon(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(backFiles)
	defer g.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case x := <-o.soon:
			g.Go(func() error {
				defer o.put(x.f)
				o.fetchAhead(ctx, x.f, x.fetch, x.m)
				return nil
			})
		}
	}
}

// fetchAhead carries out fetch. Its range lock is not waited for: where somebody
// writes, nothing is read ahead. What comes in vain is no failure of anybody.
func (o *owner) fetchAhead(ctx context.Context, f *ownedFile, fetch *collective.Ahead, m collective.Member) {
	defer o.landed(f, fetch)
	exts := fetch.Extents
	hold, err := f.ranges.Lock(o.srv.ended, extent.Hull(exts), false)
	if err != nil {
		return
	}
	defer hold.Release()
	if v, err := f.data.Read(ctx, exts, o.fetch(f, m, fetch.Choice)); err == nil {
		v.Release()
	}
}

// landed lets those look who wait for fetch.
func (o *owner) landed(f *ownedFile, fetch *collective.Ahead) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead.Landed(fetch)
	close(f.flights[fetch])
	delete(f.flights, fetch)
}

// ends takes note of where the file ends, if a fetch that brought n bytes of exts
// came to its end.
func (f *ownedFile) ends(exts []extent.Extent, n int64) {
	if n >= extent.Total(exts) {
		return
	}
	at := exts[0].Off
	for _, e := range exts {
		if n <= 0 {
			break
		}
		at = e.Off + min(n, e.Len)
		n -= e.Len
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead.Ends(at)
}
