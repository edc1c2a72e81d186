package wire

import (
	"fmt"
	"math"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// Datatype is a PVFS_Request: where in a file the bytes of a data stream lie.
// It is a graph of records; Records[0] is its root.
//
// A record stands for Blocks blocks, Stride bytes from start to start, of Elems
// elements each, placed one extent (UB-LB) of the element after the other; then
// comes the record Next, from the same origin. An element is what record Elem
// stands for. A record without Elem is a leaf: Size contiguous bytes.
//
// A file is tiled with the type: copy k begins k extents of the root after the
// start of the file. The tiled stream has no end; IO requests cut a piece of
// it out by offset and size, both in bytes of the stream. So the plain range
// [off, off+n) is Contiguous(n) with offset off and size n.
//
//	i32 n; pad4; record[n+1]
type Datatype struct {
	Records []TypeRecord
}

// TypeRecord is one record of a Datatype.
//
//	i64 offset; i32 elems; i32 blocks; i64 stride; i64 ub; i64 lb; i64 size
//	i32 chunks; i32 depth; i32 nested; i32 committed; i32 refcount; pad4
//	i32 elem; i32 next
type TypeRecord struct {
	Offset    int64 // of the first element, in bytes from the origin
	Elems     int32 // elements in a block
	Blocks    int32
	Stride    int64 // bytes from block to block
	UB, LB    int64 // upper and lower bound, in bytes from the origin
	Size      int64 // bytes of data, those of Next included
	Chunks    int32 // about as many contiguous pieces
	Depth     int32 // 1 for a leaf
	Nested    int32 // records below this one
	Committed int32 // -1 in the root
	RefCount  int32 // ignored
	Elem      int32 // index of the element's record, -1 for a leaf
	Next      int32 // index of the record that follows, -1 for none
}

const recordSize = 80

func (d *Datatype) layout(c *codec) {
	nested := uint32(len(d.Records) - 1)
	n32(c, &nested)
	c.pad4()
	if !c.enc {
		if nested > MaxNested {
			c.fail("datatype with %d nested records", int32(nested))
			return
		}
		n := int(nested) + 1
		if n*recordSize > c.left() {
			c.take(n * recordSize)
			return
		}
		d.Records = make([]TypeRecord, n)
	}
	for i := range d.Records {
		d.Records[i].layout(c)
	}
}

func (r *TypeRecord) layout(c *codec) {
	n64(c, &r.Offset)
	n32(c, &r.Elems)
	n32(c, &r.Blocks)
	n64(c, &r.Stride)
	n64(c, &r.UB)
	n64(c, &r.LB)
	n64(c, &r.Size)
	n32(c, &r.Chunks)
	n32(c, &r.Depth)
	n32(c, &r.Nested)
	n32(c, &r.Committed)
	n32(c, &r.RefCount)
	c.pad4()
	n32(c, &r.Elem)
	n32(c, &r.Next)
}

// byteRecord is the leaf that all built types end in.
func byteRecord() TypeRecord {
	return TypeRecord{Elems: 1, Stride: 1, UB: 1, Size: 1, Chunks: 1, Depth: 1, RefCount: -1, Elem: -1, Next: -1}
}

// Contiguous is n bytes in a row, n > 0; its tiles touch, so that with stream
// offset off it names bytes from file offset off on. For n over 2^30 the tile
// is shorter, which names the same bytes.
func Contiguous(n int64) Datatype {
	n = min(n, 1<<30)
	return Datatype{[]TypeRecord{
		{Elems: int32(n), Blocks: 1, UB: n, Size: n, Chunks: 1, Depth: 2, Nested: 1, Committed: -1, RefCount: 1, Elem: 1, Next: -1},
		byteRecord(),
	}}
}

// HVector is count blocks of length bytes, stride bytes from start to start;
// EINVAL unless count and length are positive and the blocks do not overlap.
func HVector(count, length int32, stride int64) (Datatype, error) {
	v, err := hvector(count, length, stride)
	if err != nil {
		return Datatype{}, err
	}
	v.Committed = -1
	return Datatype{[]TypeRecord{v, byteRecord()}}, nil
}

// HVectorAt is HVector with the first block at disp, the way MPI libraries
// write displaced strided access: an indexed type of one vector.
func HVectorAt(disp int64, count, length int32, stride int64) (Datatype, error) {
	v, err := hvector(count, length, stride)
	if err != nil {
		return Datatype{}, err
	}
	if disp < 0 || disp > math.MaxInt64-v.UB {
		return Datatype{}, typeErr("displacement %d", disp)
	}
	v.RefCount, v.Elem = 2, 2
	return Datatype{[]TypeRecord{
		{Offset: disp, Elems: 1, Blocks: 1, UB: disp + v.UB, LB: disp, Size: v.Size, Chunks: v.Chunks,
			Depth: 3, Nested: 2, Committed: -1, RefCount: 1, Elem: 1, Next: -1},
		v, byteRecord(),
	}}, nil
}

func hvector(count, length int32, stride int64) (TypeRecord, error) {
	if count < 1 || length < 1 || (count > 1 && (stride < int64(length) || stride > math.MaxInt64/int64(count))) {
		return TypeRecord{}, typeErr("%d blocks of %d bytes %d apart", count, length, stride)
	}
	chunks := count
	if stride == int64(length) {
		chunks = 1
	}
	ub := int64(count-1)*stride + int64(length)
	if ub < 0 {
		return TypeRecord{}, typeErr("%d blocks of %d bytes %d apart", count, length, stride)
	}
	return TypeRecord{Elems: length, Blocks: count, Stride: stride, UB: ub, Size: int64(count) * int64(length),
		Chunks: chunks, Depth: 2, Nested: 1, RefCount: 1, Elem: 1, Next: -1}, nil
}

// HIndexed is the given pieces in the given order. There are 1 to MaxNested of
// them, none empty, none longer than 2^31-1 bytes: else EINVAL.
func HIndexed(exts []extent.Extent) (Datatype, error) {
	n := len(exts)
	if n < 1 || n > MaxNested {
		return Datatype{}, typeErr("%d pieces", n)
	}
	recs := make([]TypeRecord, n+1)
	var size, ub int64
	next := int32(-1)
	for i := n - 1; i >= 0; i-- {
		e, at := exts[i], int32(i+1)
		if e.Off < 0 || e.Len < 1 || e.Len > math.MaxInt32 || e.Off > math.MaxInt64-e.Len {
			return Datatype{}, typeErr("piece %d of %d bytes at %d", i, e.Len, e.Off)
		}
		if i == 0 {
			at = 0
		}
		size, ub = size+e.Len, max(ub, e.End())
		recs[at] = TypeRecord{Offset: e.Off, Elems: int32(e.Len), Blocks: 1, UB: ub, LB: e.Off, Size: size,
			Chunks: int32(n - i), Depth: 2, Nested: int32(n - i), Elem: 1, Next: next}
		next = at
	}
	recs[0].Committed, recs[0].RefCount = -1, 1
	recs[1] = byteRecord()
	return Datatype{recs}, nil
}

func typeErr(format string, args ...any) error {
	return errno.Wrap("wire.Datatype", syscall.EINVAL, fmt.Errorf(format, args...))
}
