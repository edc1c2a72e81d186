package pvfsd

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// A batch of objects reaches the pool that it is made for whichever server is
// killed meanwhile. The server that asks has a number for its next batch in its
// store before it asks. The one that makes the objects remembers them under that
// number, in the same transaction, and gives the same ones if it is asked again.
// The transaction that puts them into the pool goes on to the next number.

// batchHint is the name of the hint that tells a batch's server and number.
const batchHint = "zoidfs.batch"

// numberKey is where the number of p's next batch is, with a byte behind it once
// it has been asked for.
func (p *pool) numberKey() []byte { return append([]byte("batch/"), p.prefix()...) }

func (t *txn) setNumber(p *pool, n uint64, asked bool) error {
	v := binary.BigEndian.AppendUint64(nil, n)
	if asked {
		v = append(v, 1)
	}
	return t.put(bucketIdentity, p.numberKey(), v)
}

// batchNumber is the number of p's next batch, 0 if there never was one, and
// whether it may have been made already.
func (s *Server) batchNumber(p *pool) (n uint64, asked bool, err error) {
	err = s.store.view(func(t *txn) error {
		if b := t.get(bucketIdentity, p.numberKey()); len(b) >= 8 {
			n, asked = binary.BigEndian.Uint64(b), len(b) > 8
		}
		return nil
	})
	return n, asked, err
}

// nextBatch is the number to ask for. The first one is random: a server that
// begins anew must not be given what it was given before.
func (s *Server) nextBatch(ctx context.Context, p *pool) (uint64, error) {
	n, asked, err := s.batchNumber(p)
	if err != nil || asked {
		return n, err
	}
	if n == 0 {
		n = 1 + rand.Uint64N(1<<62)
	}
	return n, s.store.commit(ctx, func(t *txn) error { return t.setNumber(p, n, true) })
}

// refill adds a batch to the pool if it has fewer than least handles.
func (s *Server) refill(ctx context.Context, p *pool, least int) error {
	p.refillMu.Lock()
	defer p.refillMu.Unlock()
	if p.count() >= least {
		return nil
	}
	number, err := s.nextBatch(ctx, p)
	if err != nil {
		return err
	}
	hdr := wire.RequestHeader{Cap: s.peerCap(wire.MayAll), Hints: []wire.Hint{s.batchHint(number)}}
	req := &wire.BatchCreateReq{FSID: wire.FSID(s.fs.ID), Type: p.typ, Count: uint32(p.batch), Ranges: p.ranges}
	var resp wire.BatchCreateResp
	if err := p.peer.call(ctx, &hdr, req, &resp); err != nil {
		return err
	}
	if len(resp.Handles) == 0 {
		return errno.Wrap("pvfsd.refill", syscall.ENOSPC, fmt.Errorf("server %s made no %v", p.peer.alias, p.typ))
	}
	for _, h := range resp.Handles {
		if owner, ok := s.fs.Owner(uint64(h)); !ok || owner != p.peer.alias {
			return errno.Wrap("pvfsd.refill", syscall.EPROTO, fmt.Errorf("server %s gave handle %d of another", p.peer.alias, h))
		}
	}
	return s.store.commit(ctx, func(t *txn) error { return t.fillPool(p, number, resp.Handles) })
}

// fillPool puts the batch with this number into the pool.
func (t *txn) fillPool(p *pool, number uint64, hs []wire.Handle) error {
	for _, h := range hs {
		if err := t.put(bucketPools, append(p.prefix(), handleKey(h)...), nil); err != nil {
			return err
		}
	}
	t.onCommit(func() { p.add(len(hs)) })
	return t.setNumber(p, number+1, false)
}

func (s *Server) batchHint(number uint64) wire.Hint {
	return wire.Hint{Type: wire.HintUnknown, Name: batchHint, Text: fmt.Sprintf("%s/%d", s.opt.Alias, number)}
}

// batch is one batch of objects as the server that makes it knows it.
type batch struct {
	key    []byte // of the last batch for the same pool; nil if nobody asks again
	number uint64
}

// batchOf is the batch that a request asks for.
func batchOf(hdr *wire.RequestHeader, typ wire.ObjType) batch {
	for i := range hdr.Hints {
		h := &hdr.Hints[i]
		if h.Type != wire.HintUnknown || h.Name != batchHint {
			continue
		}
		alias, n, _ := strings.Cut(h.Text, "/")
		if number, err := strconv.ParseUint(n, 10, 64); err == nil {
			return batch{append([]byte(alias), 0, byte(typ)), number}
		}
	}
	return batch{}
}

// made is those objects of a batch that was made before which still exist, if it
// is the last one for its pool.
func (t *txn) made(b batch) []wire.Handle {
	var hs []wire.Handle
	v := t.get(bucketBatches, b.key)
	if b.key == nil || len(v) < 8 || binary.BigEndian.Uint64(v) != b.number {
		return nil
	}
	for v = v[8:]; len(v) >= 8; v = v[8:] {
		h, _ := handleOf(v)
		if t.get(bucketObjects, handleKey(h)) != nil {
			hs = append(hs, h)
		}
	}
	return hs
}

// remember keeps the objects of a batch until the next one for its pool.
func (t *txn) remember(b batch, hs []wire.Handle) error {
	if b.key == nil {
		return nil
	}
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+8*len(hs)), b.number)
	for _, h := range hs {
		v = append(v, handleKey(h)...)
	}
	return t.put(bucketBatches, b.key, v)
}

// keepFilled refills p whenever it is low, until ctx is done, and at first if
// there is a batch on the way.
func (s *Server) keepFilled(ctx context.Context, p *pool) error {
	_, asked, err := s.batchNumber(p)
	if err != nil {
		return err
	}
	for {
		for asked || p.count() <= p.low {
			least := p.low + 1
			if asked {
				least = math.MaxInt
			}
			err := s.refill(ctx, p, least)
			asked = asked && err != nil
			if err != nil {
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
