package pvfsd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// formatVersion is the version of everything in a data directory.
const formatVersion = 1

// The store is one bbolt database with flat buckets. Integers in keys are
// big-endian, so that a cursor walks them in order; h is a handle.
//
//	identity  "format", "fsid", "alias"                 whose directory this is
//	          "next/meta", "next/data"                  handle to try next, only grows
//	          "batch/", alias, kind                     number of the next batch of a pool, see refill.go
//	objects   h                        -> object        see object.go
//	names     dirdata h, name          -> seq, h        entries by name
//	order     dirdata h, seq           -> h, name       the same entries in READDIR order
//	eattrs    h, key                   -> value         keys without their NUL
//	pools     alias, NUL, h            -> nothing       datafiles of other servers, ours to use
//	trash     h                        -> nothing       bytestreams still to be unlinked
//	splits    dirdata h                -> u8, u32       state and child of a bucket that splits
//	doomed    dirdata h                -> u8            dirdata of other servers still to be removed
//	batches   alias, NUL, type         -> u64, h...     number and objects of the last batch made for a server
var (
	bucketIdentity = []byte("identity")
	bucketObjects  = []byte("objects")
	bucketNames    = []byte("names")
	bucketOrder    = []byte("order")
	bucketEattrs   = []byte("eattrs")
	bucketPools    = []byte("pools")
	bucketTrash    = []byte("trash")
	bucketSplits   = []byte("splits")
	bucketDoomed   = []byte("doomed")
	bucketBatches  = []byte("batches")

	keyFormat = []byte("format")
	keyFSID   = []byte("fsid")
	keyAlias  = []byte("alias")
)

const (
	mmapSize  = 1 << 30 // address space only: remapping would wait for readers
	allocSize = 4 << 20 // the database file grows by this
)

// store is the metadata of one server. Reads run concurrently in view; changes
// go through commit, which the committer of Run carries out in batches.
type store struct {
	path string
	lock *os.File // flocked for as long as the store is open
	db   *bolt.DB
	ids  *allocator
	q    *commitQueue
}

// openStore locks dir and opens the database in it, creating both at first use.
func openStore(dir string, id identity, ids *allocator) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("metadata directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &store{path: filepath.Join(dir, "meta.db"), lock: lock, ids: ids}
	if err := s.open(id); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	return s, nil
}

func (s *store) open(id identity) error {
	db, err := bolt.Open(s.path, 0o600, &bolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mmapSize,
		NoStatistics:    true,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return errno.Wrap("pvfsd.Open", syscall.EBUSY, errors.New("another process has the database open"))
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return errno.Wrap("pvfsd.Open", syscall.EUCLEAN, err)
	case err != nil:
		return err
	}
	db.AllocSize = allocSize
	s.db = db
	err = db.Update(func(tx *bolt.Tx) error { return initStore(tx, id) })
	if err == nil {
		s.q, err = newCommitQueue(db, s.path)
	}
	if err != nil {
		db.Close()
	}
	return err
}

// initStore writes the identity into a new database and checks that of an old one.
func initStore(tx *bolt.Tx, id identity) error {
	fsID := binary.BigEndian.AppendUint32(nil, uint32(id.fsID))
	format := binary.BigEndian.AppendUint32(nil, formatVersion)
	b := tx.Bucket(bucketIdentity)
	if b == nil {
		for _, name := range [][]byte{bucketIdentity, bucketObjects, bucketNames, bucketOrder, bucketEattrs, bucketPools, bucketTrash, bucketSplits, bucketDoomed, bucketBatches} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		b = tx.Bucket(bucketIdentity)
		return errors.Join(b.Put(keyFormat, format), b.Put(keyFSID, fsID), b.Put(keyAlias, []byte(id.alias)))
	}
	if got := b.Get(keyFormat); string(got) != string(format) {
		return errno.Wrap("pvfsd.Open", syscall.EINVAL, fmt.Errorf("the store has format %x, this program reads format %d", got, formatVersion))
	}
	if got := b.Get(keyFSID); string(got) != string(fsID) {
		return errno.Wrap("pvfsd.Open", syscall.EINVAL, fmt.Errorf("the store belongs to file system id %d, the configuration says %d", int32(binary.BigEndian.Uint32(got)), id.fsID))
	}
	if got := b.Get(keyAlias); string(got) != id.alias {
		return errno.Wrap("pvfsd.Open", syscall.EINVAL, fmt.Errorf("the store belongs to server %q, this is server %q", got, id.alias))
	}
	for _, name := range [][]byte{bucketSplits, bucketDoomed, bucketBatches} { // a store from before them
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	if b.Get(keyObjects) != nil {
		return nil
	}
	t, n := &txn{tx: tx}, uint64(0) // a store from before they were counted
	c := t.cursor(bucketObjects)
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n++
	}
	return t.setObjects(n)
}

// close closes the database and gives up the lock. The committer has ended.
func (s *store) close() error {
	return errors.Join(s.q.close(), s.db.Close(), s.lock.Close())
}

// view runs fn in a read transaction. Nothing that fn gets from the database
// may be kept after it returns.
func (s *store) view(fn func(tx *txn) error) error {
	return s.db.View(func(b *bolt.Tx) error { return fn(&txn{tx: b}) })
}

// txn is one transaction. It remembers whether it changed anything, so that a
// change that fails halfway can be told from one that never began.
type txn struct {
	tx    *bolt.Tx
	dirty bool
	after []func() // run once the transaction is committed
}

func (t *txn) get(bucket, key []byte) []byte { return t.tx.Bucket(bucket).Get(key) }

func (t *txn) put(bucket, key, value []byte) error {
	t.dirty = true
	return t.tx.Bucket(bucket).Put(key, value)
}

func (t *txn) del(bucket, key []byte) error {
	t.dirty = true
	return t.tx.Bucket(bucket).Delete(key)
}

func (t *txn) cursor(bucket []byte) *bolt.Cursor { return t.tx.Bucket(bucket).Cursor() }

// onCommit runs fn after the transaction is committed, on the committer's
// goroutine: fn must be quick.
func (t *txn) onCommit(fn func()) { t.after = append(t.after, fn) }

func handleKey(h wire.Handle) []byte { return binary.BigEndian.AppendUint64(nil, uint64(h)) }

// handleOf reads a handle from the front of a key or value of the store.
func handleOf(b []byte) (wire.Handle, bool) {
	if len(b) < 8 {
		return 0, false
	}
	return wire.Handle(binary.BigEndian.Uint64(b)), true
}

// errCorrupt is what a record that does not decode gives.
func errCorrupt(what string, h wire.Handle) error {
	return errno.Wrap("pvfsd", syscall.EUCLEAN, fmt.Errorf("%s of handle %d is damaged", what, h))
}

// update runs fn in a write transaction of its own. It is for Open, before the
// committer runs.
func (s *store) update(fn func(tx *txn) error) error {
	return s.db.Update(func(b *bolt.Tx) error { return fn(&txn{tx: b}) })
}
