package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// searchTimeout bounds the search for an order of the calls of one register.
// Registers are kept so small that it is never needed; running out of it is a
// violation, so that nothing passes unchecked.
const searchTimeout = 30 * time.Second

// maxRequest is how much of a call a file system is asked for at once: longer
// calls are cut into several by the kernel, which may take effect one by one.
const maxRequest = 1 << 20

// operation is an event as porcupine knows it. A call that failed may take
// effect at any later time.
func operation(e *Event, in any) porcupine.Operation {
	op := porcupine.Operation{ClientId: e.Proc, Call: e.Call, Return: e.Return, Input: in}
	if e.Errno != 0 {
		op.Return = math.MaxInt64
	}
	return op
}

// requireOrder records a violation if the calls cannot be ordered as m allows.
func (c *checker) requireOrder(m porcupine.Model, ops []porcupine.Operation, what string) {
	if len(ops) < 2 {
		return
	}
	result, info := porcupine.CheckOperationsVerbose(m, ops, searchTimeout)
	if result == porcupine.Ok {
		return
	}
	best := 0
	for _, orders := range info.PartialLinearizations() {
		for _, order := range orders {
			best = max(best, len(order))
		}
	}
	c.fail(Order, -1, "%s: %s: at most %d of %d calls can be put in an order that explains them", what, result, best, len(ops))
}

// sizeCall is a call that changes or sees the size of a file.
type sizeCall struct {
	op   Op // Write grows the file to size, Truncate sets it, Fstat saw it
	size int64
}

var sizeModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, in, _ any) (bool, any) {
		size, c := state.(int64), in.(sizeCall)
		switch c.op {
		case Write:
			return true, max(size, c.size)
		case Truncate:
			return true, c.size
		}
		return c.size == size, size
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// checkSizeOrder checks the sizes of the file for linearizability. A write may
// show up part by part, so it counts as one call for each size that was seen
// inside of it, if there can be such a part.
func (f *file) checkSizeOrder() {
	var seen []int64
	var ops []porcupine.Operation
	for _, i := range f.sizes {
		seen = append(seen, f.Events[i].N)
		ops = append(ops, operation(&f.Events[i], sizeCall{Fstat, f.Events[i].N}))
	}
	slices.Sort(seen)
	for _, i := range f.writes {
		e := &f.Events[i]
		if e.Op == Truncate {
			ops = append(ops, operation(e, sizeCall{Truncate, e.Len}))
			continue
		}
		r := e.put()
		for _, n := range slices.Compact(seen) {
			part := f.Atomic == 0 || n%f.Atomic == 0 || (n-r.Off)%maxRequest == 0
			if part && r.Off < n && n < r.end() {
				ops = append(ops, operation(e, sizeCall{Write, n}))
			}
		}
		ops = append(ops, operation(e, sizeCall{Write, r.end()}))
	}
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	if len(seen) > 0 {
		f.requireOrder(sizeModel, ops, fmt.Sprintf("size of file %d", f.id))
	}
}
