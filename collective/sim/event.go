package sim

import (
	"container/heap"
	"time"
)

// clock runs events in the order of their times, and those of one time in the
// order in which they were asked for.
type clock struct {
	now    time.Duration
	events events
	asked  uint64
	ran    int
}

type event struct {
	at time.Duration
	n  uint64
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// after has do run when d has passed.
func (c *clock) after(d time.Duration, do func()) { c.at(c.now+d, do) }

func (c *clock) at(t time.Duration, do func()) {
	c.asked++
	heap.Push(&c.events, event{max(t, c.now), c.asked, do})
}

// run runs events until there are none.
func (c *clock) run() {
	for len(c.events) > 0 {
		e := heap.Pop(&c.events).(event)
		c.now = e.at
		c.ran++
		e.do()
	}
}

// time is now as package collective wants it.
func (c *clock) time() time.Time { return time.Unix(0, int64(c.now)) }

// resource is something that does one thing after the other.
type resource struct{ free time.Duration }

// use occupies the resource for d as soon as it is free from t on, and returns
// when that ends.
func (r *resource) use(t, d time.Duration) time.Duration {
	r.free = max(r.free, t) + d
	return r.free
}
