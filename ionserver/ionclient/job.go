package ionclient

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Job is what I/O nodes are told of a job.
type Job struct {
	ID    collective.JobID
	Name  string // for people
	UID   uint32
	Size  int               // ranks of the whole job; 0: not known
	Ranks []collective.Rank // seen on this mount, in order; none: it has ended here
}

// knownJob is a job that this mount has, and what it asked of I/O nodes.
type knownJob struct {
	msg     *ionpb.JobReq // never changes
	version uint64        // of msg
	traffic *rpc.Counters
}

// jobs is which jobs this mount has, and which of them has which file open. The
// zero value is ready.
type jobs struct {
	mu    sync.RWMutex
	known map[collective.JobID]knownJob // guarded by mu
	files map[uint64]*openers           // by handle; guarded by mu
	// lately has the handles that were closed last, the latest at turn-1;
	// guarded by mu.
	lately []uint64
	turn   int
	hinted atomic.Bool // some file has, or had, a buffer
}

// maxLately bounds how many closed files remember whose they were, for what is
// kept back and written after the close.
const maxLately = 4096

// openers is who has a file open, or had last.
type openers struct {
	opens  map[collective.JobID]int // none is 0; empty: it is closed
	job    collective.JobID         // zero: of several
	buffer int64                    // Attr.CBBufferSize as of the last open
}

func (o *openers) settle() {
	if len(o.opens) > 1 {
		o.job = 0
		return
	}
	for job := range o.opens {
		o.job = job
	}
}

// OpenedBy notes that a process of a job has a file open, zero being no job,
// until ClosedBy is called with the same; buffer is the file's Attr.CBBufferSize.
func (c *Client) OpenedBy(h uint64, job collective.JobID, buffer int64) {
	j := &c.jobs
	j.mu.Lock()
	defer j.mu.Unlock()
	o := j.files[h]
	if o == nil {
		if job == 0 && buffer == 0 {
			return // nothing to remember
		}
		if j.files == nil {
			j.files = make(map[uint64]*openers)
		}
		o = &openers{opens: make(map[collective.JobID]int, 1)}
		j.files[h] = o
	}
	o.opens[job]++
	if o.buffer = buffer; buffer != 0 {
		j.hinted.Store(true)
	}
	o.settle()
}

// bufferOf is the buffer that was given for a file at its last open.
func (j *jobs) bufferOf(h uint64) int64 {
	if !j.hinted.Load() {
		return 0
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if o := j.files[h]; o != nil {
		return o.buffer
	}
	return 0
}

// ClosedBy is the counterpart of OpenedBy.
func (c *Client) ClosedBy(h uint64, job collective.JobID) {
	j := &c.jobs
	j.mu.Lock()
	defer j.mu.Unlock()
	o := j.files[h]
	if o == nil {
		return
	}
	if o.opens[job]--; o.opens[job] <= 0 {
		delete(o.opens, job)
	}
	o.settle()
	if len(o.opens) == 0 {
		j.closedLocked(h)
	}
}

func (j *jobs) closedLocked(h uint64) {
	if len(j.lately) < maxLately {
		j.lately = append(j.lately, h)
		return
	}
	place := &j.lately[j.turn%maxLately]
	if o := j.files[*place]; o != nil && len(o.opens) == 0 {
		delete(j.files, *place)
	}
	*place = h
	j.turn++
}

// jobOf is the job on whose behalf something is asked for.
func (c *Client) jobOf(ctx context.Context, h uint64) collective.JobID {
	if job := collective.CallerOf(ctx).Account; job != 0 {
		return job
	}
	c.jobs.mu.RLock()
	defer c.jobs.mu.RUnlock()
	if o := c.jobs.files[h]; o != nil {
		return o.job
	}
	return 0
}

// SetJob tells of a job, or more of one that was told of before. I/O nodes hear
// of it when they are asked for something on its behalf, and then of changes;
// nobody waits for that.
func (c *Client) SetJob(job Job) {
	msg := &ionpb.JobReq{Id: uint64(job.ID), Name: job.Name, Uid: job.UID, Size: uint32(job.Size)}
	for _, r := range job.Ranks {
		msg.Ranks = append(msg.Ranks, uint32(r))
	}
	c.jobs.mu.Lock()
	if c.jobs.known == nil {
		c.jobs.known = make(map[collective.JobID]knownJob)
	}
	k := c.jobs.known[job.ID]
	if k.traffic == nil {
		k.traffic = new(rpc.Counters)
	}
	k.msg = msg
	k.version++
	c.jobs.known[job.ID] = k
	c.jobs.mu.Unlock()
	for _, s := range c.current.Load().sessions {
		s.mention(job.ID, false)
	}
}

// ForgetJob is called when nobody asks for the job any more.
func (c *Client) ForgetJob(id collective.JobID) {
	c.jobs.mu.Lock()
	delete(c.jobs.known, id)
	c.jobs.mu.Unlock()
	for _, s := range c.current.Load().sessions {
		s.mu.Lock()
		delete(s.told, id)
		s.mu.Unlock()
	}
}

// JobStats is what was asked of I/O nodes on behalf of a job.
func (c *Client) JobStats(id collective.JobID) rpc.Snapshot {
	k := c.job(id)
	if k.traffic == nil {
		return rpc.Snapshot{}
	}
	return k.traffic.Snapshot()
}

func (c *Client) job(id collective.JobID) knownJob {
	c.jobs.mu.RLock()
	defer c.jobs.mu.RUnlock()
	return c.jobs.known[id]
}

// onBehalf counts r, which is about to be sent, for a job, and returns where to
// count the answer.
func (s *session) onBehalf(job collective.JobID, r *request) *rpc.Counters {
	if job == 0 {
		return nil
	}
	k := s.mention(job, true)
	bytes := len(r.frame.Body)
	for _, p := range r.pieces {
		bytes += len(p)
	}
	k.traffic.Asked(r.frame.Op, int64(bytes))
	return k.traffic
}

// mention has the I/O node told of a job, if it was not told all yet: because
// it is about to be asked for something on its behalf, or else if it was told
// of the job before.
func (s *session) mention(id collective.JobID, asked bool) knownJob {
	k := s.c.job(id)
	if k.msg == nil {
		return k
	}
	s.mu.Lock()
	version, told := s.told[id]
	start := (told || asked) && version != k.version
	if start {
		if s.told == nil {
			s.told = make(map[collective.JobID]uint64)
		}
		s.told[id] = version // 0: nothing yet
		start, s.telling = !s.telling, true
	}
	s.mu.Unlock()
	if start {
		s.c.spawn(s.tellJobs)
	}
	return k
}

// tellJobs tells the I/O node of jobs until it has been told all. What is to be
// told while it is at it goes out together when the last is answered.
func (s *session) tellJobs(ctx context.Context) {
	for {
		due := s.untold()
		if len(due) == 0 {
			return
		}
		for _, k := range due {
			f := &rpc.Frame{Op: ionpb.Op_JOB}
			f.Encode(k.msg)
			_, l, err := s.call(ctx, s.c.View().Epoch, f, payload{}, nil, new(tries))
			if err != nil { // the session is over, for good
				return
			}
			s.mu.Lock()
			if id := collective.JobID(k.msg.Id); s.id == l.id && s.told != nil {
				if _, wanted := s.told[id]; wanted {
					s.told[id] = k.version
				}
			}
			s.mu.Unlock()
		}
	}
}

// untold returns the jobs of which the I/O node knows less than this mount. If
// there are none, telling is over.
func (s *session) untold() (out []knownJob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, version := range s.told {
		if k := s.c.job(id); k.msg != nil && k.version != version {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b knownJob) int {
		if a.msg.Id < b.msg.Id {
			return -1
		}
		return 1
	})
	s.telling = len(out) > 0
	return out
}
