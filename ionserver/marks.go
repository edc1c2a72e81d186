package ionserver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sessionMark is the trace that a session leaves in the directory of orphans
// before it holds anything. The session was with that node, under that epoch.
type sessionMark struct {
	epoch     uint64
	node      string
	id, mount uint64
}

func (m sessionMark) String() string {
	return fmt.Sprintf("session.%d.%s.%x.%x", m.epoch, m.node, m.id, m.mount)
}

// passedMark says that a node has ended its first grace under an epoch, and may
// since have given to others what mounts had from the view before.
type passedMark struct {
	epoch uint64
	node  string
}

func (m passedMark) String() string { return fmt.Sprintf("passed.%d.%s", m.epoch, m.node) }

// marks is what earlier lives of I/O nodes have left. It is pure.
type marks struct {
	sessions []sessionMark
	passed   []passedMark
}

// read adds an entry of the directory if it is a mark.
func (m *marks) read(name string) {
	kind, rest, _ := strings.Cut(name, ".")
	epochText, rest, ok := strings.Cut(rest, ".")
	epoch, err := strconv.ParseUint(epochText, 10, 64)
	if !ok || err != nil {
		return
	}
	switch kind {
	case "passed":
		m.passed = append(m.passed, passedMark{epoch, rest})
	case "session":
		f := strings.Split(rest, ".")
		if len(f) < 3 {
			return
		}
		n := len(f) - 2
		id, err1 := strconv.ParseUint(f[n], 16, 64)
		mount, err2 := strconv.ParseUint(f[n+1], 16, 64)
		if err1 == nil && err2 == nil {
			m.sessions = append(m.sessions, sessionMark{epoch, strings.Join(f[:n], "."), id, mount})
		}
	}
}

// expected is the sessions whose mounts may come to a node that starts under an
// epoch: those of its earlier lives under it, and, in its first grace, those that
// any node had before. Sessions that were there when another node ended its first
// grace under an epoch in between have been waited for already.
func (m *marks) expected(epoch uint64, node string) (out []sessionMark) {
	since := epoch
	if !slices.Contains(m.passed, passedMark{epoch, node}) {
		since = 0
		for _, p := range m.passed {
			if p.epoch < epoch {
				since = max(since, p.epoch)
			}
		}
	}
	for _, s := range m.sessions {
		if s.epoch == epoch && s.node == node || s.epoch < epoch && s.epoch >= since {
			out = append(out, s)
		}
	}
	return out
}

// past is the names of marks that nobody needs any more, if all members of the
// view of an epoch have ended their first grace; those of sessions first.
func (m *marks) past(epoch uint64, members []string) (names []string) {
	for _, n := range members {
		if !slices.Contains(m.passed, passedMark{epoch, n}) {
			return nil
		}
	}
	for _, s := range m.sessions {
		if s.epoch < epoch {
			names = append(names, s.String())
		}
	}
	for _, p := range m.passed {
		names = append(names, p.String())
	}
	return names
}
