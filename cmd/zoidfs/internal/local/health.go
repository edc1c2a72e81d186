package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// Health is how one role of a system is.
type Health struct {
	Name      string  `json:"name"`
	Addr      string  `json:"addr,omitempty"`  // of servers and I/O nodes
	Mount     string  `json:"mount,omitempty"` // of compute nodes
	PID       int     `json:"pid,omitempty"`   // 0: not a process of this system
	OK        bool    `json:"ok"`
	Error     string  `json:"error,omitempty"` // why it is not OK
	LatencyUS int64   `json:"latency_us"`      // of one question and its answer
	PerSecond float64 `json:"per_second"`      // calls to a mount, requests to an I/O node
	Detail    string  `json:"detail,omitempty"`
}

// Status is how a system is.
type Status struct {
	Dir         string   `json:"dir"`
	PVFS        string   `json:"pvfs"`
	Consistency string   `json:"consistency"`
	OK          bool     `json:"ok"` // everything is
	Servers     []Health `json:"pvfsd"`
	IONs        []Health `json:"ions"`
	Nodes       []Health `json:"nodes"`
}

// Ask asks every role of the system how it is. It takes sample longer than
// the answers do, to see how much each node has to do.
func Ask(ctx context.Context, d cluster.Dir, f *cluster.File, sample time.Duration) Status {
	st := Status{Dir: string(d), PVFS: f.PVFS, Consistency: f.Consistency, OK: true}
	st.Nodes = make([]Health, len(f.Nodes))
	st.IONs = make([]Health, len(f.IONs))
	var wait sync.WaitGroup
	for i, n := range f.Nodes {
		wait.Go(func() { st.Nodes[i] = askNode(ctx, n, sample) })
	}
	for i, ion := range f.IONs {
		wait.Go(func() { st.IONs[i] = askION(ctx, i, ion, sample) })
	}
	wait.Go(func() { st.Servers = askServers(ctx, f) })
	wait.Wait()
	for _, list := range [][]Health{st.Servers, st.IONs, st.Nodes} {
		for _, h := range list {
			st.OK = st.OK && h.OK
		}
	}
	return st
}

// done fills in the outcome of asking.
func (h Health) done(took time.Duration, err error) Health {
	h.OK, h.LatencyUS = err == nil, took.Microseconds()
	if err != nil {
		h.Error = strings.Join(strings.Fields(err.Error()), " ")
		h.LatencyUS = 0
	}
	return h
}

func askNode(ctx context.Context, n cluster.Node, sample time.Duration) Health {
	h := Health{Name: n.Name, Mount: n.Mount, PID: n.PID}
	m, found, err := mounts.At(n.Mount)
	switch {
	case err != nil:
		return h.done(0, err)
	case !n.Alive():
		return h.done(0, errors.New("not running"))
	case !found || m.FSType != mounts.FSType:
		return h.done(0, errors.New("not mounted"))
	}
	took, err := timed(func() error { return mounts.Answer(ctx, n.Mount) })
	if err != nil {
		return h.done(took, err)
	}
	before, err := MountStats(ctx, n.Mount, false)
	if err != nil {
		return h.done(took, err)
	}
	pause(ctx, sample)
	after, err := MountStats(ctx, n.Mount, false)
	d := after.Sub(before)
	calls := counters.Total(d.App.Calls)
	if own := uint64(1); calls >= own { // the second question has counted the first
		calls -= own
	}
	h.PerSecond = float64(calls) / sample.Seconds()
	h.Detail = fmt.Sprintf("read %s/s, written %s/s", rate(d.App.BytesRead, sample), rate(d.App.BytesWritten, sample))
	return h.done(took, err)
}

func rate(n uint64, over time.Duration) string {
	return counters.Bytes(uint64(float64(n) / over.Seconds()))
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func askION(ctx context.Context, i int, ion cluster.ION, sample time.Duration) Health {
	h := Health{Name: cluster.IONName(i), Addr: ion.Addr, PID: ion.PID}
	if !ion.Alive() {
		return h.done(0, errors.New("not running"))
	}
	var st *ionpb.StatusResp
	took, err := timed(func() (err error) {
		st, err = rpc.Status(ctx, ion.Addr, rpc.Options{})
		return err
	})
	if err != nil {
		return h.done(took, err)
	}
	if st.Refusing != "" {
		return h.done(took, errors.New(st.Refusing))
	}
	before, err := IONStats(ctx, ion.Addr, false)
	if err != nil {
		return h.done(took, err)
	}
	pause(ctx, sample)
	after, err := IONStats(ctx, ion.Addr, false)
	h.PerSecond = float64(counters.Total(after.Sub(before).RPC.Requests)) / sample.Seconds()
	h.Detail = fmt.Sprintf("epoch %d, %d sessions, %d open files, %d locks, %d of %d workers busy, %d queued",
		st.View.GetEpoch(), len(st.Sessions), st.OpenFiles, st.Locks, st.Busy, st.Workers, st.Queued)
	return h.done(took, errors.Join(append(missing(st), err)...))
}

// missing returns what an I/O node cannot reach.
func missing(st *ionpb.StatusResp) []error {
	var errs []error
	for _, p := range st.Peers {
		if !p.Up && p.Error != "" {
			errs = append(errs, fmt.Errorf("peer %s: %s", p.Address, p.Error))
		}
	}
	for _, s := range st.Servers {
		if !s.Up && s.Error != "" {
			errs = append(errs, fmt.Errorf("server %s at %s: %s", s.Alias, s.Address, s.Error))
		}
	}
	return errs
}

// askServers asks the embedded servers, or, of a file system of others, all
// servers that its configuration names.
func askServers(ctx context.Context, f *cluster.File) []Health {
	out := make([]Health, len(f.PVFSD))
	var wait sync.WaitGroup
	for i, s := range f.PVFSD {
		wait.Go(func() {
			h := Health{Name: s.Alias, Addr: s.Addr, PID: s.PID}
			if !s.Alive() {
				out[i] = h.done(0, errors.New("not running"))
				return
			}
			// Each is asked by itself: the first one may be the one that is gone.
			out[i] = h.done(ping(ctx, "tcp://"+s.Addr+"/"+FSName, s.Alias))
		})
	}
	wait.Wait()
	if len(f.PVFSD) > 0 {
		return out
	}
	c, err := pvfs.Dial(ctx, f.PVFS, pvfs.Options{Timeout: pingTimeout})
	if err != nil {
		return []Health{Health{Name: f.PVFS}.done(0, err)}
	}
	defer c.Close()
	for _, s := range c.Servers() {
		h := Health{Name: s.Alias, Addr: s.Addr}
		out = append(out, h.done(timed(func() error { return c.Ping(ctx, s.Alias) })))
	}
	return out
}

// CountServers asks a file system how many servers it has.
func CountServers(ctx context.Context, url string) (int, error) {
	c, err := pvfs.Dial(ctx, url, pvfs.Options{Timeout: pingTimeout})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return len(c.Servers()), nil
}

// pingTimeout is how long a server is given to answer.
const pingTimeout = 3 * time.Second

func ping(ctx context.Context, url, alias string) (time.Duration, error) {
	c, err := pvfs.Dial(ctx, url, pvfs.Options{Timeout: pingTimeout})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return timed(func() error { return c.Ping(ctx, alias) })
}
