package ionserver

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// flushing is an FSYNC of a mount.
type flushing struct {
	flow     uint64
	mount    uint64
	dataOnly bool
}

// newFlushes makes the FSYNCs of a file into rounds: N of them cost the servers
// one flush, if they come while another one is at work, or together as those of
// the mounts of a job do.
func newFlushes(s *Server) *round.Group[uint64, flushing, struct{}] {
	opt := round.Options[uint64, flushing]{
		Rounds:  collective.RoundOptions{Hold: collective.HoldOptions{Off: s.opt.NoCollective}},
		Journal: s.journal,
		Name:    func(handle uint64) (string, uint64) { return "fsync", handle },
	}
	return round.New(opt, func(ctx context.Context, handle uint64, calls []*round.Call[uint64, flushing, struct{}]) {
		err := s.flushRound(ctx, handle, calls)
		for _, c := range calls {
			c.Err = err
		}
	})
}

// fsync answers FSYNC: every byte that was written is durable at the PVFS2
// servers.
func (c *call) fsync() (*rpc.Frame, error) {
	var m ionpb.FsyncReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	if m.Clean {
		c.srv.home.clean(c.sess, c.Handle, 0)
	}
	if c.srv.opt.NoCollective {
		if err := c.flush(c.mount(), m.DataOnly); err != nil {
			return nil, err
		}
		return okay(nil)
	}
	err := c.wait(func() error {
		_, err := c.srv.flushes.Do(c.ctx, c.Handle, c.asMember(), flushing{c.stream.flow(), c.mount(), m.DataOnly})
		return err
	})
	if err != nil {
		return nil, err
	}
	return okay(nil)
}

// asMember is who makes a call of which a mount makes one at a time, as rounds
// see it: the members of a job are its mounts.
func (c *call) asMember() collective.Member {
	return collective.Member{Job: collective.JobID(c.Job), Rank: collective.Rank(c.mount() >> 33)}
}

// flushRound carries out FSYNCs of one file, in a place of the schedule.
func (s *Server) flushRound(ctx context.Context, handle uint64, calls []*round.Call[uint64, flushing, struct{}]) error {
	mount, dataOnly := calls[0].Q.mount, true
	for _, c := range calls {
		if c.Q.mount != mount {
			mount = 0
		}
		dataOnly = dataOnly && c.Q.dataOnly
	}
	c := &call{
		Request: &rpc.Request{Frame: &rpc.Frame{Op: ionpb.Op_FSYNC, Handle: handle}}, srv: s, ctx: ctx,
		job: &job{class: classControl, flow: calls[0].Q.flow, cost: baseCost},
	}
	s.sched.enter(c.job)
	defer s.sched.leave(c.job)
	return c.flush(mount, dataOnly)
}

// flush has the owners write back what they have, what other mounts than one
// keep back as well, and the servers flush.
func (c *call) flush(mount uint64, dataOnly bool) error {
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
	if err != nil {
		return stale(err)
	}
	if a.Layout == nil {
		return nil // PVFS2 servers keep names and attributes durable by themselves
	}
	if err := c.writeBackAll(mount); err != nil {
		return err
	}
	if !dataOnly && c.srv.home.dirty(c.Handle) {
		if err := c.srv.home.save(c.ctx, c, c.Handle, false); err != nil {
			return err
		}
	}
	if a, err = c.srv.pvfs.GetAttr(c.ctx, a.Handle); err != nil { // its layout of now: all servers that have bytes
		return stale(err)
	}
	return stale(c.srv.pvfs.File(a).Flush(c.ctx))
}

// writeBackAll has all owners write back what they have of the file.
func (c *call) writeBackAll(mount uint64) error {
	var g errgroup.Group
	for at, peer := range c.srv.peers {
		if at != c.srv.self {
			g.Go(func() error {
				return peer.call(c.ctx, rpc.Frame{Op: ionpb.Op_WRITE_BACK, Handle: c.Handle},
					&ionpb.SessionReq{Session: mount}, new(ionpb.CollectResp))
			})
		}
	}
	_, err := c.writeBack(c.Handle, mount)
	if other := c.wait(g.Wait); err == nil {
		err = other
	}
	return err
}
