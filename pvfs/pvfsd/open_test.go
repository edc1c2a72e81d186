package pvfsd_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func config(t *testing.T, dir string, edit func(string) string) *fsconf.Config {
	t.Helper()
	text, err := fsconf.Generate(fsconf.GenOptions{FSName: "x", FSID: 99, Servers: []fsconf.ServerSpec{
		{Alias: "s0", Addr: "127.0.0.1:0", Dir: dir}, {Alias: "s1", Addr: "127.0.0.1:0", Dir: filepath.Join(dir, "s1")},
	}})
	require.NoError(t, err)
	if edit != nil {
		text = edit(text)
	}
	conf, err := fsconf.Parse(text)
	require.NoError(t, err)
	return conf
}

func TestDirectoryIsLocked(t *testing.T) {
	opt := pvfsd.Options{Config: config(t, t.TempDir(), nil), Alias: "s0"}
	srv, err := pvfsd.Open(opt)
	require.NoError(t, err)
	_, err = pvfsd.Open(opt)
	require.ErrorIs(t, err, syscall.EBUSY)
	require.ErrorContains(t, err, "is in use by another server (pid ")
	require.NoError(t, srv.Close())
	srv, err = pvfsd.Open(opt)
	require.NoError(t, err)
	require.NoError(t, srv.Close())
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	srv, err := pvfsd.Open(pvfsd.Options{Config: config(t, dir, nil), Alias: "s0"})
	require.NoError(t, err)
	require.NoError(t, srv.Close())
	s1 := filepath.Join(dir, "s1")
	tests := []struct {
		name, alias string
		edit        func(string) string
	}{
		{"another file system", "s0", func(s string) string { return strings.Replace(s, "ID 99", "ID 98", 1) }},
		{"another server", "s1", func(s string) string { return strings.ReplaceAll(s, s1, dir) }},
		{"bytestreams of another server", "s1", func(s string) string {
			return strings.ReplaceAll(s, "DataStorageSpace "+s1, "DataStorageSpace "+dir)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pvfsd.Open(pvfsd.Options{Config: config(t, dir, tt.edit), Alias: tt.alias})
			require.ErrorIs(t, err, syscall.EINVAL)
		})
	}
}

func TestBadOptions(t *testing.T) {
	conf := config(t, t.TempDir(), nil)
	for name, opt := range map[string]pvfsd.Options{
		"no config":     {Alias: "s0"},
		"unknown alias": {Config: conf, Alias: "s7"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pvfsd.Open(opt)
			require.ErrorIs(t, err, syscall.EINVAL)
		})
	}
}

func TestDamagedStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "meta"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "meta", "meta.db"), make([]byte, 1<<16), 0o600))
	_, err := pvfsd.Open(pvfsd.Options{Config: config(t, dir, nil), Alias: "s0"})
	require.ErrorIs(t, err, syscall.EUCLEAN)
}

// serve runs the server of opt until the end of the test or stop.
func serve(t *testing.T, opt pvfsd.Options) (srv *pvfsd.Server, stop func()) {
	t.Helper()
	srv, err := pvfsd.Open(opt)
	require.NoError(t, err)
	return srv, runServer(t, srv)
}

func runServer(t *testing.T, srv *pvfsd.Server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func TestForListenIsStable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	opt, err := pvfsd.ForListen("127.0.0.1:0", dir, nil)
	require.NoError(t, err)
	first := opt.Config.FileSystems[0]
	require.Equal(t, "zoidfs", first.Name)
	srv, stop := serve(t, opt)
	c := dial(t, srv.Addr().String(), opt.Config)
	f := c.create(4, wire.LayoutRoundRobin)
	require.NoError(t, c.link(root, c.dirdata(root), "f", f.Handle))
	stop()

	again, err := pvfsd.ForListen("127.0.0.1:0", dir, nil)
	require.NoError(t, err)
	require.Equal(t, first.ID, again.Config.FileSystems[0].ID, "the id stays")
	addr, _ := again.Config.Addr("s0")
	require.Equal(t, again.Listener.Addr().String(), addr, "the address is the new one")
	srv, stop = serve(t, again)
	c = dial(t, srv.Addr().String(), again.Config)
	got, err := c.lookup(root, "f")
	require.NoError(t, err)
	require.Equal(t, f.Handle, got.Handles[0])
	stop()

	// What was edited stays while the address does.
	name := filepath.Join(dir, "fs.conf")
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	edited := strings.Replace(string(text), "TroveSyncData no", "TroveSyncData yes", 1)
	require.NoError(t, os.WriteFile(name, []byte(edited), 0o600))
	third, err := pvfsd.ForListen(addr, dir, nil)
	require.NoError(t, err)
	require.NoError(t, third.Listener.Close())
	require.Equal(t, edited, third.Config.Text)
}
