package pvfsd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const flowBuffer = 262144

func (c *client) ioReq(dir wire.IOType, meta, datafile wire.Handle, off, n int64) (int64, []byte) {
	return c.ioTyped(dir, meta, datafile, wire.Contiguous(n), off, n)
}

func (c *client) ioTyped(dir wire.IOType, meta, datafile wire.Handle, typ wire.Datatype, off, n int64) (int64, []byte) {
	return c.request(c.all(meta), []wire.Hint{wire.ObjectHint(meta)}, &wire.IOReq{
		Handle: datafile, FSID: c.fsid, Dir: dir, ServerCt: 1, Dist: wire.NewSimpleStripe(65536),
		Type: typ, Offset: off, Aggregate: n,
	})
}

// flowFrames is p as data messages.
func flowFrames(tag int64, p []byte) []byte {
	var out []byte
	for len(p) > 0 {
		n := min(len(p), flowBuffer)
		out = wire.Header{Mode: wire.ModeFor(n), Tag: tag, Size: int64(n)}.Append(out)
		out = append(out, p[:n]...)
		p = p[n:]
	}
	return out
}

func pattern(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// write writes p with IO, all of it sent ahead of the response.
func (c *client) write(meta, datafile wire.Handle, off int64, p []byte) error {
	tag, req := c.ioReq(wire.IOWrite, meta, datafile, off, int64(len(p)))
	c.send(append(req, flowFrames(tag, p)...))
	_, b := c.recv()
	status, err := wire.DecodeResponseInto(b, wire.OpIO, &wire.IOResp{})
	require.NoError(c.t, err)
	if status != 0 {
		return status.Err("io")
	}
	_, b = c.recv()
	var done wire.WriteCompletionResp
	status, err = wire.DecodeResponseInto(b, wire.OpWriteCompletion, &done)
	require.NoError(c.t, err)
	if status == 0 {
		require.Equal(c.t, int64(len(p)), done.Total)
	}
	return status.Err("io")
}

// read reads with IO; the result is short at the end of the datafile.
func (c *client) read(meta, datafile wire.Handle, off, n int64) []byte {
	tag, req := c.ioReq(wire.IORead, meta, datafile, off, n)
	c.send(req)
	_, b := c.recv()
	var resp wire.IOResp
	status, err := wire.DecodeResponseInto(b, wire.OpIO, &resp)
	require.NoError(c.t, err)
	require.Zero(c.t, status)
	want := max(0, min(n, resp.BstreamSize-off))
	var out []byte
	for int64(len(out)) < want {
		h, p := c.recv()
		require.Equal(c.t, tag, h.Tag)
		require.Equal(c.t, min(flowBuffer, want-int64(len(out))), h.Size, "every message but the last is full")
		out = append(out, p...)
	}
	return out
}

func TestFlow(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	for _, n := range []int{1, flowBuffer - 1, flowBuffer, flowBuffer + 1, 3*flowBuffer + 4711} {
		p := pattern(uint64(n), n)
		require.NoError(t, c.write(f.Handle, df, 1000, p))
		require.Equal(t, p, c.read(f.Handle, df, 1000, int64(n)))
	}
	size := c.getattr(df, wire.AttrSize).Size
	require.Equal(t, int64(1000+3*flowBuffer+4711), size)
	require.Empty(t, c.read(f.Handle, df, size, 100))
	require.Len(t, c.read(f.Handle, df, size-10, 100), 10)
}

func TestFlowWaitsForResponse(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	p := pattern(7, 600000)
	tag, req := c.ioReq(wire.IOWrite, f.Handle, f.Attr.DFiles[0], 0, int64(len(p)))
	c.send(req)
	h, _ := c.recv()
	require.Equal(t, tag, h.Tag)
	// Another request is answered while the flow is open.
	require.Zero(t, c.getattr(f.Attr.DFiles[0], wire.AttrSize).Size)
	c.send(flowFrames(tag, p))
	h, b := c.recv()
	require.Equal(t, tag, h.Tag)
	var done wire.WriteCompletionResp
	status, err := wire.DecodeResponseInto(b, wire.OpWriteCompletion, &done)
	require.NoError(t, err)
	require.Zero(t, status)
	require.Equal(t, int64(len(p)), done.Total)
	require.Equal(t, p, c.read(f.Handle, f.Attr.DFiles[0], 0, int64(len(p))))
}

// Many writes are announced before the data of the first come, in another
// order, with their messages interleaved.
func TestFlowsInterleave(t *testing.T) {
	const size = flowBuffer + 1234
	flows := 300
	if testing.Short() {
		flows = 50
	}
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	tags := make([]int64, flows)
	for i := range tags {
		var req []byte
		tags[i], req = c.ioReq(wire.IOWrite, f.Handle, df, int64(i)*size, size)
		c.send(req)
	}
	for range tags {
		_, b := c.recv()
		status, err := wire.DecodeResponseInto(b, wire.OpIO, &wire.IOResp{})
		require.NoError(t, err)
		require.Zero(t, status)
	}
	for part := range 2 {
		for i := flows - 1; i >= 0; i-- {
			frames := flowFrames(tags[i], pattern(uint64(i), size))
			first := wire.HeaderSize + flowBuffer
			if part == 0 {
				c.send(frames[:first])
			} else {
				c.send(frames[first:])
			}
		}
	}
	for range tags {
		_, b := c.recv()
		var done wire.WriteCompletionResp
		status, err := wire.DecodeResponseInto(b, wire.OpWriteCompletion, &done)
		require.NoError(t, err)
		require.Zero(t, status)
		require.Equal(t, int64(size), done.Total)
	}
	for _, i := range []int{0, 1, flows / 2, flows - 1} {
		require.Equal(t, pattern(uint64(i), size), c.read(f.Handle, df, int64(i)*size, size))
	}
}

func TestRefusedWriteIsDrained(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	require.ErrorIs(t, c.write(f.Handle, 4711, 0, pattern(1, 5*flowBuffer)), syscall.ENOENT)
	require.NoError(t, c.write(f.Handle, f.Attr.DFiles[0], 0, pattern(1, 100)))
	require.Equal(t, pattern(1, 100), c.read(f.Handle, f.Attr.DFiles[0], 0, 1000))
}

func TestNoncontiguous(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	typ, err := wire.HIndexed([]extent.Extent{{Off: 500000, Len: 1000}, {Off: 10, Len: 5}, {Off: 600000, Len: 300000}})
	require.NoError(t, err)
	p := pattern(3, 301005)
	tag, req := c.ioTyped(wire.IOWrite, f.Handle, df, typ, 0, int64(len(p)))
	c.send(append(req, flowFrames(tag, p)...))
	c.recv()
	_, b := c.recv()
	var done wire.WriteCompletionResp
	_, err = wire.DecodeResponseInto(b, wire.OpWriteCompletion, &done)
	require.NoError(t, err)
	require.Equal(t, int64(len(p)), done.Total)

	want := make([]byte, 900000)
	copy(want[500000:], p[:1000])
	copy(want[10:], p[1000:1005])
	copy(want[600000:], p[1005:])
	require.True(t, bytes.Equal(want, c.read(f.Handle, df, 0, 1<<20)))

	tag, req = c.ioTyped(wire.IORead, f.Handle, df, typ, 0, int64(len(p)))
	c.send(req)
	c.recv()
	var got []byte
	for len(got) < len(p) {
		h, b := c.recv()
		require.Equal(t, tag, h.Tag)
		got = append(got, b...)
	}
	require.True(t, bytes.Equal(p, got))
}

// A file of 100 GB costs no more than what was written to it.
func TestSparse(t *testing.T) {
	const end = 100 << 30
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	require.NoError(t, c.write(f.Handle, df, end-1000, pattern(1, 1000)))
	require.Equal(t, int64(end), c.getattr(df, wire.AttrSize).Size)
	require.Equal(t, make([]byte, 100), c.read(f.Handle, df, end/2, 100))
	require.Equal(t, pattern(1, 1000), c.read(f.Handle, df, end-1000, 2000))
	c.call(c.all(df), 0, &wire.TruncateReq{Handle: df, FSID: c.fsid, Size: 2 * end}, nil)
	require.Equal(t, int64(2*end), c.getattr(df, wire.AttrSize).Size)
	c.call(c.all(df), 0, &wire.TruncateReq{Handle: df, FSID: c.fsid, Size: 5}, nil)
	require.Equal(t, make([]byte, 5), c.read(f.Handle, df, 0, 100))
	start := time.Now()
	c.call(c.all(root), root, &wire.RemoveReq{Handle: df, FSID: c.fsid, Cred: c.cred}, nil)
	require.Less(t, time.Since(start), 30*time.Second)
}

func TestSyncData(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.SyncData, o.SyncMeta = true, true }})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	df := f.Attr.DFiles[0]
	require.NoError(t, c.write(f.Handle, df, 0, pattern(1, 1000)))
	require.NoError(t, c.writeSmall(f.Handle, df, 1000, pattern(2, 1000)))
	c.call(c.all(df), 0, &wire.TruncateReq{Handle: df, FSID: c.fsid, Size: 1500}, nil)
	for _, h := range []wire.Handle{df, f.Handle} {
		c.call(nil, 0, &wire.FlushReq{Handle: h, FSID: c.fsid}, nil)
	}
	require.Equal(t, append(pattern(1, 1000), pattern(2, 1000)[:500]...), c.read(f.Handle, df, 0, 9999))
}

// Files that are removed while they are written leave nothing on the disk.
func TestRemoveWhileWriting(t *testing.T) {
	dir := t.TempDir()
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{Dir: dir})
	c := dial(t, cl.Addr(0), cl.Config())
	var wg sync.WaitGroup
	for range 60 {
		f := c.create(1, wire.LayoutRoundRobin)
		w, r := dial(t, cl.Addr(0), cl.Config()), dial(t, cl.Addr(0), cl.Config())
		wg.Add(2)
		go func() {
			defer wg.Done()
			for i := int64(0); ; i++ {
				if err := w.writeSmall(f.Handle, f.Attr.DFiles[0], i, []byte{1}); err != nil {
					if !errors.Is(err, syscall.ENOENT) {
						t.Error(err)
					}
					return
				}
			}
		}()
		go func() {
			defer wg.Done()
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
			if err := r.try(r.all(root), root, &wire.TreeRemoveReq{FSID: r.fsid, Cred: r.cred, Handles: f.Attr.DFiles}, &wire.TreeStatusResp{}); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	files := func() (n int) {
		filepath.WalkDir(filepath.Join(dir, "s0", "data", "streams"), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return nil
		})
		return n
	}
	require.Eventually(t, func() bool { return files() == 0 }, 10*time.Second, 10*time.Millisecond)
}
