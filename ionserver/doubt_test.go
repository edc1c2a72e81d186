package ionserver

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// again sends a request about a name of the root as one that was sent before,
// that long ago, to an earlier life of the I/O node.
func (m *mount) again(op ionpb.Op, req proto.Message, ago time.Duration) (uint64, error) {
	var r ionpb.EntryResp
	f := rpc.Frame{Op: op, Handle: m.root, Flags: uint32(ionpb.Flag_IN_DOUBT), Age: uint64(ago.Microseconds())}
	_, err := m.call(context.Background(), m.place.Home(m.root), f, req, &r)
	return r.Handle, err
}

// knows has m say that its calls were told to have made these.
func (m *mount) knows(handles ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = func(f *rpc.Frame) *rpc.Frame {
		r := new(rpc.Frame)
		if f.Op == ionpb.Op_MADE {
			answer := new(ionpb.MadeResp)
			for _, h := range handles {
				answer.Made = answer.Made || h == f.Handle
			}
			r.Encode(answer)
		}
		return r
	}
}

// TestMadeInDoubt: who asks again for a name to be made, over a restart, is told
// that it has made it if nobody else has, and of several who ask one is.
func TestMadeInDoubt(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a, b := s.mount(t), s.mount(t)
	file := &ionpb.CreateReq{Name: []byte("f"), Mode: 0o600, Excl: true}
	dir := &ionpb.MkdirReq{Name: []byte("d"), Mode: 0o700}
	link := &ionpb.SymlinkReq{Name: []byte("l"), Target: []byte("there")}
	h := a.file(a.root, "others")
	made := map[ionpb.Op]uint64{}
	for op, req := range map[ionpb.Op]proto.Message{ionpb.Op_CREATE: file, ionpb.Op_MKDIR: dir, ionpb.Op_SYMLINK: link} {
		var r ionpb.EntryResp
		require.NoError(t, a.atHome(op, a.root, req, &r))
		made[op] = r.Handle
	}
	s.crash(0)
	s.restart(0, lazy)
	a.resume(0, false)
	b.resume(0, false)
	a.knows()
	b.knows(h)
	minute := time.Minute
	for op, req := range map[ionpb.Op]proto.Message{ionpb.Op_CREATE: file, ionpb.Op_MKDIR: dir, ionpb.Op_SYMLINK: link} {
		require.ErrorIs(t, a.atHome(op, a.root, req, nil), syscall.EEXIST, "not in doubt")
		got, err := a.again(op, req, minute)
		require.NoError(t, err, op)
		require.Equal(t, made[op], got)
		_, err = b.again(op, req, minute)
		require.ErrorIs(t, err, syscall.EEXIST, "a has it")
	}
	for _, c := range []struct {
		name string
		op   ionpb.Op
		req  proto.Message
	}{
		{"b was told so", ionpb.Op_CREATE, &ionpb.CreateReq{Name: []byte("others"), Mode: 0o644, Excl: true}},
		{"another mode", ionpb.Op_CREATE, &ionpb.CreateReq{Name: []byte("others"), Mode: 0o600, Excl: true}},
		{"another owner", ionpb.Op_CREATE, &ionpb.CreateReq{Name: []byte("others"), Mode: 0o644, Uid: 7, Excl: true}},
		{"another type", ionpb.Op_MKDIR, &ionpb.MkdirReq{Name: []byte("others"), Mode: 0o644}},
		{"another target", ionpb.Op_SYMLINK, &ionpb.SymlinkReq{Name: []byte("l"), Target: []byte("here")}},
	} {
		_, err := a.again(c.op, c.req, minute)
		require.ErrorIs(t, err, syscall.EEXIST, c.name)
	}
	past := time.Now().Add(-time.Hour).Unix()
	_, err := a.setAttr(h, &ionpb.SetAttrReq{Mtime: &past})
	require.NoError(t, err)
	b.knows()
	_, err = a.again(ionpb.Op_CREATE, &ionpb.CreateReq{Name: []byte("others"), Mode: 0o644, Excl: true}, minute)
	require.ErrorIs(t, err, syscall.EEXIST, "it was there before")
	got, err := a.again(ionpb.Op_CREATE, &ionpb.CreateReq{Name: []byte("others"), Mode: 0o644, Excl: true}, 2*time.Hour)
	require.NoError(t, err)
	require.Equal(t, h, got)
}
