package fs

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cache/names"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

const (
	// maxKnown bounds the inodes and entries that a mount keeps.
	maxKnown = 1 << 18
	// maxFact bounds the extended attributes that it keeps, in bytes.
	maxFact = 256
	// lostTime is how long a write may still be carried out after its caller
	// was interrupted.
	lostTime = 2 * time.Minute
)

// known asks the I/O nodes about inodes and names, and answers from what it
// knows where it has leases. What it changes it sees to the end, so that it
// knows what has become of it. It knows nothing of unpublished bytes.
type known struct {
	client *ionclient.Client
	kept   *names.Cache[ionclient.Attr]
	opens  opens
	rounds *rounds

	// hides reports whether this mount is writing behind the size of an inode what its
	// own programs do not see yet; nil: it does not write.
	hides func(h uint64, size int64) bool

	mu   sync.Mutex
	lost map[uint64]time.Time // inodes that a lost write may change, until when; guarded by mu
}

// newKnown makes a known that, unless alone, asks once for many callers; journal
// says when.
func newKnown(client *ionclient.Client, journal *round.Journal, alone bool) *known {
	k := &known{client: client, kept: names.New[ionclient.Attr](maxKnown), lost: make(map[uint64]time.Time)}
	k.rounds = newRounds(k, journal, alone)
	client.SetWatcher(k)
	return k
}

// Revoke implements ionclient.Watcher.
func (k *known) Revoke(h uint64, leases uint32) (open bool) {
	if leases&ionclient.LeaseEntries != 0 {
		k.kept.RevokeEntries(h)
	}
	if leases&ionclient.LeaseAttr == 0 {
		return false
	}
	k.kept.RevokeAttr(h)
	return k.opens.tell(h)
}

// Opens implements ionclient.Watcher.
func (k *known) Opens(want func(h uint64) bool) bool { return k.opens.any(want) }

// Count implements ionclient.Watcher.
func (k *known) Count(want func(h uint64) bool) []uint64 { return k.opens.count(want) }

// Writing implements ionclient.Watcher.
func (k *known) Writing(h uint64) func(end, at int64, lost bool) {
	since := k.kept.Now()
	return func(end, at int64, lost bool) {
		if lost {
			k.mu.Lock()
			k.lost[h] = time.Now().Add(lostTime)
			k.mu.Unlock()
		}
		if at == 0 {
			k.kept.DropAttr(h)
			return
		}
		k.kept.Wrote(h, since, func(a *ionclient.Attr) {
			a.Size = max(a.Size, end)
			a.Blocks = (a.Size + 511) / 512
			a.Mtime = max(a.Mtime, at/int64(time.Second))
			a.Ctime = max(a.Ctime, a.Mtime)
			a.Version = 0
		})
	}
}

// mayKeep reports whether attributes of h do not change unseen.
func (k *known) mayKeep(h uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	until, ok := k.lost[h]
	if ok && time.Now().After(until) {
		delete(k.lost, h)
		ok = false
	}
	return !ok
}

// Quiet implements holder.Attrs.
func (k *known) Quiet(h uint64) bool {
	a, ok := k.kept.Attr(h)
	return ok && a.Quiet
}

// Size implements holder.Attrs.
func (k *known) Size(h uint64) (size int64, since uint64, ok bool) {
	a, mark, ok := k.kept.AttrSince(h)
	return a.Size, uint64(mark), ok
}

// mayHavePriv reports whether h may have setuid or setgid for a write to clear:
// the kernel asks for that with every write of an ordinary user.
func (k *known) mayHavePriv(h uint64) bool {
	a, ok := k.kept.Attr(h)
	return !ok || a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0
}

// leaseOf is a lease on what came with a tenure, nil if that is none.
func leaseOf(t ionclient.Tenure) names.Lease {
	if t == (ionclient.Tenure{}) {
		return nil
	}
	return t
}

func (k *known) putAttr(a ionclient.Attr, since names.Mark) {
	if k.mayKeep(a.Handle) {
		k.kept.PutAttr(a.Handle, a, leaseOf(a.Tenure), since)
	}
}

func (k *known) setAttr(a ionclient.Attr, since names.Mark) {
	if !k.mayKeep(a.Handle) {
		k.kept.DropAttr(a.Handle)
		return
	}
	k.kept.SetAttr(a.Handle, a, leaseOf(a.Tenure), since)
}

// attrHere returns the attributes of h if they are known, and nobody can have seen
// that the file is longer.
func (k *known) attrHere(h uint64) (a ionclient.Attr, ok bool) {
	a, ok = k.kept.Attr(h)
	return a, ok && (k.hides == nil || !k.hides(h, a.Size))
}

// GetAttr returns the attributes of h.
func (k *known) GetAttr(ctx context.Context, h uint64) (ionclient.Attr, error) {
	if a, ok := k.attrHere(h); ok {
		return a, nil
	}
	return k.rounds.attrs.do(ctx, h)
}

// askAttr is GetAttr at the home of h, unless they have become known. Like the other
// asks it also returns how many requests it has sent.
func (k *known) askAttr(ctx context.Context, h uint64) (ionclient.Attr, int, error) {
	if a, ok := k.attrHere(h); ok {
		return a, 0, nil
	}
	since := k.kept.Now()
	a, err := k.client.GetAttr(ctx, h)
	if err == nil {
		k.putAttr(a, since)
	}
	return a, 1, err
}

// Lookup returns the attributes of what a name in dir means.
func (k *known) Lookup(ctx context.Context, dir uint64, name string) (ionclient.Attr, error) {
	if a, ok, err := k.lookupHere(ctx, dir, name); ok {
		return a, err
	}
	return k.rounds.names.do(ctx, entryKey{dir, name})
}

// lookupHere is Lookup of an entry that is known; ok is false if it is not.
func (k *known) lookupHere(ctx context.Context, dir uint64, name string) (a ionclient.Attr, ok bool, err error) {
	e, ok := k.kept.Entry(dir, name)
	switch {
	case !ok:
		return a, false, nil
	case e.Handle == 0:
		return a, true, errno.New("fs.lookup", syscall.ENOENT)
	}
	if a, err = k.GetAttr(ctx, e.Handle); errno.Of(err) != syscall.ESTALE {
		return a, true, err
	}
	k.kept.DropEntry(dir, name) // it went away by itself, or is just being removed
	return a, false, nil
}

// askName is Lookup at the home of the directory, unless it has become known.
func (k *known) askName(ctx context.Context, e entryKey) (a ionclient.Attr, asked int, err error) {
	for before := uint64(0); ; {
		if a, ok, err := k.lookupHere(ctx, e.dir, e.name); ok {
			return a, asked, err
		}
		dir, name := e.dir, e.name
		since := k.kept.Now()
		asked++
		f, t, err := k.client.Lookup(ctx, dir, name)
		switch {
		case errno.Of(err) == syscall.ENOENT:
			k.kept.PutEntry(dir, name, names.Entry{}, leaseOf(t), since)
			return ionclient.Attr{}, asked, err
		case err != nil:
			return ionclient.Attr{}, asked, err
		}
		k.kept.PutEntry(dir, name, names.Entry{Handle: f.Handle, Type: uint32(f.Type)}, leaseOf(t), since)
		if f.Attr != nil {
			k.putAttr(*f.Attr, since)
			return *f.Attr, asked, nil
		}
		a, err := k.GetAttr(ctx, f.Handle)
		switch {
		case errno.Of(err) != syscall.ESTALE:
			return a, asked, err
		case f.Handle == before: // its removal was cut short by a crash
			return a, asked, errno.Wrap("fs.lookup", syscall.ENOENT, err)
		}
		before = f.Handle // removed in between, but the name may mean something else
	}
}

// ReadDir returns all entries of a directory.
func (k *known) ReadDir(ctx context.Context, dir uint64) ([]names.Named, error) {
	if all, ok := k.kept.List(dir); ok {
		return all, nil
	}
	return k.rounds.lists.do(ctx, dir)
}

// askList is ReadDir at the home of dir, unless all has become known.
func (k *known) askList(ctx context.Context, dir uint64) (all []names.Named, asked int, err error) {
	if all, ok := k.kept.List(dir); ok {
		return all, 0, nil
	}
	since := k.kept.Now()
	at := make(map[string]int) // in all: what changes meanwhile may be told twice
	var tenure ionclient.Tenure
	var token []byte
	for first, eof := true, false; !eof; first = false {
		asked++
		l, err := k.client.ReadDir(ctx, dir, token, readDirBatch)
		if err != nil {
			return nil, asked, err
		}
		for _, e := range l.Entries {
			i, again := at[e.Name]
			if !again {
				i = len(all)
				at[e.Name], all = i, append(all, names.Named{Name: e.Name})
			}
			all[i].Entry = names.Entry{Handle: e.Handle, Type: uint32(e.Type)}
		}
		if first { // from then on nobody else changes anything unnoticed
			tenure = l.Tenure
		}
		token, eof = l.Next, l.EOF
	}
	k.kept.PutList(dir, all, leaseOf(tenure), since)
	return all, asked, nil
}

// Readlink returns the target of a symbolic link.
func (k *known) Readlink(ctx context.Context, h uint64) (string, error) {
	const key = "target"
	if v, ok := k.kept.Fact(h, key); ok {
		return v, nil
	}
	since := k.kept.Now()
	v, err := k.client.Readlink(ctx, h)
	if err == nil {
		k.kept.PutFact(h, key, v, since)
	}
	return v, err
}

// GetXattr returns the value of an extended attribute, ENODATA if there is none.
func (k *known) GetXattr(ctx context.Context, h uint64, name string) ([]byte, error) {
	if strings.HasPrefix(name, "user.zoidfs.") { // made up by its home, of what leases do not cover
		return k.client.GetXattr(ctx, h, name)
	}
	key := "xattr " + name
	if v, ok := k.kept.Fact(h, key); ok {
		if v, ok := strings.CutPrefix(v, "="); ok {
			return []byte(v), nil
		}
		return nil, errno.New("fs.getxattr", syscall.ENODATA)
	}
	since := k.kept.Now()
	v, err := k.client.GetXattr(ctx, h, name)
	switch {
	case errno.Of(err) == syscall.ENODATA:
		k.kept.PutFact(h, key, "", since)
	case err == nil && len(v) <= maxFact:
		k.kept.PutFact(h, key, "="+string(v), since)
	}
	return v, err
}

// SetAttr changes attributes and returns them all.
func (k *known) SetAttr(ctx context.Context, h uint64, set ionclient.SetAttr) (ionclient.Attr, error) {
	return change(ctx, k, func(ctx context.Context) (ionclient.Attr, error) {
		defer k.kept.Changing(h)()
		since := k.kept.Now()
		a, err := k.client.SetAttr(ctx, h, set)
		if err != nil {
			k.kept.DropAttr(h)
		} else {
			k.setAttr(a, since)
		}
		return a, err
	})
}

// changeXattr runs f, which changes an extended attribute of h.
func (k *known) changeXattr(ctx context.Context, h uint64, f func(context.Context) error) error {
	_, err := change(ctx, k, func(ctx context.Context) (struct{}, error) {
		defer k.kept.Changing(h)()
		defer k.kept.DropAttr(h)
		return struct{}{}, f(ctx)
	})
	return err
}

// change runs f to its end.
func change[T any](ctx context.Context, k *known, f func(context.Context) (T, error)) (T, error) {
	return ionclient.Outlive(ctx, k.client, f, func(context.Context, T, error) {})
}

func entryOf(a *ionclient.Attr) names.Entry {
	return names.Entry{Handle: a.Handle, Type: uint32(a.Type)}
}

func objType(e names.Entry) ionpb.ObjType { return ionpb.ObjType(e.Type) }
