package pvfstest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// rawTimeout is how long an answer is waited for; some requests get none.
const rawTimeout = 5 * time.Second

// raw speaks the protocol itself, a request at a time, as any user.
type raw struct {
	t     testing.TB
	conf  *fsconf.Config
	fs    *fsconf.FileSystem
	fsid  wire.FSID
	conns map[string]net.Conn // by alias
	tag   int64

	embedded bool // see RunProtocol
}

// dialRaw asks the server of url for the configuration.
func dialRaw(t testing.TB, url string) *raw {
	addr, name, ok := strings.Cut(strings.TrimPrefix(url, "tcp://"), "/")
	require.True(t, ok, url)
	r := &raw{t: t, conns: map[string]net.Conn{}}
	t.Cleanup(func() {
		for _, nc := range r.conns {
			_ = nc.Close()
		}
	})
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer nc.Close()
	var resp wire.GetConfigResp
	require.NoError(t, r.exchange(nc, nil, nil, &wire.GetConfigReq{}, &resp))
	r.conf, err = fsconf.Parse(resp.Config)
	require.NoError(t, err)
	r.fs, ok = r.conf.FileSystem(name)
	require.True(t, ok, name)
	r.fsid = wire.FSID(r.fs.ID)
	return r
}

// to sends a request to the owner of at and decodes the response into resp. The
// object hint is left out if it is 0. The error has the errno of the status;
// errNoAnswer if there was none.
func (r *raw) to(at wire.Handle, cap *wire.Capability, hint wire.Handle, req wire.Request, resp wire.Response) error {
	alias, ok := r.fs.Owner(uint64(at))
	require.True(r.t, ok, "owner of %d", at)
	nc := r.conns[alias]
	if nc == nil {
		addr, ok := r.conf.Addr(alias)
		require.True(r.t, ok)
		var err error
		nc, err = net.Dial("tcp", addr)
		require.NoError(r.t, err)
		r.conns[alias] = nc
	}
	var hints []wire.Hint
	if hint != 0 {
		hints = []wire.Hint{wire.ObjectHint(hint)}
	}
	err := r.exchange(nc, cap, hints, req, resp)
	if errors.Is(err, errNoAnswer) {
		_ = nc.Close()
		delete(r.conns, alias)
	}
	return err
}

var errNoAnswer = errors.New("no answer")

func (r *raw) exchange(nc net.Conn, cap *wire.Capability, hints []wire.Hint, req wire.Request, resp wire.Response) error {
	r.tag++
	frame, err := wire.AppendRequestFrame(nil, r.tag, cap, hints, req)
	require.NoError(r.t, err)
	require.NoError(r.t, nc.SetDeadline(time.Now().Add(rawTimeout)))
	if _, err := nc.Write(frame); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	head := make([]byte, wire.HeaderSize)
	if _, err := io.ReadFull(nc, head); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	h, err := wire.DecodeHeader(head)
	require.NoError(r.t, err)
	payload := make([]byte, h.Size)
	if _, err := io.ReadFull(nc, payload); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	require.Equal(r.t, r.tag, h.Tag)
	status, err := wire.DecodeResponseInto(payload, req.Op(), resp)
	require.NoError(r.t, err)
	return status.Err(req.Op().String())
}

// io is to for a transfer of n bytes in one flow message, data included.
func (s *scene) io(cap *wire.Capability, req *wire.IOReq, n int) error {
	var resp wire.IOResp
	if err := s.to(req.Handle, cap, s.f, req, &resp); err != nil {
		return err
	}
	alias, _ := s.fs.Owner(uint64(req.Handle))
	nc, tag := s.conns[alias], s.tag
	if req.Dir == wire.IOWrite {
		_, err := nc.Write(append(wire.Header{Mode: wire.Eager, Tag: tag, Size: int64(n)}.Append(nil), make([]byte, n)...))
		require.NoError(s.t, err)
	}
	head := make([]byte, wire.HeaderSize)
	_, err := io.ReadFull(nc, head)
	require.NoError(s.t, err)
	h, err := wire.DecodeHeader(head)
	require.NoError(s.t, err)
	payload := make([]byte, h.Size)
	_, err = io.ReadFull(nc, payload)
	require.NoError(s.t, err)
	if req.Dir == wire.IORead {
		return nil
	}
	status, err := wire.DecodeResponseInto(payload, wire.OpWriteCompletion, &wire.WriteCompletionResp{})
	require.NoError(s.t, err)
	return status.Err("io")
}

// outcome is how tables write down what became of a request.
func outcome(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// everything is a capability for all objects of hs, as anybody can make it on
// servers without signatures.
func (r *raw) everything(hs ...wire.Handle) *wire.Capability {
	return &wire.Capability{Issuer: "S:" + r.fs.Meta[0].Alias, FSID: r.fsid, Timeout: time.Now().Unix() + 600, Ops: wire.MayAll, Handles: hs}
}

// user is who asks.
type user struct {
	uid  uint32
	gids []uint32
}

func (u user) cred() wire.Credential {
	return wire.Credential{UID: u.uid, Groups: u.gids, Issuer: "C:test", Timeout: time.Now().Unix() + 3600}
}

// scene is what a request is tried on: a directory of mode 0750 with a file of
// mode 0640 and a few bytes in it, both owner's.
type scene struct {
	*raw
	as    user
	null  bool // requests come with the null capability
	d, dd wire.Handle
	f, df wire.Handle
	made  []wire.Handle // by requests, to be removed
}

var (
	superuser = user{0, []uint32{0}}
	owner     = user{1001, []uint32{1001, 7}}
	member    = user{1002, []uint32{1002, 1001}}
	stranger  = user{1003, []uint32{1003}}
)

// newScene makes one below the directory top.
func (r *raw) newScene(as user) *scene {
	s := &scene{raw: r, as: as}
	root := wire.Handle(r.fs.RootHandle)
	mode := wire.Attr{UID: owner.uid, GID: owner.gids[0], Perms: 0o750, Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDirHint}
	var dir wire.MkdirResp
	require.NoError(r.t, r.to(root, r.everything(root), 0, &wire.MkdirReq{FSID: r.fsid, Cred: superuser.cred(), Attr: mode, Ranges: r.metaRanges(root),
		ServersInitial: 1, ServersMax: 1, SplitSize: 100}, &dir))
	s.d = dir.Handle
	var at wire.GetAttrResp
	require.NoError(r.t, r.to(s.d, nil, 0, &wire.GetAttrReq{Handle: s.d, FSID: r.fsid, Mask: wire.AttrAll, Cred: superuser.cred()}, &at))
	require.Len(r.t, at.Attr.DistDir.Dirdata, 1)
	s.dd = at.Attr.DistDir.Dirdata[0]
	f := r.newFile(1)
	s.f, s.df = f.Handle, f.Attr.DFiles[0]
	require.NoError(r.t, s.link("f", s.f))
	require.NoError(r.t, r.to(s.df, r.everything(s.f), s.f, s.small(wire.IOWrite), &wire.SmallIOResp{}))
	return s
}

// newFile makes a file of owner's with n datafiles.
func (r *raw) newFile(n int32) wire.CreateResp {
	root := wire.Handle(r.fs.RootHandle)
	mode := wire.Attr{UID: owner.uid, GID: owner.gids[0], Perms: 0o640, Type: wire.TypeMetafile, Dist: wire.NewSimpleStripe(65536),
		Mask: wire.AttrCommon | wire.AttrDist | wire.AttrDFiles | wire.AttrMirrors}
	var f wire.CreateResp
	require.NoError(r.t, r.to(root, r.everything(root), 0, &wire.CreateReq{FSID: r.fsid, Cred: superuser.cred(), Attr: mode, NumDFiles: n,
		Layout: wire.Layout{Type: wire.LayoutRoundRobin}}, &f))
	return f
}

// metaRanges is the handles of metadata that the owner of h has.
func (r *raw) metaRanges(h wire.Handle) []wire.HandleRange {
	alias, _ := r.fs.Owner(uint64(h))
	return onWire(r.fs.MetaRanges(alias))
}

// dataRanges is the handles of datafiles that the owner of h has.
func (r *raw) dataRanges(h wire.Handle) []wire.HandleRange {
	alias, _ := r.fs.Owner(uint64(h))
	return onWire(r.fs.DataRanges(alias))
}

func onWire(ranges []fsconf.Range) []wire.HandleRange {
	var out []wire.HandleRange
	for _, x := range ranges {
		out = append(out, wire.HandleRange{First: wire.Handle(x.First), Last: wire.Handle(x.Last)})
	}
	return out
}

// link makes an entry as the superuser.
func (s *scene) link(name string, h wire.Handle) error {
	return s.to(s.dd, s.everything(s.d, s.dd), s.d, &wire.CrDirentReq{Cred: superuser.cred(), Name: name, Handle: h, Parent: s.d, Dirdata: s.dd, FSID: s.fsid}, nil)
}

func (s *scene) small(dir wire.IOType) *wire.SmallIOReq {
	req := &wire.SmallIOReq{Handle: s.df, FSID: s.fsid, Dir: dir, ServerCt: 1, Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(4), Aggregate: 4}
	if dir == wire.IOWrite {
		req.Total, req.Data = 4, []byte("data")
	}
	return req
}

// cap is the capability that the servers give the scene's user for h.
func (s *scene) cap(h wire.Handle) *wire.Capability {
	if s.null {
		return nil
	}
	var resp wire.GetAttrResp
	require.NoError(s.t, s.to(h, nil, 0, &wire.GetAttrReq{Handle: h, FSID: s.fsid, Mask: wire.AttrAll, Cred: s.as.cred()}, &resp))
	return &resp.Attr.Cap
}

// drop removes what newScene made, as far as it is there.
func (s *scene) drop() {
	for _, h := range append(s.made, s.df, s.f, s.d) {
		var ents wire.ReadDirResp
		if h == s.d && s.to(s.dd, s.everything(s.dd), 0, &wire.ReadDirReq{Dirdata: s.dd, FSID: s.fsid, Count: 60, Token: wire.TokenStart}, &ents) == nil {
			for _, e := range ents.Dirents {
				_ = s.to(s.dd, s.everything(s.dd), 0, &wire.RmDirentReq{Name: e.Name, Dirdata: s.dd, FSID: s.fsid}, &wire.RmDirentResp{})
			}
		}
		_ = s.to(h, s.everything(s.d), s.d, &wire.RemoveReq{Handle: h, FSID: s.fsid, Cred: superuser.cred()}, nil)
	}
}
