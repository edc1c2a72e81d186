package pvfsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
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

// pool is the datafiles, or dirdata objects, that this server has made on another
// one in advance. They are in the store: a new file takes its datafiles in the
// transaction that makes it, so none is given out twice. How it is refilled, see
// refill.go.
type pool struct {
	peer   *peer
	typ    wire.ObjType
	batch  int // made at a time
	low    int // how many are left when more are made
	ranges []wire.HandleRange
	wake   chan struct{} // capacity 1: the pool is low

	refillMu sync.Mutex // one refill at a time

	mu   sync.Mutex
	have int // handles in the store; guarded by mu
}

// poolSizes are the batch and the low-water mark for objects of a type.
func poolSizes(d fsconf.Defaults, typ wire.ObjType) (batch, low int) {
	// The numbers are for object types 1, 2, 4 ..., behind one for "none".
	at := bits.Len(uint(typ))
	batch, low = defaultPoolBatch, defaultPoolLow
	if len(d.PrecreateBatchSize) > at && d.PrecreateBatchSize[at] > 0 {
		batch = d.PrecreateBatchSize[at]
	}
	if len(d.PrecreateLowThreshold) > at && d.PrecreateLowThreshold[at] > 0 {
		low = d.PrecreateLowThreshold[at]
	}
	batch = min(batch, wire.MaxBatch)
	return batch, min(low, batch)
}

// newPools makes the pools of one type on the servers of ranges, but this one.
func (s *Server) newPools(typ wire.ObjType, servers []fsconf.HandleRange) map[string]*pool {
	pools := make(map[string]*pool)
	batch, low := poolSizes(s.opt.Config.Defaults, typ)
	for _, r := range servers {
		if r.Alias == s.opt.Alias || !s.fs.IsMeta(s.opt.Alias) {
			continue
		}
		p := &pool{peer: s.peers[r.Alias], typ: typ, batch: batch, low: low, wake: make(chan struct{}, 1)}
		for _, x := range r.Ranges {
			p.ranges = append(p.ranges, wire.HandleRange{First: wire.Handle(x.First), Last: wire.Handle(x.Last)})
		}
		pools[r.Alias] = p
	}
	return pools
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

// The key of a pooled handle is the alias, one of these, and the handle.
const (
	poolDatafiles = 0
	poolDirdata   = 1
)

func (p *pool) prefix() []byte {
	kind := byte(poolDatafiles)
	if p.typ == wire.TypeDirdata {
		kind = poolDirdata
	}
	return append([]byte(p.peer.alias), kind)
}

// countPool is the number of handles that the store has of a pool.
func (t *txn) countPool(p *pool) int {
	prefix := p.prefix()
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

func (e errPoolEmpty) Error() string {
	return fmt.Sprintf("no %v left of server %s", e.pool.typ, e.pool.peer.alias)
}

// peekPool finds n handles of the pool without taking them.
func (t *txn) peekPool(p *pool, n int) ([]wire.Handle, error) {
	prefix := p.prefix()
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
		if err := t.del(bucketPools, append(p.prefix(), handleKey(h)...)); err != nil {
			return err
		}
	}
	t.onCommit(func() { p.add(-len(hs)) })
	return nil
}

// takePools takes one object of each of the servers named, which may repeat, in
// that order.
func (t *txn) takePools(pools map[string]*pool, aliases []string) ([]wire.Handle, error) {
	want := make(map[string]int)
	for _, a := range aliases {
		want[a]++
	}
	have := make(map[string][]wire.Handle)
	for a, n := range want { // find all before anything is written
		p := pools[a]
		if p == nil {
			return nil, errno.Wrap("pvfsd.pool", syscall.EINVAL, fmt.Errorf("no such server %q", a))
		}
		hs, err := t.peekPool(p, n)
		if err != nil {
			return nil, err
		}
		have[a] = hs
	}
	for a, hs := range have {
		if err := t.dropPool(pools[a], hs); err != nil {
			return nil, err
		}
	}
	out := make([]wire.Handle, 0, len(aliases))
	for _, a := range aliases {
		out = append(out, have[a][0])
		have[a] = have[a][1:]
	}
	return out, nil
}

// datafiles makes one datafile on each of the servers named, which may repeat,
// in that order.
func (s *Server) datafiles(t *txn, aliases []string) ([]wire.Handle, error) {
	others := slices.DeleteFunc(slices.Clone(aliases), func(a string) bool { return a == s.opt.Alias })
	rest, err := t.takePools(s.pools, others)
	if err != nil {
		return nil, err
	}
	out := make([]wire.Handle, 0, len(aliases))
	for _, a := range aliases {
		if a != s.opt.Alias {
			out, rest = append(out, rest[0]), rest[1:]
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
			return fmt.Errorf("%v: %w", empty.pool.typ, err)
		}
	}
}

func (s *Server) wakePools() {
	for _, p := range s.allPools() {
		if p.count() <= p.low {
			select {
			case p.wake <- struct{}{}:
			default:
			}
		}
	}
}

// allPools are the pools that are kept filled.
func (s *Server) allPools() []*pool {
	all := slices.Collect(maps.Values(s.pools))
	if s.fs.DistrDirServersMax > 1 {
		all = slices.AppendSeq(all, maps.Values(s.dirPools))
	}
	return all
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
