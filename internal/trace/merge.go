package trace

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// At is a call, and in which of the merged traces it stands.
type At struct {
	Trace int
	Call
}

// Merge puts the calls of traces of one file system into the order in which
// they began. Clocks of different nodes are taken to agree.
func Merge(traces []*Trace) ([]At, error) {
	n := 0
	for _, t := range traces {
		if t.FSID != traces[0].FSID || t.FSName != traces[0].FSName {
			return nil, fmt.Errorf("traces of different file systems: %s (%08x) and %s (%08x)",
				traces[0].FSName, traces[0].FSID, t.FSName, t.FSID)
		}
		n += len(t.Calls)
	}
	if len(traces) == 0 {
		return nil, errors.New("no trace is given")
	}
	all := make([]At, 0, n)
	for i, t := range traces {
		for _, c := range t.Calls {
			all = append(all, At{i, c})
		}
	}
	slices.SortStableFunc(all, func(a, b At) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	return all, nil
}

// Process is who made a call of the trace; the zero Process if that is unknown.
func (t *Trace) Process(c *Call) Process {
	if c.Proc == 0 {
		return Process{}
	}
	return t.Procs[c.Proc-1]
}

// Name is what the file of a call was called, by the call itself or when it
// was seen first.
func (t *Trace) Name(c *Call) string {
	if c.Path != "" || c.File == 0 {
		return c.Path
	}
	return t.Files[c.File]
}
