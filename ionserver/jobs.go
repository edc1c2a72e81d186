package ionserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// Bounds of the table of jobs. A job beyond is not known; of one that has ended
// the account is kept for those who ask, until there are many of these.
const (
	maxJobs     = 1 << 12
	maxEndedJob = 256
	maxJobRanks = 1 << 17 // of one mount
)

// jobInfo is what is known of a job. It never changes.
type jobInfo struct {
	ID    collective.JobID
	Name  string
	UID   uint32
	Size  int // ranks of the whole job; 0: not known
	Began time.Time
	Ended time.Time // zero while a mount has ranks of it
	// Ranks are those that mounts have, in order, by session.
	Ranks map[uint64][]collective.Rank

	account *jobAccount // the same as long as the job is known
}

// jobAccount counts what was done for a job.
type jobAccount struct {
	rpc  rpc.Counters // requests of mounts
	pvfs pvfs.Account // requests to PVFS2 servers; of files written back, for the job that wrote last
}

// Here is the number of ranks that mounts have told of.
func (j *jobInfo) Here() (n int) {
	for _, r := range j.Ranks {
		n += len(r)
	}
	return n
}

// jobTable is the jobs on whose behalf mounts ask.
type jobTable struct {
	mu   sync.RWMutex
	jobs map[collective.JobID]*jobInfo // guarded by mu; each is replaced, never changed
}

func newJobTable() *jobTable { return &jobTable{jobs: make(map[collective.JobID]*jobInfo)} }

// lookup returns what mounts have told of a job; nil if nothing.
func (t *jobTable) lookup(id collective.JobID) *jobInfo {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.jobs[id]
}

// all returns all jobs, the oldest first.
func (t *jobTable) all() []*jobInfo {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.jobs), func(a, b *jobInfo) int { return a.Began.Compare(b.Began) })
}

// tell notes what the mount of a session says of a job.
func (t *jobTable) tell(session uint64, m *ionpb.JobReq, now time.Time) {
	ranks := make([]collective.Rank, 0, len(m.Ranks))
	for _, r := range m.Ranks {
		ranks = append(ranks, collective.Rank(r))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	id := collective.JobID(m.Id)
	old := t.jobs[id]
	if old == nil {
		if len(ranks) == 0 || len(t.jobs) >= maxJobs {
			return
		}
		old = &jobInfo{ID: id, Name: m.Name, UID: m.Uid, Size: int(m.Size), Began: now, account: new(jobAccount)}
	}
	t.putLocked(old.with(session, ranks, now))
}

// with is j with the ranks that the mount of a session has.
func (j *jobInfo) with(session uint64, ranks []collective.Rank, now time.Time) *jobInfo {
	k := *j
	if k.Ranks = maps.Clone(j.Ranks); k.Ranks == nil {
		k.Ranks = make(map[uint64][]collective.Rank)
	}
	k.Ranks[session] = ranks
	k.Ended = time.Time{}
	if len(ranks) == 0 {
		if delete(k.Ranks, session); len(k.Ranks) == 0 {
			k.Ended = now
		}
	}
	return &k
}

// putLocked replaces a job. Of those that have ended it keeps the latest.
func (t *jobTable) putLocked(j *jobInfo) {
	t.jobs[j.ID] = j
	if j.Ended.IsZero() {
		return
	}
	var oldest *jobInfo
	n := 0
	for _, e := range t.jobs {
		if e.Ended.IsZero() {
			continue
		}
		if n++; oldest == nil || e.Ended.Before(oldest.Ended) {
			oldest = e
		}
	}
	if n > maxEndedJob {
		delete(t.jobs, oldest.ID)
	}
}

// dropSession forgets what a mount had.
func (t *jobTable) dropSession(session uint64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range t.jobs {
		if _, ok := j.Ranks[session]; ok {
			t.putLocked(j.with(session, nil, now))
		}
	}
}

// requests is where to count requests of mounts; nil if a is.
func (a *jobAccount) requests() *rpc.Counters {
	if a == nil {
		return nil
	}
	return &a.rpc
}

// account is where to count what is done for a job; nil if it is not known.
func (t *jobTable) account(id collective.JobID) *jobAccount {
	if id == 0 {
		return nil
	}
	if j := t.lookup(id); j != nil {
		return j.account
	}
	return nil
}

// onBehalf returns ctx for requests to PVFS2 servers that are counted for a job.
func (t *jobTable) onBehalf(ctx context.Context, id collective.JobID) context.Context {
	if a := t.account(id); a != nil {
		return pvfs.WithAccount(ctx, &a.pvfs)
	}
	return ctx
}

// status is j as it is shown.
func (j *jobInfo) status() *ionpb.JobStatus {
	s := &ionpb.JobStatus{
		Id: uint64(j.ID), Name: j.Name, Uid: j.UID, Size: uint32(j.Size),
		Ranks: uint32(j.Here()), Mounts: uint32(len(j.Ranks)), Began: j.Began.Unix(),
	}
	if !j.Ended.IsZero() {
		s.Ended = j.Ended.Unix()
	}
	return s
}

// tellJob is the operation JOB.
func (c *call) tellJob() (*rpc.Frame, error) {
	var m ionpb.JobReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if m.Id == 0 || len(m.Name) > 255 || len(m.Ranks) > maxJobRanks {
		return nil, errno.New("ionserver: job", syscall.EINVAL)
	}
	c.srv.jobs.tell(c.sess.id, &m, time.Now())
	if c.srv.sessions.get(c.sess.id) == nil { // it ended meanwhile
		c.srv.jobs.dropSession(c.sess.id, time.Now())
	}
	return okay(nil)
}
