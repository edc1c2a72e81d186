package fs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// rig is a file system mounted on some nodes of this machine.
type rig struct {
	ions  *ions
	nodes []*Server
	dirs  []string // one a node: the same directory, made for the test
}

// mount mounts the file system once more, until the test ends.
func (r *rig) mount(t testing.TB, opt Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	logger := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	client, err := ionclient.Dial(ctx, ionclient.Options{Addrs: r.ions.addrs, Name: t.Name(), Logger: logger})
	require.NoError(t, err)
	opt.Client, opt.Logger = client, logger
	opt.AllowOther = os.Geteuid() == 0
	if opt.Mountpoint == "" {
		opt.Mountpoint = mountpoint(t)
	}
	s, err := Mount(ctx, opt)
	require.NoError(t, err)
	life, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(life) }()
	// We use the mount in this process, which the Go runtime's poller could
	// deadlock. A mount process does not do that.
	require.NoError(t, s.fuse.WaitMount())
	t.Cleanup(func() {
		end()
		require.NoError(t, <-done)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, client.Close(ctx))
	})
	r.nodes = append(r.nodes, s)
	return s
}

// mountpoint makes a directory that all users can reach.
func mountpoint(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zoidfs-fs-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
	return dir
}

// newRig mounts a new file system on so many nodes.
func newRig(t testing.TB, nodes int) *rig {
	t.Helper()
	needFUSE(t)
	r := &rig{ions: startIONs(t)}
	for range nodes {
		s := r.mount(t, Options{Version: "test"})
		dir := filepath.Join(s.Mountpoint(), strings.ReplaceAll(t.Name(), "/", "_"))
		if len(r.dirs) == 0 {
			require.NoError(t, os.Mkdir(dir, 0o777))
			require.NoError(t, os.Chmod(dir, 0o777))
		}
		r.dirs = append(r.dirs, dir)
	}
	return r
}

// path is a name in the test's directory as a node sees it.
func (r *rig) path(node int, name string) string { return filepath.Join(r.dirs[node], name) }

// testWriter logs into the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}
