package history

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"
)

// maxNames is how many names a program may use.
const maxNames = 8

// namesState has the inode number that each name stands for, 0 if none.
type namesState [maxNames]uint64

// nameCall is a call on one name or two.
type nameCall struct {
	*Event
	name, to int
	raced    bool // see markRaces
}

var namesModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{namesState{}} },
	Step: func(state, in, _ any) (next []any) {
		s, c := state.(namesState), in.(nameCall)
		if c.raced && s[c.to] != 0 {
			next = append(next, s)
		}
		if errno, after := s.step(c); errno == c.Errno {
			next = append(next, after)
		}
		if c.Op == Open && (c.Errno == unix.EACCES || c.Errno == unix.EPERM) && s[c.name] != 0 {
			next = append(next, s) // it is read-only
		}
		return next
	},
	DescribeOperation: func(in, _ any) string { return in.(nameCall).String() },
}).ToModel()

// checkNames checks the names of the program for linearizability, which all
// modes promise of them. There is none when the program begins.
func (c *checker) checkNames() {
	names := map[string]int{}
	index := func(name string) int {
		if _, ok := names[name]; !ok {
			names[name] = len(names)
		}
		return names[name]
	}
	var calls []nameCall
	for i := range c.Events {
		e := &c.Events[i]
		if e.Op == Open || e.Op == Stat || e.Op == Rename || e.Op == Unlink {
			calls = append(calls, nameCall{Event: e, name: index(e.Name)})
			if e.Op == Rename {
				calls[len(calls)-1].to = index(e.To)
			}
		}
	}
	if len(names) > maxNames {
		c.fail(Failed, -1, "%d names are more than the checker can do", len(names))
		return
	}
	if c.Untimed {
		return
	}
	markRaces(calls)
	var ops []porcupine.Operation
	for _, n := range calls {
		ops = append(ops, porcupine.Operation{ClientId: n.Proc, Call: n.Call, Return: n.Return, Input: n})
	}
	c.requireOrder(namesModel, ops, "names")
}

// markRaces marks the renames that may have done nothing because another call
// moved the name in the middle. rename(2) looks up one name after the other in
// the kernel, which then decides some cases by itself, on any file system that
// other nodes change:
//
//   - the old name and, a moment later, the new one stand for the same inode:
//     success, and nothing is done;
//   - RENAME_NOREPLACE, and the new name is taken: EEXIST, though the old name
//     is gone by then.
func markRaces(calls []nameCall) {
	for i := range calls {
		c := &calls[i]
		if c.Op != Rename {
			continue
		}
		left, came := false, false
		for k := range calls {
			o := &calls[k]
			if i == k || o.Event.Call > c.Return || c.Event.Call > o.Return || o.Errno != 0 {
				continue
			}
			moved, swapped := o.Op == Rename, o.Op == Rename && o.Flags == unix.RENAME_EXCHANGE
			left = left || (moved || o.Op == Unlink) && o.name == c.name || swapped && o.to == c.name
			came = came || moved && o.to == c.to || swapped && o.name == c.to
		}
		if c.Flags == unix.RENAME_NOREPLACE {
			c.raced = c.Errno == unix.EEXIST && left
		} else {
			c.raced = c.Errno == 0 && left && came
		}
	}
}

// step returns the errno that the call must have returned and the state that
// it leaves. An errno that no call has means that the inode number is wrong.
func (s namesState) step(c nameCall) (syscall.Errno, namesState) {
	const impossible = unix.ENOTRECOVERABLE
	have, there := s[c.name], s[c.to]
	if c.Op == Open && c.Flags&unix.O_CREAT != 0 && (have == 0 || c.Flags&unix.O_EXCL != 0) {
		if have != 0 {
			return unix.EEXIST, s
		}
		if slices.Contains(s[:], c.Ino) {
			return impossible, s
		}
		s[c.name] = c.Ino
		return 0, s
	}
	if have == 0 {
		return unix.ENOENT, s
	}
	switch {
	case c.Op == Unlink:
		s[c.name] = 0
	case c.Op == Open || c.Op == Stat:
		if c.Ino != have {
			return impossible, s
		}
	case c.Flags == unix.RENAME_EXCHANGE:
		if there == 0 {
			return unix.ENOENT, s
		}
		s[c.name], s[c.to] = there, have
	default:
		if there != 0 && c.Flags == unix.RENAME_NOREPLACE {
			return unix.EEXIST, s
		}
		s[c.name], s[c.to] = 0, have
	}
	return 0, s
}

// String is the call for the picture of an order.
func (c nameCall) String() string { return fmt.Sprint(c.Event.String()) }
