package ionserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// TestUnlinkWhileWrittenBack: of a file that is destroyed while its bytes are on
// their way to the servers no datafile is left.
func TestUnlinkWhileWrittenBack(t *testing.T) {
	s := startSystem(t, 1, 4, func(_ int, o *Options) { o.WriteBack = 20 * time.Millisecond })
	m := s.mount(t)
	for round := range 60 {
		h, name := m.fileHomedAt(m.root, fmt.Sprint("f", round, "."), 0)
		_, err := m.open(h, 0)
		require.NoError(t, err)
		require.NoError(t, m.write(h, 0, make([]byte, 256<<10), 0))
		_, err = m.unlink(m.root, name)
		require.NoError(t, err)
		time.Sleep(time.Duration(rand.IntN(25)) * time.Millisecond)
		m.closeFile(h)
	}
	var found []fsck.Finding
	until(t, "all files are gone, with their data", func() bool {
		r, err := fsck.Check(t.Context(), s.nodes[0].client, fsck.Options{})
		require.NoError(t, err)
		found = r.Findings
		return r.Bytes == 0 && len(r.Findings) == 0
	}, func() { t.Log(found) })
}

// gate is the way of an I/O node to the PVFS2 servers, on which one request of a
// kind is held up, and nothing else, once it is armed.
type gate struct {
	op      wire.Op
	armed   atomic.Bool
	reached chan struct{}   // gets a value when it is held up
	closed  context.Context // ends when it may pass
	open    context.CancelFunc
}

func newGate(op wire.Op) *gate {
	g := &gate{op: op, reached: make(chan struct{}, 1)}
	g.closed, g.open = context.WithCancel(context.Background())
	return g
}

// gated is a connection through a gate.
type gated struct {
	net.Conn
	g  *gate
	mu sync.Mutex // taken to write
}

func (c *gated) Write(b []byte) (int, error) {
	if _, err := wire.DecodeHeader(b); err == nil {
		r, _, err := wire.DecodeRequest(b[wire.HeaderSize:])
		if err == nil && r.Op == c.g.op && c.g.armed.CompareAndSwap(true, false) {
			later := slices.Clone(b)
			context.AfterFunc(c.g.closed, func() { _, _ = c.write(later) })
			c.g.reached <- struct{}{}
			return len(b), nil
		}
	}
	return c.write(b)
}

func (c *gated) write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.Write(b)
}

// behind puts the gate before the servers as I/O node at sees them.
func (g *gate) behind(t *testing.T, servers *pvfsdtest.Cluster, at int) func(i int, o *Options) {
	return func(i int, o *Options) {
		lazy(i, o)
		if i != at {
			return
		}
		client, err := pvfs.Dial(t.Context(), servers.URL(), pvfs.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &gated{Conn: nc, g: g}, err
		}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		o.PVFS = client
	}
}

// TestDestroyedWhileItGrows: whoever makes a small file larger while its home
// destroys it, no datafile is left.
func TestDestroyedWhileItGrows(t *testing.T) {
	for name, grow := range map[string]struct {
		before func(m *mount, h uint64, others int64) error // before the file is destroyed
		during func(m *mount, h uint64, others int64) error // when its home has found out what there is to be removed
		want   error
	}{
		"written back by another owner": {
			before: func(m *mount, h uint64, others int64) error { return m.write(h, others, []byte("x"), 0) },
			during: func(m *mount, h uint64, others int64) error {
				_, err := m.call(m.t.Context(), m.place.Owner(h, others), rpc.Frame{Op: ionpb.Op_COMMIT, Handle: h, Off: others}, nil, nil)
				return err
			},
		},
		"written through by another owner": {
			before: func(m *mount, h uint64, others int64) error {
				m.put(h, others, "x", leaseWrite) // so the next one is not announced
				return m.write(h, others, []byte("x"), 0)
			},
			during: func(m *mount, h uint64, others int64) error {
				return m.write(h, others, []byte("x"), uint32(ionpb.Flag_SYNC))
			},
		},
		"written by another owner that had not announced": {
			during: func(m *mount, h uint64, others int64) error {
				return m.write(h, others, []byte("x"), uint32(ionpb.Flag_SYNC))
			},
			want: syscall.ESTALE,
		},
		"written through by its home": {
			during: func(m *mount, h uint64, _ int64) error {
				return m.write(h, m.offOwnedBy(h, 0), []byte("x"), uint32(ionpb.Flag_SYNC))
			},
			want: syscall.ESTALE,
		},
		"set to a larger size": {
			during: func(m *mount, h uint64, _ int64) error { return m.truncate(h, 1<<20) },
			want:   syscall.ESTALE,
		},
		"appended to": {
			during: func(m *mount, h uint64, _ int64) error {
				_, err := m.append(h, make([]byte, 200<<10))
				return err
			},
			want: syscall.ESTALE,
		},
	} {
		t.Run(name, func(t *testing.T) {
			servers, g := pvfsdtest.Start(t, 4, pvfsdtest.Options{}), newGate(wire.OpTreeRemove)
			s := startSystemOn(t, servers, 2, g.behind(t, servers, 0))
			m := s.mount(t)
			h, name := m.fileHomedAt(m.root, "f", 0)
			others := m.offOwnedBy(h, 1)
			_, err := m.open(h, 0)
			require.NoError(t, err)
			require.NoError(t, m.write(h, 0, []byte("small"), 0))
			if grow.before != nil {
				require.NoError(t, grow.before(m, h, others))
			}
			_, err = m.unlink(m.root, name)
			require.NoError(t, err)
			g.armed.Store(true)
			closed, grown := make(chan struct{}), make(chan error, 1)
			go func() { m.closeFile(h); close(closed) }()
			<-g.reached
			go func() { grown <- grow.during(m, h, others) }()
			select { // it is through, or waits for the end of the file
			case err := <-grown:
				grown <- err
			case <-time.After(300 * time.Millisecond):
			}
			g.open()
			<-closed
			err = <-grown
			if grow.want != nil {
				require.ErrorIs(t, err, grow.want)
			}
			r, err := fsck.Check(t.Context(), s.nodes[1].client, fsck.Options{})
			require.NoError(t, err)
			require.Empty(t, r.Findings)
			require.Zero(t, r.Bytes)
		})
	}
}
