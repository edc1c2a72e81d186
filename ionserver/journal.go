package ionserver

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// journalled is how many rounds an I/O node remembers.
const journalled = 2048

// maxWriters bounds the jobs that are remembered of the writes of one round.
const maxWriters = 16

// member is on whose behalf a request is. Of a job that is not known here more
// closely than by its number.
func (c *call) member() collective.Member {
	return collective.Member{Job: collective.JobID(c.Job), Rank: collective.NoRank}
}

// writes sums up the WRITEs of a file that the next round of writing back will
// carry to the servers.
type writes struct {
	mu  sync.Mutex
	sum collective.Record // guarded by mu
}

// add takes a WRITE in.
func (w *writes) add(m collective.Member, s spread, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sum.Calls == 0 {
		w.sum.At = now
	}
	w.sum.Calls++
	w.sum.Bytes += s.bytes
	w.sum.Extents += len(s.exts)
	for i := range w.sum.Members {
		if of := &w.sum.Members[i]; of.Job == m.Job {
			of.Count++
			return
		}
	}
	if len(w.sum.Members) < maxWriters {
		w.sum.Members = append(w.sum.Members, collective.Members{Job: m.Job, Count: 1})
	}
}

// prices is what requests to the servers cost, as measured.
type prices struct {
	mu    sync.Mutex
	costs collective.Costs // guarded by mu
}

// learn returns what a request of so many extents and bytes would have been
// estimated to take, and takes note of what it took.
func (p *prices) learn(extents int, bytes int64, took time.Duration) (estimate time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	estimate = p.costs.Estimate(1, extents, bytes)
	p.costs.Observe(1, bytes, took)
	return estimate
}

// estimate is what a request of so many extents and bytes would take.
func (p *prices) estimate(extents int, bytes int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.costs.Estimate(1, extents, bytes)
}

// spreads says why a request went to so many servers.
func spreads(servers int) string {
	if servers < 2 {
		return ""
	}
	return fmt.Sprintf("it lies on %d servers", servers)
}

// take returns what there is and begins anew.
func (w *writes) take() collective.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.sum
	w.sum = collective.Record{}
	return r
}

// noteRound has the journal take in a round of writing back, which has carried
// out writes.
func (o *owner) noteRound(f *ownedFile, writes collective.Record, wrote []extent.Extent, began time.Time) {
	r := writes
	r.Op, r.Object, r.Rounds, r.Why = "write back", f.handle, 1, collective.Behind
	if r.Calls == 0 { // what the round before left over
		r.At, r.Calls, r.Members = began, 1, []collective.Members{{Count: 1}}
	}
	r.Took = time.Since(began)
	r.Runs, r.Moved = len(wrote), extent.Total(wrote)
	r.Estimate, r.Plan = o.writing.learn(r.Runs, r.Moved, r.Took), o.plan(f)
	f.mu.Lock()
	if f.layout != nil {
		r.Requests = f.layout.Touches(wrote)
	}
	f.mu.Unlock()
	r.Fewer = spreads(r.Requests)
	o.srv.journal.Add(r)
}

// noteFetch has the journal take in a fetch of exts on behalf of m.
func (o *owner) noteFetch(f *ownedFile, file *pvfs.File, m collective.Member, why collective.Choice, exts []extent.Extent, n int64, began time.Time) {
	took, servers := time.Since(began), file.Touches(exts)
	plan := why.String()
	if hint := o.plan(f); hint != "" {
		plan += ", " + hint
	}
	c := collective.Call[struct{}]{Member: m, Bytes: extent.Total(exts), At: began}
	o.srv.journal.One("fetch", uint64(file.Handle()), c, took, collective.Outcome{
		Extents: len(exts), Runs: len(exts), Requests: servers, Moved: n,
		Estimate: o.reading.learn(len(exts), n, took), Plan: plan, Fewer: spreads(servers),
	})
}

// tells is the operations on names that the journal takes in, with what it says of why
// so many were not fewer requests to the servers.
var tells = map[ionpb.Op]string{
	ionpb.Op_LOOKUP: "", ionpb.Op_READDIR: "", ionpb.Op_RENAME: "",
	ionpb.Op_CREATE: makesOne, ionpb.Op_MKDIR: makesOne, ionpb.Op_SYMLINK: makesOne,
	ionpb.Op_UNLINK: takesOne, ionpb.Op_RMDIR: takesOne,
}

const (
	makesOne = "PVFS2 makes one object and one name at a time"
	takesOne = "PVFS2 removes one name and one object at a time"
)

// noted carries out an operation on a name, and has the journal take it in; fewer is of
// tells.
func (c *call) noted(o operation, fewer string) (*rpc.Frame, error) {
	var sent pvfs.Account
	c.ctx = pvfs.UnderAccount(c.ctx, &sent)
	began := time.Now()
	f, err := o.do(c)
	out := collective.Outcome{Requests: sent.Requests()}
	if out.Requests > 0 {
		out.Fewer = fewer
	}
	c.srv.journal.One(c.Op.Key(), c.Handle, collective.Call[struct{}]{Member: c.member(), At: began}, time.Since(began), out)
	return f, err
}

// Rounds implements rpc.Service: what was carried out together lately.
func (s *Server) Rounds(_ context.Context, m *ionpb.RoundsReq) (*ionpb.RoundsResp, error) {
	b, err := json.Marshal(s.journal.Select(m.GetHandle(), collective.JobID(m.GetJob())))
	if err != nil {
		panic(fmt.Sprintf("ionserver: records do not marshal: %v", err))
	}
	return &ionpb.RoundsResp{Records: b}, nil
}
