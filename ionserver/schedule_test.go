package ionserver

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func limits(workers int, bytes int64) (l [numClasses]classLimits) {
	for c := range l {
		l[c] = classLimits{workers, bytes}
	}
	return l
}

// TestScheduleSharesBytes: of two flows, one with large and one with small
// requests, each gets its share of bytes, not of requests.
func TestScheduleSharesBytes(t *testing.T) {
	s := newSchedule(limits(1, 1<<40))
	for range 100 {
		s.Add(&job{class: classData, flow: 1, cost: 1 << 20})
	}
	for range 2000 {
		s.Add(&job{class: classData, flow: 2, cost: 8 << 10})
	}
	var bytes [3]int64
	for bytes[1] < 10<<20 {
		j := s.Next()
		require.NotNil(t, j)
		bytes[j.flow] += j.cost
		s.Done(j)
	}
	require.InDelta(t, float64(bytes[1]), float64(bytes[2]), 1<<20+quantum)
}

func TestScheduleKeepsOrderWithinFlow(t *testing.T) {
	s := newSchedule(limits(2, 1<<40))
	var want, got []*job
	for range 10 {
		j := &job{class: classControl, flow: 5, cost: baseCost}
		want = append(want, j)
		s.Add(j)
	}
	for j := s.Next(); j != nil; j = s.Next() {
		got = append(got, j)
		if len(got)%2 == 0 {
			s.Done(got[len(got)-1])
			s.Done(got[len(got)-2])
		}
	}
	require.Equal(t, want, got)
}

func TestScheduleLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits [numClasses]classLimits
		cost   int64
		want   int
	}{
		{"workers", limits(3, 1<<40), 1, 3},
		{"bytes", limits(100, 10), 4, 2},
		{"one larger than the limit runs alone", limits(100, 10), 11, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSchedule(c.limits)
			for flow := range uint64(10) {
				s.Add(&job{class: classData, flow: flow, cost: c.cost})
			}
			n := 0
			for s.Next() != nil {
				n++
			}
			require.Equal(t, c.want, n)
		})
	}
}

// TestScheduleClassesAreApart: a class with no place left does not hold up the others.
func TestScheduleClassesAreApart(t *testing.T) {
	s := newSchedule(limits(1, 1<<40))
	s.Add(&job{class: classData, cost: 1})
	s.Add(&job{class: classData, cost: 1})
	require.NotNil(t, s.Next())
	require.Nil(t, s.Next())
	s.Add(&job{class: classPeer, cost: 1})
	require.Equal(t, classPeer, s.Next().class)
}

func TestScheduleResumesFirst(t *testing.T) {
	s := newSchedule(limits(1, 1<<40))
	old, young := &job{class: classControl, cost: 1, resume: true}, &job{class: classControl, cost: 1}
	s.Add(young)
	s.Add(old)
	require.Same(t, old, s.Next())
	s.Done(old)
	require.Same(t, young, s.Next())
}

// TestSchedulerAwayGivesPlace: one worker serves a request although another
// waits for something.
func TestSchedulerAwayGivesPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(limits(1, 1<<40))
		release, done := make(chan struct{}), make(chan struct{})
		go func() {
			j := &job{class: classControl, cost: 1}
			s.enter(j)
			_ = s.away(j, func() error { <-release; return nil })
			s.leave(j)
			close(done)
		}()
		synctest.Wait()
		j := &job{class: classControl, cost: 1}
		s.enter(j)
		close(release)
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("two at work with one place")
		default:
		}
		s.leave(j)
		<-done
		running, queued := s.load()
		require.Zero(t, running+queued)
	})
}
