package ionserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

const (
	peerBackoff     = 50 * time.Millisecond
	peerBackoffMax  = time.Second
	peerDialTimeout = 5 * time.Second
)

// peerLink is the way to one other I/O node: a stream of its own that is
// opened again whenever it breaks.
type peerLink struct {
	srv   *Server
	index int
	addr  string

	mu      sync.Mutex
	conn    *rpc.Conn     // guarded by mu; nil while there is none
	err     error         // guarded by mu; why there is none
	changed chan struct{} // guarded by mu; closed when conn changes
	gone    []uint64      // guarded by mu; destroyed objects that it is not told of yet
	told    bool          // guarded by mu; has told once what it owes this home
}

func newPeerLink(s *Server, index int, addr string) *peerLink {
	return &peerLink{srv: s, index: index, addr: addr, changed: make(chan struct{}),
		err: errno.New("ionserver: peer "+addr+" was not reached yet", syscall.ENOTCONN)}
}

// run keeps the link up until ctx ends.
func (p *peerLink) run(ctx context.Context) error {
	for backoff := peerBackoff; ctx.Err() == nil; backoff = min(2*backoff, peerBackoffMax) {
		conn, err := p.connect(ctx)
		p.srv.grace.asked(p.index)
		if err != nil {
			p.set(nil, err)
			select {
			case <-time.After(backoff):
			case <-ctx.Done():
			}
			continue
		}
		backoff = peerBackoff
		p.set(conn, nil)
		p.srv.log.Debug("peer connected", "peer", p.addr)
		p.attend(ctx, conn)
		p.set(nil, rpc.ErrBroken)
		conn.Close()
	}
	return nil
}

// connect dials, and learns from the peer what this home may have forgotten.
func (p *peerLink) connect(ctx context.Context) (*rpc.Conn, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	var owed ionpb.HandleList
	if _, err = p.callOn(ctx, conn, rpc.Frame{Op: ionpb.Op_OWED}, nil, &owed); err == nil {
		err = p.srv.home.written(ctx, owed.Handles, p.index)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("peer %s: %w", p.addr, err)
	}
	p.mu.Lock()
	p.told = true
	p.mu.Unlock()
	return conn, nil
}

// hasTold reports whether what the peer owes this home is known.
func (p *peerLink) hasTold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// attend tells the peer of destroyed objects now and then, until the stream
// breaks or ctx ends.
func (p *peerLink) attend(ctx context.Context, conn *rpc.Conn) {
	tick := time.NewTicker(p.srv.opt.Persist)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.tellGone(ctx, conn)
		case <-conn.Broken():
			p.srv.log.Warn("peer lost", "peer", p.addr)
			return
		case <-ctx.Done():
			return
		}
	}
}

// maxGone bounds the destroyed objects that wait for a peer to be told of them.
// So many come together only while it is away.
const maxGone = 1 << 16

// forget has the peer told that an object was destroyed.
func (p *peerLink) forget(handle uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.gone) < maxGone {
		p.gone = append(p.gone, handle)
	}
}

// tellGone tells the peer of the objects destroyed since it was last told. If
// the stream breaks, it finds out by itself what is gone.
func (p *peerLink) tellGone(ctx context.Context, conn *rpc.Conn) {
	p.mu.Lock()
	gone := p.gone
	p.gone = nil
	p.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	if _, err := p.callOn(ctx, conn, rpc.Frame{Op: ionpb.Op_FORGET}, &ionpb.HandleList{Handles: gone}, nil); err != nil {
		p.srv.log.Debug("peer not told of destroyed objects", "peer", p.addr, "err", err)
	}
}

// dial connects and makes sure that both sides hold the same view.
func (p *peerLink) dial(ctx context.Context) (*rpc.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, peerDialTimeout)
	defer cancel()
	s := p.srv
	conn, err := rpc.Dial(ctx, p.addr, rpc.Options{Dialer: s.opt.PeerDialer, Pool: s.pool, Logger: s.log})
	if err != nil {
		return nil, err
	}
	f := &rpc.Frame{Op: ionpb.Op_PEER_HELLO, Epoch: s.epoch}
	if f.Body, err = proto.Marshal(&ionpb.PeerHelloReq{Version: protocolVersion, From: s.opt.Self, Boot: s.boot, View: s.viewMsg()}); err == nil {
		var r *rpc.Frame
		if r, err = conn.Call(ctx, f); err == nil {
			err = r.Err()
			r.Data.Release()
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("peer %s: %w", p.addr, err)
	}
	return conn, nil
}

func (p *peerLink) set(conn *rpc.Conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn, p.err = conn, err
	close(p.changed)
	p.changed = make(chan struct{})
}

// state reports whether the link is up, and why not.
func (p *peerLink) state() (up bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn != nil, p.err
}

// get waits until the link is up.
func (p *peerLink) get(ctx context.Context) (*rpc.Conn, error) {
	for {
		p.mu.Lock()
		conn, changed := p.conn, p.changed
		p.mu.Unlock()
		if conn != nil {
			return conn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// call sends a request that may be done twice, and again until it is answered.
func (p *peerLink) call(ctx context.Context, f rpc.Frame, req, resp proto.Message) error {
	for {
		conn, err := p.get(ctx)
		if err != nil {
			return err
		}
		_, err = p.callOn(ctx, conn, f, req, resp)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, rpc.ErrBroken):
			select { // wait for the link to notice, not for the next one
			case <-conn.Broken():
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return fmt.Errorf("peer %s: %w", p.addr, err)
		}
	}
}

// once sends a request once, if the link is up; else, or if it goes down before the
// answer, the error is rpc.ErrBroken.
func (p *peerLink) once(ctx context.Context, f rpc.Frame, req, resp proto.Message) error {
	p.mu.Lock()
	conn := p.conn
	p.mu.Unlock()
	if conn == nil {
		return rpc.ErrBroken
	}
	_, err := p.callOn(ctx, conn, f, req, resp)
	return err
}

// callOn sends a request once, on this stream.
func (p *peerLink) callOn(ctx context.Context, conn *rpc.Conn, f rpc.Frame, req, resp proto.Message) (*rpc.Frame, error) {
	f.Epoch = p.srv.epoch
	if req != nil {
		b, err := proto.Marshal(req)
		if err != nil {
			return nil, errno.Wrap("ionserver: encode request", syscall.EIO, err)
		}
		f.Body = b
	}
	r, err := conn.Call(ctx, &f)
	if err != nil {
		return nil, err
	}
	defer r.Data.Release()
	if err := r.Err(); err != nil {
		return nil, err
	}
	if resp != nil {
		if err := r.Decode(resp); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// token is a fence or a name lock held at a peer. It ends with the stream.
type token struct {
	link *peerLink
	conn *rpc.Conn
	id   uint64
	op   ionpb.Op // that releases it

	reach int64 // of a fence: the end of the bytes there that PVFS2 may not show
}

// take asks for a token, again until it is given.
func (p *peerLink) take(ctx context.Context, f rpc.Frame, req proto.Message) (*token, error) {
	for {
		conn, err := p.get(ctx)
		if err != nil {
			return nil, err
		}
		t := &token{link: p, conn: conn}
		if f.Op == ionpb.Op_NAME_LOCK {
			var r ionpb.NameLockResp
			_, err = p.callOn(ctx, conn, f, req, &r)
			t.id, t.op = r.Token, ionpb.Op_NAME_UNLOCK
		} else {
			var r ionpb.FenceResp
			_, err = p.callOn(ctx, conn, f, req, &r)
			t.id, t.op, t.reach = r.Token, ionpb.Op_UNFENCE, r.End
		}
		switch {
		case err == nil:
			return t, nil
		case errors.Is(err, rpc.ErrBroken):
			select {
			case <-conn.Broken():
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		default:
			return nil, fmt.Errorf("peer %s: %w", p.addr, err)
		}
	}
}

// release gives the token back. If the stream broke, it is gone already.
func (t *token) release() {
	_, _ = t.link.callOn(t.link.srv.work, t.conn, rpc.Frame{Op: t.op}, &ionpb.TokenReq{Token: t.id}, nil)
}

// cut has the owner forget what it has behind off, within the fence.
func (t *token) cut(ctx context.Context, handle uint64, off int64) error {
	_, err := t.link.callOn(ctx, t.conn, rpc.Frame{Op: ionpb.Op_FENCED_CUT, Handle: handle, Off: off}, &ionpb.TokenReq{Token: t.id}, nil)
	return err
}

// fencedArea is what a fence token covers.
type fencedArea struct {
	handle uint64
	ext    extent.Extent
}

// flowOf is the flow in the schedule of a peer's requests.
func (s *Server) flowOf(addr string) uint64 { return uint64(slices.Index(s.opt.Peers, addr)) }

// peerHello admits another I/O node of the same view.
func (st *stream) peerHello(r *rpc.Request) (*rpc.Frame, error) {
	var m ionpb.PeerHelloReq
	if err := r.Decode(&m); err != nil {
		return nil, err
	}
	s := st.srv
	theirs := viewOf(m.View)
	ours := view{s.epoch, s.opt.Peers, s.opt.DomainSize}
	switch {
	case m.Version != protocolVersion:
		return nil, errno.New("ionserver: protocol version", syscall.EPROTONOSUPPORT)
	case m.View.GetFsid() != s.fsid() || theirs.epoch != ours.epoch || !theirs.sameNodes(ours):
		return nil, fmt.Errorf("view %q of %s is not ours, %q: %w", theirs, m.From, ours, errStaleView)
	case m.From == s.opt.Self || !slices.Contains(s.opt.Peers, m.From):
		return nil, errno.New("ionserver: peer is not in the view", syscall.EPERM)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sess != nil || st.from != "" || st.ended {
		return nil, errno.New("ionserver: second hello", syscall.EINVAL)
	}
	st.from = m.From
	return okay(&ionpb.PeerHelloResp{Boot: s.boot, View: s.viewMsg()})
}

func (st *stream) handlePeer(r *rpc.Request) {
	c := &call{Request: r, srv: st.srv, ctx: st.srv.work, stream: st}
	o, ok := st.srv.peerOps[r.Op]
	if !ok {
		r.Fail(errno.New("ionserver: operation "+r.Op.Key(), syscall.EOPNOTSUPP))
		return
	}
	f, err := c.serve(o)
	r.Reply(outcome(f, err))
}

// from is the index of the peer that asks.
func (c *call) from() int { return slices.Index(c.srv.opt.Peers, c.stream.from) }

func (c *call) peerAnnounce() (*rpc.Frame, error) {
	var m ionpb.AnnounceReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	if err := c.srv.home.announce(c, c.Handle, c.from(), m.Session, m.KillPriv); err != nil {
		return nil, err
	}
	return okay(nil)
}

// peerOwed answers OWED.
func (c *call) peerOwed() (*rpc.Frame, error) {
	return okay(&ionpb.HandleList{Handles: c.srv.owner.owed(c.from())})
}

func (c *call) peerCollect() (*rpc.Frame, error) {
	var m ionpb.CollectReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	return okay(c.srv.owner.collect(c.Handle, m.Session, m.Timed))
}

func (c *call) peerWriteBack() (*rpc.Frame, error) {
	var m ionpb.SessionReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	r, err := c.writeBack(c.Handle, m.Session)
	if err != nil {
		return nil, err
	}
	return okay(r)
}

func (c *call) peerFence() (*rpc.Frame, error) {
	var m ionpb.SessionReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	ext, err := c.dataExtent(c.Len)
	if err != nil {
		return nil, err
	}
	release, err := c.srv.owner.fence(c, c.stream.ctx, fencing{c.Handle, ext, c.Flags & fenceFlags, m.Session})
	if err != nil {
		return nil, err
	}
	id, err := c.stream.hold(release, fencedArea{c.Handle, ext})
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.FenceResp{Token: id, End: c.srv.owner.reach(c.Handle)})
}

func (c *call) peerRelease() (*rpc.Frame, error) {
	var m ionpb.TokenReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	release := c.stream.unhold(m.Token)
	if release == nil {
		return nil, errno.New("ionserver: no such token", syscall.ENOENT)
	}
	release()
	return okay(nil)
}

func (c *call) peerFencedWrite() (*rpc.Frame, error) {
	var m ionpb.TokenReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	ext, err := c.dataExtent(int64(c.Data.Len()))
	if err != nil {
		return nil, err
	}
	if err := c.checkFenced(m.Token, ext); err != nil {
		return nil, err
	}
	n, err := c.srv.owner.writeFenced(c, c.ctx, c.Handle, ext.Off, c.Data.Append(nil), c.Flags)
	if err != nil {
		return nil, err
	}
	return &rpc.Frame{Len: n}, nil
}

func (c *call) peerFencedCut() (*rpc.Frame, error) {
	var m ionpb.TokenReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkFenced(m.Token, extent.ToEnd(c.Off)); err != nil {
		return nil, err
	}
	if err := c.srv.owner.cut(c, c.stream.ctx, c.Handle, c.Off); err != nil {
		return nil, err
	}
	return okay(nil)
}

// checkFenced refuses to touch what a fence does not keep others out of.
func (c *call) checkFenced(token uint64, ext extent.Extent) error {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	if area, ok := c.stream.exts[token]; !ok || area.handle != c.Handle || !area.ext.Contains(ext) {
		return errno.New("ionserver: not within the fence", syscall.ESTALE)
	}
	return nil
}

func (c *call) peerOrphan() (*rpc.Frame, error) {
	var m ionpb.SessionReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	open, err := c.orphanHere(c.Handle, m.Session, ionpb.Flag(c.Flags))
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.OrphanResp{Open: open})
}

func (c *call) peerForget() (*rpc.Frame, error) {
	var m ionpb.HandleList
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	for _, handle := range m.Handles {
		if c.srv.placement.Home(handle) == c.from() {
			c.srv.owner.forget(handle)
		}
	}
	return okay(nil)
}

func (c *call) peerNameLock() (*rpc.Frame, error) {
	var m ionpb.NameLockReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	release, err := c.lockEntry(c.stream.ctx, nameKey{c.Handle, string(m.Name)}, m.Exclusive, m.Mount)
	if err != nil {
		return nil, err
	}
	id, err := c.stream.hold(release, fencedArea{})
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.NameLockResp{Token: id})
}

// checkHome refuses a request about an inode whose home is elsewhere.
func (c *call) checkHome() error {
	if c.srv.placement.Home(c.Handle) != c.srv.self {
		return errStaleView
	}
	return nil
}
