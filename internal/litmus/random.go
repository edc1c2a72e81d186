package litmus

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// access is a call of a random program that can conflict with another one.
type access struct {
	actor  *actor
	step   int
	name   string
	read   history.Range // what it looks at
	write  history.Range // what it changes
	hole   history.Range // what a Sieve writes back unchanged: nobody may touch it meanwhile, more is not asked
	length bool          // it looks at the size or may change it
}

// generator writes a random program. One that is free of races has between any
// two conflicting accesses of different nodes the shortest chain of calls that
// the mode asks for, chosen at random if there are several, and nothing else.
type generator struct {
	*script
	mode    history.Mode
	racy    bool
	again   bool    // only calls that may be carried out twice
	borders []int64 // where ranges begin and end
	done    []access
	values  map[string]uint8
	aside   map[string]string // the other name of a file, to which it is renamed
	chained map[chain]int     // the last step of From that is chained to To
	waits   int               // of `eventual`
}

type chain struct {
	from, to *actor
	name     string
}

// whole is every byte of a file.
var whole = history.Range{Len: 1 << 40}

func generate(s *script, mode history.Mode, racy, again bool) Program {
	g := &generator{script: s, mode: mode, racy: racy, again: again, values: map[string]uint8{}, aside: map[string]string{"x": "x2", "y": "y2"}, chained: map[chain]int{}}
	g.Name = "random"
	if racy {
		g.Name = "racy"
	}
	base := []int64{0, 4093, 64<<10 - 9, 256<<10 - 9, 1<<20 - 4099, domain - 5000}[g.rng.Intn(6)]
	for range 5 {
		g.borders = append(g.borders, base)
		base += []int64{1, 7, 4096, 4097, 70001}[g.rng.Intn(5)]
	}
	g.Note = fmt.Sprintf("borders %v", g.borders)
	g.begin()
	for range 8 + g.rng.Intn(20) {
		g.move()
	}
	g.end()
	return g.Program
}

var logPlace = place{"log", history.Range{Len: 1 << 20}}

// begin starts three or four processes, which open all files.
func (g *generator) begin() {
	for i := range 3 + g.rng.Intn(2) {
		g.on([]int{nodeA, nodeB, nodeC, nodeA}[i])
	}
	for _, name := range []string{"x", "y"} {
		g.actors[0].create(place{name: name})
	}
	g.actors[0].open(logPlace.name, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND)
	g.then()
	for _, a := range g.actors[1:] {
		for _, name := range []string{"x", "y"} {
			a.open(name, []int{unix.O_RDONLY, unix.O_RDWR}[g.rng.Intn(2)])
		}
		a.open(logPlace.name, unix.O_RDWR|unix.O_APPEND)
	}
	g.then()
}

// end publishes everything and lets everybody read it.
func (g *generator) end() {
	places := []place{g.between("x", 0, len(g.borders)-1), g.between("y", 0, len(g.borders)-1)}
	for _, a := range g.actors {
		for _, x := range append(places, logPlace) {
			a.fsync(x)
		}
	}
	g.settle()
	if g.mode == history.Laminated && g.rng.Intn(2) == 0 {
		g.actors[0].chmod(places[0], 0o444)
		g.then()
	}
	for _, a := range g.actors {
		for _, x := range append(places, logPlace) {
			a.open(x.name, unix.O_RDONLY).read(x).add(history.Event{Op: history.Fstat, FD: a.fds[x.name]})
		}
	}
}

// between is the range from one border to another.
func (g *generator) between(name string, i, k int) place {
	return place{name, history.Range{Off: g.borders[i], Len: g.borders[k] - g.borders[i]}}
}

// somewhere is a range from a random border to a random later one.
func (g *generator) somewhere(name string) place {
	i := g.rng.Intn(len(g.borders) - 1)
	return g.between(name, i, i+1+g.rng.Intn(len(g.borders)-1-i))
}

// move adds an access of a random process, and some noise.
func (g *generator) move() {
	a := g.actors[g.rng.Intn(len(g.actors))]
	name := []string{"x", "x", "y"}[g.rng.Intn(3)]
	x := g.somewhere(name)
	n := access{actor: a, name: name}
	dice := g.rng.Intn(20)
	if !a.writes(name) && dice >= 8 && dice < 17 {
		dice = 0
	}
	if g.again && (dice == 17 || dice == 19) {
		dice = 0
	}
	switch {
	case dice < 7:
		n.read = x.Range
		g.access(n, func() { a.read(x) })
	case dice < 8:
		n.read, n.length = history.Range{}, true
		op := []history.Op{history.Fstat, history.SeekEnd}[g.rng.Intn(2)]
		g.access(n, func() { a.add(history.Event{Op: op, FD: a.fds[name]}) })
	case dice < 14:
		n.write, n.length = x.Range, true
		g.access(n, func() { a.write(x, g.value(name)) })
	case dice < 15:
		to := g.borders[g.rng.Intn(len(g.borders))]
		n.write, n.length = history.Range{Off: to, Len: whole.Len}, true
		g.access(n, func() { a.truncate(x, to) })
	case dice < 17:
		window := g.between(name, 0, len(g.borders)-1)
		n.write, n.hole, n.length = x.Range, window.Range, true
		g.access(n, func() { a.sieve(window, x, g.value(name)) })
	case dice < 18:
		a.append(logPlace, []int64{1, 100, 4097}[g.rng.Intn(3)], g.value("log"))
	case dice < 19:
		g.noise(a, x)
	default:
		g.rename(name)
	}
	if g.racy && g.rng.Intn(3) == 0 {
		g.sync(a, x)
		g.actors[g.rng.Intn(len(g.actors))].after(a)
	}
}

// writes reports whether the process may write to the file.
func (a *actor) writes(name string) bool {
	for _, s := range a.Steps {
		if s.Proc == a.proc && s.Op == history.Open && s.FD == a.fds[name] {
			return s.Flags&unix.O_ACCMODE == unix.O_RDWR
		}
	}
	return false
}

// value is the next id of a write to a file.
func (g *generator) value(name string) uint8 {
	g.values[name]++
	return g.values[name]
}

// after makes the next step of a come after the last one of b.
func (a *actor) after(b *actor) {
	if a != b && b.last >= 0 && !slices.Contains(a.known, b.last) {
		a.known = append(a.known, b.last)
	}
}

// access adds a call and what must come before it.
func (g *generator) access(n access, call func()) {
	if !g.racy {
		for _, x := range g.done {
			g.separate(x, n)
		}
	}
	call()
	n.step = n.actor.last
	g.done = append(g.done, n)
}

// conflict reports whether two accesses conflict: not at all, so that it is
// enough that one happens before the other, or so that y must see x.
func conflict(x, y access) (order, see bool) {
	touch := func(a, b history.Range) bool { return a.Off < b.Off+b.Len && b.Off < a.Off+a.Len }
	if x.name != y.name || x.actor == y.actor {
		return false, false
	}
	see = touch(x.write, y.write) || touch(x.write, y.read) || x.write.Len > 0 && x.length && y.length
	order = see || touch(x.read, y.write) || touch(x.hole, y.write) || touch(x.write, y.hole) || touch(x.hole, y.hole) ||
		touch(x.hole, y.read) || touch(x.read, y.hole) || x.length && y.length && y.write.Len > 0
	return order, see
}

// separate puts what the mode asks for between x, which is there, and y, which
// is about to be made.
func (g *generator) separate(x, y access) {
	order, see := conflict(x, y)
	key := chain{x.actor, y.actor, x.name}
	if !order || see && g.chained[key] > x.step {
		return
	}
	p, q := x.actor, y.actor
	if !see || p.node == q.node || g.mode == history.Strong {
		q.after(p)
		return
	}
	all := place{x.name, whole}
	publish := func() {
		g.sync(p, all)
		q.after(p)
	}
	switch {
	case g.mode == history.Eventual && g.waits < 2 && g.rng.Intn(2) == 0:
		g.waits++
		q.after(p)
		q.wait = g.visible
	case g.mode == history.Session && g.rng.Intn(2) == 0:
		publish()
		q.reopen(all)
	case g.mode == history.Session, g.mode == history.Eventual:
		publish()
		q.touch(all)
	default:
		publish()
	}
	g.chained[key] = p.last + 1
}

// sync publishes what the process wrote to a file.
func (g *generator) sync(a *actor, x place) {
	switch g.rng.Intn(8) {
	case 0, 1:
		a.reopen(x)
	case 2:
		a.dupClose(x)
	case 3:
		a.touch(x)
	case 4:
		if g.rng.Intn(4) == 0 { // it is slow
			a.forkClose(x)
			return
		}
		fallthrough
	default:
		a.fsync(x)
	}
}

// reopen closes the file and opens it again.
func (a *actor) reopen(x place) *actor {
	flags := unix.O_RDONLY
	if a.writes(x.name) {
		flags = unix.O_RDWR
	}
	return a.close(x).open(x.name, flags)
}

// touch takes a lock and gives it back.
func (a *actor) touch(x place) *actor {
	if !a.writes(x.name) {
		e := a.at(history.Lock, x)
		e.Flags = unix.F_RDLCK
		return a.add(e).unlock(x)
	}
	return a.lock(x).unlock(x)
}

// noise adds a call that changes nothing.
func (g *generator) noise(a *actor, x place) {
	if g.rng.Intn(2) == 0 {
		a.dupClose(x)
		return
	}
	a.fsync(x)
}

// rename gives the file another name for a while.
func (g *generator) rename(name string) {
	a := g.actors[g.rng.Intn(len(g.actors))]
	g.then()
	a.rename(name, g.aside[name])
	a.add(history.Event{Op: history.Stat, Name: g.aside[name]})
	a.rename(g.aside[name], name)
	g.then()
}

// random runs random programs and shrinks the first that shows a violation.
func (r *runner) random(ctx context.Context, racy bool) (Row, error) {
	row := Row{Name: "random", Title: "programs without races", Promise: "as if one after the other", Must: true, Seen: map[string]int{}}
	if racy {
		row = Row{Name: "racy", Title: "programs with races", Promise: "nothing invented, nothing outdated", Must: true, Seen: map[string]int{}}
	}
	start, rng := time.Now(), r.rng(row.Name)
	for round := range r.Random {
		seed := rng.Int63()
		p := r.program(seed, racy)
		h, err := r.play(ctx, p, round)
		if err != nil {
			return row, err
		}
		report := history.Check(h)
		row.Rounds++
		row.Seen[kind(report)]++
		if !racy && report.Races > 0 && len(report.Violations) == 0 {
			return row, fmt.Errorf("the generator made a program with %d races (seed %d):\n%s", report.Races, seed, p)
		}
		if len(report.Violations) > 0 && row.Violated == 0 {
			p, h = r.shrink(ctx, p, h)
			row.find(h, history.Check(h).Violations, p)
			row.Findings[0].Shrunk = true
		} else {
			row.find(h, report.Violations, p)
		}
		if r.visible() > 0 && time.Since(start) > settleTime {
			break
		}
	}
	return row, nil
}

func kind(r history.Report) string {
	switch {
	case len(r.Violations) > 0:
		return "violation"
	case r.Races > 0:
		return "raced"
	}
	return "sequential"
}

// program is the random program of a seed.
func (r *runner) program(seed int64, racy bool) Program {
	rng := rand.New(rand.NewSource(seed))
	return generate(newScript(rng, len(r.Mounts), r.visible()), r.header.Mode, racy, r.Repeatable)
}
