package litmus

import (
	"context"
	"slices"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/history"
)

// What a program has to shrink within, and how often a smaller program is tried
// before it counts as one that does not fail.
const (
	shrinkTime  = 5 * time.Second
	shrinkTries = 4
)

// shrink leaves steps out of a program that failed as long as it still breaks
// the same promise, and returns the smallest and what it showed.
func (r *runner) shrink(ctx context.Context, p Program, h history.History) (Program, history.History) {
	deadline := time.Now().Add(shrinkTime)
	reason := history.Check(h).Violations[0].Reason
	for size := len(p.Steps) / 2; size > 0; {
		smaller := false
		for from := 0; from < len(p.Steps) && time.Now().Before(deadline); {
			if q, g, ok := r.fails(ctx, p.without(from, size), reason); ok {
				p, h, smaller = q, g, true
			} else {
				from += size
			}
		}
		if !smaller || size > 1 {
			size /= 2
		}
	}
	return p, h
}

// fails runs a program a few times and reports whether it breaks the promise
// without making calls that cannot succeed.
func (r *runner) fails(ctx context.Context, p Program, reason history.Reason) (Program, history.History, bool) {
	for range shrinkTries {
		h, err := r.play(ctx, p, -1)
		if err != nil || invalid(h) {
			return p, h, false
		}
		v := history.Check(h).Violations
		if slices.ContainsFunc(v, func(v history.Violation) bool { return v.Reason == reason }) {
			return p, h, true
		}
	}
	return p, history.History{}, false
}

// invalid reports whether the program works on files that it does not open.
func invalid(h history.History) bool {
	return slices.ContainsFunc(h.Events, func(e history.Event) bool {
		return e.Errno == syscall.EBADF || e.Errno == syscall.EBADE || e.Errno == syscall.EINVAL || e.Op == history.Open && e.Errno != 0
	})
}

// without is the program without n steps from a place on. What came after them
// comes after what they came after.
func (p Program) without(from, n int) Program {
	to := min(from+n, len(p.Steps))
	index := make([]int, len(p.Steps)) // in the new program
	before := make([][]int, len(p.Steps))
	q := p
	q.Steps = nil
	last := map[int]int{} // of each process, in the old program
	for i, s := range p.Steps {
		var after []int
		for _, a := range s.After {
			after = append(after, before[a]...)
		}
		if l, ok := last[s.Proc]; ok {
			after = append(after, before[l]...)
		}
		if from <= i && i < to {
			before[i] = after
		} else {
			before[i] = []int{i}
			index[i] = len(q.Steps)
			kept := s
			kept.After = nil
			for _, a := range after {
				if p.Steps[a].Proc != s.Proc && !slices.Contains(kept.After, index[a]) {
					kept.After = append(kept.After, index[a])
				}
			}
			q.Steps = append(q.Steps, kept)
		}
		last[s.Proc] = i
	}
	return q
}
