package work

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Hooks are called while all ranks wait, but Mark.
type Hooks struct {
	Begin func(phase string) error // before a phase that is measured
	End   func(phase string) error // after it
	Mark  func()                   // half of the ranks have made Config.Mark of their calls; must not wait
}

// Barriers of a phase are called by its name and one of these.
const (
	begins = "begin "
	ends   = "end "
)

// coordinator is the state of a job that Coordinate owns.
type coordinator struct {
	config  Config
	hooks   Hooks
	links   []*link // by rank, nil until it has begun
	waiting []int   // ranks at the barrier
	barrier string
	lost    []int
	marked  int
	reports []*Report
}

// from is a message of a rank, or the end of its connection.
type from struct {
	rank int
	link *link
	message
	err error
}

// Coordinate serves the ranks of a job that connect to l until all have reported,
// and returns their reports by rank. If one fails, or ends without a report, or
// ctx is done, the others are cut off. It closes l.
func Coordinate(ctx context.Context, l net.Listener, config Config, hooks Hooks) ([]*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &coordinator{config: config, hooks: hooks, links: make([]*link, config.Size), reports: make([]*Report, config.Size)}
	var g errgroup.Group
	inbox := make(chan from)
	g.Go(func() error {
		defer l.Close()
		<-ctx.Done()
		return nil
	})
	g.Go(func() error { return accept(ctx, l, &g, inbox) })
	err := c.run(ctx, inbox)
	cancel()
	_ = g.Wait() // the ends of the connections
	return c.reports, err
}

// accept reads from each connection in a goroutine of its own.
func accept(ctx context.Context, l net.Listener, g *errgroup.Group, inbox chan<- from) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil // it was closed
		}
		k := newLink(conn)
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		g.Go(func() error {
			defer stop()
			defer conn.Close()
			rank := -1
			for {
				m, err := k.receive()
				if rank < 0 {
					rank = m.Rank
				}
				select {
				case inbox <- from{rank, k, m, err}:
				case <-ctx.Done():
					return nil
				}
				if err != nil {
					return nil
				}
			}
		})
	}
}

// run handles what ranks send until all have reported.
func (c *coordinator) run(ctx context.Context, inbox <-chan from) error {
	for left := c.config.Size; left > 0; {
		var m from
		select {
		case m = <-inbox:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if m.rank < 0 || m.rank >= c.config.Size {
			return fmt.Errorf("there is no rank %d", m.rank)
		}
		if m.err != nil {
			if c.reports[m.rank] == nil {
				return fmt.Errorf("rank %d ended before its time: %w", m.rank, m.err)
			}
			continue
		}
		if m.Report != nil {
			left--
		}
		if err := c.handle(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *coordinator) handle(m from) error {
	switch {
	case m.Barrier != "":
		if len(c.waiting) > 0 && m.Barrier != c.barrier {
			return fmt.Errorf("rank %d is at %q and others are at %q", m.rank, m.Barrier, c.barrier)
		}
		c.barrier = m.Barrier
		c.waiting = append(c.waiting, m.rank)
		return c.pass()
	case m.Mark:
		if c.marked++; c.marked == (c.config.Size+1)/2 && c.hooks.Mark != nil {
			c.hooks.Mark()
		}
	case m.Tell != nil:
		if to := m.Tell.To; to >= 0 && to < len(c.links) && c.links[to] != nil {
			return c.links[to].send(message{Tell: m.Tell})
		}
		return fmt.Errorf("rank %d has something for rank %d, which is not there", m.rank, m.Tell.To)
	case m.Report != nil:
		c.reports[m.rank] = m.Report
		if m.Report.Error != "" {
			return fmt.Errorf("rank %d: %s", m.rank, m.Report.Error)
		}
		if m.Report.Lost {
			c.lost = append(c.lost, m.rank)
			return c.pass()
		}
	default:
		if c.links[m.rank] != nil {
			return fmt.Errorf("there are two ranks %d", m.rank)
		}
		c.links[m.rank] = m.link
		own := c.config
		own.Rank, own.Node = m.rank, c.config.Nodes[m.rank]
		return m.link.send(message{Config: &own})
	}
	return nil
}

// pass lets the ranks go on if all of them, but those that are lost, are at
// the barrier.
func (c *coordinator) pass() error {
	if len(c.waiting) == 0 || len(c.waiting)+len(c.lost) < c.config.Size {
		return nil
	}
	if err := c.hook(); err != nil {
		return err
	}
	var errs []error
	for _, r := range c.waiting {
		errs = append(errs, c.links[r].send(message{Barrier: c.barrier, Lost: c.lost}))
	}
	c.waiting, c.barrier = nil, ""
	return errors.Join(errs...)
}

func (c *coordinator) hook() error {
	if name, ok := strings.CutPrefix(c.barrier, begins); ok && c.hooks.Begin != nil {
		return c.hooks.Begin(name)
	}
	if name, ok := strings.CutPrefix(c.barrier, ends); ok && c.hooks.End != nil {
		return c.hooks.End(name)
	}
	return nil
}
