package ionserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
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
	srv *Server

	mu    sync.Mutex
	files map[uint64]*ownedFile // guarded by mu
}

// ownedFile is what the owner knows of a file that it has domains of.
//
// A write is announced to the home before it takes its range lock, once until
// the home collects; so the home knows whom to ask for modification times, and
// whose writes may be changing the size.
type ownedFile struct {
	handle uint64
	ranges cache.RangeLock

	refs int       // guarded by owner.mu
	gone bool      // guarded by owner.mu; destroyed: not kept beyond the last put
	used time.Time // guarded by owner.mu; when refs became 0

	mu        sync.Mutex
	layout    *pvfs.File // guarded by mu; nil if not known
	learned   uint64     // guarded by mu; pvfs.Client.Generation before layout was asked for
	writers   int        // guarded by mu; writes at work, from before their announcement
	announced bool       // guarded by mu; the home will collect
	killed    bool       // guarded by mu; the home has cleared setuid and setgid since the last collect
	collects  uint64     // guarded by mu; how often the home came
	stamp     int64      // guarded by mu; time of the last write in ns, ever growing; 0: none
	collected int64      // guarded by mu; the stamp that the home has seen
}

func newOwner(s *Server) *owner { return &owner{srv: s, files: make(map[uint64]*ownedFile)} }

// get returns the file, to be put back.
func (o *owner) get(handle uint64) *ownedFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[handle]
	if f == nil {
		f = &ownedFile{handle: handle}
		o.files[handle] = f
	}
	f.refs++
	return f
}

func (o *owner) put(f *ownedFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.refs--; f.refs > 0 {
		return
	}
	if f.used = time.Now(); f.gone {
		delete(o.files, f.handle)
	}
}

// forget drops what is known of a file that was destroyed: its handle may come
// to name another one.
func (o *owner) forget(handle uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[handle]
	switch {
	case f == nil:
	case f.refs > 0:
		f.gone = true
	default:
		delete(o.files, handle)
	}
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

// expire forgets files that nobody uses and whose last write was collected.
func (o *owner) expire(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for h, f := range o.files {
		if f.refs > 0 || now.Sub(f.used) < layoutLife {
			continue
		}
		f.mu.Lock()
		f.layout = nil
		if f.stamp == f.collected {
			delete(o.files, h)
		}
		f.mu.Unlock()
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

// read answers READ.
func (c *call) read() (*rpc.Frame, error) {
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
	release, err := c.lockRange(c.ctx, f, ext, false)
	if err != nil {
		return nil, err
	}
	defer release()
	b := c.srv.pool.New(int(ext.Len))
	n, err := o.readLocked(c.ctx, f, b.Bytes(), ext.Off)
	if err != nil {
		b.Release()
		return nil, err
	}
	b.Truncate(n)
	return &rpc.Frame{Data: rpc.Pooled(b), Len: int64(n)}, nil
}

// readLocked fills p from off; less than all only at the end of the file.
// The caller holds a range lock.
func (o *owner) readLocked(ctx context.Context, f *ownedFile, p []byte, off int64) (int, error) {
	file, err := o.file(ctx, f)
	if err != nil {
		return 0, err
	}
	n, err := file.ReadAt(ctx, [][]byte{p}, off)
	if err != nil {
		f.forgetLayout()
		return 0, stale(err)
	}
	return n, nil
}

// write answers WRITE.
func (c *call) write() (*rpc.Frame, error) {
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
	if err := c.beginWrite(f, c.Flags&uint32(ionpb.Flag_KILL_PRIV) != 0); err != nil {
		return nil, err
	}
	defer f.endWrite()
	release, err := c.lockRange(c.ctx, f, ext, true)
	if err != nil {
		return nil, err
	}
	defer release()
	n, err := o.writeLocked(c.ctx, f, ext.Off, c.Data.Append(nil), c.Flags)
	if n > 0 {
		f.wrote(time.Now())
	}
	if err != nil {
		return nil, err
	}
	return &rpc.Frame{Len: int64(n)}, nil
}

// writeLocked writes the pieces at off. The caller holds the range lock.
func (o *owner) writeLocked(ctx context.Context, f *ownedFile, off int64, pieces [][]byte, flags uint32) (int, error) {
	file, err := o.file(ctx, f)
	if err != nil {
		return 0, err
	}
	n, err := file.WriteAt(ctx, pieces, off)
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
// expect one. endWrite must follow if it succeeds.
func (c *call) beginWrite(f *ownedFile, kill bool) error {
	f.mu.Lock()
	f.writers++
	need, seen := !f.announced || kill && !f.killed, f.collects
	f.mu.Unlock()
	if !need {
		return nil
	}
	err := c.announce(f.handle, kill)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.writers--
		return err
	}
	f.announced = true
	if kill && f.collects == seen {
		f.killed = true
	}
	return nil
}

// announce tells the home of the file that this node writes.
func (c *call) announce(handle uint64, kill bool) error {
	s := c.srv
	if at := s.placement.Home(handle); at != s.self {
		return c.wait(func() error {
			return s.peers[at].call(c.ctx, rpc.Frame{Op: ionpb.Op_ANNOUNCE, Handle: handle},
				&ionpb.AnnounceReq{KillPriv: kill, From: s.opt.Self}, nil)
		})
	}
	return s.home.announce(c, handle, s.self, 0, kill)
}

func (f *ownedFile) endWrite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writers--
}

// wrote takes note of when bytes were last written.
func (f *ownedFile) wrote(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp = max(now.UnixNano(), f.stamp+1)
}

// collection is what the home learns from an owner.
type collection struct {
	stamp int64 // of the last write in ns; 0: none
	busy  bool  // writes are at work and stay announced
}

// collect tells the home about the last write. From now on the next one is
// announced again, unless writes are at work.
func (o *owner) collect(handle uint64) collection {
	o.mu.Lock()
	f := o.files[handle]
	o.mu.Unlock()
	if f == nil {
		return collection{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.collects++
	f.killed = false
	f.collected = f.stamp
	f.announced = f.writers > 0 && f.announced
	return collection{f.stamp, f.writers > 0}
}

// fence keeps writes, and unless shared reads, of ext out until release.
func (o *owner) fence(c *call, ctx context.Context, handle uint64, ext extent.Extent, shared bool) (release func(), err error) {
	f := o.get(handle)
	unlock, err := c.lockRange(ctx, f, ext, !shared)
	if err != nil {
		o.put(f)
		return nil, err
	}
	return sync.OnceFunc(func() { unlock(); o.put(f) }), nil
}

// writeFenced writes within a fence that the caller holds.
func (o *owner) writeFenced(ctx context.Context, handle uint64, off int64, pieces [][]byte, flags uint32) (int, error) {
	f := o.get(handle)
	defer o.put(f)
	return o.writeLocked(ctx, f, off, pieces, flags)
}

// reannounce tells a home, which may have restarted, about writes that it may
// know nothing of.
func (o *owner) reannounce(ctx context.Context, home int) {
	o.mu.Lock()
	var files []*ownedFile
	for _, h := range slices.Sorted(maps.Keys(o.files)) {
		if f := o.files[h]; o.srv.placement.Home(h) == home {
			f.refs++
			files = append(files, f)
		}
	}
	o.mu.Unlock()
	link := o.srv.peers[home]
	for _, f := range files {
		f.mu.Lock()
		f.collects++
		f.killed = false
		owed := f.writers > 0 || f.stamp != f.collected
		f.announced = owed && f.announced
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
