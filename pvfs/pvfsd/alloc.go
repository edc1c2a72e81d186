package pvfsd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// allocator gives out handles of this server's ranges in ascending order. The
// next one is part of the transaction that uses it, so a handle is never given
// out twice. Immutable.
type allocator struct {
	meta, data []fsconf.Range // sorted
	root       wire.Handle    // never given out
}

var keyNext = map[bool][]byte{false: []byte("next/meta"), true: []byte("next/data")}

// take gives a new handle for an object of type typ. within, when not empty,
// limits it to ranges the requester asks for; a request for ranges of other
// servers is EINVAL.
func (a *allocator) take(t *txn, typ wire.ObjType, within []wire.HandleRange) (wire.Handle, error) {
	isData := typ == wire.TypeDatafile
	ranges := a.meta
	if isData {
		ranges = a.data
	}
	if len(within) > 0 && !overlaps(ranges, within) {
		return 0, errno.Wrap("pvfsd.alloc", syscall.EINVAL, errors.New("handle ranges of another server"))
	}
	var next uint64
	if b := t.get(bucketIdentity, keyNext[isData]); len(b) == 8 {
		next = binary.BigEndian.Uint64(b)
	}
	for _, r := range ranges {
		h := max(next, r.First)
		if h == uint64(a.root) {
			h++
		}
		if h > r.Last {
			continue
		}
		return wire.Handle(h), t.put(bucketIdentity, keyNext[isData], binary.BigEndian.AppendUint64(nil, h+1))
	}
	return 0, errno.Wrap("pvfsd.alloc", syscall.ENOSPC, fmt.Errorf("no handle left for a %v", typ))
}

// left is the number of handles that no object has and of all there are. Handles
// are not given out twice, so the former is what repair tools expect it to be
// and not what can still be given out.
func (a *allocator) left(t *txn) (free, total uint64) {
	for _, ranges := range [][]fsconf.Range{a.meta, a.data} {
		for _, r := range ranges {
			total += r.Last - r.First + 1
		}
	}
	return total - t.objects(), total
}

func overlaps(ranges []fsconf.Range, within []wire.HandleRange) bool {
	for _, r := range ranges {
		for _, w := range within {
			if uint64(w.First) <= r.Last && r.First <= uint64(w.Last) {
				return true
			}
		}
	}
	return false
}
