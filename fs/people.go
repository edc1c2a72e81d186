package fs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/zoidfs/zoidfs/fs/ranks"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// people are the processes that a trace names. A process that has begun to
// execute another program counts as another one.
type people struct {
	mu   sync.Mutex
	all  []trace.Process          // guarded by mu; in the order of their ids
	ids  map[trace.Process]uint32 // guarded by mu; by what is known of them, without id
	tids map[uint32]uint32        // guarded by mu; the id of the process of a thread, when last seen
}

// meet looks at the process to which a thread belongs, and returns its id; 0
// for none. known is what is known of its job.
func (p *people) meet(tid uint32, known *ranks.Process) uint32 { return p.find(tid, known, 0) }

// find is meet, and returns instead if the process has exited.
func (p *people) find(tid uint32, known *ranks.Process, instead uint32) uint32 {
	if tid == 0 {
		return 0
	}
	who := lookAt(tid)
	if who.Started == 0 && instead != 0 {
		return instead
	}
	if job := known.Job(); job != nil {
		if rank, ok := known.Rank(); ok {
			who.Job, who.Rank, who.Size = job.Name, int32(rank), int32(job.Size)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.ids[who]
	if id == 0 {
		if p.ids == nil {
			p.ids, p.tids = make(map[trace.Process]uint32), make(map[uint32]uint32)
		}
		id = uint32(len(p.all) + 1)
		p.ids[who] = id
		who.ID = id
		p.all = append(p.all, who)
	}
	p.tids[tid] = id
	return id
}

// number is the id of the process of a thread when it was last seen; 0 if it
// never was.
func (p *people) number(tid uint32) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tids[tid]
}

// after returns the processes behind the first n.
func (p *people) after(n uint32) []trace.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[n:]
}

// lookAt is what /proc knows of the process of a thread. One that has exited is
// taken for a process of one thread.
func lookAt(tid uint32) trace.Process {
	p := trace.Process{PID: int(tid)}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return p
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "Tgid:":
			p.PID, _ = strconv.Atoi(fields[1]) // the kernel writes numbers
		case "Uid:":
			uid, _ := strconv.ParseUint(fields[1], 10, 32)
			p.UID = uint32(uid)
		}
	}
	// Source: proc_pid_stat(5): the program in parentheses; the start is field 22.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return p
	}
	open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || shut < open {
		return p
	}
	p.Command = strings.ToValidUTF8(string(stat[open+1:shut]), "?")
	if rest := bytes.Fields(stat[shut+1:]); len(rest) > 19 {
		p.Started, _ = strconv.ParseUint(string(rest[19]), 10, 64)
	}
	return p
}
