package pvfsd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// SetFrameTimeout changes how long a peer may stall within a frame. It is for
// the time between Open and Run.
func (s *Server) SetFrameTimeout(d time.Duration) { s.frameTimeout = d }

// BucketOf is the bucket of name.
func BucketOf(d wire.DistDir, name string) int {
	return (&buckets{handles: d.Dirdata, active: d.Bitmap}).find(name)
}

// CheckStore verifies the database of a server that is down: every record
// decodes, names and order are the same entries, counts are right, and
// directories and their dirdata belong together.
func CheckStore(file string) error {
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(b *bolt.Tx) error {
		for err := range b.Check() {
			return fmt.Errorf("bbolt: %w", err)
		}
		return checkEntries(&txn{tx: b})
	})
}

func checkEntries(t *txn) error {
	entries := make(map[wire.Handle]int64)
	err := t.tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
		dd, _ := handleOf(k)
		entries[dd]++
		order := t.get(bucketOrder, append(append([]byte{}, k[:8]...), v[:8]...))
		if want := append(append([]byte{}, v[8:]...), k[8:]...); !bytes.Equal(order, want) {
			return fmt.Errorf("entry %q of %d: order has %q", k[8:], dd, order)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ordered := make(map[wire.Handle]int64)
	last := make(map[wire.Handle]uint64)
	t.tx.Bucket(bucketOrder).ForEach(func(k, _ []byte) error {
		dd, _ := handleOf(k)
		ordered[dd]++
		last[dd] = max(last[dd], binary.BigEndian.Uint64(k[8:]))
		return nil
	})
	return t.tx.Bucket(bucketObjects).ForEach(func(k, v []byte) error {
		h, _ := handleOf(k)
		o, ok := decodeObject(v)
		switch {
		case !ok:
			return errCorrupt("the object", h)
		case o.typ == wire.TypeDirectory:
			if d, err := t.dirdata(o.other); err != nil || d.other != h {
				return fmt.Errorf("dirdata of directory %d: %v", h, err)
			}
		case o.typ == wire.TypeDirdata:
			if o.entries != entries[h] || o.entries != ordered[h] || o.lastSeq < last[h] {
				return fmt.Errorf("dirdata %d counts %d entries up to %d, has %d and %d up to %d", h, o.entries, o.lastSeq, entries[h], ordered[h], last[h])
			}
			if o.buckets != nil && o.buckets.index != 0 || o.other == 0 {
				return nil // its directory is another server's, or none
			}
			if d, err := t.typed(o.other, wire.TypeDirectory); err != nil || d.other != h {
				return fmt.Errorf("directory of dirdata %d: %v", h, err)
			}
		}
		return nil
	})
}
