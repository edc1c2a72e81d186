package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	peerTimeout  = 30 * time.Second // for one request to another server
	dialTimeout  = 5 * time.Second
	touchTimeout = 5 * time.Second // for a request whose failure does no harm
	peerIdle     = 8               // connections kept to one server
	peerBusy     = 32              // requests to one server at a time
)

// peer is another server of the file system, of which this one is a client.
// A connection carries one request at a time and is kept for the next.
type peer struct {
	alias, addr string
	busy        chan struct{} // capacity peerBusy, a token a request

	mu   sync.Mutex
	idle []net.Conn // guarded by mu, at most peerIdle
}

func newPeer(alias, addr string) *peer {
	return &peer{alias: alias, addr: addr, busy: make(chan struct{}, peerBusy)}
}

// call sends a request and decodes its response into resp, which is nil when
// the response is empty. A request on a kept connection that the other side
// has closed meanwhile is sent once more on a new one.
func (p *peer) call(ctx context.Context, hdr *wire.RequestHeader, req wire.Request, resp wire.Response) error {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	frame, err := wire.AppendRequestFrame(nil, 1, &hdr.Cap, hdr.Hints, req)
	if err != nil {
		return err
	}
	if nc := p.kept(); nc != nil {
		status, stale, err := p.exchange(ctx, nc, frame, req.Op(), resp)
		if !stale {
			return p.outcome(status, err)
		}
	}
	nc, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return p.outcome(0, err)
	}
	status, _, err := p.exchange(ctx, nc, frame, req.Op(), resp)
	return p.outcome(status, err)
}

func (p *peer) outcome(status wire.Status, err error) error {
	switch {
	case err != nil && errno.Of(err) == syscall.EIO:
		return errno.Wrap("pvfsd.peer", syscall.ECONNRESET, fmt.Errorf("server %s: %w", p.alias, err))
	case err != nil:
		return fmt.Errorf("server %s: %w", p.alias, err)
	case status != 0:
		return fmt.Errorf("server %s: %w", p.alias, statusError(status))
	}
	return nil
}

// exchange sends frame and receives the response. stale says that the
// connection was dead before any byte of it came. The connection is kept for
// later unless something went wrong.
func (p *peer) exchange(ctx context.Context, nc net.Conn, frame []byte, op wire.Op, resp wire.Response) (status wire.Status, stale bool, err error) {
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	status, stale, err = roundTrip(nc, frame, op, resp)
	if !stop() && err != nil && ctx.Err() != nil {
		err, stale = ctx.Err(), false
	}
	if err != nil || ctx.Err() != nil {
		nc.Close()
		return status, stale, err
	}
	p.keep(nc)
	return status, false, nil
}

func roundTrip(nc net.Conn, frame []byte, op wire.Op, resp wire.Response) (status wire.Status, stale bool, err error) {
	if _, err := nc.Write(frame); err != nil {
		return 0, true, err
	}
	var hdr [wire.HeaderSize]byte
	if n, err := io.ReadFull(nc, hdr[:]); err != nil {
		return 0, n == 0, err
	}
	h, err := wire.DecodeHeader(hdr[:])
	if err != nil {
		return 0, false, err
	}
	payload := make([]byte, h.Size)
	if _, err := io.ReadFull(nc, payload); err != nil {
		return 0, false, err
	}
	status, err = wire.DecodeResponseInto(payload, op, resp)
	return status, false, err
}

func (p *peer) kept() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	nc := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return nc
}

func (p *peer) keep(nc net.Conn) {
	p.mu.Lock()
	if len(p.idle) < peerIdle {
		p.idle = append(p.idle, nc)
		nc = nil
	}
	p.mu.Unlock()
	if nc != nil {
		nc.Close()
	}
}

func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nc := range p.idle {
		nc.Close()
	}
	p.idle = nil
}

// peerCap is the capability of this server towards the others for h.
func (s *Server) peerCap(ops wire.OpMask, h ...wire.Handle) wire.Capability {
	return wire.Capability{
		Issuer: "S:" + s.opt.Alias, FSID: wire.FSID(s.fs.ID), Timeout: s.now() + capLifetime,
		Ops: ops, Handles: h,
	}
}

// peerOf is the server that owns h; nil if it is this one.
func (s *Server) peerOf(h wire.Handle) (*peer, error) {
	alias, ok := s.fs.Owner(uint64(h))
	if !ok {
		return nil, errno.Wrap("pvfsd.owner", syscall.EINVAL, errors.New("handle of no server"))
	}
	if alias == s.opt.Alias {
		return nil, nil
	}
	return s.peers[alias], nil
}
