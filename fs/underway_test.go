package fs

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// gated is a connection on which nothing comes in while gate is locked.
type gated struct {
	net.Conn
	gate *sync.RWMutex
}

func (c gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.gate.RLock()
	defer c.gate.RUnlock()
	return n, err
}

// TestOwnChangesUnderWay: what this mount changes, and others see already, it does not
// tell from its leases as it was.
func TestOwnChangesUnderWay(t *testing.T) {
	x := startIONs(t)
	var gate sync.RWMutex
	a, b := x.peerBy(t, func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		return gated{c, &gate}, err
	}), x.peer(t)
	ctx, root := t.Context(), a.client.View().Root
	for _, c := range []struct {
		name   string
		entry  string // that the change is seen by
		there  bool   // then
		victim string // which loses its name, or moves
		change func(dir uint64, h map[string]uint64) error
	}{
		{"unlink", "f", false, "f", func(dir uint64, h map[string]uint64) error { return a.Unlink(ctx, dir, "f", h["f"]) }},
		{"rmdir", "d", false, "d", func(dir uint64, h map[string]uint64) error { return a.Rmdir(ctx, dir, "d", h["d"]) }},
		{"create", "new", true, "", func(dir uint64, _ map[string]uint64) error {
			_, err := a.Create(ctx, dir, "new", 0o644, 0, 0)
			return err
		}},
		{"rename", "f", false, "g", func(dir uint64, h map[string]uint64) error {
			return a.Rename(ctx, ionclient.Name{Dir: dir, Name: "f", Handle: h["f"]}, ionclient.Name{Dir: dir, Name: "g", Handle: h["g"]}, 0)
		}},
		{"rename over a directory", "e", false, "d", func(dir uint64, h map[string]uint64) error {
			return a.Rename(ctx, ionclient.Name{Dir: dir, Name: "e", Handle: h["e"]}, ionclient.Name{Dir: dir, Name: "d", Handle: h["d"]}, 0)
		}},
		{"move a directory", "d", false, "d", func(dir uint64, h map[string]uint64) error {
			return a.Rename(ctx, ionclient.Name{Dir: dir, Name: "d", Handle: h["d"]}, ionclient.Name{Dir: root, Name: "moved"}, 0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			top, err := a.Mkdir(ctx, root, c.name, 0o755, 0, 0)
			require.NoError(t, err)
			dir, h := top.Handle, map[string]uint64{"f": a.make(top.Handle, "f"), "g": a.make(top.Handle, "g")}
			for _, name := range []string{"d", "e"} {
				sub, err := a.Mkdir(ctx, dir, name, 0o755, 0, 0)
				require.NoError(t, err)
				h[name] = sub.Handle
			}
			_, err = a.ReadDir(ctx, dir)
			require.NoError(t, err)
			for _, of := range []uint64{dir, h["f"], h["g"], h["d"]} {
				_, err := a.GetAttr(ctx, of)
				require.NoError(t, err)
			}
			known := func() (what []string) {
				if _, ok := a.kept.Entry(dir, c.entry); ok {
					what = append(what, "entry")
				}
				if _, ok := a.kept.List(dir); ok {
					what = append(what, "list")
				}
				if _, ok := a.attrHere(dir); ok {
					what = append(what, "directory")
				}
				if _, ok := a.attrHere(h[c.victim]); ok && c.victim != "" {
					what = append(what, "victim")
				}
				return what
			}
			require.Subset(t, known(), []string{"entry", "list", "directory"})

			gate.Lock()
			open := sync.OnceFunc(gate.Unlock)
			defer open()
			done := make(chan error, 1)
			go func() { done <- c.change(dir, h) }()
			for seen := !c.there; seen != c.there; {
				_, err := b.Lookup(ctx, dir, c.entry)
				require.Contains(t, []syscall.Errno{0, syscall.ENOENT}, errno.Of(err))
				seen = err == nil
			}
			require.Empty(t, known())
			open()
			require.NoError(t, <-done)
			require.Subset(t, known(), []string{"entry", "list"}, "again")
		})
	}
}
