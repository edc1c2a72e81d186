package ionserver

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// lockService is the lock table with those who wait.
type lockService struct {
	mu    sync.Mutex
	table *lockTable // guarded by mu
}

func newLockService() *lockService { return &lockService{table: newLockTable()} }

// wake tells the requests that they wait no more.
func wake(rs []*lockReq) {
	for _, r := range rs {
		close(r.done)
	}
}

// set applies r; if it is blocked, await follows. alive says under the lock's
// mutex whether the session still lives, so that nothing is taken for one that
// has been dropped.
func (l *lockService) set(r *lockReq, alive func() bool) (blocked bool, err error) {
	r.done = make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if !alive() {
		return false, errStaleSession
	}
	blocked, granted, err := l.table.Set(r)
	wake(granted)
	return blocked, err
}

// await waits for a blocked request; ctx ends the wait, and it is EINTR.
func (l *lockService) await(ctx context.Context, r *lockReq) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		l.cancel(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.cancelled {
		return errno.New("ionserver.lock", syscall.EINTR)
	}
	return nil
}

// cancel ends the wait of r, unless it was granted already.
func (l *lockService) cancel(r *lockReq) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found, granted := l.table.Cancel(r); found {
		r.cancelled = true
		close(r.done)
		wake(granted)
	}
}

// cancelID ends the wait of a request of a session, if it waits.
func (l *lockService) cancelID(session, id uint64) (found bool) {
	l.mu.Lock()
	r := l.table.Find(session, id)
	l.mu.Unlock()
	if r == nil {
		return false
	}
	l.cancel(r)
	return true
}

func (l *lockService) drop(dropped, granted []*lockReq) {
	for _, r := range dropped {
		r.cancelled = true
		close(r.done)
	}
	wake(granted)
}

func (l *lockService) dropSession(session uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(l.table.DropSession(session))
}

func (l *lockService) test(r *lockReq) (lockOwner, lockSpan, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.Test(r)
}

// count is the number of byte ranges held, by session.
func (l *lockService) count() (all int, bySession map[uint64]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bySession = make(map[uint64]int, len(l.table.spans))
	for s, n := range l.table.spans {
		bySession[s] = n
		all += n
	}
	return all, bySession
}

// lockRequest reads the body of LOCK and GETLOCK.
func (c *call) lockRequest() (*lockReq, bool, error) {
	var m ionpb.LockReq
	if err := c.Decode(&m); err != nil {
		return nil, false, err
	}
	if err := c.checkHome(); err != nil {
		return nil, false, err
	}
	if m.Type < ionpb.LockType_UNLOCK || m.Type > ionpb.LockType_WRITE_LOCK || m.Start > m.End || m.End > maxLockEnd {
		return nil, false, errno.New("ionserver.lock", syscall.EINVAL)
	}
	r := &lockReq{
		handle: c.Handle, owner: lockOwner{c.sess.id, m.Owner, m.Flock},
		start: m.Start, end: m.End, mode: lockMode(m.Type), pid: m.Pid, wait: m.Wait, id: c.ID,
	}
	if m.Flock {
		r.start, r.end = 0, maxLockEnd
	}
	return r, m.Reclaim, nil
}

// setLock answers LOCK. A wait ends with the stream: the mount sends the
// request again on its next one.
func (c *call) setLock() (*rpc.Frame, error) {
	r, reclaim, err := c.lockRequest()
	if err != nil {
		return nil, err
	}
	alive := func() bool { return !c.sess.isDead() }
	ctx := c.stream.ctx
	if !reclaim && r.mode != lockNone && c.srv.inGrace(time.Now()) {
		// A request that does not want to wait does so here: EAGAIN would say
		// that somebody has the lock, which nobody knows yet.
		if err := c.idle(func() error { return c.srv.awaitGrace(ctx) }); err != nil {
			return nil, err
		}
	}
	blocked, err := c.srv.locks.set(r, alive)
	if blocked {
		err = c.idle(func() error { return c.srv.locks.await(ctx, r) })
	}
	if err != nil {
		return nil, err
	}
	return okay(nil)
}

// idle is wait for what may take for ever: it does not hold up the end of the
// server either.
func (c *call) idle(fn func() error) error {
	return c.wait(func() error {
		c.srv.end()
		err := fn()
		c.srv.beginAgain()
		return err
	})
}

func (c *call) getLock() (*rpc.Frame, error) {
	r, _, err := c.lockRequest()
	if err != nil {
		return nil, err
	}
	if r.mode == lockNone {
		return nil, errno.New("ionserver.getlock", syscall.EINVAL)
	}
	_, s, found := c.srv.locks.test(r)
	if !found {
		return okay(&ionpb.GetLockResp{})
	}
	return okay(&ionpb.GetLockResp{Type: ionpb.LockType(s.mode), Start: s.start, End: s.end, Pid: s.pid})
}

// cancel answers CANCEL.
func (c *call) cancel() (*rpc.Frame, error) {
	var m ionpb.CancelReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	return okay(&ionpb.CancelResp{Found: c.srv.locks.cancelID(c.sess.id, m.Id)})
}
