package main

import (
	"context"
	"fmt"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/local"
)

// jobPoll is the time between two looks at the jobs of mounts, jobGrace how long
// a job must have had no process that used a mount: those of a script come and
// go.
const (
	jobPoll  = 250 * time.Millisecond
	jobGrace = 3 * time.Second
)

// awaitJob waits until a job has begun and ended on all mounts that know it, for
// the given time at most, if it is not 0, or until ctx is done. It returns the
// full name of the job, name if it did not begin.
func (a *app) awaitJob(ctx context.Context, s local.Source, name string, period time.Duration) (string, error) {
	if period > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, period)
		defer cancel()
	}
	full := name
	for first := true; ; first = false {
		jobs, err := s.Jobs(ctx)
		if ctx.Err() != nil {
			return full, nil
		}
		if err != nil {
			return full, err
		}
		job, err := local.Find(jobs, name)
		switch {
		case err != nil && first:
			fmt.Fprintf(a.err, "waiting for job %q to begin; Ctrl-C ends that\n", name)
		case err == nil && first && job.Ended != nil:
			return full, fmt.Errorf("job %q ended at %s: it has to be watched while it runs", job.Name, job.Ended.Format(time.DateTime))
		case err == nil && job.Ended != nil && time.Since(*job.Ended) > jobGrace:
			return job.Name, nil
		case err == nil && full != job.Name:
			full = job.Name
			fmt.Fprintf(a.err, "watching job %q until it ends; Ctrl-C ends that earlier\n", full)
		}
		select {
		case <-ctx.Done():
			return full, nil
		case <-time.After(jobPoll):
		}
	}
}

// pointsOf are the mounts of recordings.
func pointsOf(all []*local.Recording) (s local.Source) {
	for _, r := range all {
		s.Mounts = append(s.Mounts, r.Point)
	}
	return s
}
