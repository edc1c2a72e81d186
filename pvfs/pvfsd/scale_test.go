package pvfsd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/pvfsd"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// pipeline sends n requests with up to 100 outstanding and wants success for each.
func (c *client) pipeline(n int, req func(i int) wire.Request, cap *wire.Capability) {
	c.t.Helper()
	var wg sync.WaitGroup
	wg.Add(1)
	window := make(chan struct{}, 100)
	go func() {
		defer wg.Done()
		for range n {
			_, p, err := c.tryRecv()
			if err != nil || binary.LittleEndian.Uint32(p[12:]) != 0 {
				c.t.Errorf("response %x: %v", p, err)
				c.nc.Close()
				return
			}
			<-window
		}
	}()
	for i := range n {
		_, frame := c.request(cap, nil, req(i))
		select {
		case window <- struct{}{}:
		case <-time.After(20 * time.Second):
			c.t.Error("no progress")
			return
		}
		if _, err := c.nc.Write(frame); err != nil {
			c.t.Error(err)
			return
		}
	}
	wg.Wait()
}

// A listing of a directory of 100,000 entries shows each entry that stays
// exactly once, however many come and go meanwhile.
func TestHugeDirectory(t *testing.T) {
	entries := 100_000
	if testing.Short() {
		entries = 10_000
	}
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	dir := c.mkdir()
	dd := c.dirdata(dir)
	add := func(prefix string) func(i int) wire.Request {
		return func(i int) wire.Request {
			return &wire.CrDirentReq{Cred: c.cred, Name: fmt.Sprintf("%s%d", prefix, i), Handle: wire.Handle(5000 + i), Parent: dir, Dirdata: dd, FSID: c.fsid}
		}
	}
	start := time.Now()
	c.pipeline(entries, add("stays"), c.all(dir, dd))
	t.Logf("%d entries made in %v", entries, time.Since(start))
	require.EqualValues(t, entries, c.getattr(dd, wire.AttrDirentCount).DirentCount)

	c2 := dial(t, cl.Addr(0), cl.Config())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprintf("goes%d", i)
			if err := c2.link(dir, dd, name, 77); err != nil {
				t.Error(err)
				return
			}
			if _, err := c2.unlink(dd, name); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	start = time.Now()
	seen := make(map[string]int)
	for _, e := range c.list(dd, wire.MaxDirents) {
		seen[e.Name]++
	}
	t.Logf("listed in %v", time.Since(start))
	close(stop)
	wg.Wait()
	stays := 0
	for name, n := range seen {
		require.Equal(t, 1, n, name)
		if bytes.HasPrefix([]byte(name), []byte("stays")) {
			stays++
		}
	}
	require.Equal(t, entries, stays)
	c.refuse(syscall.ENOTEMPTY, c.all(root), root, &wire.RemoveReq{Handle: dir, FSID: c.fsid, Cred: c.cred})
	c.pipeline(entries, func(i int) wire.Request {
		return &wire.RmDirentReq{Name: fmt.Sprintf("stays%d", i), Dirdata: dd, FSID: c.fsid}
	}, c.all(dir, dd))
	c.call(c.all(root), root, &wire.RemoveReq{Handle: dir, FSID: c.fsid, Cred: c.cred}, nil)
	c.refuse(syscall.ENOENT, nil, 0, &wire.GetAttrReq{Handle: dd, FSID: c.fsid, Cred: c.cred})
}

// A token that stands for a removed entry goes on behind its place.
func TestReadDirTokens(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	dd := c.emptyRoot()
	for i := range 10 {
		require.NoError(t, c.link(root, dd, fmt.Sprint(i), wire.Handle(100+i)))
	}
	read := func(token uint64, n uint32) (names string, next uint64) {
		var resp wire.ReadDirResp
		c.call(c.all(dd), 0, &wire.ReadDirReq{Dirdata: dd, FSID: c.fsid, Count: n, Token: token}, &resp)
		for _, e := range resp.Dirents {
			names += e.Name
		}
		return names, resp.Token
	}
	names, next := read(wire.TokenStart, 4)
	require.Equal(t, "0123", names)
	for _, gone := range []string{"3", "4", "0"} {
		_, err := c.unlink(dd, gone)
		require.NoError(t, err)
	}
	require.NoError(t, c.link(root, dd, "3", 99))
	names, next = read(next|7<<48, 4) // clients mark tokens in the upper bits
	require.Equal(t, "5678", names)
	names, next = read(next, 2)
	require.Equal(t, "93", names)
	require.NotEqual(t, wire.TokenEnd, next, "as many as asked for: there may be more")
	names, next = read(next, 2)
	require.Empty(t, names)
	require.Equal(t, wire.TokenEnd, next)
	names, next = read(next, 2)
	require.Empty(t, names)
	require.Equal(t, wire.TokenEnd, next)
	names, next = read(wire.TokenStart, 0)
	require.Empty(t, names)
	require.Equal(t, wire.TokenStart, next)
	c.refuse(syscall.EINVAL, c.all(dd), 0, &wire.ReadDirReq{Dirdata: dd, FSID: c.fsid, Count: 513, Token: wire.TokenStart})
}

func TestThousandConnections(t *testing.T) {
	const conns = 1000
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	f := dial(t, cl.Addr(0), cl.Config()).create(1, wire.LayoutRoundRobin)
	var wg sync.WaitGroup
	clients := make([]*client, conns)
	for i := range clients {
		clients[i] = dial(t, cl.Addr(0), cl.Config())
	}
	errs := make(chan error, conns)
	for i, c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := pattern(uint64(i), 1000)
			if err := c.writeSmall(f.Handle, f.Attr.DFiles[0], int64(i)*1000, p); err != nil {
				errs <- err
				return
			}
			got, err := c.readSmall(f.Handle, f.Attr.DFiles[0], int64(i)*1000, 1000)
			if err == nil && !bytes.Equal(got, p) {
				err = fmt.Errorf("connection %d read something else", i)
			}
			if err != nil {
				errs <- err
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.EqualValues(t, conns+1, cl.Server(0).Snapshot().Connections)
}

// A peer that stalls in the middle of a frame is dropped, one that is idle
// between frames is not.
func TestHalfFrame(t *testing.T) {
	opt, err := pvfsd.ForListen("127.0.0.1:0", t.TempDir(), nil)
	require.NoError(t, err)
	srv, err := pvfsd.Open(opt)
	require.NoError(t, err)
	srv.SetFrameTimeout(50 * time.Millisecond)
	runServer(t, srv)
	idle := dial(t, srv.Addr().String(), opt.Config)
	idle.call(nil, 0, &wire.NoopReq{}, nil)
	half := dial(t, srv.Addr().String(), opt.Config)
	_, frame := half.request(nil, nil, &wire.NoopReq{})
	half.send(frame[:30])
	half.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = half.nc.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	idle.call(nil, 0, &wire.NoopReq{}, nil)
}

// Clients that ask for much and take nothing hold little memory and nobody up.
func TestSlowReaders(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	c.call(c.all(df), 0, &wire.TruncateReq{Handle: df, FSID: c.fsid, Size: 1 << 30}, nil)
	for range 100 {
		slow := dial(t, cl.Addr(0), cl.Config())
		for range 20 {
			_, req := slow.ioReq(wire.IORead, f.Handle, df, 0, 1<<30)
			slow.send(req)
		}
	}
	time.Sleep(100 * time.Millisecond)
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	require.Less(t, ms.HeapInuse, uint64(600<<20))
	start := time.Now()
	require.Len(t, c.read(f.Handle, df, 0, 10<<20), 10<<20)
	require.Less(t, time.Since(start), 30*time.Second)
}

func TestHostileBytes(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	good := dial(t, cl.Addr(0), cl.Config())
	_, valid := good.request(good.all(root), nil, &wire.GetAttrReq{Handle: root, FSID: good.fsid, Mask: wire.AttrAll, Cred: good.cred})
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 400 {
		nc, err := net.Dial("tcp", cl.Addr(0))
		require.NoError(t, err)
		b := bytes.Clone(valid)
		switch i % 4 {
		case 0: // noise
			b = pattern(uint64(i), 1+r.IntN(5000))
		case 1: // a request with a few bytes changed
			for range 1 + r.IntN(4) {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
		case 2: // cut short
			b = b[:r.IntN(len(b))]
		case 3: // data for nobody
			b = append(wire.Header{Mode: wire.Rend, Tag: 5, Size: 1 << 20}.Append(nil), make([]byte, 1<<20)...)
		}
		nc.Write(b)
		nc.Close()
	}
	require.Equal(t, wire.TypeDirectory, good.getattr(root, wire.AttrAll).Type)
}

func TestMalformedRequests(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	protoError := func(payload []byte) {
		t.Helper()
		c.send(append(wire.Header{Mode: wire.Unexpected, Tag: 9, Size: int64(len(payload))}.Append(nil), payload...))
		h, p := c.recv()
		require.EqualValues(t, 9, h.Tag)
		op, status, _, err := wire.DecodeResponse(p)
		require.NoError(t, err)
		require.Equal(t, wire.OpProtoError, op)
		require.Equal(t, wire.Status(-1073741862), status)
	}
	noop := wire.AppendRequest(nil, nil, nil, &wire.NoopReq{})
	version := bytes.Clone(noop)
	binary.LittleEndian.PutUint32(version, 6000)
	unknown := bytes.Clone(noop)
	binary.LittleEndian.PutUint32(unknown[8:], 99)
	protoError(version)
	protoError(unknown)
	protoError(append(noop, 0))
	protoError(noop[:20])
	protoError(nil)
	c.call(nil, 0, &wire.NoopReq{}, nil)
	for _, req := range []wire.Request{&wire.ImmCopiesReq{}, &wire.CreateRootDirReq{Handle: root, FSID: c.fsid}, &wire.MirrorReq{Dist: wire.NewSimpleStripe(1)}} {
		c.refuse(syscall.ENOSYS, nil, 0, req)
	}

	// What breaks the framing ends the connection.
	for _, head := range [][]byte{make([]byte, 24), wire.Header{Mode: wire.Unexpected, Tag: 1, Size: 1 << 20}.Append(nil)} {
		bad := dial(t, cl.Addr(0), cl.Config())
		bad.send(head)
		bad.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := bad.nc.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
}

// A full disk is ENOSPC for what needs room; what was there stays, things can
// be removed, and then there is room again.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := filepath.Join(t.TempDir(), "small")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{Dir: dir})
	c := dial(t, cl.Addr(0), cl.Config())
	dd := c.dirdata(root)
	var files []wire.CreateResp
	var err error
	p := pattern(1, 1<<20)
	for i := 0; err == nil && i < 100; i++ {
		f := c.create(1, wire.LayoutRoundRobin)
		require.NoError(t, c.link(root, dd, fmt.Sprint(i), f.Handle))
		if err = c.write(f.Handle, f.Attr.DFiles[0], 0, p); err == nil {
			files = append(files, f)
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotEmpty(t, files)
	for i := 0; err == nil || i == 0; i++ { // and metadata until that is full, too
		err = c.link(root, dd, fmt.Sprintf("%0200d", i), 5)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	for i, f := range files {
		require.True(t, bytes.Equal(p, c.read(f.Handle, f.Attr.DFiles[0], 0, 2<<20)))
		_, err := c.unlink(dd, fmt.Sprint(i))
		require.NoError(t, err)
		c.call(c.all(root), root, &wire.RemoveReq{Handle: f.Attr.DFiles[0], FSID: c.fsid, Cred: c.cred}, nil)
		c.call(c.all(root), root, &wire.RemoveReq{Handle: f.Handle, FSID: c.fsid, Cred: c.cred}, nil)
	}
	require.Eventually(t, func() bool {
		return c.link(root, dd, "again", 5) == nil
	}, 10*time.Second, 20*time.Millisecond)
	f := c.create(1, wire.LayoutRoundRobin)
	require.NoError(t, c.write(f.Handle, f.Attr.DFiles[0], 0, p))
}
