package fs

import (
	"context"
	"sync/atomic"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// openKey is what opens have in common that one request may stand for.
type openKey struct {
	handle uint64
	write  bool
}

// opener is one who opens a file, and may not wait for it to the end.
type opener struct{ state atomic.Int32 }

// What has become of an opener.
const (
	waits int32 = iota
	hasIt       // its open is counted
	left
)

// Open opens a file, and cuts it if flags say so. Close must follow.
func (k *known) Open(ctx context.Context, h uint64, flags uint32, killPriv bool) (ionclient.Attr, error) {
	if flags&syscall.O_TRUNC != 0 {
		return k.openCut(ctx, h, flags, killPriv)
	}
	key := openKey{h, mayWrite(flags)}
	if a, ok, err := k.openHere(key, 1); ok {
		return a, err
	}
	o := new(opener)
	a, err := k.rounds.opens.with(ctx, key, o)
	if err != nil && !o.state.CompareAndSwap(waits, left) {
		k.closeUnwanted(ctx, ionclient.Attr{Handle: h}, nil)
	}
	return a, err
}

// openHere opens a file n times if its home need not be asked.
func (k *known) openHere(key openKey, n int) (a ionclient.Attr, ok bool, err error) {
	ok = k.opens.addLeased(key.handle, n, key.write, func() (ok bool) {
		a, ok = k.kept.Attr(key.handle)
		if ok && key.write && a.Sealed {
			err = errno.New("fs.open: sealed", syscall.EPERM)
			return false
		}
		return ok && a.ModeKnown && a.Version != 0
	})
	return a, ok || err != nil, err
}

// askOpen opens a file for all calls of a round.
func (k *known) askOpen(ctx context.Context, key openKey, calls []*round.Call[openKey, *opener, ionclient.Attr]) {
	a, asked, err := k.open(ctx, key, len(calls))
	calls[0].Outcome.Requests = asked
	for _, c := range calls {
		c.A, c.Err = a, err
		if err == nil && !c.Q.state.CompareAndSwap(waits, hasIt) {
			k.closeUnwanted(ctx, a, nil)
		}
	}
}

// open opens a file n times, with one request, or two if the lease under which it
// was opened has ended meanwhile. It returns how many.
func (k *known) open(ctx context.Context, key openKey, n int) (a ionclient.Attr, asked int, err error) {
	if a, ok, err := k.openHere(key, n); ok {
		return a, 0, err
	}
	if !key.write {
		since := k.kept.Now()
		asked++
		a, err := k.client.OpenLeased(ctx, key.handle, syscall.O_RDONLY)
		if err != nil {
			return a, asked, err
		}
		k.putAttr(a, since)
		switch {
		case !a.Leased:
			k.opens.add(key.handle, n, 1)
			return a, asked, nil
		case k.opens.addLeased(key.handle, n, false, func() bool { _, ok := k.kept.Attr(key.handle); return ok }):
			return a, asked, nil
		}
	}
	flags := uint32(syscall.O_RDONLY)
	if key.write {
		flags = syscall.O_RDWR
	}
	since := k.kept.Now()
	asked++
	a, err = k.client.Open(ctx, key.handle, flags, false)
	if err == nil {
		k.opens.add(key.handle, n, 1)
		k.putAttr(a, since)
	}
	return a, asked, err
}

// openCut opens a file and cuts it to nothing.
func (k *known) openCut(ctx context.Context, h uint64, flags uint32, killPriv bool) (ionclient.Attr, error) {
	return ionclient.Outlive(ctx, k.client, func(ctx context.Context) (ionclient.Attr, error) {
		defer k.kept.Changing(h)()
		since := k.kept.Now()
		a, err := k.client.Open(ctx, h, flags, killPriv)
		if err != nil {
			k.kept.DropAttr(h)
			return a, err
		}
		k.opens.add(h, 1, 1)
		k.setAttr(a, since)
		return a, nil
	}, k.closeUnwanted)
}

// Close ends one open. clean tells the home that this node holds nothing
// unpublished of the file any more.
func (k *known) Close(ctx context.Context, h uint64, clean bool) error {
	counted, told := k.opens.drop(h)
	if counted == 0 && !told && !clean {
		return nil
	}
	return k.client.CloseFile(ctx, h, ionclient.Closing{Count: counted, Told: told, Clean: clean})
}

func (k *known) closeUnwanted(ctx context.Context, a ionclient.Attr, err error) {
	if err == nil {
		_ = k.Close(context.WithoutCancel(ctx), a.Handle, false) // the client logs what goes wrong
	}
}

// vouch sees to it that the home of h, which is about to lose a name, knows if it
// is open here, until done. 0 is an inode that is not known.
func (k *known) vouch(ctx context.Context, h uint64) (done func(), err error) {
	if h == 0 {
		return func() {}, nil
	}
	done = func() { k.opens.removed(h) }
	if !k.opens.remove(h) {
		return done, nil
	}
	_, err = k.client.Open(ctx, h, syscall.O_RDONLY, false)
	switch {
	case err == nil:
		k.opens.add(h, 0, 1)
	case errno.Of(err) == syscall.ESTALE: // it is gone already
		err = nil
	}
	return done, err
}
