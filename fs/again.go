package fs

import (
	"context"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// open(2) is two requests, LOOKUP and then OPEN or CREATE, between which others
// can remove the name or make it. ESTALE makes the kernel begin again, but once
// only: that the same happens once more must not be the program's trouble.

const (
	// againTime is how long after an ESTALE a lookup by the same thread counts
	// as part of the kernel's second try, and how long what it finds is kept.
	againTime = time.Second
	// maxAgain bounds how often a name is looked up or made within one request
	// because others are faster.
	maxAgain = 100
)

// secondTries are the threads that were told ESTALE, and the file that is kept
// open for each since it was looked up again. Threads of other pid namespaces have
// no number, and share 0. The zero value is ready.
type secondTries struct {
	mu      sync.Mutex
	threads map[uint32]secondTry // guarded by mu
}

type secondTry struct {
	handle uint64 // open once for the thread; 0: none is
	until  time.Time
}

// begin notes that a thread will try again.
func (s *secondTries) begin(tid uint32, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.threads == nil {
		s.threads = make(map[uint32]secondTry)
	}
	s.threads[tid] = secondTry{s.threads[tid].handle, now.Add(againTime)}
}

// has reports whether a thread is at its second try.
func (s *secondTries) has(tid uint32, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.threads[tid]
	return ok && now.Before(t.until)
}

// keep notes the file that is open for a thread from now on, and returns the one
// that was, or 0.
func (s *secondTries) keep(tid uint32, handle uint64, now time.Time) (before uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.threads[tid].handle
	s.threads[tid] = secondTry{handle, now.Add(againTime)}
	return before
}

// end returns the file that was open for a thread, which has what it wanted, or 0.
func (s *secondTries) end(tid uint32) (before uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.threads[tid].handle
	delete(s.threads, tid)
	return before
}

// expire forgets the threads that did not come back, and returns the files that
// were open for them.
func (s *secondTries) expire(now time.Time) (open []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tid, t := range s.threads {
		if now.Before(t.until) {
			continue
		}
		if t.handle != 0 {
			open = append(open, t.handle)
		}
		delete(s.threads, tid)
	}
	return open
}

// endSecondTries lets go of what is kept open for threads that do not come back,
// until ctx is done.
func (m *mount) endSecondTries(ctx context.Context) error {
	tick := time.NewTicker(againTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, h := range m.again.expire(now) {
				m.letGo(ctx, h)
			}
		}
	}
}

// letGo ends an open of secondTries; 0 is none.
func (m *mount) letGo(ctx context.Context, h uint64) {
	if h != 0 {
		m.known.closeUnwanted(ctx, ionclient.Attr{Handle: h}, nil)
	}
}

// isGone reports whether a call found that its object is gone.
func isGone(err error) bool {
	e := errno.Of(err)
	return e == syscall.ESTALE || e == syscall.ENOENT
}

// lookupAgain is a lookup by a thread that tries again: a file that it finds
// stays.
func (n *node) lookupAgain(c *call, name string) (a ionclient.Attr, err error) {
	for range maxAgain {
		a, err = n.lookup(c, name)
		if err != nil || a.Type != ionpb.ObjType_FILE {
			return a, err
		}
		_, open := n.m.known.Open(c, a.Handle, syscall.O_RDONLY, false)
		if open == nil {
			n.m.letGo(c, n.m.again.keep(c.pid, a.Handle, time.Now()))
		}
		if !isGone(open) {
			return a, nil
		}
	}
	return a, err
}

// openFound opens a file that somebody else made while the caller wanted to, with
// the flags of open(2). gone is true if it has vanished meanwhile. The kernel,
// which believes that the file is new, checks no permission: where that cannot
// be done here, ESTALE makes the kernel look for itself.
func (n *node) openFound(ctx context.Context, c *call, name string, flags uint32, out *fuse.EntryOut) (inode *fusefs.Inode, a ionclient.Attr, gone bool, e syscall.Errno) {
	uid, gid := caller(ctx)
	if uid != 0 {
		flags |= openKillPriv // the kernel does not say; too often does no harm
	}
	a, err := n.lookup(c, name)
	if err == nil {
		may := maybe
		if a.Type == ionpb.ObjType_FILE {
			may = mayOpen(&a, uid, gid, flags)
		}
		switch {
		case may == no && n.m.again.has(c.pid, time.Now()): // else the kernel knows better, if it is not gone again
			return nil, a, false, syscall.EACCES
		case may != yes:
			n.m.again.begin(c.pid, time.Now())
			return nil, a, false, syscall.ESTALE
		}
		a, err = n.m.openFile(c, a.Handle, flags)
	}
	if err != nil {
		return nil, a, isGone(err), n.failGone(c, opCreate, err)
	}
	return n.child(ctx, name, &a, out), a, false, 0
}

// permission is what is known of one without knowing a user's other groups.
type permission int

const (
	no permission = iota // but by a capability
	maybe
	yes
)

// mayOpen tells whether a user may open a file with these attributes.
func mayOpen(a *ionclient.Attr, uid, gid, flags uint32) permission {
	want := uint32(0)
	if flags&syscall.O_ACCMODE != syscall.O_WRONLY {
		want |= 4
	}
	if mayWrite(flags) || flags&syscall.O_TRUNC != 0 {
		want |= 2
	}
	as := func(shift int) bool { return a.Mode>>shift&want == want }
	owner, group, other := as(6), as(3), as(0)
	switch {
	case uid == a.UID && owner, uid != a.UID && group && (other || gid == a.GID):
		return yes
	case uid == 0, uid != a.UID && gid != a.GID && (group || other):
		return maybe
	}
	return no
}
