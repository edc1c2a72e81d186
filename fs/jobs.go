package fs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/fs/ranks"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// maxJobList is how many jobs are listed: the kernel hands over 64 KiB.
const maxJobList = 128

// JobInfo is what a mount knows of a job.
type JobInfo struct {
	ID         string     `json:"id"`   // hexadecimal, the same on every node
	Name       string     `json:"name"` // launcher and its name of the job
	UID        uint32     `json:"uid"`
	Size       int        `json:"size"`       // ranks of the whole job; 0: not known
	Confidence string     `json:"confidence"` // told, launched or guessed
	Ranks      int        `json:"ranks"`      // seen on this mount
	Processes  int        `json:"processes"`  // that live
	Began      time.Time  `json:"began"`
	Ended      *time.Time `json:"ended,omitempty"` // null while it has processes
}

// JobStats is what was counted for a job on one mount.
type JobStats struct {
	JobInfo
	Snapshot
}

// newRanks returns the table of processes, which tells I/O nodes of their jobs.
func (m *mount) newRanks() (*ranks.Table, error) {
	return ranks.New(ranks.Options{
		Kinds: int(numOps), Logger: m.log,
		Changed:   func(j *ranks.Job) { m.tellJob(j, m.ranks.Ranks(j)) },
		Ended:     m.jobEnded,
		Forgotten: func(j *ranks.Job) { m.client.ForgetJob(j.ID) },
	})
}

func (m *mount) tellJob(j *ranks.Job, seen []collective.Rank) {
	m.client.SetJob(ionclient.Job{ID: j.ID, Name: j.Name, UID: j.UID, Size: j.Size, Ranks: seen})
}

func (m *mount) jobEnded(j *ranks.Job) {
	m.tellJob(j, nil)
	s := m.jobStats(j)
	m.log.Info("job ended", "job", s.ID, "name", s.Name, "uid", s.UID, "size", s.Size, "ranks", s.Ranks,
		"took", s.Ended.Sub(s.Began).Round(time.Millisecond), "calls", sumOf(s.App.Calls), "requests", sumOf(s.RPC.Requests),
		"bytes_read", s.App.BytesRead, "bytes_written", s.App.BytesWritten,
		"bytes_sent", s.RPC.BytesSent, "bytes_received", s.RPC.BytesReceived)
}

func sumOf(counts map[string]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func (m *mount) jobInfo(j *ranks.Job) JobInfo {
	s := m.ranks.State(j)
	out := JobInfo{
		ID: jobID(j.ID), Name: j.Name, UID: j.UID, Size: j.Size, Confidence: j.Confidence.String(),
		Ranks: s.Ranks, Processes: s.Processes, Began: j.Began,
	}
	if !s.Last.IsZero() {
		out.Ended = &s.Last
	}
	return out
}

func jobID(id collective.JobID) string { return fmt.Sprintf("%016x", uint64(id)) }

func (m *mount) jobStats(j *ranks.Job) JobStats {
	rpc := m.client.JobStats(j.ID)
	app := AppStats{Calls: make(map[string]uint64), BytesRead: j.BytesRead.Load(), BytesWritten: j.BytesWritten.Load()}
	for o := range numOps {
		app.Calls[o.String()] = j.Calls[o].Load()
	}
	return JobStats{m.jobInfo(j), Snapshot{App: app, RPC: RPCStats{
		Requests: rpc.Requests, BytesSent: rpc.BytesSent, BytesReceived: rpc.BytesReceived,
	}}}
}

// jobList is the value of jobsXattr.
func (m *mount) jobList() []JobInfo {
	all := m.ranks.Jobs()
	out := make([]JobInfo, 0, len(all))
	for _, j := range slices.Backward(all) {
		if len(out) < maxJobList {
			out = append(out, m.jobInfo(j))
		}
	}
	slices.Reverse(out)
	return out
}

// jobNamed is the value of an attribute that begins with jobXattr; false if
// there is no such job.
func (m *mount) jobNamed(name string) (JobStats, bool) {
	hex, ok := strings.CutPrefix(name, jobXattr)
	if !ok {
		return JobStats{}, false
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return JobStats{}, false
	}
	j := m.ranks.Job(collective.JobID(id))
	if j == nil {
		return JobStats{}, false
	}
	return m.jobStats(j), true
}

// JobRequest begins or ends a job whose processes are named, see ranks.Named.
type JobRequest struct {
	Job     string   `json:"job"`
	End     bool     `json:"end,omitempty"` // with nothing but Job
	Size    int      `json:"size,omitempty"`
	PIDs    []uint32 `json:"pids,omitempty"`
	Session uint32   `json:"session,omitempty"`
	Cgroup  string   `json:"cgroup,omitempty"`
}

// Bounds of a JobRequest.
const (
	maxJobName = 255
	maxJobPIDs = 4096
	maxJobSize = 1 << 27
)

// valid reports whether the request makes sense.
func (q *JobRequest) valid() bool {
	switch {
	case q.Job == "" || len(q.Job) > maxJobName:
		return false
	case q.End:
		return true
	case q.Size < 0 || q.Size > maxJobSize || len(q.PIDs) > maxJobPIDs || len(q.Cgroup) > 4096:
		return false
	}
	return len(q.PIDs) > 0 || q.Session != 0 || strings.HasPrefix(q.Cgroup, "/") && q.Cgroup != "/"
}

// setJob carries out a JobRequest of the caller: of processes of everybody if
// that is root, else of its own.
func (n *node) setJob(ctx context.Context, value []byte) syscall.Errno {
	var q JobRequest
	if err := json.Unmarshal(value, &q); err != nil || !q.valid() {
		return syscall.EINVAL
	}
	uid, _ := caller(ctx)
	if q.End {
		if !n.m.ranks.End(uid, q.Job) {
			return syscall.ESRCH
		}
		return 0
	}
	n.m.ranks.Begin(ranks.Named{UID: uid, Job: q.Job, Size: q.Size, PIDs: q.PIDs, Session: q.Session, Cgroup: q.Cgroup})
	return 0
}
