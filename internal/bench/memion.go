package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

const (
	memRoot = 1
	memSlab = 64 << 20 // a file of any size lies on it, over and over
)

// memoryION is an I/O node that keeps its data in memory: what a mount and the
// RPC layer cost without any storage. It knows one directory and one mount, to
// which it gives every lease of files that is asked for, or none.
type memoryION struct {
	view   *ionpb.View
	slab   []byte
	leases uint32 // that are given

	mu    sync.Mutex
	names map[string]uint64 // guarded by mu
	sizes map[uint64]int64  // guarded by mu
}

// runMemoryION serves until ctx ends and prints its address first. With the
// argument "leases" it gives them.
func runMemoryION(ctx context.Context, args []string, out io.Writer) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := lis.Addr().String()
	m := &memoryION{
		view:  &ionpb.View{Epoch: 1, Members: []string{addr}, Fsid: 1, FsName: "bench", Root: memRoot, DomainSize: 4 << 20},
		slab:  newSlab(),
		names: map[string]uint64{}, sizes: map[uint64]int64{},
	}
	if slices.Contains(args, "leases") {
		m.leases = uint32(ionpb.Flag_LEASE_DATA | ionpb.Flag_LEASE_WRITE)
	}
	fmt.Fprintln(out, addr)
	return rpc.Serve(ctx, lis, m, rpc.ServerOptions{})
}

// newSlab is memory for payloads, whose pages exist.
func newSlab() []byte {
	slab := make([]byte, memSlab)
	for i := 0; i < len(slab); i += 4096 {
		slab[i] = 1
	}
	return slab
}

func (m *memoryION) Connect(*rpc.Peer) rpc.Handler { return m }

func (m *memoryION) Close() {}

func (m *memoryION) Stats(context.Context, *ionpb.StatsReq) (*ionpb.StatsResp, error) {
	return &ionpb.StatsResp{}, nil
}

func (m *memoryION) Status(context.Context, *ionpb.StatusReq) (*ionpb.StatusResp, error) {
	return &ionpb.StatusResp{}, nil
}

func (m *memoryION) Rounds(context.Context, *ionpb.RoundsReq) (*ionpb.RoundsResp, error) {
	return &ionpb.RoundsResp{}, nil
}

func (m *memoryION) Try(r *rpc.Request) bool {
	m.Handle(r)
	return true
}

func (m *memoryION) Handle(r *rpc.Request) {
	switch r.Op {
	case ionpb.Op_WRITE:
		m.write(r)
	case ionpb.Op_READ:
		m.read(r)
	default:
		msg, err := m.other(r)
		if err != nil {
			r.Fail(err)
			return
		}
		r.ReplyMsg(msg)
	}
}

// read answers with as many bytes as are asked for, wherever they lie: what is in
// them does not matter.
func (m *memoryION) read(r *rpc.Request) {
	n := r.Len
	if len(r.Body) > 0 {
		var p ionpb.Pieces
		if err := r.Decode(&p); err != nil {
			r.Fail(err)
			return
		}
		n = 0
		for _, k := range p.Len {
			n += k
		}
	}
	off := r.Off % memSlab
	n = min(n, memSlab-off, max(0, m.size(r.Handle)-r.Off))
	r.Reply(&rpc.Frame{Data: rpc.Static(m.slab[off : off+n]), Flags: r.Flags & m.leases})
}

func (m *memoryION) write(r *rpc.Request) {
	n, at := int64(r.Data.Len()), int(r.Off%memSlab)
	for _, b := range r.Data.Append(nil) {
		c := copy(m.slab[at:], b)
		copy(m.slab, b[c:])
		at = (at + len(b)) % memSlab
	}
	m.mu.Lock()
	m.sizes[r.Handle] = max(m.sizes[r.Handle], r.Off+n)
	m.mu.Unlock()
	r.Reply(&rpc.Frame{Len: n, Flags: r.Flags & m.leases})
}

func (m *memoryION) size(h uint64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sizes[h]
}

func (m *memoryION) other(r *rpc.Request) (proto.Message, error) {
	switch r.Op {
	case ionpb.Op_HELLO:
		return &ionpb.HelloResp{Session: 1, Resumed: true, Boot: 1, LeaseMs: 15000, View: m.view}, nil
	case ionpb.Op_PING:
		return &ionpb.PingResp{Epoch: 1}, nil
	case ionpb.Op_VIEW:
		return m.view, nil
	case ionpb.Op_BYE, ionpb.Op_CLOSE, ionpb.Op_FSYNC, ionpb.Op_HOLD, ionpb.Op_COMMIT, ionpb.Op_JOB:
		return nil, nil
	case ionpb.Op_RECALL:
		return &ionpb.RecallResp{}, nil
	case ionpb.Op_LOOKUP:
		var req ionpb.NameReq
		if err := r.Decode(&req); err != nil {
			return nil, err
		}
		return m.entry(string(req.Name))
	case ionpb.Op_CREATE:
		var req ionpb.CreateReq
		if err := r.Decode(&req); err != nil {
			return nil, err
		}
		return m.create(&req)
	case ionpb.Op_GETATTR, ionpb.Op_OPEN, ionpb.Op_SETATTR:
		return m.attr(r.Handle), nil
	case ionpb.Op_STATFS:
		return &ionpb.StatFSResp{BlockSize: 1 << 20, Blocks: 1 << 20, BlocksFree: 1 << 20, BlocksAvail: 1 << 20, NameMax: 255}, nil
	case ionpb.Op_GETXATTR:
		return nil, errno.New("bench", syscall.ENODATA)
	}
	return nil, errno.New("bench", syscall.ENOTSUP)
}

func (m *memoryION) attr(h uint64) *ionpb.Attr {
	leased := m.leases != 0
	a := &ionpb.Attr{Handle: h, Type: ionpb.ObjType_FILE, Mode: 0o644, Nlink: 1, Size: m.size(h), Blksize: 1 << 20, Version: 1, Quiet: true, Leased: leased}
	if h == memRoot {
		a.Type, a.Mode = ionpb.ObjType_DIR, 0o755
	}
	return a
}

func (m *memoryION) entry(name string) (proto.Message, error) {
	m.mu.Lock()
	h := m.names[name]
	m.mu.Unlock()
	if h == 0 {
		return nil, errno.New("bench", syscall.ENOENT)
	}
	return &ionpb.EntryResp{Handle: h, Type: ionpb.ObjType_FILE, Attr: m.attr(h)}, nil
}

func (m *memoryION) create(req *ionpb.CreateReq) (proto.Message, error) {
	m.mu.Lock()
	h, taken := memRoot+1+uint64(len(m.names)), m.names[string(req.Name)] != 0
	if !taken {
		m.names[string(req.Name)] = h
	}
	m.mu.Unlock()
	if taken {
		return nil, errno.New("bench", syscall.EEXIST)
	}
	return &ionpb.EntryResp{Handle: h, Type: ionpb.ObjType_FILE, Attr: m.attr(h), Created: true, Opened: req.Open}, nil
}
