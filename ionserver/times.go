package ionserver

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// PVFS2 servers do not touch the modification time when bytes are written: the home
// sets it, to the time of the last write that an owner has told it. An owner tells of
// its own accord, too, and again until the home has said that the servers have it: every
// few seconds, before mounts drop the bytes, and before it ends. So a home that is killed
// learns it from the owner when it is back; and if the owner is killed, the home knows it,
// or mounts replay what they have written.

// tellTimes tells the homes of the files of writes whose times are not known to be
// saved, as far as they can be reached.
func (o *owner) tellTimes(ctx context.Context, files []*ownedFile) {
	at := make(map[int][]*ownedFile)
	for _, f := range files {
		if f.untimed() != 0 {
			home := o.srv.placement.Home(f.handle)
			at[home] = append(at[home], f)
		}
	}
	var g errgroup.Group
	for home, files := range at {
		g.Go(func() error {
			for some := range slices.Chunk(files, maxSaved) {
				if err := o.tellHome(ctx, home, some); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		o.srv.log.Debug("times not told", "err", err)
	}
}

// keepTold is tellTimes of all files, as is done every few seconds.
func (o *owner) keepTold(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	files := o.all()
	o.tellTimes(ctx, files)
	for _, f := range files {
		o.put(f)
	}
}

// tellHome is tellTimes for files of one home.
func (o *owner) tellHome(ctx context.Context, home int, files []*ownedFile) error {
	m := &ionpb.TimesReq{}
	for _, f := range files {
		m.Handles, m.Stamps = append(m.Handles, f.handle), append(m.Stamps, uint64(f.untimed()))
	}
	var r ionpb.HandleList
	if home == o.srv.self {
		r.Handles = o.srv.home.times(ctx, home, m)
	} else if err := o.srv.peers[home].once(ctx, rpc.Frame{Op: ionpb.Op_TIMES}, m, &r); err != nil {
		return err
	}
	for k, f := range files {
		if !slices.Contains(r.Handles, f.handle) {
			f.setTimed(int64(m.Stamps[k]))
		}
	}
	return nil
}

// untimed is the stamp of the last write if its time is not known to be saved; else 0.
func (f *ownedFile) untimed() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stamp <= f.timed {
		return 0
	}
	return f.stamp
}

// setTimed takes note that there is nothing more to do with the times of writes up to stamp.
func (f *ownedFile) setTimed(stamp int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timed = max(f.timed, stamp)
}

// isTimed reports whether mounts need not tell a successor of this node of the time of
// what they have written up to stamp. They are not troubled because the home is away:
// this node knows it.
func (o *owner) isTimed(ctx context.Context, f *ownedFile, stamp int64) bool {
	saved := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.timed >= stamp
	}
	return saved() || o.tellHome(ctx, o.srv.placement.Home(f.handle), []*ownedFile{f}) != nil || saved()
}

// lastTimes is tellTimes before this node ends. A home that has ended before has no
// more to say: this node then saves the times itself, unless the servers have later ones.
func (o *owner) lastTimes(ctx context.Context, files []*ownedFile) {
	o.tellTimes(ctx, files)
	var g errgroup.Group
	g.SetLimit(backFiles)
	for _, f := range files {
		stamp := f.untimed()
		if stamp == 0 || o.srv.placement.Home(f.handle) == o.srv.self || o.srv.servingEpoch() == 0 {
			continue
		}
		g.Go(func() error {
			if err := o.saveTime(ctx, f, stamp/int64(time.Second)); err != nil {
				o.srv.log.Warn("modification time not saved", "handle", f.handle, "err", err)
				return nil
			}
			f.setTimed(stamp)
			return nil
		})
	}
	_ = g.Wait() // which has no errors
}

func (o *owner) saveTime(ctx context.Context, f *ownedFile, mtime int64) error {
	h := pvfs.Handle(f.handle)
	a, err := o.srv.pvfs.GetAttr(ctx, h)
	if err == nil && a.Mtime < mtime {
		err = o.srv.pvfs.SetAttr(ctx, h, pvfs.SetAttr{Mtime: &mtime, CtimeNow: true})
	}
	return err
}

// times takes over and saves what an owner tells of the times of its last writes, and
// returns the files of which that has failed. What the owner has not announced in this
// life, or was collected since, an earlier call has seen to.
func (h *home) times(ctx context.Context, from int, m *ionpb.TimesReq) (unsaved []uint64) {
	var todo []uint64
	stamps := make(map[uint64]int64)
	h.mu.Lock()
	for k, handle := range m.Handles {
		i := h.inodes[handle]
		if i == nil || i.gone {
			continue
		}
		stamps[handle] = int64(m.Stamps[k])
		if _, announced := i.writers[from]; announced {
			h.stampedLocked(handle, i, from, stamps[handle])
		}
		todo = append(todo, handle)
	}
	h.mu.Unlock()
	var mu sync.Mutex
	h.saveTimes(ctx, todo, func(handle uint64) (int64, error) { return h.due(ctx, handle) }, func(handle uint64, err error) {
		if err != nil && errno.Of(err) != syscall.ESTALE {
			mu.Lock()
			defer mu.Unlock()
			unsaved = append(unsaved, handle)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if i := h.inodes[handle]; i != nil && i.stamps[from] <= stamps[handle] {
			delete(i.unaware, from)
			h.dropLocked(handle, i)
		}
	})
	return unsaved
}

// peerTimes answers TIMES.
func (c *call) peerTimes() (*rpc.Frame, error) {
	var m ionpb.TimesReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if len(m.Handles) != len(m.Stamps) {
		return nil, errno.New("ionserver.times", syscall.EINVAL)
	}
	r := &ionpb.HandleList{Handles: m.Handles}
	if c.srv.peers[c.from()].hasTold() {
		err := c.wait(func() error { r.Handles = c.srv.home.times(c.ctx, c.from(), &m); return nil })
		if err != nil {
			return nil, err
		}
	}
	return okay(r)
}
