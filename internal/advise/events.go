package advise

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// Options adjust Analyse.
type Options struct {
	// PerNode takes the processes of one node for one, as zoidfs does: they see
	// each other's writes at once. What is found then holds for this placement.
	PerNode bool
	// Strict takes accesses that only time orders for races.
	Strict   bool
	Barriers []Barrier
}

// agent is who accesses: a rank, a process of no job, or a node.
type agent struct {
	name string
	node string
	job  string
	rank int32 // -1: none
}

// access is a read or a write of bytes of one file.
type access struct {
	*trace.Call
	who      int // agent
	off, end int64
	write    bool
	at       int64 // when the open file that it goes by was opened; MinInt64: before the trace
	path     string
	recalls  bool // a read by a file that is open for writing too
	self     bool // publishes itself
	cut      bool // a truncation, which everybody sees
}

// span is a call that synchronises: when it began and had returned.
type span struct{ start, end int64 }

// held is a lock or an unlock of bytes.
type held struct {
	span
	off, to int64
	shared  bool
}

// sync is the synchronising calls of one agent on one file, in order.
type sync struct {
	publish []span // fsync, close
	renames []named
	acquire []span // open
	locks   []held
	unlocks []held
}

// named is a rename to a path.
type named struct {
	span
	to string
}

// file is what is known of one file.
type file struct {
	out      File
	accesses []access
	syncs    map[int]*sync
	cuts     []span // truncations, which publish what anybody wrote
	readers  map[int]bool
	writers  map[int]bool
	modes    map[consistency.Mode]bool
}

// opening is an open file.
type opening struct {
	who   int
	at    int64
	flags uint32
	path  string
}

// world collects the events of traces by file.
type world struct {
	opt      Options
	traces   []*trace.Trace
	agents   []agent
	byName   map[string]int
	files    map[uint64]*file
	openings map[[2]uint64]opening
	skipped  int
}

// agentOf is the number of who made a call; false if nobody knows.
func (w *world) agentOf(at *trace.At) (int, bool) {
	t := w.traces[at.Trace]
	p := t.Process(&at.Call)
	a := agent{node: fmt.Sprintf("%s:%s", t.Node, t.Mountpoint), rank: -1}
	key := a.node
	switch {
	case w.opt.PerNode:
		a.name = "the processes of " + a.node
	case p.PID == 0:
		return 0, false
	case p.Job != "":
		a.name, a.job, a.rank = p.Name(), p.Job, p.Rank
		key = fmt.Sprint(p.Job, "\x00", p.Rank)
	default:
		a.name = p.Name()
		key = fmt.Sprint(a.node, "\x00", p.PID, "\x00", p.Started)
	}
	n, ok := w.byName[key]
	if !ok {
		n = len(w.agents)
		w.byName[key] = n
		w.agents = append(w.agents, a)
	}
	return n, true
}

func (w *world) file(handle uint64, path string) *file {
	f := w.files[handle]
	if f == nil {
		f = &file{
			syncs: map[int]*sync{}, readers: map[int]bool{}, writers: map[int]bool{}, modes: map[consistency.Mode]bool{},
			out: File{Path: path, Handle: handle},
		}
		w.files[handle] = f
	}
	if f.out.Path == "" {
		f.out.Path = path
	}
	return f
}

func (f *file) sync(who int) *sync {
	s := f.syncs[who]
	if s == nil {
		s = new(sync)
		f.syncs[who] = s
	}
	return s
}

// take takes note of a call.
func (w *world) take(at *trace.At) {
	c := &at.Call
	if c.Errno != 0 || c.File == 0 {
		return
	}
	key := [2]uint64{uint64(at.Trace), c.Open}
	o, opened := w.openings[key]
	who, known := w.agentOf(at)
	if !known && opened { // pages of a mapping, written back by the kernel
		who, known = o.who, true
	}
	if !known {
		if c.Op == trace.Read || c.Op == trace.Write {
			w.skipped++
		}
		return
	}
	f := w.file(c.File, w.traces[at.Trace].Name(c))
	s := f.sync(who)
	when := span{c.Start, c.End}
	switch c.Op {
	case trace.Open, trace.Create:
		w.openings[key] = opening{who, c.End, c.Arg, c.Path}
		f.modes[c.Mode] = true
		s.acquire = append(s.acquire, when)
		if c.Op == trace.Open && c.Arg&unix.O_TRUNC != 0 {
			f.cut(c, who, 0)
		}
	case trace.Truncate:
		f.cut(c, who, c.Len)
	case trace.Read, trace.Write, trace.Copy:
		f.access(c, who, o, opened)
	case trace.Flush, trace.Fsync:
		s.publish = append(s.publish, when)
	case trace.Rename:
		s.renames = append(s.renames, named{when, c.To})
	case trace.Lock:
		s.locks = append(s.locks, held{when, c.Off, c.Off + c.Len, c.Arg&trace.LockShared != 0})
	case trace.Unlock:
		s.unlocks = append(s.unlocks, held{when, c.Off, c.Off + c.Len, false})
	}
}

// cut takes note of a truncation.
func (f *file) cut(c *trace.Call, who int, size int64) {
	f.cuts = append(f.cuts, span{c.Start, c.End})
	f.writers[who] = true
	f.accesses = append(f.accesses, access{Call: c, who: who, off: size, end: trace.MaxOff, write: true, at: math.MinInt64, self: true, cut: true})
}

// access takes note of a read or a write.
func (f *file) access(c *trace.Call, who int, o opening, opened bool) {
	a := access{Call: c, who: who, off: c.Off, end: c.Off + c.Len, at: math.MinInt64}
	if opened {
		a.at, a.path = o.at, o.path
	}
	switch c.Op {
	case trace.Write, trace.Copy:
		a.write, a.end = true, c.Off+c.N
		a.self = c.Op == trace.Copy || c.Arg&(trace.WriteSync|trace.WriteAppend) != 0
		f.writers[who] = true
		f.out.Written += c.N
	case trace.Read:
		a.recalls = opened && o.flags&unix.O_ACCMODE == unix.O_RDWR
		f.readers[who] = true
		f.out.Read += c.N
	}
	if a.end > a.off {
		f.accesses = append(f.accesses, a)
	}
}

// Analyse says what each file of the traces, whose calls trace.Merge has put in
// order, needs.
func Analyse(traces []*trace.Trace, calls []trace.At, opt Options) *Report {
	w := &world{
		opt: opt, traces: traces, byName: map[string]int{}, files: map[uint64]*file{}, openings: map[[2]uint64]opening{},
	}
	for i := range calls {
		w.take(&calls[i])
	}
	r := &Report{Skipped: w.skipped}
	bars := newBarriers(opt.Barriers, w.agents)
	for _, f := range w.files {
		if len(f.readers)+len(f.writers) == 0 {
			continue // a directory, or a file that was only opened
		}
		f.out.Writers, f.out.Readers = w.names(f.writers), w.names(f.readers)
		for m := range f.modes {
			f.out.Opened = append(f.out.Opened, m)
		}
		slices.Sort(f.out.Opened)
		newJudge(w, f, bars).run()
		r.Files = append(r.Files, f.out)
	}
	slices.SortFunc(r.Files, func(a, b File) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Handle, b.Handle)) })
	return r
}

// names are the names of agents, in order of rank.
func (w *world) names(set map[int]bool) []string {
	list := make([]int, 0, len(set))
	for a := range set {
		list = append(list, a)
	}
	sort.Slice(list, func(i, k int) bool {
		a, b := w.agents[list[i]], w.agents[list[k]]
		return cmp.Or(cmp.Compare(a.job, b.job), cmp.Compare(a.rank, b.rank), cmp.Compare(a.name, b.name)) < 0
	})
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = w.agents[a].name
	}
	return out
}
