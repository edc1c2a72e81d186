package pvfsd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// closedLife is how many seconds a closed bucket takes no entries. Who closed
// it to remove the directory has done so long before, or given up.
const closedLife = 60

// keyClosed is an extended attribute of a bucket that takes no entries: since
// when, as 8 bytes. Only servers set it.
const keyClosed = "system.pvfsd.closed"

var (
	// errSpread asks the caller to remove a directory with buckets itself.
	errSpread = errno.Wrap("pvfsd.remove", syscall.EAGAIN, errors.New("the directory has several dirdata"))
	// errMoving asks the caller to wait until a split is over.
	errMoving = errno.Wrap("pvfsd.bucket", syscall.EAGAIN, errors.New("the entry is moving"))
	// errInactive is for a bucket that no name belongs to yet.
	errInactive = errno.Wrap("pvfsd.bucket", syscall.EAGAIN, errors.New("the bucket is not in use"))
	// errClosed is for a directory that is being removed.
	errClosed = errno.Wrap("pvfsd.bucket", syscall.EAGAIN, errors.New("the directory is being removed"))
)

// errMoved says that a name belongs to a bucket further down.
type errMoved struct{ to wire.Handle }

func (errMoved) Error() string { return "the entry belongs to another bucket" }

func (errMoved) Unwrap() error { return syscall.EAGAIN }

// full reports whether the dirdata object o should split.
func (o *object) full() bool {
	if o.buckets == nil || o.entries < int64(o.buckets.split) {
		return false
	}
	_, ok := o.buckets.child()
	return ok
}

// checkBucket is errMoved if the entry called name belongs to a child of the
// dirdata object o, errMoving while it is on its way there, and EAGAIN if o
// holds no such names.
func (t *txn) checkBucket(dirdata wire.Handle, o *object, name string) error {
	b := o.buckets
	if b == nil {
		return nil
	}
	switch i := b.find(name); {
	case i > b.index:
		return errMoved{b.handles[i]}
	case i < b.index:
		return errInactive
	}
	if sp := t.splitOf(dirdata); sp != nil && sp.moves(b, name) {
		return errMoving
	}
	return nil
}

// checkOpen is errClosed while the directory of the dirdata object o is being
// removed.
func (t *txn) checkOpen(dirdata wire.Handle, o *object, now int64) error {
	if o.buckets == nil {
		return nil
	}
	if v := t.get(bucketEattrs, eattrKey(dirdata, keyClosed)); len(v) == 8 {
		if since := int64(binary.BigEndian.Uint64(v)); now >= since && now < since+closedLife {
			return errClosed
		}
	}
	return nil
}

// closeBucket keeps new entries out of an empty bucket. ENOTEMPTY if it has any.
func (t *txn) closeBucket(dirdata wire.Handle, now int64) error {
	o, err := t.dirdata(dirdata)
	switch {
	case err != nil:
		return err
	case o.buckets == nil:
		return errno.New("pvfsd.close", syscall.EINVAL)
	case o.entries != 0 && o.buckets.isActive(o.buckets.index):
		return errno.New("pvfsd.close", syscall.ENOTEMPTY)
	case t.splitOf(dirdata) != nil:
		return errMoving
	}
	return t.put(bucketEattrs, eattrKey(dirdata, keyClosed), binary.BigEndian.AppendUint64(nil, uint64(now)))
}

// openBucket takes closeBucket back.
func (t *txn) openBucket(dirdata wire.Handle) error {
	return t.del(bucketEattrs, eattrKey(dirdata, keyClosed))
}

// clearDirdata deletes the entries of the dirdata object o, which is to be
// removed: those of a split that was given up. ENOTEMPTY for others.
func (t *txn) clearDirdata(dirdata wire.Handle, o *object) error {
	switch {
	case o.entries != 0 && (o.buckets == nil || o.buckets.isActive(o.buckets.index)):
		return errno.New("pvfsd.remove", syscall.ENOTEMPTY)
	case o.buckets == nil && o.other != 0: // its directory goes by it
		return errno.New("pvfsd.remove", syscall.EINVAL)
	case o.entries == 0:
		return nil
	}
	return t.clearEntries(dirdata, o)
}

// clearEntries deletes all entries of the dirdata object o, which the caller
// stores.
func (t *txn) clearEntries(dirdata wire.Handle, o *object) error {
	moved, err := t.entriesOf(dirdata, func(string) bool { return true })
	if err != nil {
		return err
	}
	return t.delEntries(dirdata, o, moved)
}

func (t *txn) delEntries(dirdata wire.Handle, o *object, ents []wire.Dirent) error {
	for _, e := range ents {
		_, seq, err := t.lookup(dirdata, e.Name)
		if err != nil {
			return err
		}
		if err := t.delEntry(dirdata, o, e.Name, seq); err != nil {
			return err
		}
	}
	return nil
}

// entriesOf lists the entries whose name wanted accepts.
func (t *txn) entriesOf(dirdata wire.Handle, wanted func(name string) bool) ([]wire.Dirent, error) {
	var out []wire.Dirent
	prefix := handleKey(dirdata)
	c := t.cursor(bucketOrder)
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		h, ok := handleOf(v)
		if !ok {
			return nil, errCorrupt("an entry", dirdata)
		}
		if name := string(v[8:]); wanted(name) {
			out = append(out, wire.Dirent{Name: name, Handle: h})
		}
	}
	return out, nil
}

// splitState is how far a split has come.
type splitState byte

const (
	// splitCopying: entries are being copied to the child; nobody else knows.
	// A server that dies here forgets the split.
	splitCopying splitState = 1
	// splitDeciding: the child has all entries, on disk, and the directory may
	// have been told. From here the split goes on until it is done.
	splitDeciding splitState = 2
)

// split is a bucket giving entries to its child. While it is in the store the
// entries that move cannot be changed.
type split struct {
	state splitState
	child int
}

// moves reports whether the entry called name goes to the child of b.
func (sp *split) moves(b *buckets, name string) bool {
	after := b.clone()
	after.activate(sp.child)
	return after.find(name) == sp.child
}

// splitOf is the split of a dirdata object under way, nil if there is none.
func (t *txn) splitOf(dirdata wire.Handle) *split {
	v := t.get(bucketSplits, handleKey(dirdata))
	if len(v) != 5 {
		return nil
	}
	return &split{splitState(v[0]), int(binary.LittleEndian.Uint32(v[1:]))}
}

func (t *txn) putSplit(dirdata wire.Handle, sp *split) error {
	v := binary.LittleEndian.AppendUint32([]byte{byte(sp.state)}, uint32(sp.child))
	return t.put(bucketSplits, handleKey(dirdata), v)
}

func (t *txn) delSplit(dirdata wire.Handle) error { return t.del(bucketSplits, handleKey(dirdata)) }

// doom says what becomes of a dirdata object of another server.
type doom byte

const (
	doomMaybe doom = 1 // it is for a directory that is being made
	doomSure  doom = 2 // it is to be removed
)

func (t *txn) putDoom(d doom, hs ...wire.Handle) error {
	for _, h := range hs {
		if err := t.put(bucketDoomed, handleKey(h), []byte{byte(d)}); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) delDoom(hs ...wire.Handle) error {
	for _, h := range hs {
		if err := t.del(bucketDoomed, handleKey(h)); err != nil {
			return err
		}
	}
	return nil
}

// unsettled lists the splits and dirdata objects that somebody has to see to.
func (t *txn) unsettled() (splits, doomed []wire.Handle) {
	c := t.cursor(bucketSplits)
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if h, ok := handleOf(k); ok && len(v) > 0 && splitState(v[0]) == splitDeciding {
			splits = append(splits, h)
		}
	}
	c = t.cursor(bucketDoomed)
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if h, ok := handleOf(k); ok && len(v) > 0 && doom(v[0]) == doomSure {
			doomed = append(doomed, h)
		}
	}
	return splits, doomed
}

// recover forgets splits that only copied when the server died, and dooms the
// dirdata of directories that were not made.
func (t *txn) recover() error {
	var forget, dooming []wire.Handle
	c := t.cursor(bucketSplits)
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if h, ok := handleOf(k); ok && (len(v) == 0 || splitState(v[0]) != splitDeciding) {
			forget = append(forget, h)
		}
	}
	c = t.cursor(bucketDoomed)
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if h, ok := handleOf(k); ok {
			dooming = append(dooming, h)
		}
	}
	for _, h := range forget {
		if err := t.delSplit(h); err != nil {
			return err
		}
	}
	return t.putDoom(doomSure, dooming...)
}
