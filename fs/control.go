package fs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// Attributes of the root directory by which a mount tells about itself. They
// are not stored, not listed and cost no request.
const (
	statsXattr  = "user.zoidfs.stats"       // a Snapshot
	statusXattr = "user.zoidfs.status"      // a Status
	resetXattr  = "user.zoidfs.stats.reset" // set to anything: count anew
	jobsXattr   = "user.zoidfs.jobs"        // []JobInfo, the latest; set to a JobRequest
	jobXattr    = "user.zoidfs.job."        // with a job's id behind it: a JobStats
)

// TraceXattr is another one: its value is a TraceStatus, and setting it to a
// TraceRequest, for root and for who mounted, begins and ends traces.
const TraceXattr = "user.zoidfs.trace"

// controlSlack is added to the size that a probe is told, as numbers may have
// grown by the time the value is fetched.
const controlSlack = 256

// Status is what a mount knows about itself and its I/O nodes.
type Status struct {
	Mountpoint  string      `json:"mountpoint"`
	PID         int         `json:"pid"`
	Version     string      `json:"version"`
	Consistency string      `json:"consistency"`
	Guard       string      `json:"guard"`
	Races       uint64      `json:"races"`    // that the guard was told of
	IOURing     bool        `json:"io_uring"` // whether requests come through a queue for each processor
	View        ViewStatus  `json:"view"`
	IONs        []IONStatus `json:"ions"`
}

// ViewStatus is the set of I/O nodes as the mount learned it last.
type ViewStatus struct {
	Epoch      uint64   `json:"epoch"`
	FSID       uint32   `json:"fsid"`
	FSName     string   `json:"fs_name"`
	Root       uint64   `json:"root"`
	DomainSize int64    `json:"domain_size"`
	Members    []string `json:"members"`
}

// IONStatus is the session of the mount with one I/O node.
type IONStatus struct {
	Addr    string `json:"addr"`
	Session string `json:"session"` // hexadecimal
	Up      bool   `json:"up"`
	Pending int    `json:"pending"` // requests not answered yet
	Error   string `json:"error,omitempty"`
}

// control returns the value of one of our own attributes, all but one of which
// only the root has.
func (n *node) control(name string) ([]byte, bool) {
	if name == RoundsXattr {
		return n.rounds(), true
	}
	if !n.IsRoot() {
		return nil, false
	}
	var v any
	switch name {
	case statsXattr:
		v = n.m.snapshot()
	case statusXattr:
		v = n.m.status()
	case TraceXattr:
		v = n.m.tracer.show()
	case jobsXattr:
		v = n.m.jobList()
	default:
		j, ok := n.m.jobNamed(name)
		if !ok {
			return nil, false
		}
		v = j
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("fs: %T does not marshal: %v", v, err))
	}
	return b, true
}

// snapshot returns what was counted since the last reset.
func (m *mount) snapshot() Snapshot {
	rpc := m.client.Stats()
	m.mu.Lock()
	defer m.mu.Unlock()
	return Snapshot{
		App: m.stats.snapshot().since(m.base),
		RPC: RPCStats{
			Requests:      maps.Clone(rpc.Requests),
			BytesSent:     rpc.BytesSent,
			BytesReceived: rpc.BytesReceived,
		},
	}
}

func (m *mount) resetStats() {
	m.client.ResetStats()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base = m.stats.snapshot()
}

func (m *mount) status() Status {
	v := m.client.View()
	s := Status{
		Mountpoint:  m.opts.Mountpoint,
		PID:         os.Getpid(),
		Version:     m.opts.Version,
		Consistency: m.opts.Consistency.String(),
		Guard:       m.opts.Guard.String(), Races: m.guard.races.Load(),
		IOURing: m.calls.rings,
		View: ViewStatus{
			Epoch: v.Epoch, FSID: v.FSID, FSName: v.FSName, Root: v.Root,
			DomainSize: v.DomainSize, Members: v.Members,
		},
	}
	for _, ss := range m.client.Sessions() {
		ion := IONStatus{Addr: ss.Addr, Session: fmt.Sprintf("%016x", ss.ID), Up: ss.Up, Pending: ss.Pending}
		if ss.Err != nil {
			ion.Error = ss.Err.Error()
		}
		s.IONs = append(s.IONs, ion)
	}
	return s
}

// setTrace begins a trace, or ends it. The file is made with the rights of this
// process, so who else could ask for it may not.
func (n *node) setTrace(ctx context.Context, value []byte) syscall.Errno {
	if !mayControl(ctx) {
		return syscall.EPERM
	}
	var q TraceRequest
	if err := json.Unmarshal(value, &q); err != nil {
		return syscall.EINVAL
	}
	if err := n.m.tracer.record(n.m, q); err != nil {
		n.m.log.Warn("trace", "err", err)
		return errno.Of(err)
	}
	return 0
}

// resetStats has the mount count anew: for everybody who looks.
func (n *node) resetStats(ctx context.Context) syscall.Errno {
	if !mayControl(ctx) {
		return syscall.EPERM
	}
	n.m.resetStats()
	return 0
}

// mayControl reports whether the caller is root or who mounted.
func mayControl(ctx context.Context) bool {
	uid, _ := caller(ctx)
	return uid == 0 || int(uid) == os.Geteuid()
}
