package pvfsd_test

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const root wire.Handle = 1 << 20

func TestMain(m *testing.M) {
	pvfsdtest.RunAsServer()
	goleak.VerifyTestMain(m)
}

// client speaks raw protocol on one connection, one request at a time.
type client struct {
	t    testing.TB
	nc   net.Conn
	tag  int64
	fsid wire.FSID
	cred wire.Credential
}

func dial(t testing.TB, addr string, conf *fsconf.Config) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, nc: nc, fsid: wire.FSID(conf.FileSystems[0].ID), cred: rootCred()}
}

func rootCred() wire.Credential {
	return wire.Credential{Groups: []uint32{0}, Issuer: "C:test", Timeout: time.Now().Unix() + 3600}
}

// all is a capability for everything, as clients of unsigned systems make it.
func (c *client) all(hs ...wire.Handle) *wire.Capability {
	return &wire.Capability{Issuer: "S:x", FSID: c.fsid, Timeout: time.Now().Unix() + 600, Ops: wire.MayAll, Handles: hs}
}

func (c *client) send(p []byte) {
	_, err := c.nc.Write(p)
	require.NoError(c.t, err)
}

// request appends the frame of a request with a new tag.
func (c *client) request(cap *wire.Capability, hints []wire.Hint, req wire.Request) (int64, []byte) {
	c.tag++
	frame, err := wire.AppendRequestFrame(nil, c.tag, cap, hints, req)
	require.NoError(c.t, err)
	return c.tag, frame
}

// recv reads one message.
func (c *client) recv() (wire.Header, []byte) {
	h, p, err := c.tryRecv()
	require.NoError(c.t, err)
	return h, p
}

func (c *client) tryRecv() (wire.Header, []byte, error) {
	c.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	var hdr [wire.HeaderSize]byte
	if _, err := io.ReadFull(c.nc, hdr[:]); err != nil {
		return wire.Header{}, nil, err
	}
	h, err := wire.DecodeHeader(hdr[:])
	if err != nil {
		return h, nil, err
	}
	p := make([]byte, h.Size)
	_, err = io.ReadFull(c.nc, p)
	return h, p, err
}

// try sends a request and decodes the response into resp. It returns the
// errno of the status, or the error of the connection.
func (c *client) try(cap *wire.Capability, hint wire.Handle, req wire.Request, resp wire.Response) error {
	var hints []wire.Hint
	if hint != 0 {
		hints = []wire.Hint{wire.ObjectHint(hint)}
	}
	tag, frame := c.request(cap, hints, req)
	if _, err := c.nc.Write(frame); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	h, p, err := c.tryRecv()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if h.Tag != tag {
		return fmt.Errorf("tag %d for %d", h.Tag, tag)
	}
	status, err := wire.DecodeResponseInto(p, req.Op(), resp)
	if err != nil {
		return err
	}
	return status.Err(req.Op().String())
}

func (c *client) call(cap *wire.Capability, hint wire.Handle, req wire.Request, resp wire.Response) {
	c.t.Helper()
	require.NoError(c.t, c.try(cap, hint, req, resp), "%T", req)
}

func (c *client) refuse(want syscall.Errno, cap *wire.Capability, hint wire.Handle, req wire.Request) {
	c.t.Helper()
	require.ErrorIs(c.t, c.try(cap, hint, req, nil), want, "%T", req)
}

func (c *client) getattr(h wire.Handle, mask wire.AttrMask) wire.Attr {
	c.t.Helper()
	var resp wire.GetAttrResp
	c.call(nil, 0, &wire.GetAttrReq{Handle: h, FSID: c.fsid, Mask: mask, Cred: c.cred}, &resp)
	return resp.Attr
}

// dirdata is the dirdata object of a directory.
func (c *client) dirdata(dir wire.Handle) wire.Handle {
	c.t.Helper()
	a := c.getattr(dir, wire.AttrAll)
	require.Equal(c.t, wire.TypeDirectory, a.Type)
	require.Len(c.t, a.DistDir.Dirdata, 1)
	return a.DistDir.Dirdata[0]
}

// emptyRoot removes lost+found from the root and returns the root's dirdata.
func (c *client) emptyRoot() wire.Handle {
	c.t.Helper()
	dd := c.dirdata(root)
	found, err := c.unlink(dd, "lost+found")
	require.NoError(c.t, err)
	c.call(c.all(root), root, &wire.RemoveReq{Handle: found, FSID: c.fsid, Cred: c.cred}, nil)
	return dd
}

func fileAttr() wire.Attr {
	return wire.Attr{
		Perms: 0o644, Type: wire.TypeMetafile, Dist: wire.NewSimpleStripe(65536),
		Mask: wire.AttrCommon | wire.AttrDist | wire.AttrDFiles | wire.AttrMirrors,
	}
}

func (c *client) create(n int32, layout wire.LayoutType) wire.CreateResp {
	c.t.Helper()
	var resp wire.CreateResp
	c.call(c.all(root), 0, &wire.CreateReq{FSID: c.fsid, Cred: c.cred, Attr: fileAttr(), NumDFiles: n, Layout: wire.Layout{Type: layout}}, &resp)
	return resp
}

func (c *client) mkdir() wire.Handle {
	c.t.Helper()
	var resp wire.MkdirResp
	c.call(c.all(root), 0, &wire.MkdirReq{FSID: c.fsid, Cred: c.cred, Attr: wire.Attr{
		Perms: 0o755, Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDirHint,
	}}, &resp)
	return resp.Handle
}

func (c *client) link(dir, dirdata wire.Handle, name string, h wire.Handle) error {
	return c.try(c.all(dir, dirdata), dir, &wire.CrDirentReq{Cred: c.cred, Name: name, Handle: h, Parent: dir, Dirdata: dirdata, FSID: c.fsid}, nil)
}

func (c *client) unlink(dirdata wire.Handle, name string) (wire.Handle, error) {
	var resp wire.RmDirentResp
	err := c.try(c.all(dirdata), 0, &wire.RmDirentReq{Name: name, Dirdata: dirdata, FSID: c.fsid}, &resp)
	return resp.Handle, err
}

func (c *client) lookup(dir wire.Handle, path string) (wire.LookupPathResp, error) {
	var resp wire.LookupPathResp
	err := c.try(c.all(dir), dir, &wire.LookupPathReq{Path: path, FSID: c.fsid, Start: dir, Mask: wire.AttrCommon, Cred: c.cred}, &resp)
	return resp, err
}

// writeSmall writes p to a file of one datafile.
func (c *client) writeSmall(meta, datafile wire.Handle, off int64, p []byte) error {
	var resp wire.SmallIOResp
	err := c.try(c.all(meta), meta, &wire.SmallIOReq{
		Handle: datafile, FSID: c.fsid, Dir: wire.IOWrite, ServerCt: 1, Dist: wire.NewSimpleStripe(65536),
		Type: wire.Contiguous(int64(len(p))), Offset: off, Aggregate: int64(len(p)), Total: int64(len(p)), Data: p,
	}, &resp)
	if err == nil && resp.Result != int64(len(p)) {
		return fmt.Errorf("%d of %d bytes written", resp.Result, len(p))
	}
	return err
}

func (c *client) readSmall(meta, datafile wire.Handle, off, n int64) ([]byte, error) {
	var resp wire.SmallIOResp
	err := c.try(c.all(meta), meta, &wire.SmallIOReq{
		Handle: datafile, FSID: c.fsid, Dir: wire.IORead, ServerCt: 1, Dist: wire.NewSimpleStripe(65536),
		Type: wire.Contiguous(n), Offset: off, Aggregate: n,
	}, &resp)
	return resp.Data, err
}
