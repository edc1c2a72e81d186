package pvfsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	defaultPoolBatch = 512
	defaultPoolLow   = 128
	poolRetry        = 2 * time.Second // until an unreachable server is tried again
)

// pool is the datafiles that this server has made on another one in advance.
// They are in the store: a new file takes its datafiles in the transaction that
// makes it, so none is given out twice. A crash may leave datafiles on the
// other server that no pool has; they are empty and belong to no file.
type pool struct {
	peer   *peer
	ranges []wire.HandleRange
	wake   chan struct{} // capacity 1: the pool is low

	refillMu sync.Mutex // one refill at a time

	mu   sync.Mutex
	have int // handles in the store; guarded by mu
}

// poolSizes are the batch and the low-water mark for datafiles.
func poolSizes(d fsconf.Defaults) (batch, low int) {
	// The numbers are for object types 1, 2, 4 ...: datafiles are the third,
	// behind "none" and metafiles.
	const datafiles = 2
	batch, low = defaultPoolBatch, defaultPoolLow
	if len(d.PrecreateBatchSize) > datafiles && d.PrecreateBatchSize[datafiles] > 0 {
		batch = d.PrecreateBatchSize[datafiles]
	}
	if len(d.PrecreateLowThreshold) > datafiles && d.PrecreateLowThreshold[datafiles] > 0 {
		low = d.PrecreateLowThreshold[datafiles]
	}
	batch = min(batch, wire.MaxBatch)
	return batch, min(low, batch)
}

func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have
}

func (p *pool) add(n int) {
	p.mu.Lock()
	p.have += n
	p.mu.Unlock()
}

func poolPrefix(alias string) []byte { return append([]byte(alias), 0) }

// countPool is the number of handles that the store has of a server.
func (t *txn) countPool(alias string) int {
	prefix := poolPrefix(alias)
	n := 0
	c := t.cursor(bucketPools)
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	return n
}

// errPoolEmpty asks the caller to refill the pool and try again.
type errPoolEmpty struct {
	pool *pool
	need int
}

func (e errPoolEmpty) Error() string { return "no datafile left of server " + e.pool.peer.alias }

// peekPool finds n handles of the pool without taking them.
func (t *txn) peekPool(p *pool, n int) ([]wire.Handle, error) {
	prefix := poolPrefix(p.peer.alias)
	hs := make([]wire.Handle, 0, n)
	c := t.cursor(bucketPools)
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(hs) < n; k, _ = c.Next() {
		if h, ok := handleOf(k[len(prefix):]); ok {
			hs = append(hs, h)
		}
	}
	if len(hs) < n {
		return nil, errPoolEmpty{p, n}
	}
	return hs, nil
}

// dropPool removes handles that peekPool found.
func (t *txn) dropPool(p *pool, hs []wire.Handle) error {
	for _, h := range hs {
		if err := t.del(bucketPools, append(poolPrefix(p.peer.alias), handleKey(h)...)); err != nil {
			return err
		}
	}
	t.onCommit(func() { p.add(-len(hs)) })
	return nil
}

// datafiles makes one datafile on each of the servers named, which may repeat,
// in that order.
func (s *Server) datafiles(t *txn, aliases []string) ([]wire.Handle, error) {
	want := make(map[string]int)
	for _, a := range aliases {
		want[a]++
	}
	have := make(map[string][]wire.Handle)
	for a, n := range want { // find all before anything is written
		if a == s.opt.Alias {
			continue
		}
		p := s.pools[a]
		if p == nil {
			return nil, errno.Wrap("pvfsd.datafiles", syscall.EINVAL, fmt.Errorf("no data server %q", a))
		}
		hs, err := t.peekPool(p, n)
		if err != nil {
			return nil, err
		}
		have[a] = hs
	}
	for a, hs := range have {
		if err := t.dropPool(s.pools[a], hs); err != nil {
			return nil, err
		}
	}
	out := make([]wire.Handle, 0, len(aliases))
	for _, a := range aliases {
		if a != s.opt.Alias {
			out = append(out, have[a][0])
			have[a] = have[a][1:]
			continue
		}
		h, err := s.newDatafile(t, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func (s *Server) newDatafile(t *txn, within []wire.HandleRange) (wire.Handle, error) {
	h, err := s.store.ids.take(t, wire.TypeDatafile, within)
	if err != nil {
		return 0, err
	}
	return h, t.putObject(h, &object{typ: wire.TypeDatafile})
}

// withPools commits fn, refilling pools that turn out to be empty.
func (s *Server) withPools(ctx context.Context, fn func(t *txn) error) error {
	for {
		err := s.store.commit(ctx, fn)
		var empty errPoolEmpty
		if !errors.As(err, &empty) {
			s.wakePools()
			return err
		}
		if err := s.refill(ctx, empty.pool, empty.need); err != nil {
			return fmt.Errorf("datafiles: %w", err)
		}
	}
}

func (s *Server) wakePools() {
	for _, p := range s.pools {
		if p.count() <= s.poolLow {
			select {
			case p.wake <- struct{}{}:
			default:
			}
		}
	}
}

// refill adds a batch to the pool if it has fewer than least handles.
func (s *Server) refill(ctx context.Context, p *pool, least int) error {
	p.refillMu.Lock()
	defer p.refillMu.Unlock()
	if p.count() >= least {
		return nil
	}
	hdr := wire.RequestHeader{Cap: s.peerCap(wire.MayAll)}
	req := &wire.BatchCreateReq{FSID: wire.FSID(s.fs.ID), Type: wire.TypeDatafile, Count: uint32(s.poolBatch), Ranges: p.ranges}
	var resp wire.BatchCreateResp
	if err := p.peer.call(ctx, &hdr, req, &resp); err != nil {
		return err
	}
	if len(resp.Handles) == 0 {
		return errno.Wrap("pvfsd.refill", syscall.ENOSPC, fmt.Errorf("server %s made no datafiles", p.peer.alias))
	}
	return s.store.commit(ctx, func(t *txn) error {
		for _, h := range resp.Handles {
			if owner, ok := s.fs.Owner(uint64(h)); !ok || owner != p.peer.alias {
				return errno.Wrap("pvfsd.refill", syscall.EPROTO, fmt.Errorf("server %s gave handle %d of another", p.peer.alias, h))
			}
		}
		for _, h := range resp.Handles {
			if err := t.put(bucketPools, append(poolPrefix(p.peer.alias), handleKey(h)...), nil); err != nil {
				return err
			}
		}
		n := len(resp.Handles)
		t.onCommit(func() { p.add(n) })
		return nil
	})
}

// keepFilled refills p whenever it is low, until ctx is done.
func (s *Server) keepFilled(ctx context.Context, p *pool) error {
	for {
		for p.count() <= s.poolLow {
			if err := s.refill(ctx, p, s.poolLow+1); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				s.log.Debug("pool not refilled", "server", p.peer.alias, "err", err)
				if !sleep(ctx, poolRetry) {
					return nil
				}
			}
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// place chooses the data servers for at most n datafiles, by the layout.
func (s *Server) place(layout *wire.Layout, n int) ([]string, error) {
	all := s.dataAliases
	switch layout.Type {
	case wire.LayoutLocal:
		if !s.fs.IsData(s.opt.Alias) {
			return nil, errno.Wrap("pvfsd.place", syscall.EINVAL, errors.New("this server has no data"))
		}
		out := make([]string, n)
		for i := range out {
			out[i] = s.opt.Alias
		}
		return out, nil
	case wire.LayoutList:
		return s.placeList(layout.Servers, n)
	case wire.LayoutNone:
		return append([]string{}, all[:min(n, len(all))]...), nil
	case wire.LayoutRandom:
		out := append([]string{}, all...)
		rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		return out[:min(n, len(out))], nil
	}
	from := rand.IntN(len(all))
	out := make([]string, min(n, len(all)))
	for i := range out {
		out[i] = all[(from+i)%len(all)]
	}
	return out, nil
}

func (s *Server) placeList(addrs []string, n int) ([]string, error) {
	if len(addrs) == 0 {
		return nil, errno.Wrap("pvfsd.place", syscall.EINVAL, errors.New("empty list of servers"))
	}
	out := make([]string, 0, n)
	for _, addr := range addrs[:min(n, len(addrs))] {
		alias, ok := s.byURL[addr]
		if !ok {
			return nil, errno.Wrap("pvfsd.place", syscall.EINVAL, fmt.Errorf("no data server at %q", addr))
		}
		out = append(out, alias)
	}
	return out, nil
}

// placeRest chooses the servers of the datafiles behind the first, local one
// of a file that is unstuffed.
func (s *Server) placeRest(layout *wire.Layout, n int) ([]string, error) {
	all := s.dataAliases
	if layout.Type == wire.LayoutLocal || layout.Type == wire.LayoutList {
		return s.place(layout, n)
	}
	at := 0
	for i, a := range all {
		if a == s.opt.Alias {
			at = i
		}
	}
	rest := make([]string, 0, len(all))
	for i := 1; i < len(all); i++ {
		rest = append(rest, all[(at+i)%len(all)])
	}
	if layout.Type == wire.LayoutRandom {
		rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	return rest[:min(n, len(rest))], nil
}
