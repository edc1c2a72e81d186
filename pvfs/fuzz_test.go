package pvfs

import (
	"context"
	"testing"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// FuzzAnswers gives a client any messages as the answer to its request. It may
// fail, but neither panic nor stay.
func FuzzAnswers(f *testing.F) {
	seed := func(op wire.Op, body wire.Response, data []byte) {
		frame := wire.AppendResponseFrame(nil, 1, op, 0, body)
		f.Add(frame[wire.HeaderSize:], data, uint8(op))
	}
	seed(wire.OpGetAttr, &wire.GetAttrResp{Attr: wire.Attr{Type: wire.TypeSymlink, Mask: wire.AttrAll, Target: "x"}}, nil)
	seed(wire.OpSmallIO, &wire.SmallIOResp{Dir: wire.IORead, BstreamSize: 4, Result: 4, Data: []byte("data")}, nil)
	seed(wire.OpIO, &wire.IOResp{BstreamSize: 1 << 20}, make([]byte, 5000))
	seed(wire.OpReadDir, &wire.ReadDirResp{Token: wire.TokenEnd}, nil)
	f.Fuzz(func(t *testing.T, first, second []byte, op uint8) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		fs := newFakeFS(t, 1, nil)
		fs.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			p.flow(tag, first)
			if len(second) > 0 {
				p.flow(tag, second)
			}
			fs.setRefuse(true)
			_ = p.Close()
			cancel()
		}
		c, err := Dial(context.Background(), "tcp://host:0/fake", Options{Dial: fs.dial})
		if err != nil {
			t.Fatal(err)
		}
		switch file, b := fakeFile(c, 65536), make([]byte, 100_000); wire.Op(op) {
		case wire.OpSmallIO:
			_, _ = file.ReadAt(ctx, [][]byte{b[:100]}, 0)
		case wire.OpIO:
			_, _ = file.ReadAt(ctx, [][]byte{b}, 0)
		case wire.OpReadDir:
			_, _, _, _ = c.ReadDir(ctx, c.Root(), 0, 10)
		case wire.OpWriteCompletion:
			_, _ = file.WriteAt(ctx, [][]byte{b[:100]}, 0)
		default:
			_, _ = c.GetAttr(ctx, object(c, 0))
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		fs.closing.Wait()
	})
}
