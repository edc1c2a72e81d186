package ionserver

import (
	"context"
	"time"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// write answers WRITE: with the stamp of the write, and when everybody sees
// the bytes.
func (c *call) write() (reply *rpc.Frame, err error) {
	p, err := c.pieces()
	if err != nil {
		return nil, err
	}
	s, err := c.spread(p, int64(c.Data.Len()))
	if err != nil {
		return nil, err
	}
	if err := c.checkOwner(s.hull); err != nil {
		return nil, err
	}
	wanted, err := c.wanted(p, s)
	if err != nil {
		return nil, err
	}
	data, err := c.payload(s)
	if err != nil {
		return nil, err
	}
	o := c.srv.owner
	f := o.get(c.Handle)
	defer o.put(f)
	f.job.Store(c.Job)
	f.hinted(c.Buffer)
	if s.hull.Empty() {
		return &rpc.Frame{}, nil
	}
	a, err := c.enter(f, s, true)
	if err != nil {
		return nil, err
	}
	if err := c.beginWrite(f, c.Flags&uint32(ionpb.Flag_KILL_PRIV) != 0); err != nil {
		c.leave(f, a, nil, nil)
		return nil, err
	}
	// Who collects must find a write at work, or what it may keep back from now on.
	defer f.endWrite()
	defer func() { c.leave(f, a, wanted, reply) }()
	release, err := o.lockRange(c, c.ctx, f, s.hull, true)
	if err != nil {
		return nil, err
	}
	defer release()
	reply, err = c.put(f, s, data)
	if err == nil && c.srv.inGrace(c.came) { // kept back, and so later than what mounts replay
		f.supersede(s.exts)
	}
	c.guard(f, s, true, reply)
	return reply, err
}

// put writes data to s. The caller holds the range lock.
func (c *call) put(f *ownedFile, s spread, data [][]byte) (*rpc.Frame, error) {
	o := c.srv.owner
	if _, err := o.file(c.ctx, f); err != nil { // it is a file, and there
		return nil, err
	}
	if c.Flags&uint32(ionpb.Flag_SYNC) != 0 || o.space.low() || c.srv.opt.NoCollective {
		return c.putThrough(f, s, data)
	}
	for _, e := range s.exts {
		if err := c.keep(f, e.Off, takePieces(&data, e.Len)); err != nil {
			return nil, err
		}
	}
	stamp := f.wrote(time.Now(), c.sess.id, true)
	f.writes.add(c.member(), s, time.Now())
	o.consider(f, s.bytes)
	return &rpc.Frame{Off: stamp, Len: s.bytes}, nil
}

// keep writes pieces to off in the owner's memory, when there is room.
func (c *call) keep(f *ownedFile, off int64, pieces [][]byte) error {
	if f.data.TryWrite(off, pieces) {
		return nil
	}
	c.srv.owner.makeRoom()
	return c.wait(func() error { return f.data.Write(c.ctx, off, pieces) })
}

// putThrough is put for what has to be at the PVFS2 servers.
func (c *call) putThrough(f *ownedFile, s spread, data [][]byte) (*rpc.Frame, error) {
	n, err := c.srv.owner.writeThrough(c, c.ctx, f, s, data, c.Flags)
	stamp := f.wrote(time.Now(), c.sess.id, false)
	if err != nil {
		return nil, err
	}
	for _, e := range s.exts {
		f.data.Insert(e.Off, takePieces(&data, e.Len))
	}
	return &rpc.Frame{Off: stamp, Len: n, Flags: uint32(ionpb.Flag_STABLE_WRITE)}, nil
}

// writeThrough writes data to the PVFS2 servers, behind what was written to s
// before, and returns how much. With SYNC it is durable then. The caller has
// locked the hull of s, or fenced it.
func (o *owner) writeThrough(w waiter, ctx context.Context, f *ownedFile, s spread, data [][]byte, flags uint32) (int64, error) {
	if err := o.stabilise(w, ctx, f); err != nil {
		return 0, err
	}
	if err := o.writeBack(w, ctx, f, s.hull); err != nil {
		return 0, err
	}
	file, err := o.file(ctx, f)
	if err != nil {
		return 0, err
	}
	n, err := file.WriteExtents(ctx, s.exts, data)
	o.reached(f)
	f.data.Grown()
	for _, e := range s.exts {
		f.data.Drop(e)
	}
	if err == nil && flags&uint32(ionpb.Flag_SYNC) != 0 {
		err = file.Flush(ctx)
	}
	if err != nil {
		f.forgetLayout()
		return n, stale(err)
	}
	return n, nil
}

// beginWrite counts a write as at work and announces it if the home does not
// expect one, or not of this mount. endWrite must follow if it succeeds.
func (c *call) beginWrite(f *ownedFile, kill bool) error {
	mount := c.mount()
	f.mu.Lock()
	f.writers++
	if f.announced && f.by != mount {
		mount = 0
	}
	need, seen := !f.announced || f.by != mount || kill && !f.killed, f.collects
	f.mu.Unlock()
	if !need {
		return nil
	}
	err := c.announce(f.handle, kill, mount)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.writers--
		return err
	}
	if f.announced && f.by != mount {
		mount = 0
	}
	f.announced, f.by = true, mount
	if kill && f.collects == seen {
		f.killed = true
	}
	return nil
}

// announce tells the home of the file that this node writes, for a mount or, if
// that is 0, for several.
func (c *call) announce(handle uint64, kill bool, mount uint64) error {
	s := c.srv
	if at := s.placement.Home(handle); at != s.self {
		return c.wait(func() error {
			return s.peers[at].call(c.ctx, rpc.Frame{Op: ionpb.Op_ANNOUNCE, Handle: handle},
				&ionpb.AnnounceReq{KillPriv: kill, From: s.opt.Self, Session: mount}, nil)
		})
	}
	return s.home.announce(c, handle, s.self, mount, kill)
}

func (f *ownedFile) endWrite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writers--
}

// wrote takes note of a write and returns its stamp. If it is unstable, the
// session keeps it until it is written back.
func (f *ownedFile) wrote(now time.Time, session uint64, unstable bool) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp = max(now.UnixNano(), f.stamp+1)
	if unstable {
		f.unstable.add(session, f.stamp)
	}
	return f.stamp
}

// collect tells the home, on behalf of a mount, about the last write. From
// now on the next one is announced again, unless writes are at work or may be
// kept back. With timed the home has nothing more to do with the times of those so far.
func (o *owner) collect(handle, mount uint64, timed bool) *ionpb.CollectResp {
	f := o.peek(handle)
	if f == nil {
		return &ionpb.CollectResp{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.reachLocked() // with everything that has a stamp
	f.collects++
	f.killed = false
	stamp := f.stamp
	if stamp <= f.timed {
		stamp = 0
	}
	if timed {
		f.timed = f.stamp
	}
	byOthers, byAny := f.leases.KeptBack(o.srv.sessions.of(mount))
	f.announced = (f.writers > 0 || byAny) && f.announced
	return &ionpb.CollectResp{
		Wrote: f.stamp != 0, Mtime: f.stamp / int64(time.Second), Stamp: stamp,
		Busy: f.writers > 0 || byOthers, Kept: byAny, End: end,
	}
}

// owed is the files of a home, which may have started again and forgotten them, that
// are written to here, or of which it may not know all that was written. The next
// write to each is announced again.
func (o *owner) owed(home int) (handles []uint64) {
	for _, f := range o.all() {
		if o.srv.placement.Home(f.handle) == home {
			dirty, _, _ := f.data.Dirty()
			f.mu.Lock()
			f.collects++
			f.killed, f.announced = false, false
			_, kept := f.leases.KeptBack(0)
			if f.writers > 0 || f.stamp != f.timed || kept || dirty > 0 {
				handles = append(handles, f.handle)
			}
			f.mu.Unlock()
		}
		o.put(f)
	}
	return handles
}
