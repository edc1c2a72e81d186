package wire

import (
	"math"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// Cursor walks a piece of a Datatype's tiled stream and yields where in the
// file its bytes lie, in the stream's order. It holds a few words a record,
// whatever the counts in the records say, and each step costs at most a walk
// through the records. A Cursor is for one goroutine.
type Cursor struct {
	recs   []TypeRecord
	nodes  []node
	period int64 // bytes from tile to tile in the file
	at     int64 // stream offset of the next byte
	end    int64 // stream offset behind the last byte
	lo, hi int64 // bounds in the file, hi exclusive
}

// node is what a record comes to. Offsets count from the record's origin.
type node struct {
	self, chain span // the record alone; the record and all that follow it
}

// span is a set of bytes and their order in the stream.
type span struct {
	size   int64 // bytes of data
	lo, hi int64 // smallest range [lo, hi) around them; 0 if size is 0
	run    bool  // they are [lo, hi) in ascending order, each once
}

// maxMerge bounds how many touching pieces one Next joins.
const maxMerge = 2 * (MaxNested + 1)

// Cursor returns a Cursor on the size bytes behind the first offset bytes of
// d's tiled stream. It is EINVAL if d is no sound type: a record refers to one
// that does not exist or to itself, a count is negative, a bound is inverted, a
// sum overflows, or the bytes asked for do not exist or lie before the start
// of the file.
func (d *Datatype) Cursor(offset, size int64) (*Cursor, error) {
	c := &Cursor{recs: d.Records}
	if err := c.init(offset, size); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cursor) init(offset, size int64) error {
	if len(c.recs) == 0 || len(c.recs) > MaxNested+1 {
		return typeErr("%d records", len(c.recs))
	}
	if offset < 0 || size < 0 || size > math.MaxInt64-offset {
		return typeErr("%d bytes at %d of the stream", size, offset)
	}
	a := analysis{recs: c.recs, nodes: make([]node, len(c.recs)), state: make([]visit, len(c.recs))}
	if err := a.visit(0); err != nil {
		return err
	}
	root := &c.recs[0]
	c.nodes, c.at, c.end = a.nodes, offset, offset+size
	tile := c.nodes[0].chain
	if root.Elem >= 0 && root.Size != tile.size {
		return typeErr("type of %d bytes says %d", tile.size, root.Size)
	}
	if size == 0 {
		return nil
	}
	if tile.size == 0 {
		return typeErr("type without data")
	}
	var x exact
	c.period = x.sub(root.UB, root.LB)
	first, last := offset/tile.size, (c.end-1)/tile.size
	if first != last && c.period <= 0 {
		return typeErr("tiles %d bytes apart", c.period)
	}
	b := bounds{recs: c.recs, nodes: c.nodes, x: &x, lo: math.MaxInt64, hi: math.MinInt64}
	b.repeat(offset, c.end, tile.size, func(k, from, to int64) { b.chain(0, x.mul(k, c.period), from, to) })
	if x.bad || b.lo < 0 {
		return typeErr("offsets out of range")
	}
	c.lo, c.hi = b.lo, b.hi
	return nil
}

// Bounds is the smallest range that has all bytes of the piece in it, those
// that Next has passed included; empty if the piece is.
func (c *Cursor) Bounds() extent.Extent { return extent.Extent{Off: c.lo, Len: c.hi - c.lo} }

// Left is the number of bytes that Next has not passed.
func (c *Cursor) Left() int64 { return c.end - c.at }

// Skip passes n bytes, or all that are left if they are fewer.
func (c *Cursor) Skip(n int64) { c.at += min(max(n, 0), c.Left()) }

// Next passes the next extent and returns it; ok is false at the end. Extents
// are in the stream's order, which need not ascend, are never empty, and touch
// the one before only in types of absurd structure.
func (c *Cursor) Next() (e extent.Extent, ok bool) { return c.NextMax(math.MaxInt64) }

// NextMax is Next for an extent of at most limit bytes, limit > 0: a longer one
// goes on at the following call.
func (c *Cursor) NextMax(limit int64) (e extent.Extent, ok bool) {
	limit = min(limit, c.Left())
	if limit <= 0 {
		return e, false
	}
	for range maxMerge {
		off, n := c.locate()
		if e.Len == 0 {
			e.Off = off
		} else if off != e.End() {
			break
		}
		n = min(n, limit-e.Len)
		e.Len += n
		c.at += n
		if e.Len == limit {
			break
		}
	}
	return e, true
}

// locate is the file offset of the stream's byte c.at and how many bytes from
// there on follow each other in file and stream. c.at must be below c.end, for
// which init has shown that no sum overflows.
func (c *Cursor) locate() (off, n int64) {
	tile := &c.nodes[0].chain
	k, pos := c.at/tile.size, c.at%tile.size
	origin := k * c.period
	if tile.run {
		if tile.size == c.period {
			return origin + tile.lo + pos, c.Left()
		}
		return origin + tile.lo + pos, tile.size - pos
	}
	i := int32(0)
	for {
		node := &c.nodes[i]
		if node.chain.run {
			return origin + node.chain.lo + pos, node.chain.size - pos
		}
		if pos >= node.self.size {
			pos -= node.self.size
			i = c.recs[i].Next
			continue
		}
		if node.self.run {
			return origin + node.self.lo + pos, node.self.size - pos
		}
		r := &c.recs[i]
		elem := &c.nodes[r.Elem].chain
		block := int64(r.Elems) * elem.size
		b, in := pos/block, pos%block
		e := in / elem.size
		ext := c.recs[r.Elem].UB - c.recs[r.Elem].LB
		origin += r.Offset + b*r.Stride + e*ext
		pos = in % elem.size
		if elem.run && ext == elem.size {
			return origin + elem.lo + pos, block - in
		}
		i = r.Elem
	}
}

// bounds gathers the range that pieces of a stream touch.
type bounds struct {
	recs   []TypeRecord
	nodes  []node
	x      *exact
	lo, hi int64
}

func (b *bounds) add(origin int64, s *span) {
	b.lo = min(b.lo, b.x.add(origin, s.lo))
	b.hi = max(b.hi, b.x.add(origin, s.hi))
}

// repeat cuts bytes [from, to) of equal copies of size bytes into a piece of
// the first copy, a piece of the last, and the first and last of the whole ones
// between, whose bounds are those of all between.
func (b *bounds) repeat(from, to, size int64, piece func(k, from, to int64)) {
	if from >= to || b.x.bad {
		return
	}
	first, last := from/size, (to-1)/size
	if first == last {
		piece(first, from-first*size, to-first*size)
		return
	}
	piece(first, from-first*size, size)
	piece(last, 0, to-last*size)
	if last-first > 1 {
		piece(first+1, 0, size)
		piece(last-1, 0, size)
	}
}

// chain adds bytes [from, to) of record i and those that follow it. Each level
// of the type goes on with at most two pieces that are not whole, so the work
// is bounded by the records.
func (b *bounds) chain(i int32, origin, from, to int64) {
	for ; i >= 0 && to > 0; i = b.recs[i].Next {
		n := &b.nodes[i]
		if from <= 0 && to >= n.chain.size {
			if n.chain.size > 0 {
				b.add(origin, &n.chain)
			}
			return
		}
		if lo, hi := max(from, 0), min(to, n.self.size); lo < hi {
			b.record(i, origin, lo, hi)
		}
		from -= n.self.size
		to -= n.self.size
	}
}

// record adds bytes [from, to) of record i alone.
func (b *bounds) record(i int32, origin, from, to int64) {
	n, r := &b.nodes[i], &b.recs[i]
	switch {
	case n.self.run:
		b.add(origin, &span{lo: n.self.lo + from, hi: n.self.lo + to})
		return
	case from == 0 && to == n.self.size:
		b.add(origin, &n.self)
		return
	}
	elem := &b.nodes[r.Elem].chain
	ext := b.recs[r.Elem].UB - b.recs[r.Elem].LB
	b.repeat(from, to, int64(r.Elems)*elem.size, func(k, from, to int64) {
		at := b.x.add(b.x.add(origin, r.Offset), b.x.mul(k, r.Stride))
		b.repeat(from, to, elem.size, func(k, from, to int64) {
			b.chain(r.Elem, b.x.add(at, b.x.mul(k, ext)), from, to)
		})
	})
}
