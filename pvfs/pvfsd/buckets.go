package pvfsd

import (
	"crypto/md5"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// buckets is how the entries of one directory spread over several dirdata
// objects. Bucket 0 lives beside the directory. A bucket that is full splits:
// it activates the next of its children in the tree below, which takes the
// entries whose hash has that bit set. Bucket i is the child of i without its
// highest bit, and nobody but its parent activates it:
//
//	0 ─┬─ 1 ─┬─ 3 ── 7
//	   │     └─ 5
//	   ├─ 2 ─── 6
//	   └─ 4
//
// The directory and each dirdata object have a copy. The directory's says where
// clients find a name. A dirdata's own bit and those of its children are always
// right, which is all it needs to tell whether a name is its own.
//
// Source: PROTOCOL.md §9.1; OrangeFS src/common/misc/dist-dir-utils.c.
type buckets struct {
	handles []wire.Handle // of the dirdata objects
	active  []uint32      // bit i of word i/32: bucket i holds entries
	split   int32         // entries in a bucket that make it split
	index   int           // of the dirdata object this is kept with; -1 with the directory
}

// noBucket is the index in the directory's copy.
const noBucket = -1

// newBuckets has the first initial buckets active.
func newBuckets(handles []wire.Handle, initial int, split int32) *buckets {
	b := &buckets{handles: handles, split: split, index: noBucket}
	b.active = make([]uint32, max(1, 1<<b.height()/32))
	for i := range min(max(initial, 1), len(handles)) {
		b.activate(i)
	}
	return b
}

// height is the number of bits that tell all buckets apart.
func (b *buckets) height() int { return bits.Len(uint(len(b.handles) - 1)) }

func (b *buckets) isActive(i int) bool {
	return i >= 0 && i < len(b.handles) && b.active[i/32]>>(i%32)&1 != 0
}

func (b *buckets) activate(i int) { b.active[i/32] |= 1 << (i % 32) }

// merge adds the buckets that are active in words. It reports whether any was new.
func (b *buckets) merge(words []uint32) bool {
	before := slices.Clone(b.active)
	for i := range min(len(words), len(b.active)) {
		b.active[i] |= words[i]
	}
	return !slices.Equal(before, b.active)
}

// clone is a copy that may be changed.
func (b *buckets) clone() *buckets {
	c := *b
	c.active = slices.Clone(b.active)
	return &c
}

// at is b as the dirdata object of bucket i keeps it.
func (b *buckets) at(i int) *buckets {
	c := b.clone()
	c.index = i
	return c
}

func hashOf(name string) uint64 {
	sum := md5.Sum([]byte(name))
	return binary.LittleEndian.Uint64(sum[8:])
}

// find is the bucket of name: the active one that shares most low bits with
// its hash.
func (b *buckets) find(name string) int {
	hash := hashOf(name)
	for level := b.height(); level > 0; level-- {
		if i := int(hash & (1<<level - 1)); b.isActive(i) {
			return i
		}
	}
	return 0
}

// level is the branch level of bucket i: it splits into i + 1<<level next.
func (b *buckets) level(i int) int {
	l := bits.Len(uint(i))
	for b.isActive(i + 1<<l) {
		l++
	}
	return l
}

// child is the bucket that this one splits into next; ok is false when it
// cannot split any more, or holds no entries itself.
func (b *buckets) child() (i int, ok bool) {
	if !b.isActive(b.index) {
		return 0, false
	}
	l := b.level(b.index)
	i = b.index + 1<<l
	return i, l < b.height() && i < len(b.handles)
}

// wire is b as clients and other servers see it.
func (b *buckets) wire() wire.DistDir {
	d := wire.DistDir{
		TreeHeight: int32(b.height()), SplitSize: b.split, ServerNo: int32(b.index), BranchLevel: noBucket,
		Bitmap: b.active, Dirdata: b.handles,
	}
	if b.isActive(b.index) {
		d.BranchLevel = int32(b.level(b.index))
	}
	return d
}

// encode appends the record of b, in the terms of object.go:
//
//	n, u64 handle[n]; u32 split size; u32 index; u32 active[max(1, 1<<height/32)]
func (b *buckets) encode(dst []byte) []byte {
	le := binary.LittleEndian
	dst = binary.AppendUvarint(dst, uint64(len(b.handles)))
	for _, h := range b.handles {
		dst = le.AppendUint64(dst, uint64(h))
	}
	dst = le.AppendUint32(dst, uint32(b.split))
	dst = le.AppendUint32(dst, uint32(b.index))
	for _, w := range b.active {
		dst = le.AppendUint32(dst, w)
	}
	return dst
}

// decodeBuckets reads what encode wrote, nil if it is damaged.
func decodeBuckets(r *record) *buckets {
	n := r.count(8)
	if n == 0 || n > wire.MaxDirdata {
		r.bad = true
		return nil
	}
	handles := make([]wire.Handle, n)
	for i := range handles {
		handles[i] = wire.Handle(r.u64())
	}
	b := newBuckets(handles, 1, int32(r.u32()))
	b.index = int(int32(r.u32()))
	for i := range b.active {
		b.active[i] = r.u32()
	}
	if r.bad || b.index < noBucket || b.index >= n {
		r.bad = true
		return nil
	}
	return b
}
