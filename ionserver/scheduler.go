package ionserver

import (
	"sync"
)

// scheduler lets the goroutines of requests run when the schedule says so.
// One that has a place never waits for anything but PVFS2 and short mutexes:
// before any other wait it gives the place back. So places always come free,
// whatever requests of this and other I/O nodes wait for each other.
type scheduler struct {
	mu    sync.Mutex
	sched *schedule // guarded by mu
}

// defaultLimits are those of a node with the given number of workers in each
// class. Data also counts bytes: what PVFS2 is sent at a time.
func defaultLimits(workers int) [numClasses]classLimits {
	const unlimited = 1 << 62
	return [numClasses]classLimits{
		classControl: {workers, unlimited},
		classData:    {workers, 64 << 20},
		classPeer:    {workers, unlimited},
	}
}

func newScheduler(limits [numClasses]classLimits) *scheduler {
	return &scheduler{sched: newSchedule(limits)}
}

// enter waits until j may run.
func (s *scheduler) enter(j *job) {
	s.mu.Lock()
	s.sched.Add(j)
	if s.startLocked(j) {
		s.mu.Unlock()
		return
	}
	j.ready = make(chan struct{})
	s.mu.Unlock()
	<-j.ready
}

// leave gives the place of j back.
func (s *scheduler) leave(j *job) {
	s.mu.Lock()
	s.sched.Done(j)
	s.startLocked(nil)
	s.mu.Unlock()
}

// away runs wait without a place, and returns when j has one again.
func (s *scheduler) away(j *job, wait func() error) error {
	s.leave(j)
	j.resume = true
	err := wait()
	s.enter(j)
	return err
}

// startLocked lets run who may, and reports whether own, who does not wait
// yet, is among them.
func (s *scheduler) startLocked(own *job) (started bool) {
	for j := s.sched.Next(); j != nil; j = s.sched.Next() {
		if j == own {
			started = true
			continue
		}
		close(j.ready)
	}
	return started
}

// load is the number of requests that run and that wait for a place.
func (s *scheduler) load() (running, queued int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.sched.classes {
		c := &s.sched.classes[i]
		running += c.running
		queued += c.queued + len(c.resumed)
	}
	return running, queued
}
