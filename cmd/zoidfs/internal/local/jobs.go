package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"golang.org/x/sys/unix"
)

// The extended attributes of the root of a mount about jobs.
const (
	xattrJobs = "user.zoidfs.jobs"
	xattrJob  = "user.zoidfs.job."
)

// Job is a job as mounts and I/O nodes know it, over all that were asked.
type Job struct {
	ID         string     `json:"id"` // hexadecimal
	Name       string     `json:"name"`
	UID        uint32     `json:"uid"`
	Size       int        `json:"size"`  // ranks; 0: not known
	Ranks      int        `json:"ranks"` // seen
	Processes  int        `json:"processes"`
	Confidence string     `json:"confidence,omitempty"`
	Began      time.Time  `json:"began"`
	Ended      *time.Time `json:"ended,omitempty"` // null while it is there
}

// JobStats is a job and what was counted for it.
type JobStats struct {
	Job
	counters.Stats
}

// Source is whom to ask about jobs: one mount, one I/O node, or a system.
type Source struct {
	Mounts []string
	IONs   []string
}

// Of is all of a system.
func Of(f *cluster.File) (s Source) {
	for _, n := range f.Nodes {
		s.Mounts = append(s.Mounts, n.Mount)
	}
	for _, ion := range f.IONs {
		s.IONs = append(s.IONs, ion.Addr)
	}
	return s
}

// each asks every mount and I/O node at the same time.
func each[T any](list []string, ask func(string) (T, error)) ([]T, error) {
	out, errs := make([]T, len(list)), make([]error, len(list))
	var wait sync.WaitGroup
	for i, x := range list {
		wait.Go(func() { out[i], errs[i] = ask(x) })
	}
	wait.Wait()
	return out, errors.Join(errs...)
}

// Jobs lists the jobs, the oldest first. With an error it lists those of whom
// answered.
func (s Source) Jobs(ctx context.Context) ([]Job, error) {
	byMount, err := each(s.Mounts, func(point string) (jobs []Job, err error) {
		return jobs, askMount(ctx, point, xattrJobs, &jobs)
	})
	var byION [][]Job
	if len(s.Mounts) == 0 { // of a system the mounts know more
		byION, err = each(s.IONs, func(addr string) ([]Job, error) {
			r, err := rpc.Stats(ctx, addr, &ionpb.StatsReq{Jobs: true}, rpc.Options{})
			if err != nil {
				return nil, fmt.Errorf("jobs of I/O node %s: %w", addr, err)
			}
			var jobs []Job
			for _, j := range r.Jobs {
				jobs = append(jobs, jobOf(j))
			}
			return jobs, nil
		})
	}
	all := make(map[string]*Job)
	for _, j := range slices.Concat(append(byMount, byION...)...) {
		if have := all[j.ID]; have != nil {
			have.join(j)
			continue
		}
		all[j.ID] = &j
	}
	out := make([]Job, 0, len(all))
	for _, j := range all {
		out = append(out, *j)
	}
	slices.SortFunc(out, func(a, b Job) int { return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.ID, b.ID)) })
	return out, err
}

// join adds what another mount knows of the same job.
func (j *Job) join(o Job) {
	j.Ranks += o.Ranks
	j.Processes += o.Processes
	if o.Began.Before(j.Began) {
		j.Began = o.Began
	}
	switch {
	case j.Ended == nil || o.Ended == nil:
		j.Ended = nil
	case o.Ended.After(*j.Ended):
		j.Ended = o.Ended
	}
}

func jobOf(j *ionpb.JobStatus) Job {
	out := Job{
		ID: fmt.Sprintf("%016x", j.Id), Name: j.Name, UID: j.Uid, Size: int(j.Size), Ranks: int(j.Ranks), Began: time.Unix(j.Began, 0),
	}
	if j.Ended != 0 {
		t := time.Unix(j.Ended, 0)
		out.Ended = &t
	}
	return out
}

// Find returns the one job that is meant by its id, its name, or the
// launcher's name of it. If several are, it is the latest that is there.
func Find(jobs []Job, job string) (Job, error) {
	var found *Job
	for _, j := range jobs {
		_, short, _ := strings.Cut(j.Name, " ")
		_, last, _ := strings.Cut(short, "/")
		if job != j.ID && job != j.Name && job != short && job != last {
			continue
		}
		if found == nil || found.Ended != nil || j.Ended == nil {
			found = &j
		}
	}
	if found == nil {
		return Job{}, fmt.Errorf("there is no job %q, see: zoidfs stats --jobs", job)
	}
	return *found, nil
}

// Stats returns what was counted for a job: calls and requests by the mounts,
// requests to the servers by the I/O nodes. Who knows nothing of it counts
// nothing.
func (s Source) Stats(ctx context.Context, job Job) (JobStats, error) {
	id, err := strconv.ParseUint(job.ID, 16, 64)
	if err != nil {
		return JobStats{}, err
	}
	byMount, errMounts := each(s.Mounts, func(point string) (counters.Stats, error) {
		st := counters.New()
		err := askMount(ctx, point, xattrJob+job.ID, &st)
		if errors.Is(err, syscall.ENODATA) {
			err = nil
		}
		return st, err
	})
	byION, errIONs := each(s.IONs, func(addr string) (counters.Stats, error) {
		r, err := rpc.Stats(ctx, addr, &ionpb.StatsReq{Job: id}, rpc.Options{})
		if err != nil {
			return counters.New(), fmt.Errorf("stats of I/O node %s: %w", addr, err)
		}
		st := ionStats(r)
		if len(s.Mounts) > 0 { // they have counted these
			st.RPC = counters.New().RPC
		}
		return st, nil
	})
	out := JobStats{job, counters.New()}
	for _, st := range append(byMount, byION...) {
		out.Stats = out.Stats.Add(st)
	}
	return out, errors.Join(errMounts, errIONs)
}

// askMount decodes what the mount at point tells by an attribute of its root.
func askMount(ctx context.Context, point, name string, into any) error {
	value := make([]byte, maxXattr)
	err := mounts.Do(ctx, func() error {
		n, err := unix.Getxattr(point, name, value)
		if err == nil {
			value = value[:n]
		}
		return err
	})
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENODATA) && name == xattrJobs:
		return fmt.Errorf("%s is not the root of a zoidfs mount", point)
	case err != nil:
		return &os.PathError{Op: "jobs of", Path: point, Err: err}
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("jobs of %s: %w", point, err)
	}
	return nil
}

// SetJob has the mount at point begin or end a job whose processes are named.
func SetJob(ctx context.Context, point string, q fs.JobRequest) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var jobs []Job
	if err := askMount(ctx, point, xattrJobs, &jobs); err != nil { // any file system would take the attribute
		return err
	}
	err = mounts.Do(ctx, func() error { return unix.Setxattr(point, xattrJobs, b, 0) })
	switch {
	case errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("%s knows of no job %q that this user has begun", point, q.Job)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: only who may write to its root directory can begin and end jobs: %w", point, err)
	case err != nil:
		return &os.PathError{Op: "job at", Path: point, Err: err}
	}
	return nil
}
