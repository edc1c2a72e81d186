package ionserver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs"
)

// maxSaved is how many files are kept from being looked at while the times of them
// all are saved.
const maxSaved = 256

// persistAll collects and saves all modification times, as far as that can be
// done now. Files that have the same time are told to their servers together.
func (h *home) persistAll(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	h.mu.Lock()
	var todo []uint64
	for handle, i := range h.inodes {
		if (i.mtime != 0 || len(i.writers)+len(i.unaware)+len(i.ends) > 0) && !i.gone {
			todo = append(todo, handle)
		}
		h.dropLocked(handle, i)
	}
	h.mu.Unlock()
	slices.Sort(todo)
	for some := range slices.Chunk(todo, maxSaved) {
		h.persistSome(ctx, some)
	}
}

// unsaved is a file whose modification time is to be saved.
type unsaved struct {
	handle  uint64
	release func() // its place in ops
}

// persistSome is persistAll for a few files.
func (h *home) persistSome(ctx context.Context, handles []uint64) {
	h.saveTimes(ctx, handles, func(handle uint64) (int64, error) {
		return h.gather(ctx, background{}, handle, true)
	}, func(handle uint64, err error) { h.notSaved(ctx, handle, err) })
}

// saveTimes saves modification times, which due returns: 0 if there is nothing to be
// saved. It is asked with the file's place in ops held, exclusively. done is told of each file.
func (h *home) saveTimes(ctx context.Context, handles []uint64, due func(handle uint64) (int64, error), done func(handle uint64, err error)) {
	var mu sync.Mutex
	at := make(map[int64][]unsaved) // by modification time
	var busy []uint64
	eachHandle(handles, func(handle uint64) {
		release, ok := h.ops.TryLock(handle, true)
		if !ok {
			mu.Lock()
			defer mu.Unlock()
			busy = append(busy, handle)
			return
		}
		mtime, err := due(handle)
		if err != nil || mtime == 0 {
			release()
			done(handle, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		at[mtime] = append(at[mtime], unsaved{handle, release})
	})
	h.saveDue(ctx, at, done)
	eachHandle(busy, func(handle uint64) { // none is waited for with the places of others
		done(handle, h.saveTime(ctx, background{}, handle, func() (int64, error) { return due(handle) }))
	})
}

// saveDue is saveTimes for files that are known to need it.
func (h *home) saveDue(ctx context.Context, at map[int64][]unsaved, done func(handle uint64, err error)) {
	var g errgroup.Group
	for mtime, files := range at {
		g.Go(func() error {
			hs := make([]pvfs.Handle, len(files))
			for i, f := range files {
				hs[i] = pvfs.Handle(f.handle)
			}
			h.srv.pvfs.SetMtimes(ctx, hs, mtime, func(i int, err error) {
				err = h.saved(files[i].handle, mtime, err)
				files[i].release()
				done(files[i].handle, err)
			})
			return nil
		})
	}
	_ = g.Wait() // which has no errors
}

// notSaved logs err, if there is one that somebody should know of.
func (h *home) notSaved(ctx context.Context, handle uint64, err error) {
	if err != nil && ctx.Err() == nil && errno.Of(err) != syscall.ESTALE {
		h.srv.log.Warn("modification time not saved", "handle", handle, "err", err)
	}
}

// eachHandle calls f with each handle, some at a time.
func eachHandle(handles []uint64, f func(handle uint64)) {
	slices.Sort(handles)
	var g errgroup.Group
	g.SetLimit(8)
	for _, handle := range handles {
		g.Go(func() error { f(handle); return nil })
	}
	_ = g.Wait()
}

// save collects the modification time and saves it.
func (h *home) save(ctx context.Context, w waiter, handle uint64, hurry bool) error {
	return h.saveTime(ctx, w, handle, func() (int64, error) { return h.gather(ctx, w, handle, hurry) })
}

// saveTime is saveTimes of one file, which is waited for.
func (h *home) saveTime(ctx context.Context, w waiter, handle uint64, due func() (int64, error)) error {
	release, err := lockKey(w, ctx, &h.ops, handle, true)
	if err != nil {
		return err
	}
	defer release()
	mtime, err := due()
	if err != nil || mtime == 0 {
		return err
	}
	err = h.srv.pvfs.SetAttr(ctx, pvfs.Handle(handle), pvfs.SetAttr{Mtime: &mtime, CtimeNow: true})
	return h.saved(handle, mtime, err)
}

// gather collects the modification time, and returns it if PVFS2 does not have it; 0
// if it does. The caller holds the inode's place in ops, exclusively.
func (h *home) gather(ctx context.Context, w waiter, handle uint64, hurry bool) (mtime int64, err error) {
	if err := h.collectTimes(ctx, w, handle, question{hurry: hurry}); err != nil {
		return 0, err
	}
	if err := h.settle(ctx, w, handle, hurry); err != nil {
		return 0, err
	}
	return h.due(ctx, handle)
}

// due is the modification time that is to be saved, as far as it is known here; 0 if
// there is none. The caller holds the inode's place in ops, exclusively.
func (h *home) due(ctx context.Context, handle uint64) (int64, error) {
	h.mu.Lock()
	i := h.inodes[handle]
	again := i != nil && i.again && i.mtime != 0
	h.mu.Unlock()
	var a pvfs.Attr
	if again { // an earlier life may have saved it, or what came later
		var err error
		if a, err = h.srv.pvfs.GetAttr(ctx, pvfs.Handle(handle)); err != nil {
			return 0, stale(err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i = h.inodes[handle]; i == nil {
		return 0, nil
	}
	if again {
		i.again = false
	}
	if i.mtime == i.saved || i.mtime <= a.Mtime {
		i.mtime = 0
	}
	h.dropLocked(handle, i)
	return i.mtime, nil
}

// saved takes note of whether PVFS2 has taken over a modification time, and returns
// the error. Of what is gone there is nothing to save.
func (h *home) saved(handle uint64, mtime int64, err error) error {
	if err = stale(err); err != nil && !errors.Is(err, syscall.ESTALE) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil {
		i.saved = mtime
		if i.mtime == mtime {
			i.mtime = 0
		}
		h.dropLocked(handle, i)
	}
	return err
}
