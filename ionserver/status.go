package ionserver

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// Stats implements rpc.Service: what was asked of this node, and what it asked
// of PVFS2, since the start or the last reset, or on behalf of one job.
func (s *Server) Stats(_ context.Context, m *ionpb.StatsReq) (*ionpb.StatsResp, error) {
	if m.Job != 0 {
		j := s.jobs.lookup(collective.JobID(m.Job))
		if j == nil {
			return new(ionpb.StatsResp), nil
		}
		out := statsResp(j.account.rpc.Snapshot(), j.account.pvfs.Snapshot())
		out.Jobs = []*ionpb.JobStatus{j.status()}
		return out, nil
	}
	out := statsResp(s.counters.Snapshot(), s.pvfs.Stats())
	if m.Jobs {
		for _, j := range s.jobs.all() {
			out.Jobs = append(out.Jobs, j.status())
		}
	}
	if m.GetReset_() {
		s.counters.Reset()
		s.pvfs.ResetStats()
	}
	return out, nil
}

func statsResp(r rpc.Snapshot, p pvfs.Snapshot) *ionpb.StatsResp {
	out := &ionpb.StatsResp{
		RpcRequests: r.Requests, RpcBytesSent: r.BytesSent, RpcBytesReceived: r.BytesReceived,
		PvfsRequests:  make(map[string]uint64, len(p.Requests)),
		PvfsBytesRead: uint64(p.BytesRead), PvfsBytesWritten: uint64(p.BytesWritten),
	}
	for op, n := range p.Requests {
		out.PvfsRequests[op] = uint64(n)
	}
	return out
}

// pingTimeout is how long Status waits for the answer of a PVFS2 server.
const pingTimeout = 2 * time.Second

// Status implements rpc.Service: what this node knows of itself and others.
func (s *Server) Status(ctx context.Context, _ *ionpb.StatusReq) (*ionpb.StatusResp, error) {
	running, queued := s.sched.load()
	locks, locksOf := s.locks.count()
	opens, opensOf, orphans := s.home.count()
	out := &ionpb.StatusResp{
		Address: s.opt.Self, Software: s.opt.Software, Pid: uint32(os.Getpid()), Started: s.started.Unix(),
		Boot: s.boot, View: s.viewMsg(), Workers: uint32(s.opt.Workers) * uint32(numClasses),
		Busy: uint32(running), Queued: uint32(queued),
		OpenFiles: uint32(opens), Locks: uint32(locks), Orphans: uint32(orphans),
		Servers: s.pingServers(ctx),
	}
	if _, _, err := s.guard.May(time.Now()); err != nil {
		out.Refusing = err.Error()
	}
	for _, sess := range s.sessions.all() {
		out.Sessions = append(out.Sessions, sess.status(time.Now(), opensOf[sess.id], locksOf[sess.id]))
	}
	slices.SortFunc(out.Sessions, func(a, b *ionpb.SessionStatus) int {
		if a.Session < b.Session {
			return -1
		}
		return 1
	})
	for _, p := range s.peers {
		if p == nil {
			continue
		}
		m := &ionpb.PeerStatus{Address: p.addr}
		var err error
		if m.Up, err = p.state(); err != nil {
			m.Error = err.Error()
		}
		out.Peers = append(out.Peers, m)
	}
	return out, nil
}

// pingServers asks all PVFS2 servers at the same time whether they are there.
func (s *Server) pingServers(ctx context.Context) []*ionpb.ServerStatus {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var wg sync.WaitGroup
	servers := s.pvfs.Servers()
	out := make([]*ionpb.ServerStatus, len(servers))
	for i, srv := range servers {
		wg.Go(func() {
			out[i] = &ionpb.ServerStatus{Alias: srv.Alias, Address: srv.Addr}
			if err := s.pvfs.Ping(ctx, srv.Alias); err != nil {
				out[i].Error = err.Error()
				return
			}
			out[i].Up = true
		})
	}
	wg.Wait()
	return out
}

func (s *session) status(now time.Time, opens, locks int) *ionpb.SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &ionpb.SessionStatus{
		Session: s.id, Name: s.name, Pid: s.pid, Mountpoint: s.mountpoint, Address: s.addr,
		Connections: uint32(len(s.streams)), Opens: uint32(opens), Locks: uint32(locks),
		Requests: s.requests, IdleMs: uint32(now.Sub(s.heard).Milliseconds()),
	}
}

// count is the number of opens, in all and by session, and of orphans.
func (h *home) count() (all int, bySession map[uint64]int, orphans int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	bySession = make(map[uint64]int)
	for _, i := range h.inodes {
		for sess, o := range i.opens {
			n := int(o.n)
			if o.told {
				n++
			}
			bySession[sess] += n
			all += n
		}
		if i.orphan {
			orphans++
		}
	}
	return all, bySession, orphans
}
