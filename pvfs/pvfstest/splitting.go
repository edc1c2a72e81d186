package pvfstest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	splitSize    = 10 // entries of a bucket that moves some of them
	splitServers = 16 // buckets wanted; servers make no more than there are of them
)

// MakeSplitting makes an empty directory called name in dir. Its entries lie in
// one bucket at first and spread over all metadata servers as they become more,
// whatever the servers' configuration says. Servers that do not distribute
// directories make an ordinary one.
func MakeSplitting(ctx context.Context, c *pvfs.Client, dir pvfs.Handle, name string) (pvfs.Handle, error) {
	srv := c.Servers()[0]
	_, fs, err := configuration(ctx, c)
	if err != nil {
		return 0, err
	}
	req := &wire.MkdirReq{
		FSID: c.FSID(), Cred: wire.Credential{Groups: []uint32{0}, Timeout: time.Now().Unix() + 600},
		Attr:           wire.Attr{Perms: 0o777, Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDirHint},
		ServersInitial: 1, ServersMax: splitServers, SplitSize: splitSize, Layout: wire.Layout{Type: wire.LayoutRoundRobin},
	}
	for _, r := range fs.MetaRanges(srv.Alias) {
		req.Ranges = append(req.Ranges, wire.HandleRange{First: pvfs.Handle(r.First), Last: pvfs.Handle(r.Last)})
	}
	may := &wire.Capability{
		Issuer: "S:" + srv.Alias, FSID: c.FSID(), Timeout: time.Now().Unix() + 600, Ops: wire.MayAll, Handles: []pvfs.Handle{dir},
	}
	var made wire.MkdirResp
	if err := exchange(ctx, srv.Addr, may, []wire.Hint{wire.ObjectHint(dir)}, req, &made); err != nil {
		return 0, err
	}
	return made.Handle, c.Link(ctx, dir, name, made.Handle)
}

// Buckets tells in how many buckets the entries of a directory lie, and in how
// many they may.
func Buckets(ctx context.Context, c *pvfs.Client, dir pvfs.Handle) (active, all int, err error) {
	conf, fs, err := configuration(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	alias, _ := fs.Owner(uint64(dir))
	addr, _ := conf.Addr(alias)
	req := &wire.GetAttrReq{Handle: dir, FSID: c.FSID(), Mask: wire.AttrCommon | wire.AttrDistDir,
		Cred: wire.Credential{Groups: []uint32{0}, Timeout: time.Now().Unix() + 600}}
	var resp wire.GetAttrResp
	if err := exchange(ctx, addr, nil, nil, req, &resp); err != nil {
		return 0, 0, err
	}
	d := resp.Attr.DistDir
	for i := range d.Dirdata {
		if d.Active(i) {
			active++
		}
	}
	return active, len(d.Dirdata), nil
}

// configuration asks for the servers' configuration.
func configuration(ctx context.Context, c *pvfs.Client) (*fsconf.Config, *fsconf.FileSystem, error) {
	var resp wire.GetConfigResp
	if err := exchange(ctx, c.Servers()[0].Addr, nil, nil, &wire.GetConfigReq{}, &resp); err != nil {
		return nil, nil, err
	}
	conf, err := fsconf.Parse(resp.Config)
	if err != nil {
		return nil, nil, err
	}
	fs, ok := conf.FileSystem(c.FSName())
	if !ok {
		return nil, nil, fmt.Errorf("no file system %s in the configuration", c.FSName())
	}
	return conf, fs, nil
}

// exchange sends one request over a connection of its own and decodes the
// answer into body.
func exchange(ctx context.Context, addr string, may *wire.Capability, hints []wire.Hint, req wire.Request, body wire.Response) error {
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(at); err != nil {
			return err
		}
	}
	frame, err := wire.AppendRequestFrame(nil, 1, may, hints, req)
	if err != nil {
		return err
	}
	if _, err := nc.Write(frame); err != nil {
		return err
	}
	b := make([]byte, wire.HeaderSize)
	if _, err := io.ReadFull(nc, b); err != nil {
		return err
	}
	h, err := wire.DecodeHeader(b)
	if err != nil {
		return err
	}
	b = make([]byte, h.Size)
	if _, err := io.ReadFull(nc, b); err != nil {
		return err
	}
	status, err := wire.DecodeResponseInto(b, req.Op(), body)
	return cmp.Or(err, status.Err("pvfstest."+req.Op().String()))
}

// lacking returns the names of a that are not in b with the same handle.
func lacking(a, b map[string]pvfs.Handle) []string {
	var out []string
	for name, h := range a {
		if b[name] != h {
			out = append(out, name)
		}
	}
	return out
}

// testNoSplits: directories that we make have all their buckets at once.
func (s *suite) testNoSplits(t *testing.T) {
	active, all, err := Buckets(s.ctx(t), s.c, s.mkdir(t))
	require.NoError(t, err)
	t.Logf("%d of %d buckets", active, all)
	require.Positive(t, all)
	require.Equal(t, all, active)
}

// testSplitting lets many goroutines change one directory while its entries
// move to more and more servers.
func (s *suite) testSplitting(t *testing.T) {
	ctx := s.ctx(t)
	d, err := MakeSplitting(ctx, s.c, s.dir, s.name("split"))
	require.NoError(t, err)
	const workers, each = 8, 60
	var mu sync.Mutex
	want := map[string]pvfs.Handle{}
	s.parallel(t, workers, workers*each, func(i int) error {
		name := fmt.Sprintf("entry-%d", i)
		a, err := s.c.Create(ctx, d, name, pvfs.CreateOptions{})
		if err != nil {
			return err
		}
		switch i % 5 {
		case 0:
			return s.c.Remove(ctx, d, name)
		case 1:
			if err := s.c.Rename(ctx, d, name, d, "moved-"+name); err != nil {
				return err
			}
			name = "moved-" + name
		}
		if h, err := s.c.Lookup(ctx, d, name); err != nil || h != a.Handle {
			return fmt.Errorf("lookup of %s: %d instead of %d: %w", name, h, a.Handle, err)
		}
		mu.Lock()
		defer mu.Unlock()
		want[name] = a.Handle
		return nil
	})
	active, all, err := Buckets(ctx, s.c, d)
	require.NoError(t, err)
	t.Logf("%d of %d buckets", active, all)
	require.Equal(t, all, active, "so many entries are everywhere")
	for _, n := range []int{100, 7} {
		got := s.list(t, d, n)
		require.Empty(t, lacking(want, got), "missing, read %d at a time", n)
		require.Empty(t, lacking(got, want), "left over, read %d at a time", n)
	}
	got, err := s.c.GetAttr(ctx, d)
	require.NoError(t, err)
	require.Equal(t, int64(len(want)), got.Entries)
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	s.parallel(t, workers, len(names), func(i int) error { return s.c.Remove(ctx, d, names[i]) })
	require.Empty(t, s.list(t, d, 100))
}
