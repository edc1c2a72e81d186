package ionserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// layoutLife is how long an unused layout is kept. It is far below the time
// after which a PVFS2 server that was not restarted gives a removed object's
// handle to a new one.
const layoutLife = 20 * time.Second

// owner carries out reads and writes of the file domains that this node owns.
type owner struct {
	srv   *Server
	store *cache.Store

	mu    sync.Mutex
	files map[uint64]*ownedFile // guarded by mu

	space space
	news  news
	urge  chan struct{} // capacity 1: writers wait for memory
	full  chan uint64   // files with many unstable bytes
}

// ownedFile is what the owner knows of a file that it has domains of.
//
// A write is announced to the home before it takes its range lock, once until
// the home collects; so the home knows whom to ask for modification times, and
// whose writes may be changing the size. While a mount may keep writes back it
// stays announced. Written bytes are in data, and at the PVFS2 servers when
// they have been written back.
type ownedFile struct {
	handle uint64
	ranges cache.RangeLock
	data   *cache.File
	back   chan struct{} // capacity 1: whoever writes back has its place
	eager  atomic.Bool   // is in owner.full, or just being seen to

	refs int       // guarded by owner.mu
	gone bool      // guarded by owner.mu; destroyed: not kept beyond the last put
	used time.Time // guarded by owner.mu; when refs became 0

	mu        sync.Mutex
	layout    *pvfs.File // guarded by mu; nil if not known
	learned   uint64     // guarded by mu; pvfs.Client.Generation before layout was asked for
	writers   int        // guarded by mu; writes at work, from before their announcement
	announced bool       // guarded by mu; the home will collect
	by        uint64     // guarded by mu; the mount whose writes were announced; 0: several
	killed    bool       // guarded by mu; the home has cleared setuid and setgid since the last collect
	collects  uint64     // guarded by mu; how often the home came
	stamp     int64      // guarded by mu; time of the last write in ns, ever growing; 0: none
	failed    int64      // guarded by mu; what stamp was when the write-back failed that the mounts know of; 0: the last one did not
	collected int64      // guarded by mu; the stamp that the home has seen

	floor    int64                    // guarded by mu; the file ends there or behind, while it is being cut
	leases   leaseTable               // guarded by mu
	revoking map[uint64]chan struct{} // guarded by mu; by session; closed when it has answered
	unstable unstable                 // guarded by mu
	replayed *replayed                // guarded by mu; during the grace
}

func newOwner(s *Server, store *cache.Store) *owner {
	return &owner{
		srv: s, store: store, files: make(map[uint64]*ownedFile),
		news: news{wake: make(chan struct{}, 1)}, urge: make(chan struct{}, 1), full: make(chan uint64, 64),
	}
}

// get returns the file, to be put back.
func (o *owner) get(handle uint64) *ownedFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[handle]
	if f == nil {
		f = &ownedFile{
			handle: handle, data: o.store.File(), back: make(chan struct{}, 1),
			leases: newLeaseTable(o.srv.placement.DomainSize()), revoking: make(map[uint64]chan struct{}),
		}
		o.files[handle] = f
	}
	f.refs++
	return f
}

func (o *owner) put(f *ownedFile) {
	o.mu.Lock()
	if f.refs--; f.refs > 0 {
		o.mu.Unlock()
		return
	}
	f.used = time.Now()
	gone := f.gone
	if gone {
		delete(o.files, f.handle)
	}
	o.mu.Unlock()
	if gone {
		f.data.Close()
	}
}

// all is every known file, to be put back, in the order of handles.
func (o *owner) all() (out []*ownedFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range slices.Sorted(maps.Keys(o.files)) {
		o.files[h].refs++
		out = append(out, o.files[h])
	}
	return out
}

// forget drops what is known of a file that was destroyed: its handle may come
// to name another one.
func (o *owner) forget(handle uint64) {
	o.mu.Lock()
	f := o.files[handle]
	if f == nil {
		o.mu.Unlock()
		return
	}
	f.gone = true
	f.refs++
	o.mu.Unlock()
	f.data.Discard(extent.ToEnd(0))
	o.forgotten(f)
	o.put(f)
}

// destroyed has all owners forget what is known of a file that was destroyed.
func (s *Server) destroyed(handle uint64) {
	s.owner.forget(handle)
	for _, p := range s.peers {
		if p != nil {
			p.forget(handle)
		}
	}
}

// expire forgets files that nobody uses or has leases of, and whose last write
// was collected and is at the PVFS2 servers.
func (o *owner) expire(now time.Time) {
	var closed []*ownedFile
	o.mu.Lock()
	for h, f := range o.files {
		if f.refs > 0 || now.Sub(f.used) < layoutLife {
			continue
		}
		f.mu.Lock()
		f.layout = nil
		if dirty, _, _ := f.data.Dirty(); dirty == 0 && f.stamp == f.collected && f.unstable.none() && f.leases.Idle(now) {
			delete(o.files, h)
			closed = append(closed, f)
		}
		f.mu.Unlock()
	}
	o.mu.Unlock()
	for _, f := range closed {
		f.data.Close()
	}
}

// file returns the means to read and write f. Only regular files have one. It
// finds out by itself when another owner has spread a stuffed file. A layout
// does not outlive a connection to the PVFS2 servers: one that was restarted
// may have given the handles to another file.
func (o *owner) file(ctx context.Context, f *ownedFile) (*pvfs.File, error) {
	now := o.srv.pvfs.Generation()
	f.mu.Lock()
	l, learned := f.layout, f.learned
	f.mu.Unlock()
	if l != nil && learned == now {
		return l, nil
	}
	a, err := o.srv.pvfs.GetAttr(ctx, pvfs.Handle(f.handle))
	if err != nil {
		return nil, stale(err)
	}
	switch a.Type {
	case wire.TypeMetafile:
	case wire.TypeDirectory:
		return nil, errno.New("ionserver.owner", syscall.EISDIR)
	case wire.TypeSymlink:
		return nil, errno.New("ionserver.owner", syscall.EINVAL)
	default:
		return nil, errno.New("ionserver.owner", syscall.ESTALE)
	}
	l = o.srv.pvfs.File(a)
	f.mu.Lock()
	f.layout, f.learned = l, now
	f.mu.Unlock()
	return l, nil
}

// stale turns the absence of an object that was named by its handle into
// ESTALE; the known layout is of no use any more.
func stale(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return errno.Wrap("ionserver", syscall.ESTALE, err)
	}
	return err
}

func (f *ownedFile) forgetLayout() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layout = nil
}

// lockRange takes the range lock of ext, without a worker if it has to wait.
func (c *call) lockRange(ctx context.Context, f *ownedFile, ext extent.Extent, exclusive bool) (release func(), err error) {
	if release, err = f.ranges.Lock(c.srv.ended, ext, exclusive); err == nil {
		return release, nil
	}
	err = c.wait(func() error {
		release, err = f.ranges.Lock(ctx, ext, exclusive)
		return err
	})
	return release, err
}

// checkOwner refuses an extent that this node does not own whole.
func (c *call) checkOwner(ext extent.Extent) error {
	p := c.srv.placement
	size := p.DomainSize()
	switch {
	case p.Owner(c.Handle, ext.Off) != c.srv.self:
		return errStaleView
	case !ext.Empty() && ext.Off/size != (ext.End()-1)/size:
		return errno.New("ionserver: extent crosses a file domain", syscall.EINVAL)
	}
	return nil
}

// enter begins an access of a mount, when no lease of another one is in its
// way. leave must follow if it succeeds.
func (c *call) enter(f *ownedFile, ext extent.Extent, write bool) (access, error) {
	for {
		f.mu.Lock()
		conflicts := f.leases.Conflicts(c.sess.id, ext, write)
		if len(conflicts) == 0 {
			a := f.leases.Begin(c.sess.id, ext, write)
			f.mu.Unlock()
			return a, nil
		}
		f.mu.Unlock()
		if err := c.revoke(c.ctx, f, ext, conflicts); err != nil {
			return access{}, err
		}
	}
}

// leave ends an access and says in reply, if it succeeded, which of the leases
// that were asked for the mount has now.
func (c *call) leave(f *ownedFile, a access, reply *rpc.Frame) {
	want := uint32(0)
	if reply != nil && !c.srv.inGrace(time.Now()) {
		want = c.Flags & (leaseRead | leaseWrite)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.sess.isDead() {
		want = 0
	}
	if given := f.leases.End(a, want, time.Now()); reply != nil {
		reply.Flags |= given
	}
}

// read answers READ: with less than was asked for only at the end of the file.
func (c *call) read() (reply *rpc.Frame, err error) {
	ext, err := c.dataExtent(c.Len)
	if err != nil {
		return nil, err
	}
	if err := c.checkOwner(ext); err != nil {
		return nil, err
	}
	o := c.srv.owner
	f := o.get(c.Handle)
	defer o.put(f)
	if ext.Empty() {
		return &rpc.Frame{}, nil
	}
	a, err := c.enter(f, ext, false)
	if err != nil {
		return nil, err
	}
	defer func() { c.leave(f, a, reply) }()
	for {
		if reply, err = c.readLocked(f, ext); err != errKeptBack {
			return reply, err
		}
		if err := c.awaitLeases(c.ctx, f, extent.ToEnd(ext.End()), false, c.sess.id); err != nil {
			return nil, err
		}
	}
}

// errKeptBack tells that mounts may keep back writes behind what was read, so
// that the end of the file is not known. They have to be asked for them while
// no range is locked.
var errKeptBack = errors.New("ionserver: writes are kept back")

// readLocked reads under the range lock.
func (c *call) readLocked(f *ownedFile, ext extent.Extent) (*rpc.Frame, error) {
	o := c.srv.owner
	release, err := c.lockRange(c.ctx, f, ext, false)
	if err != nil {
		return nil, err
	}
	defer release()
	before := c.srv.quiet(c.Handle)
	reach := f.reach() // what is written back while we read may be missed there
	v, err := f.data.Read(c.ctx, ext, o.fetch(f))
	if err != nil {
		return nil, stale(err)
	}
	n, pieces := int64(v.Len()), v.Slices()
	if n < ext.Len {
		hole, err := c.hole(f, ext, ext.Off+n, reach, before)
		if err != nil {
			v.Release()
			return nil, err
		}
		n, pieces = n+hole, withZeros(pieces[:len(pieces):len(pieces)], hole)
	}
	return &rpc.Frame{Data: rpc.Lent(pieces, v.Release), Len: n}, nil
}

// fetch reads what f.data lacks from the PVFS2 servers.
func (o *owner) fetch(f *ownedFile) cache.Fetch {
	return func(ctx context.Context, exts []extent.Extent, bufs [][]byte) (int64, error) {
		file, err := o.file(ctx, f)
		if err != nil {
			return 0, err
		}
		n, err := file.ReadExtents(ctx, exts, bufs)
		if err != nil {
			f.forgetLayout()
		}
		return n, err
	}
}

// write answers WRITE: with the stamp of the write, and when everybody sees
// the bytes.
func (c *call) write() (reply *rpc.Frame, err error) {
	ext, err := c.dataExtent(int64(c.Data.Len()))
	if err != nil {
		return nil, err
	}
	if err := c.checkOwner(ext); err != nil {
		return nil, err
	}
	o := c.srv.owner
	f := o.get(c.Handle)
	defer o.put(f)
	if ext.Empty() {
		return &rpc.Frame{}, nil
	}
	a, err := c.enter(f, ext, true)
	if err != nil {
		return nil, err
	}
	defer func() { c.leave(f, a, reply) }()
	if err := c.beginWrite(f, c.Flags&uint32(ionpb.Flag_KILL_PRIV) != 0); err != nil {
		return nil, err
	}
	defer f.endWrite()
	release, err := c.lockRange(c.ctx, f, ext, true)
	if err != nil {
		return nil, err
	}
	defer release()
	return c.put(f, ext)
}

// put writes the call's data to ext. The caller holds the range lock.
func (c *call) put(f *ownedFile, ext extent.Extent) (*rpc.Frame, error) {
	o := c.srv.owner
	file, err := o.file(c.ctx, f) // it is a file, and there
	if err != nil {
		return nil, err
	}
	pieces := c.Data.Append(nil)
	if c.Flags&uint32(ionpb.Flag_SYNC) != 0 || o.space.low() {
		return c.putThrough(f, file, ext, pieces)
	}
	if !f.data.TryWrite(ext.Off, pieces) {
		o.makeRoom()
		if err := c.wait(func() error { return f.data.Write(c.ctx, ext.Off, pieces) }); err != nil {
			return nil, err
		}
	}
	stamp := f.wrote(time.Now(), c.sess.id, true)
	o.consider(f)
	return &rpc.Frame{Off: stamp, Len: ext.Len}, nil
}

// putThrough writes to the PVFS2 servers, behind what was written there before.
func (c *call) putThrough(f *ownedFile, file *pvfs.File, ext extent.Extent, pieces [][]byte) (*rpc.Frame, error) {
	o := c.srv.owner
	if err := o.stabilise(c, c.ctx, f); err != nil {
		return nil, err
	}
	if err := o.writeBack(c, c.ctx, f, ext); err != nil {
		return nil, err
	}
	n, err := file.WriteAt(c.ctx, pieces, ext.Off)
	f.data.Drop(ext)
	stamp := f.wrote(time.Now(), c.sess.id, false)
	if err == nil && c.Flags&uint32(ionpb.Flag_SYNC) != 0 {
		err = file.Flush(c.ctx)
	}
	if err != nil {
		f.forgetLayout()
		return nil, stale(err)
	}
	f.data.Insert(ext.Off, pieces)
	return &rpc.Frame{Off: stamp, Len: int64(n), Flags: uint32(ionpb.Flag_STABLE_WRITE)}, nil
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
// kept back.
func (o *owner) collect(handle, mount uint64) *ionpb.CollectResp {
	o.mu.Lock()
	f := o.files[handle]
	o.mu.Unlock()
	if f == nil {
		return &ionpb.CollectResp{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.reachLocked() // with everything that has a stamp
	f.collects++
	f.killed = false
	f.collected = f.stamp
	byOthers, byAny := f.leases.KeptBack(o.srv.sessions.of(mount))
	f.announced = (f.writers > 0 || byAny) && f.announced
	return &ionpb.CollectResp{
		Wrote: f.stamp != 0, Mtime: f.stamp / int64(time.Second), Stamp: f.stamp,
		Busy: f.writers > 0 || byOthers, Kept: byAny, End: end,
	}
}

// fencing is what a fence is to keep out, and for whom.
type fencing struct {
	handle uint64
	ext    extent.Extent
	flags  uint32 // of fenceFlags
	mount  uint64 // whose leases are not in the way; 0: none's
}

const fenceFlags = uint32(ionpb.Flag_SHARED | ionpb.Flag_CUT)

// fence keeps writes, and unless shared reads, of the extent out until release.
// Of other sessions no leases are left in its way. Unless shared, nothing of
// the extent is known here when it returns: what was written is at the PVFS2
// servers, or forgotten if it is to be cut off.
func (o *owner) fence(c *call, ctx context.Context, x fencing) (release func(), err error) {
	shared := x.flags&uint32(ionpb.Flag_SHARED) != 0
	session := o.srv.sessions.of(x.mount)
	f := o.get(x.handle)
	defer func() {
		if err != nil {
			o.put(f)
		}
	}()
	for {
		if err := c.awaitLeases(ctx, f, x.ext, !shared, session); err != nil {
			return nil, err
		}
		unlock, err := c.lockRange(ctx, f, x.ext, !shared)
		if err != nil {
			return nil, err
		}
		if !f.closeTo(x.ext, shared, session) { // somebody was faster
			unlock()
			continue
		}
		if !shared {
			if err := o.clear(c, ctx, f, x); err != nil {
				unlock()
				return nil, err
			}
		}
		return sync.OnceFunc(func() {
			if !shared {
				f.setFloor(0)
			}
			unlock()
			o.put(f)
		}), nil
	}
}

// reach is the end of the bytes here that PVFS2 may not show.
func (f *ownedFile) reach() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reachLocked()
}

func (f *ownedFile) reachLocked() int64 {
	_, end, _ := f.data.Dirty()
	return max(end, f.floor)
}

func (f *ownedFile) setFloor(at int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.floor = at
}

// clear forgets the bytes of a fence, when what must not be lost has been
// written back.
func (o *owner) clear(c *call, ctx context.Context, f *ownedFile, x fencing) error {
	if x.flags&uint32(ionpb.Flag_CUT) == 0 {
		if err := o.writeBack(c, ctx, f, x.ext); err != nil {
			return err
		}
		f.data.Drop(x.ext)
		return nil
	}
	leave, err := f.takeBack(c, ctx) // nothing is on its way any more
	if err != nil {
		return err
	}
	f.setFloor(x.ext.Off) // where PVFS2 will show the end when it has cut the file, and nobody before
	f.data.Discard(x.ext)
	leave()
	// Nobody must replay what was cut off. But a file system that is full must
	// not keep a file from becoming shorter.
	if err := o.stabilise(c, ctx, f); err != nil && !noSpace(err) {
		return err
	}
	return nil
}

// awaitLeases waits until no leases of others are in the way of a fence.
func (c *call) awaitLeases(ctx context.Context, f *ownedFile, ext extent.Extent, write bool, session uint64) error {
	for {
		f.mu.Lock()
		conflicts := f.leases.Conflicts(session, ext, write)
		f.mu.Unlock()
		if len(conflicts) == 0 {
			return nil
		}
		if err := c.revoke(ctx, f, ext, conflicts); err != nil {
			return err
		}
	}
}

// closeTo has no access that is at work end with a lease, if a fence changes
// what it saw. It is false if there are leases in the way again. The caller
// holds the range lock.
func (f *ownedFile) closeTo(ext extent.Extent, shared bool, session uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.leases.Conflicts(session, ext, !shared)) > 0 {
		return false
	}
	if !shared {
		f.leases.Touch(ext)
	}
	return true
}

// writeFenced writes within a fence that the caller holds, through to the
// PVFS2 servers.
func (o *owner) writeFenced(w waiter, ctx context.Context, handle uint64, off int64, pieces [][]byte, flags uint32) (int, error) {
	f := o.get(handle)
	defer o.put(f)
	if err := o.stabilise(w, ctx, f); err != nil {
		return 0, err
	}
	file, err := o.file(ctx, f)
	if err != nil {
		return 0, err
	}
	n, err := file.WriteAt(ctx, pieces, off)
	f.data.Drop(extent.Extent{Off: off, Len: piecesLen(pieces)})
	if err == nil && flags&uint32(ionpb.Flag_SYNC) != 0 {
		err = file.Flush(ctx)
	}
	if err != nil {
		f.forgetLayout()
		return n, stale(err)
	}
	return n, nil
}

// reannounce tells a home, which may have restarted, about writes that it may
// know nothing of.
func (o *owner) reannounce(ctx context.Context, home int) {
	link := o.srv.peers[home]
	for _, f := range o.all() {
		if o.srv.placement.Home(f.handle) != home {
			o.put(f)
			continue
		}
		dirty, _, _ := f.data.Dirty()
		f.mu.Lock()
		f.collects++
		f.killed = false
		_, kept := f.leases.KeptBack(0)
		owed := f.writers > 0 || f.stamp != f.collected || kept || dirty > 0
		f.announced = owed
		f.by = 0
		f.mu.Unlock()
		if owed {
			conn, err := link.get(ctx)
			if err == nil {
				_, err = link.callOn(ctx, conn, rpc.Frame{Op: ionpb.Op_ANNOUNCE, Handle: f.handle},
					&ionpb.AnnounceReq{From: o.srv.opt.Self}, nil)
			}
			if err != nil {
				o.srv.log.Debug("announce again", "handle", f.handle, "err", err)
			}
		}
		o.put(f)
	}
}
