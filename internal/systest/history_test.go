package systest

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// checkTimeout bounds the search for an order of one history. The histories
// are kept so small that it is never needed; running out of it is a failure.
const checkTimeout = 30 * time.Second

// register is one range of one file that is only written as a whole. Its value
// is the id of the write that it holds, 0 at first.
type registerCall struct {
	write bool
	value uint64 // what was written or read
}

var registerModel = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, in, _ any) (bool, any) {
		c := in.(registerCall)
		if c.write {
			return true, c.value
		}
		return c.value == state.(uint64), state
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// sizeCall is a call that sets or sees the size of a file.
type sizeCall struct {
	do   string // "write" ends at size, "truncate" to size; any other returned size
	size int64
}

var sizeModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, in, _ any) (bool, any) {
		size, c := state.(int64), in.(sizeCall)
		switch c.do {
		case "write":
			return true, max(size, c.size)
		case "truncate":
			return true, c.size
		}
		return c.size == size, size
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// logCall is a call on a file to which records of one length are appended.
type logCall struct {
	do      string // "append" of a record, "truncate" to nothing, "read" records, "count" of records by size
	records []int  // ids: of the one appended, of all that were read
	count   int
}

// logState is the file as far as its order is known, by a read, and after that
// the records whose order is not known yet, sorted. That the order is left
// open keeps the search short: appends that nobody has read commute.
type logState struct{ known, pending string }

// logModel returns the model of a file whose appends are those of h. It needs
// to know when they were made, to refuse a read that has two of them in the
// wrong order.
func logModel(h history) porcupine.Model {
	appends := map[int]porcupine.Operation{}
	for _, o := range h {
		if c := o.Input.(logCall); c.do == "append" {
			appends[c.records[0]] = o
		}
	}
	return porcupine.Model{
		Init: func() any { return logState{} },
		Step: func(state, in, _ any) (bool, any) {
			s, c := state.(logState), in.(logCall)
			switch c.do {
			case "append":
				pending := append(parseIDs(s.pending), c.records[0])
				slices.Sort(pending)
				s.pending = formatIDs(pending)
				return true, s
			case "truncate":
				return true, logState{}
			case "count":
				return strings.Count(s.known+s.pending, ",") == c.count, s
			}
			tail, ok := strings.CutPrefix(formatIDs(c.records), s.known)
			if !ok {
				return false, s
			}
			order := parseIDs(tail)
			if formatIDs(slices.Sorted(slices.Values(order))) != s.pending {
				return false, s
			}
			for i, a := range order {
				for _, b := range order[i+1:] {
					if appends[b].Return < appends[a].Call {
						return false, s
					}
				}
			}
			return true, logState{known: s.known + tail}
		},
		DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
	}
}

// formatIDs writes a comma after each id, parseIDs reads that.
func formatIDs(ids []int) string {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprint(&b, id, ",")
	}
	return b.String()
}

func parseIDs(s string) (ids []int) {
	for f := range strings.SplitSeq(strings.TrimSuffix(s, ","), ",") {
		if n, err := strconv.Atoi(f); err == nil {
			ids = append(ids, n)
		}
	}
	return ids
}

// namesCall is a call on one of a few names of one directory. ino is the inode
// number that it returned.
type namesCall struct {
	do       string // "excl", "create", "unlink", "rename", "noreplace", "exchange", "stat"
	name, to int
	ino      uint64
	errno    syscall.Errno
	raced    bool // see markRaces
}

const maxNames = 4

// namesState has the inode number that each name stands for, 0 if none.
type namesState [maxNames]uint64

var namesModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{namesState{}} },
	Step: func(state, in, _ any) (next []any) {
		s, c := state.(namesState), in.(namesCall)
		if c.raced && s[c.to] != 0 {
			next = append(next, s)
		}
		if errno, after := s.step(c); errno == c.errno {
			next = append(next, after)
		}
		return next
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}).ToModel()

// markRaces marks the renames that may have done nothing because another call
// moved the name in the middle. rename(2) looks up one name after the other in
// the kernel, which then decides some cases by itself, on any file system that
// other nodes change:
//
//   - the old name and, a moment later, the new one stand for the same inode:
//     success, and nothing is done;
//   - RENAME_NOREPLACE, and the new name is taken: EEXIST, though the old name
//     is gone by then.
func (h history) markRaces() {
	for i := range h {
		c := h[i].Input.(namesCall)
		left, came := false, false
		for k := range h {
			o := h[k].Input.(namesCall)
			if i == k || h[k].Call > h[i].Return || h[i].Call > h[k].Return || o.errno != 0 {
				continue
			}
			moved := o.do == "rename" || o.do == "noreplace" || o.do == "exchange"
			left = left || (moved || o.do == "unlink") && o.name == c.name || o.do == "exchange" && o.to == c.name
			came = came || moved && o.to == c.to || o.do == "exchange" && o.name == c.to
		}
		switch c.do {
		case "rename", "exchange":
			c.raced = c.errno == 0 && left && came
		case "noreplace":
			c.raced = c.errno == unix.EEXIST && left
		}
		h[i].Input = c
	}
}

// step returns the errno that the call must have returned and the state that
// it leaves. An errno that no call has means that the inode number is wrong.
func (s namesState) step(c namesCall) (syscall.Errno, namesState) {
	const impossible = unix.ENOTRECOVERABLE
	have, there := s[c.name], s[c.to]
	switch c.do {
	case "excl", "create":
		if have != 0 && c.do == "excl" {
			return unix.EEXIST, s
		}
		if have != 0 && c.ino != have || have == 0 && slices.Contains(s[:], c.ino) {
			return impossible, s
		}
		s[c.name] = c.ino
		return 0, s
	}
	if have == 0 {
		return unix.ENOENT, s
	}
	switch c.do {
	case "unlink":
		s[c.name] = 0
	case "stat":
		if c.ino != have {
			return impossible, s
		}
	case "exchange":
		if there == 0 {
			return unix.ENOENT, s
		}
		s[c.name], s[c.to] = there, have
	case "noreplace", "rename":
		if there != 0 && c.do == "noreplace" {
			return unix.EEXIST, s
		}
		s[c.name], s[c.to] = 0, have
	}
	return 0, s
}

// history collects the calls of one object.
type history []porcupine.Operation

func (h *history) add(client int, r result, in any) {
	*h = append(*h, porcupine.Operation{ClientId: client, Call: r.Start, Return: r.End, Input: in})
}

// linearizable reports whether some order of the calls, in which no call comes
// before one that had returned when it began, is what the model allows.
func (h history) linearizable(m porcupine.Model) bool {
	return porcupine.CheckOperationsTimeout(m, h, checkTimeout) == porcupine.Ok
}

// requireLinearizable fails the test if the history is not linearizable and
// leaves a picture of it.
func (h history) requireLinearizable(t *testing.T, m porcupine.Model, what string) {
	t.Helper()
	res, info := porcupine.CheckOperationsVerbose(m, h, checkTimeout)
	if res == porcupine.Ok {
		return
	}
	path := filepath.Join(os.TempDir(), "zoidfs-"+strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()+"-"+what)+".html")
	if err := porcupine.VisualizePath(m, info, path); err != nil {
		t.Log(err)
	}
	best := 0
	for _, lins := range info.PartialLinearizations() {
		for _, lin := range lins {
			best = max(best, len(lin))
		}
	}
	slices.SortFunc(h, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var text strings.Builder
	for _, o := range h {
		fmt.Fprintf(&text, "client %d [%d..%d us] %+v\n", o.ClientId, (o.Call-h[0].Call)/1000, (o.Return-h[0].Call)/1000, o.Input)
	}
	if err := os.WriteFile(path+".txt", []byte(text.String()), 0o644); err != nil {
		t.Log(err)
	}
	require.Failf(t, "not linearizable", "%s: %s: %d of %d calls can be ordered, see %s and .txt", what, res, best, len(h), path)
}
