package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// lockOf translates a lock; EINVAL if it is none.
func lockOf(owner uint64, lk *fuse.FileLock, flags uint32) (ionclient.Lock, syscall.Errno) {
	l := ionclient.Lock{
		Owner: owner,
		Start: lk.Start, End: lk.End,
		Flock: flags&fuse.LK_FLOCK != 0,
		PID:   lk.Pid,
	}
	switch lk.Typ {
	case syscall.F_RDLCK:
		l.Type = ionpb.LockType_READ_LOCK
	case syscall.F_WRLCK:
		l.Type = ionpb.LockType_WRITE_LOCK
	case syscall.F_UNLCK:
		l.Type = ionpb.LockType_UNLOCK
	default:
		return l, syscall.EINVAL
	}
	return l, 0
}

// Getlk says which lock is in the way. The process id of one held on another
// node means nothing here.
func (n *node) Getlk(ctx context.Context, fh fusefs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32, out *fuse.FileLock) syscall.Errno {
	want, e := lockOf(owner, lk, flags)
	if e != 0 {
		return e
	}
	c := n.m.beginOn(ctx, opGetlk, fh)
	defer c.end()
	got, err := n.m.client.GetLock(c, n.handle, want)
	if err != nil {
		return n.failGone(c, opGetlk, err)
	}
	*out = fuse.FileLock{Start: got.Start, End: got.End, Pid: got.PID}
	switch got.Type {
	case ionpb.LockType_READ_LOCK:
		out.Typ = syscall.F_RDLCK
	case ionpb.LockType_WRITE_LOCK:
		out.Typ = syscall.F_WRLCK
	default:
		*out = *lk
		out.Typ = syscall.F_UNLCK
	}
	return 0
}

// Setlk takes a lock or drops one, without waiting. Dropping goes on even if
// the caller dies: nobody else would do it.
func (n *node) Setlk(ctx context.Context, fh fusefs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	l, e := lockOf(owner, lk, flags)
	if e != 0 {
		return e
	}
	unlock := l.Type == ionpb.LockType_UNLOCK
	c := n.m.beginAs(ctx, opSetlk, openedBy(fh), unlock)
	defer c.end()
	if unlock { // whoever locks next must see what was written
		if err := n.m.held.PublishAll(c, n.handle); err != nil {
			n.m.log.Warn("unlocked, but what was written is not published yet", "handle", n.handle, "err", err)
		}
	}
	if err := n.m.client.SetLock(c, n.handle, l, false); err != nil {
		return n.failGone(c, opSetlk, err)
	}
	if !unlock {
		n.m.held.Acquired(n.handle)
	}
	return 0
}

// Setlkw waits for the lock. Unlike other calls it ends at any signal: the
// caller may have set an alarm to be woken. The kernel restarts it if the
// signal's handler asks for that.
func (n *node) Setlkw(ctx context.Context, fh fusefs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	l, e := lockOf(owner, lk, flags)
	if e != 0 {
		return e
	}
	if l.Type == ionpb.LockType_UNLOCK {
		return n.Setlk(ctx, fh, owner, lk, flags)
	}
	c := n.m.beginAs(ctx, opSetlkw, openedBy(fh), true)
	defer c.end()
	c.Done() // it will wait, by ctx
	ctx, wake := context.WithCancel(ctx)
	defer wake()
	c.wokenBy(wake)
	if err := n.m.client.SetLock(collective.WithCaller(ctx, c.process.Caller()), n.handle, l, true); err != nil {
		return n.failGone(c, opSetlkw, err)
	}
	n.m.held.Acquired(n.handle)
	return 0
}
