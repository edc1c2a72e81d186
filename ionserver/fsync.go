package ionserver

import (
	"context"
	"slices"

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
		Mounts:  true,
		Journal: s.journal,
		Name:    func(handle uint64) (string, uint64) { return "fsync", handle },
	}
	return round.New(opt, func(ctx context.Context, handle uint64, calls []*round.Call[uint64, flushing, struct{}]) {
		servers, err := s.flushRound(ctx, handle, calls)
		calls[0].Outcome = collective.Outcome{Requests: servers, Fewer: spreads(servers)}
		if servers == 0 && err == nil {
			calls[0].Outcome.Plan = "nothing new since the last flush"
		}
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
		if _, err := c.flush(c.mount(), m.DataOnly); err != nil {
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

// flushRound carries out FSYNCs of one file, in a place of the schedule. It returns
// how many servers were asked to flush.
func (s *Server) flushRound(ctx context.Context, handle uint64, calls []*round.Call[uint64, flushing, struct{}]) (int, error) {
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
// keep back as well, and the servers flush, unless they have done so since the last
// byte came there. It returns how many servers were asked to.
func (c *call) flush(mount uint64, dataOnly bool) (servers int, err error) {
	h := c.srv.home
	last, before := h.durable(c.Handle)
	if last == nil { // else it is a file
		a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle))
		if err != nil {
			return 0, stale(err)
		}
		if a.Layout == nil {
			return 0, nil // PVFS2 servers keep names and attributes durable by themselves
		}
	}
	sent, err := c.writeBackAll(mount)
	if err != nil {
		return 0, err
	}
	if !dataOnly && h.dirty(c.Handle) {
		if err := h.save(c.ctx, c, c.Handle, false); err != nil {
			return 0, err
		}
	}
	if slices.Equal(sent, last) {
		return 0, nil
	}
	a, err := c.srv.pvfs.GetAttr(c.ctx, pvfs.Handle(c.Handle)) // its layout of now: all servers that have bytes
	if err != nil {
		return 0, stale(err)
	}
	file := c.srv.pvfs.File(a)
	if err := file.Flush(c.ctx); err != nil {
		return 0, stale(err)
	}
	h.flushed(c.Handle, sent, before)
	return len(a.Layout.DFiles), nil
}

// flushState is what may change how much of a file is durable, besides its bytes.
type flushState struct {
	inode *inode // nil: it was not of interest
	cuts  uint64
}

// durable is what the servers have flushed last of a file, by owner as WRITE_BACK
// tells; nil if that is not known, or something was cut off since.
func (h *home) durable(handle uint64) (sent []uint64, now flushState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.inodes[handle]
	if i == nil {
		return nil, flushState{}
	}
	if i.cuts != i.flushedAt {
		return nil, flushState{i, i.cuts}
	}
	return i.flushed, flushState{i, i.cuts}
}

// flushed takes note that the servers have flushed what they had when WRITE_BACK was
// asked, and durable before, as long as the file is of interest.
func (h *home) flushed(handle uint64, sent []uint64, before flushState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.inodes[handle]; i != nil && i == before.inode {
		i.flushed, i.flushedAt = sent, before.cuts
	}
}

// writeBackAll has all owners write back what they have of the file, and returns
// CollectResp.sent of each.
func (c *call) writeBackAll(mount uint64) (sent []uint64, err error) {
	sent = make([]uint64, len(c.srv.peers))
	var g errgroup.Group
	for at, peer := range c.srv.peers {
		if at != c.srv.self {
			g.Go(func() error {
				var r ionpb.CollectResp
				err := peer.call(c.ctx, rpc.Frame{Op: ionpb.Op_WRITE_BACK, Handle: c.Handle}, &ionpb.SessionReq{Session: mount}, &r)
				sent[at] = r.Sent
				return err
			})
		}
	}
	r, err := c.writeBack(c.Handle, mount)
	if other := c.wait(g.Wait); err == nil {
		err = other
	}
	if err != nil {
		return nil, err
	}
	sent[c.srv.self] = r.Sent
	return sent, nil
}
