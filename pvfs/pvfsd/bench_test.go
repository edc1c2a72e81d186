package pvfsd_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// A write of 4 MiB by IO, its data sent ahead.
func BenchmarkWriteFlow(b *testing.B) {
	cl := pvfsdtest.Start(b, 1, pvfsdtest.Options{})
	c := dial(b, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	p := pattern(1, 4<<20)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	frames := flowFrames(1, p)
	for i := 0; b.Loop(); i++ {
		c.tag = 0 // so that the frames fit
		_, req := c.ioReq(wire.IOWrite, f.Handle, f.Attr.DFiles[0], int64(i%64)<<22, int64(len(p)))
		c.send(req)
		c.send(frames)
		c.recv()
		c.recv()
	}
}

// A read of 4 MiB by IO.
func BenchmarkReadFlow(b *testing.B) {
	cl := pvfsdtest.Start(b, 1, pvfsdtest.Options{})
	c := dial(b, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	const n = 4 << 20
	if err := c.write(f.Handle, f.Attr.DFiles[0], 0, pattern(1, n)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(n)
	b.ReportAllocs()
	for b.Loop() {
		_, req := c.ioReq(wire.IORead, f.Handle, f.Attr.DFiles[0], 0, n)
		c.send(req)
		c.recv()
		io.CopyN(io.Discard, c.nc, n+16*wire.HeaderSize)
	}
}

func BenchmarkGetAttr(b *testing.B) {
	cl := pvfsdtest.Start(b, 1, pvfsdtest.Options{})
	c := dial(b, cl.Addr(0), cl.Config())
	b.ReportAllocs()
	b.ResetTimer()
	c.pipeline(b.N, func(int) wire.Request {
		return &wire.GetAttrReq{Handle: root, FSID: c.fsid, Mask: wire.AttrAll, Cred: c.cred}
	}, nil)
}

// Small writes of 4 KiB with 100 outstanding.
func BenchmarkSmallWrite(b *testing.B) {
	cl := pvfsdtest.Start(b, 1, pvfsdtest.Options{})
	c := dial(b, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutRoundRobin)
	p := pattern(1, 4096)
	cap := c.all(f.Handle)
	b.SetBytes(4096)
	b.ResetTimer()
	done := make(chan struct{})
	window := make(chan struct{}, 100)
	go func() {
		defer close(done)
		for range b.N {
			if _, r, err := c.tryRecv(); err != nil || binary.LittleEndian.Uint32(r[12:]) != 0 {
				b.Errorf("%x %v", r, err)
				return
			}
			<-window
		}
	}()
	for i := range b.N {
		_, frame := c.request(cap, []wire.Hint{wire.ObjectHint(f.Handle)}, &wire.SmallIOReq{
			Handle: f.Attr.DFiles[0], FSID: c.fsid, Dir: wire.IOWrite, ServerCt: 1, Dist: wire.NewSimpleStripe(65536),
			Type: wire.Contiguous(4096), Offset: int64(i%1000) * 4096, Aggregate: 4096, Total: 4096, Data: p,
		})
		window <- struct{}{}
		c.send(frame)
	}
	<-done
}

// Creating a file and its entry; 100 requests outstanding share commits.
func BenchmarkCreate(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%v", sync), func(b *testing.B) {
			cl := pvfsdtest.Start(b, 1, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.SyncMeta = sync }})
			c := dial(b, cl.Addr(0), cl.Config())
			dd := c.dirdata(root)
			n := 0
			b.ResetTimer()
			c.pipeline(2*b.N, func(i int) wire.Request {
				if i%2 == 0 {
					return &wire.CreateReq{FSID: c.fsid, Cred: c.cred, Attr: fileAttr(), NumDFiles: 1, Layout: wire.Layout{Type: wire.LayoutRoundRobin}}
				}
				n++
				return &wire.CrDirentReq{Cred: c.cred, Name: fmt.Sprint(n), Handle: 5000, Parent: root, Dirdata: dd, FSID: c.fsid}
			}, c.all(root, dd))
		})
	}
}

// One client that waits for each answer.
func BenchmarkCreateAlone(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%v", sync), func(b *testing.B) {
			cl := pvfsdtest.Start(b, 1, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.SyncMeta = sync }})
			c := dial(b, cl.Addr(0), cl.Config())
			dd := c.dirdata(root)
			for i := 0; b.Loop(); i++ {
				f := c.create(1, wire.LayoutRoundRobin)
				if err := c.link(root, dd, fmt.Sprint(i), f.Handle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
