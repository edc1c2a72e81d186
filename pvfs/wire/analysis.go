package wire

import "math"

// visit is how far the analysis of a record is.
type visit uint8

const (
	unseen visit = iota
	open         // on the path to the record under analysis
	done
)

// analysis fills in nodes bottom-up, each record once, and refuses records
// from which a walk could not end or leave int64.
type analysis struct {
	recs  []TypeRecord
	nodes []node
	state []visit
	x     exact
}

// visit analyses record i and all it leads to. The recursion is no deeper than
// there are records.
func (a *analysis) visit(i int32) error {
	if i < 0 || int(i) >= len(a.recs) {
		return typeErr("record %d of %d", i, len(a.recs))
	}
	switch a.state[i] {
	case open:
		return typeErr("record %d contains itself", i)
	case done:
		return nil
	}
	a.state[i] = open
	r := &a.recs[i]
	if r.UB < r.LB {
		return typeErr("record %d ends at %d before it begins at %d", i, r.UB, r.LB)
	}
	if a.x.sub(r.UB, r.LB); a.x.bad {
		return typeErr("record %d is too long", i)
	}
	if r.Elem < 0 {
		if err := a.leaf(i, r); err != nil {
			return err
		}
	} else if err := a.inner(i, r); err != nil {
		return err
	}
	n := &a.nodes[i]
	n.chain = n.self
	if r.Next >= 0 {
		if err := a.visit(r.Next); err != nil {
			return err
		}
		n.chain = a.join(&n.self, &a.nodes[r.Next].chain)
	}
	if a.x.bad {
		return typeErr("record %d is too long", i)
	}
	a.state[i] = done
	return nil
}

func (a *analysis) leaf(i int32, r *TypeRecord) error {
	if r.Size < 0 || r.Next >= 0 {
		return typeErr("leaf %d of %d bytes with record %d behind", i, r.Size, r.Next)
	}
	if r.Size > 0 {
		a.nodes[i].self = span{size: r.Size, lo: r.Offset, hi: a.x.add(r.Offset, r.Size), run: true}
	}
	return nil
}

func (a *analysis) inner(i int32, r *TypeRecord) error {
	if r.Elems < 0 || r.Blocks < 0 {
		return typeErr("record %d of %d blocks of %d elements", i, r.Blocks, r.Elems)
	}
	if err := a.visit(r.Elem); err != nil {
		return err
	}
	elem := &a.nodes[r.Elem].chain
	ext := a.recs[r.Elem].UB - a.recs[r.Elem].LB
	if r.Elems == 0 || r.Blocks == 0 || elem.size == 0 {
		return nil
	}
	x := &a.x
	block := x.mul(int64(r.Elems), elem.size)
	toBlock, toElem := x.mul(int64(r.Blocks)-1, r.Stride), x.mul(int64(r.Elems)-1, ext)
	at := x.add(r.Offset, min(toBlock, 0))
	s := span{
		size: x.mul(int64(r.Blocks), block),
		lo:   x.add(at, elem.lo),
		hi:   x.add(x.add(x.add(r.Offset, max(toBlock, 0)), toElem), elem.hi),
		run: elem.run && (r.Elems == 1 || ext == elem.size) &&
			(r.Blocks == 1 || r.Stride == block),
	}
	a.nodes[i].self = s
	return nil
}

// join is the bytes of s and then those of t.
func (a *analysis) join(s, t *span) span {
	switch {
	case s.size == 0:
		return *t
	case t.size == 0:
		return *s
	}
	return span{
		size: a.x.add(s.size, t.size),
		lo:   min(s.lo, t.lo),
		hi:   max(s.hi, t.hi),
		run:  s.run && t.run && s.hi == t.lo,
	}
}

// exact is int64 arithmetic that remembers an overflow.
type exact struct{ bad bool }

func (x *exact) add(a, b int64) int64 {
	if (b > 0 && a > math.MaxInt64-b) || (b < 0 && a < math.MinInt64-b) {
		x.bad = true
		return 0
	}
	return a + b
}

func (x *exact) sub(a, b int64) int64 {
	if (b < 0 && a > math.MaxInt64+b) || (b > 0 && a < math.MinInt64+b) {
		x.bad = true
		return 0
	}
	return a - b
}

func (x *exact) mul(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	p := a * b
	if p/b != a || (a == -1 && b == math.MinInt64) || (b == -1 && a == math.MinInt64) {
		x.bad = true
		return 0
	}
	return p
}
