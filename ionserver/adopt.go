package ionserver

import (
	"encoding/json"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// What I/O nodes know of an inode that was made just now, they need not ask for.
// Whoever made it holds its name, so nobody else has found it yet.

var errNotOpened = errno.New("ionserver: new file not opened", syscall.EAGAIN)

// madeWith remembers what was chosen for what was made if this is its home.
func (c *call) madeWith(h pvfs.Handle, chosen choice) {
	if c.srv.placement.Home(uint64(h)) == c.srv.self {
		_, _, changes := c.srv.home.chosen.get(uint64(h), time.Now())
		c.srv.home.chosen.learn(uint64(h), chosen, changes, time.Now())
	}
}

// made is the reply for an inode that was made so, and is not open; dir is as
// means has it.
func (c *call) made(a pvfs.Attr, chosen choice, dir *ionpb.Attr) (*rpc.Frame, error) {
	h, handle := c.srv.home, uint64(a.Handle)
	if c.srv.placement.Home(handle) != c.srv.self {
		m := h.attrMsg(a)
		m.Consistency = chosen.mode
		return okay(&ionpb.EntryResp{Handle: m.Handle, Type: m.Type, Attr: m, Created: true, Dir: dir})
	}
	l := c.look(handle, attrLease)
	defer l.done()
	m, err := c.sight(a)
	if err == nil {
		err = c.grantAttr(l, m)
	}
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.EntryResp{Handle: m.Handle, Type: m.Type, Attr: m, Created: true, Dir: dir})
}

// openMade counts a file that was made as open, at its home.
func (c *call) openMade(a pvfs.Attr, chosen choice) (*ionpb.EntryResp, error) {
	r := &ionpb.EntryResp{Handle: uint64(a.Handle), Type: objType(a.Type), Created: true, Opened: true}
	at := c.srv.placement.Home(r.Handle)
	if at == c.srv.self {
		var err error
		r.Attr, err = c.adopt(a, chosen)
		return r, err
	}
	inode, err := json.Marshal(a)
	if err != nil {
		return nil, errno.Wrap("ionserver.adopt", syscall.EIO, err)
	}
	f := rpc.Frame{Op: ionpb.Op_ADOPT, Handle: r.Handle, Flags: c.Flags & homeLeases}
	req := &ionpb.AdoptReq{
		Mount: c.mount(), Consistency: chosen.mode, CbNodes: chosen.nodes, CbBufferSize: chosen.buffer, Inode: inode,
	}
	var resp ionpb.AdoptResp
	if err := c.wait(func() error { return c.srv.peers[at].call(c.ctx, f, req, &resp) }); err != nil {
		return nil, err
	}
	if resp.Session == 0 {
		return nil, errNotOpened
	}
	r.Attr, r.Session = resp.Attr, resp.Session
	return r, nil
}

// adopt counts a file of this home that was made as open in the call's session, once
// however often it is asked, and shows its attributes.
func (c *call) adopt(a pvfs.Attr, chosen choice) (*ionpb.Attr, error) {
	h, handle := c.srv.home, uint64(a.Handle)
	l := c.look(handle, attrLease)
	defer l.done()
	modes, err := h.addOpens(c.sess, handle, 1, 1)
	if err != nil {
		return nil, err
	}
	c.madeWith(a.Handle, chosen)
	h.learnModes(handle, modes, a.Mode)
	h.learnSaved(handle, a)
	c.srv.owner.adopt(a)
	m, err := c.sight(a)
	if err == nil {
		m.Consistency, m.CbBufferSize, m.ModeKnown = chosen.mode, chosen.buffer, true
		err = c.grantAttr(l, m)
	}
	if err != nil {
		h.dropOpens(c.sess, handle, 1, false)
	}
	return m, err
}

// learnSaved remembers the modification time that PVFS2 has of a file that is open:
// if it is written within the second there is none to be saved.
func (h *home) learnSaved(handle uint64, a pvfs.Attr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil && a.Ctime >= a.Mtime {
		i.saved = a.Mtime
	}
}

// peerAdopt answers ADOPT.
func (c *call) peerAdopt() (*rpc.Frame, error) {
	var m ionpb.AdoptReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	var a pvfs.Attr
	if err := json.Unmarshal(m.Inode, &a); err != nil || uint64(a.Handle) != c.Handle || a.Layout == nil {
		return nil, errno.Wrap("ionserver.adopt", syscall.EINVAL, err)
	}
	c.sess = c.srv.sessions.get(c.srv.sessions.of(m.Mount))
	if c.sess == nil || c.srv.inGrace(time.Now()) {
		return okay(&ionpb.AdoptResp{})
	}
	c.srv.recordSession(c.srv.work, c.sess)
	attr, err := c.adopt(a, choice{m.Consistency, m.CbNodes, m.CbBufferSize})
	if err != nil {
		return nil, err
	}
	return okay(&ionpb.AdoptResp{Session: c.sess.id, Attr: attr})
}

// adopt takes over how the data of a file that was made lie.
func (o *owner) adopt(a pvfs.Attr) {
	f := o.get(uint64(a.Handle))
	defer o.put(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layout, f.learned = o.srv.pvfs.File(a), o.srv.pvfs.Generation()
}
