package advise

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// play writes a trace down: of ranks, each on a node of its own, whose calls come
// one after the other unless they are made at once.
type play struct {
	traces []*trace.Trace
	now    int64
	files  map[string]uint64
	opens  uint64
}

func newPlay() *play { return &play{files: map[string]uint64{}} }

// actor is a rank of a play.
type actor struct {
	*play
	rank int
	node int // trace
	proc uint32
	open map[string]uint64
}

// rank adds the next rank on a node of its own.
func (p *play) rank() *actor {
	n := len(p.traces)
	p.traces = append(p.traces, &trace.Trace{
		Header: trace.Header{Node: fmt.Sprint("n", n), Mountpoint: "/zfs"},
		Procs:  []trace.Process{{ID: 1, PID: 100 + n, Job: "j", Rank: int32(n), Size: 99}},
		Files:  map[uint64]string{},
	})
	return &actor{play: p, rank: n, node: n, proc: 1, open: map[string]uint64{}}
}

// ranks adds n of them.
func (p *play) ranks(n int) (out []*actor) {
	for range n {
		out = append(out, p.rank())
	}
	return out
}

func (a *actor) call(o trace.Op, name string, c trace.Call) *actor {
	h, ok := a.files[name]
	if !ok {
		h = uint64(len(a.files) + 1)
		a.files[name] = h
	}
	t := a.traces[a.node]
	t.Files[h] = name
	c.Op, c.Proc, c.File, c.Open, c.Start, c.End = o, a.proc, h, a.open[name], a.now, a.now+5
	a.now += 10
	t.Calls = append(t.Calls, c)
	return a
}

// as opens a file with flags.
func (a *actor) as(name string, flags int) *actor {
	a.opens++
	a.open[name] = a.opens
	return a.call(trace.Open, name, trace.Call{Path: name, Arg: uint32(flags), Mode: consistency.Strong})
}

func (a *actor) rdwr(name string) *actor   { return a.as(name, unix.O_RDWR|unix.O_CREAT) }
func (a *actor) rdonly(name string) *actor { return a.as(name, unix.O_RDONLY) }
func (a *actor) wronly(name string) *actor { return a.as(name, unix.O_WRONLY|unix.O_CREAT) }

func (a *actor) write(name string, off, n int64) *actor {
	return a.call(trace.Write, name, trace.Call{Off: off, Len: n, N: n})
}

func (a *actor) append(name string, off, n int64) *actor {
	return a.call(trace.Write, name, trace.Call{Off: off, Len: n, N: n, Arg: trace.WriteAppend})
}

func (a *actor) read(name string, off, n int64) *actor {
	return a.call(trace.Read, name, trace.Call{Off: off, Len: n, N: n})
}
func (a *actor) fsync(name string) *actor { return a.call(trace.Fsync, name, trace.Call{}) }
func (a *actor) close(name string) *actor {
	a.call(trace.Flush, name, trace.Call{})
	return a.call(trace.Release, name, trace.Call{})
}
func (a *actor) truncate(name string, n int64) *actor {
	return a.call(trace.Truncate, name, trace.Call{Len: n})
}
func (a *actor) lock(name string, off, n int64) *actor {
	return a.call(trace.Lock, name, trace.Call{Off: off, Len: n, Arg: trace.LockWait})
}
func (a *actor) shared(name string, off, n int64) *actor {
	return a.call(trace.Lock, name, trace.Call{Off: off, Len: n, Arg: trace.LockWait | trace.LockShared})
}
func (a *actor) unlock(name string, off, n int64) *actor {
	return a.call(trace.Unlock, name, trace.Call{Off: off, Len: n})
}
func (a *actor) rename(from, to string) *actor {
	a.call(trace.Rename, from, trace.Call{Path: from, To: to})
	a.files[to] = a.files[from]
	return a
}

// atOnce makes the calls of each overlap in time.
func (p *play) atOnce(calls ...func()) {
	begin, end := p.now, p.now
	for _, call := range calls {
		p.now = begin
		call()
		end = max(end, p.now)
	}
	p.now = end
}

func (p *play) report(opt Options) *Report {
	all, err := trace.Merge(p.traces)
	if err != nil {
		panic(err)
	}
	return Analyse(p.traces, all, opt)
}

// file is what was found about one file.
func (p *play) file(name string, opt Options) File {
	for _, f := range p.report(opt).Files {
		if f.Handle == p.files[name] {
			return f
		}
	}
	panic("no file " + name)
}
