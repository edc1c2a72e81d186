package pvfs

import (
	"slices"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// maxLevels bounds how deep vectors of vectors become: five are the rows of an
// array of six dimensions.
const maxLevels = 5

// minGroup is how many equal vectors, evenly spaced, become a vector of them.
// That takes two records, so fewer are no gain.
const minGroup = 3

// description is a datatype of some extents.
type description struct {
	typ  wire.Datatype
	exts int
}

// form is what a record stands for, wherever it lies: count blocks, stride
// bytes from start to start, of len bytes or of one other form.
type form struct {
	elem   int // index of the other form; -1: len bytes
	len    int64
	count  int32
	stride int64
}

// block is some of the extents, which are of one form.
type block struct {
	off  int64
	form form
	exts int
}

// describe makes datatypes of exts, which ascend and do not overlap; none is
// longer than maxPiece. They are few, because extents that are evenly spaced
// become a vector, and evenly spaced vectors a vector of these. What has no
// pattern takes a record an extent, or one for two of the same length; there are
// wire.MaxNested in a datatype.
func describe(exts []extent.Extent) []description {
	p := packer{index: map[form]int{}}
	blocks := p.pack(exts)
	var out []description
	for len(blocks) > 0 {
		d, n := p.datatype(blocks)
		out = append(out, d)
		blocks = blocks[n:]
	}
	return out
}

// packer finds the patterns.
type packer struct {
	forms []form
	index map[form]int // of forms
}

// pack joins what is evenly spaced, then the results, until nothing changes.
func (p *packer) pack(exts []extent.Extent) []block {
	blocks := make([]block, len(exts))
	for i, e := range exts {
		blocks[i] = block{e.Off, form{elem: -1, len: e.Len, count: 1}, 1}
	}
	for range maxLevels {
		before := len(blocks)
		if blocks = p.join(blocks); len(blocks) == before {
			break
		}
	}
	return blocks
}

// join replaces, in place, blocks of one form that are evenly spaced.
func (p *packer) join(blocks []block) []block {
	out := blocks[:0]
	for len(blocks) > 0 {
		n, f := even(blocks), blocks[0].form
		if f.count > 1 && n < minGroup {
			n = 1
		}
		b := block{off: blocks[0].off, form: f}
		switch {
		case n == 1:
		case f.count == 1:
			b.form.count, b.form.stride = int32(n), blocks[1].off-b.off
		default:
			b.form = form{elem: p.intern(f), count: int32(n), stride: blocks[1].off - b.off}
		}
		for i := range n {
			b.exts += blocks[i].exts
		}
		out, blocks = append(out, b), blocks[n:]
	}
	return out
}

// even is how many of blocks, from the first on, are of one form and evenly
// spaced.
func even(blocks []block) int {
	if len(blocks) < 2 || blocks[1].form != blocks[0].form {
		return 1
	}
	n, stride := 2, blocks[1].off-blocks[0].off
	for n < len(blocks) && blocks[n].form == blocks[0].form && blocks[n].off-blocks[n-1].off == stride {
		n++
	}
	return n
}

func (p *packer) intern(f form) int {
	i, ok := p.index[f]
	if !ok {
		i = len(p.forms)
		p.forms, p.index[f] = append(p.forms, f), i
	}
	return i
}

// datatype makes a type of the first n blocks, as many as there is room for.
// Record 0 to n-1 are the blocks, the last is a byte, and between them are the
// forms that they consist of, each behind those of its own.
func (p *packer) datatype(blocks []block) (d description, n int) {
	var used []int
	for ; n < len(blocks); n++ {
		before := len(used)
		for i := blocks[n].form.elem; i >= 0 && !slices.Contains(used, i); i = p.forms[i].elem {
			used = append(used, i)
		}
		if n+1+len(used) > wire.MaxNested {
			used = used[:before]
			break
		}
		d.exts += blocks[n].exts
	}
	slices.Sort(used)
	recs := make([]wire.TypeRecord, n+len(used)+1)
	last := len(recs) - 1
	recs[last] = wire.TypeRecord{Elems: 1, Stride: 1, UB: 1, Size: 1, Chunks: 1, Depth: 1, RefCount: -1, Elem: -1, Next: -1}
	elem := func(f form) int {
		if i, ok := slices.BinarySearch(used, f.elem); ok {
			return n + i
		}
		return last
	}
	for i, x := range used {
		f := p.forms[x]
		recs[n+i] = f.record(recs, elem(f))
	}
	for i := n - 1; i >= 0; i-- {
		f := blocks[i].form
		r := f.record(recs, elem(f))
		r.Offset, r.LB, r.UB = blocks[i].off, blocks[i].off, blocks[i].off+r.UB
		if r.Nested = int32(last - i); i < n-1 {
			next := &recs[i+1]
			r.Next, r.UB, r.Size = int32(i+1), max(r.UB, next.UB), r.Size+next.Size
			r.Chunks, r.Depth = r.Chunks+next.Chunks, max(r.Depth, next.Depth)
		}
		recs[i] = r
	}
	recs[0].Committed, recs[0].RefCount = -1, 1
	d.typ = wire.Datatype{Records: recs}
	return d, n
}

// record is f's, with record elem below it.
func (f form) record(recs []wire.TypeRecord, elem int) wire.TypeRecord {
	e, elems := &recs[elem], int32(1)
	if f.elem < 0 {
		elems = int32(f.len)
	}
	block := int64(elems) * e.Size
	r := wire.TypeRecord{Elems: elems, Blocks: f.count, Stride: f.stride, Size: int64(f.count) * block, Chunks: f.count * e.Chunks,
		Depth: e.Depth + 1, Nested: e.Nested + 1, Elem: int32(elem), Next: -1}
	r.UB = int64(f.count-1)*f.stride + int64(elems-1) + e.UB
	if f.stride == block {
		r.Chunks = e.Chunks
	}
	return r
}
