package history

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// logCall is a call on a file to which records of one length are appended.
type logCall struct {
	op      Op     // Append of a record, Read of records, Fstat of how many there are, Truncate to nothing
	records []byte // values: of the one appended, of all that were read
	count   int64
}

// logState is the file as far as its order is known, by a read, and after that
// the records whose order is not known yet, sorted. That the order is left
// open keeps the search short: appends that nobody has read commute.
type logState struct{ known, pending string }

// logModel returns the model of a file with the given appends. It needs to know
// when they were made, to refuse a read that has two in the wrong order.
func logModel(appends map[byte]*Event) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return logState{} },
		Step: func(state, in, _ any) (bool, any) {
			s, c := state.(logState), in.(logCall)
			switch c.op {
			case Append:
				pending := append([]byte(s.pending), c.records[0])
				slices.Sort(pending)
				return true, logState{s.known, string(pending)}
			case Truncate:
				return true, logState{}
			case Fstat:
				return int64(len(s.known)+len(s.pending)) == c.count, s
			}
			tail, ok := strings.CutPrefix(string(c.records), s.known)
			sorted := []byte(tail)
			slices.Sort(sorted)
			if !ok || string(sorted) != s.pending {
				return false, s
			}
			for i := range tail {
				for k := i + 1; k < len(tail); k++ {
					if appends[tail[k]].Return < appends[tail[i]].Call {
						return false, s
					}
				}
			}
			return true, logState{known: s.known + tail}
		},
		DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
	}
}

// checkLogOrder checks for linearizability a file to which records of one
// length are appended, that is read as a whole and truncated to nothing, if it
// is such a one.
func (f *file) checkLogOrder() {
	appends := map[byte]*Event{}
	var ops []porcupine.Operation
	size := f.Events[f.appends[0]].Len
	for _, i := range f.appends {
		e := &f.Events[i]
		if e.Len != size || e.Errno != 0 {
			return
		}
		appends[e.Value] = e
		ops = append(ops, operation(e, logCall{op: Append, records: []byte{e.Value}}))
	}
	for _, i := range f.writes {
		if f.Events[i].Op != Truncate || f.Events[i].Len != 0 {
			return
		}
		ops = append(ops, operation(&f.Events[i], logCall{op: Truncate}))
	}
	for _, i := range f.sizes {
		if f.Events[i].N%size != 0 {
			f.fail(Size, i, "%v: in the middle of a record", &f.Events[i])
		}
		ops = append(ops, operation(&f.Events[i], logCall{op: Fstat, count: f.Events[i].N / size}))
	}
	for _, i := range f.reads {
		e := &f.Events[i]
		if e.Off != 0 || e.N == e.Len { // not all of it
			return
		}
		var records []byte
		for _, r := range e.Seen {
			if r.Len != size || appends[r.Value] == nil || bytes.IndexByte(records, r.Value) >= 0 {
				f.fail(Record, i, "%v: torn, doubled or invented record", e)
				return
			}
			records = append(records, r.Value)
		}
		ops = append(ops, operation(e, logCall{op: Read, records: records}))
	}
	f.requireOrder(logModel(appends), ops, fmt.Sprintf("records of file %d", f.id))
}
