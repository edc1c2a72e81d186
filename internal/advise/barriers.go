package advise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Barrier is a point that several ranks passed together: none left it before all
// had entered. Broadcasts and messages are barriers of those concerned, with
// the sender's Leave and the receivers' Enter left at their own times.
type Barrier struct {
	Name    string
	Members []Member
}

// Member is a rank that passed a barrier. Times are nanoseconds since 1970.
type Member struct {
	Job          string // empty: of whatever job
	Rank         int32
	Enter, Leave int64
}

// maxBarriers bounds what is read, in lines.
const maxBarriers = 10_000_000

// ParseBarriers reads barriers: a line for each rank and barrier,
//
//	NAME RANK ENTER LEAVE [JOB]
//
// with times in seconds since 1970. Empty lines and such that begin with # mean
// nothing. The n-th line of a rank with a name is about the n-th barrier of that
// name.
func ParseBarriers(r io.Reader) ([]Barrier, error) {
	type key struct {
		name string
		n    int
	}
	var order []key
	all := map[key]*Barrier{}
	uses := map[string]int{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		name, m, err := parseMember(strings.Fields(text))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if n > maxBarriers {
			return nil, fmt.Errorf("more than %d lines", maxBarriers)
		}
		user := fmt.Sprint(name, "\x00", m.Job, "\x00", m.Rank)
		k := key{m.Job + "\x00" + name, uses[user]}
		uses[user]++
		b := all[k]
		if b == nil {
			b = &Barrier{Name: name}
			all[k] = b
			order = append(order, k)
		}
		b.Members = append(b.Members, m)
	}
	out := make([]Barrier, len(order))
	for i, k := range order {
		out[i] = *all[k]
	}
	return out, lines.Err()
}

func parseMember(fields []string) (name string, m Member, err error) {
	if len(fields) < 4 {
		return "", m, errors.New("want NAME RANK ENTER LEAVE [JOB]")
	}
	rank, err := strconv.ParseInt(fields[1], 10, 32)
	if err != nil || rank < 0 {
		return "", m, fmt.Errorf("%q is not a rank", fields[1])
	}
	m = Member{Rank: int32(rank), Job: strings.Join(fields[4:], " ")}
	if m.Enter, err = parseTime(fields[2]); err == nil {
		m.Leave, err = parseTime(fields[3])
	}
	if err == nil && m.Leave < m.Enter {
		err = errors.New("left before it was entered")
	}
	return fields[0], m, err
}

// parseTime reads seconds, exact to the nanosecond.
func parseTime(s string) (int64, error) {
	whole, part, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if len(part) > 9 {
		part = part[:9]
	}
	ns, bad := strconv.ParseUint(part+strings.Repeat("0", 9-len(part)), 10, 32)
	if err != nil || bad != nil || sec < 0 || sec >= math.MaxInt64/1_000_000_000 {
		return 0, fmt.Errorf("%q is not a time in seconds", s)
	}
	return sec*1_000_000_000 + int64(ns), nil
}

// passing is that an agent passed a barrier.
type passing struct {
	barrier      int
	enter, leave int64
}

// barriers answers what barriers order.
type barriers struct {
	members [][]int               // agents of each barrier
	passed  map[int][]passing     // by agent, in order
	reached map[int]map[int]int64 // by barrier: when each agent first leaves one that comes not before it
}

func newBarriers(all []Barrier, agents []agent) *barriers {
	b := &barriers{members: make([][]int, len(all)), passed: map[int][]passing{}, reached: map[int]map[int]int64{}}
	agents = slices.Clip(agents) // those who made no call are added
	for i, bar := range all {
		for _, m := range bar.Members {
			found := false
			for who, a := range agents {
				if a.rank == m.Rank && (m.Job == "" || m.Job == a.job) {
					found = true
					b.members[i] = append(b.members[i], who)
					b.passed[who] = append(b.passed[who], passing{i, m.Enter, m.Leave})
				}
			}
			if !found {
				b.members[i] = append(b.members[i], len(agents))
				b.passed[len(agents)] = []passing{{i, m.Enter, m.Leave}}
				agents = append(agents, agent{job: m.Job, rank: m.Rank})
			}
		}
	}
	for _, list := range b.passed {
		slices.SortFunc(list, func(x, y passing) int { return int(min(max(x.enter-y.enter, -1), 1)) })
	}
	return b
}

// before reports whether barriers put what agent p had done by end before what
// agent q began at start.
func (b *barriers) before(p int, end int64, q int, start int64) bool {
	list := b.passed[p]
	i, _ := slices.BinarySearchFunc(list, end, func(x passing, t int64) int {
		if x.enter < t {
			return -1
		}
		return 1
	})
	if i == len(list) {
		return false
	}
	left, ok := b.from(list[i].barrier)[q]
	return ok && left <= start
}

// from is when each agent first leaves a barrier that barrier i happens before,
// or i itself.
func (b *barriers) from(i int) map[int]int64 {
	if m, ok := b.reached[i]; ok {
		return m
	}
	m := map[int]int64{}
	seen := map[int]bool{i: true}
	for todo := []int{i}; len(todo) > 0; todo = todo[1:] {
		for _, who := range b.members[todo[0]] {
			list := b.passed[who]
			k := slices.IndexFunc(list, func(x passing) bool { return x.barrier == todo[0] })
			if t, ok := m[who]; !ok || list[k].leave < t {
				m[who] = list[k].leave
			}
			if k+1 < len(list) && !seen[list[k+1].barrier] {
				seen[list[k+1].barrier] = true
				todo = append(todo, list[k+1].barrier)
			}
		}
	}
	b.reached[i] = m
	return m
}
