package pvfs

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// pattern makes n bytes that tell their place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*131 + (i>>12)*17 + 7)
	}
	return b
}

// symlinkAttr answers a GETATTR.
func symlinkAttr(h wire.Handle) *wire.GetAttrResp {
	return &wire.GetAttrResp{Attr: wire.Attr{Type: wire.TypeSymlink, Mask: wire.AttrCommon | wire.AttrTarget, Target: "t", UID: uint32(h)}}
}

func TestRepliesInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		var held []int64
		var hs []wire.Handle
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
			held, hs = append(held, tag), append(hs, req.(*wire.GetAttrReq).Handle)
			if len(held) == 3 {
				for i := 2; i >= 0; i-- {
					p.reply(held[i], wire.OpGetAttr, 0, symlinkAttr(hs[i]))
				}
			}
		}
		c := f.client(Options{})
		h := object(c, 0)
		errs := make(chan error, 3)
		for i := range 3 {
			go func() {
				a, err := c.GetAttr(context.Background(), h-Handle(i))
				if err == nil && a.UID != uint32(h-Handle(i)) {
					err = errno.New("another's attributes", syscall.EBADMSG)
				}
				errs <- err
			}()
		}
		for range 3 {
			require.NoError(t, <-errs)
		}
		require.Equal(t, 2, f.dialCount(), "one to learn the configuration, one to work")
	})
}

func TestWriteIsOneFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		data := pattern(600000)
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
			io := req.(*wire.IOReq)
			obj, _ := h.Object()
			require.True(t, h.Cap.Covers(obj))
			require.Equal(t, []int64{100, 600000}, []int64{io.Offset, io.Aggregate})
			got, sizes := p.flowData(tag, len(data)) // before any answer
			require.Equal(t, []int{262144, 262144, 75712}, sizes)
			require.True(t, bytes.Equal(data, got))
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{})
			p.reply(tag, wire.OpWriteCompletion, 0, &wire.WriteCompletionResp{Total: 600000})
		}
		c := f.client(Options{})
		var a Account
		n, err := fakeFile(c, 65536).WriteAt(WithAccount(t.Context(), &a), [][]byte{data[:5], {}, data[5:300001], data[300001:]}, 100)
		require.NoError(t, err)
		require.Equal(t, 600000, n)
		require.Equal(t, int64(600000), c.Stats().BytesWritten)
		require.Equal(t, Snapshot{Requests: map[string]int64{"io": 1}, BytesWritten: 600000}, a.Snapshot())
	})
}

func TestReadScattersAndFillsHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 2, func(o *fsconf.GenOptions) { o.FlowBufferSize = 16384 })
		file := pattern(100000)
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
			io := req.(*wire.IOReq)
			if io.ServerNr == 0 { // has all of its part: strips 0, 2, 4 ... of 10000
				p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: 50000})
				var part []byte
				for q := range 5 {
					part = append(part, file[q*20000:q*20000+10000]...)
				}
				p.flow(tag, part[:16384])
				p.flow(tag, part[16384:32768])
				p.flow(tag, part[32768:])
				return
			}
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: 12000}) // the rest is a hole
			p.flow(tag, append(bytes.Clone(file[10000:20000]), file[30000:32000]...))
		}
		c := f.client(Options{})
		want := bytes.Clone(file[:90000])
		clear(want[32000:40000])
		for i := 50000; i < 90000; i += 20000 {
			clear(want[i : i+10000])
		}
		got := bytes.Repeat([]byte{0xee}, 100000)
		n, err := fakeFile(c, 10000).ReadAt(t.Context(), [][]byte{got[:33333], got[33333:]}, 0)
		require.NoError(t, err)
		require.Equal(t, 90000, n, "the end of server 0's last strip")
		require.True(t, bytes.Equal(want, got[:n]))
	})
}

// TestShortSmallRead has a server that says how much there is and gives less.
func TestShortSmallRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
			p.reply(tag, wire.OpSmallIO, 0, &wire.SmallIOResp{Dir: wire.IORead, BstreamSize: 100, Result: 10, Data: make([]byte, 10)})
		}
		_, err := fakeFile(f.client(Options{}), 1000).ReadAt(t.Context(), [][]byte{make([]byte, 50)}, 20)
		require.ErrorIs(t, err, syscall.EPROTO)
	})
}

// TestGivenUpConnectionIsReset writes to a server that reads nothing, until the
// client gives up. What the server finds in the connection then must be broken
// off: the rest might come after a second attempt.
func TestGivenUpConnectionIsReset(t *testing.T) {
	f := newFakeFS(t, 1, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	f.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		theirs, err := l.Accept()
		if err != nil {
			return nil, err
		}
		p := &fakeConn{Conn: theirs, fs: f, flows: map[int64]*expectation{}}
		f.closing.Go(p.run)
		return nc, nil
	}
	given, rest := make(chan struct{}), make(chan error, 1)
	f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
		<-given
		_, err := io.Copy(io.Discard, p)
		rest <- err
	}
	c := f.client(Options{Timeout: 300 * time.Millisecond})
	_, err = fakeFile(c, 1<<30).WriteAt(t.Context(), [][]byte{make([]byte, 32<<20)}, 0)
	require.ErrorIs(t, err, syscall.EIO)
	close(given)
	require.ErrorIs(t, <-rest, syscall.ECONNRESET)
}

func TestCancelledReadIsDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		data := pattern(100000)
		half, more := make(chan struct{}), make(chan struct{})
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
			if h.Op == wire.OpGetAttr {
				p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
				return
			}
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: 100000})
			p.send(wire.Header{Mode: wire.Rend, Tag: tag, Size: 100000}.Append(nil))
			p.send(data[:50000])
			close(half)
			<-more
			p.send(data[50000:])
		}
		c := f.client(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		buf := make([]byte, 100000)
		done := make(chan error)
		go func() {
			_, err := fakeFile(c, 65536).ReadAt(ctx, [][]byte{buf}, 0)
			done <- err
		}()
		<-half
		cancel()
		err := <-done
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, syscall.EINTR, errno.Of(err))
		clear(buf)
		close(more)
		_, err = c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err, "the connection is still framed")
		require.Equal(t, make([]byte, 100000), buf, "memory that was given back is not touched")
		require.Equal(t, 2, f.dialCount())
	})
}

func TestCancelledWriteIsFinishedFromACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		data := pattern(3 << 20)
		started, more := make(chan struct{}), make(chan struct{})
		got := make(chan []byte, 1)
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
			if h.Op == wire.OpGetAttr {
				p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
				return
			}
			close(started)
			<-more // while the client's writer is stuck
			b, _ := p.flowData(tag, len(data))
			got <- b
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{})
			p.reply(tag, wire.OpWriteCompletion, 0, &wire.WriteCompletionResp{Total: int64(len(data))})
		}
		c := f.client(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		buf := bytes.Clone(data)
		done := make(chan error)
		go func() {
			_, err := fakeFile(c, 65536).WriteAt(ctx, [][]byte{buf}, 0)
			done <- err
		}()
		<-started
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		clear(buf)
		close(more)
		require.True(t, bytes.Equal(data, <-got), "what was to be written is written")
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		require.Equal(t, 2, f.dialCount())
	})
}

func TestCancelledRequestLeavesALateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		var late int64
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			if late == 0 {
				late = tag
				return
			}
			p.reply(late, wire.OpGetAttr, 0, symlinkAttr(1))
			p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(2))
		}
		c := f.client(Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.GetAttr(ctx, object(c, 0))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		a, err := c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		require.Equal(t, uint32(2), a.UID)
		require.Equal(t, 2, f.dialCount())
	})
}

// TestAnswerWhileOwnerLeaves has answers come at the moment their owners give up:
// what an answer would be decoded into is its owner's again.
func TestAnswerWhileOwnerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		var cancel context.CancelFunc
		var mu sync.Mutex
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			mu.Lock()
			go cancel()
			mu.Unlock()
			p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(7))
		}
		c := f.client(Options{})
		for range 500 {
			ctx, leave := context.WithCancel(t.Context())
			mu.Lock()
			cancel = leave
			mu.Unlock()
			var resp wire.GetAttrResp
			err := c.ownerAsk(ctx, object(c, 0), &wire.GetAttrReq{}, &resp)
			if err == nil {
				require.Equal(t, uint32(7), resp.Attr.UID)
			}
			resp = wire.GetAttrResp{}
		}
		require.Equal(t, 2, f.dialCount())
	})
}

// TestManyCancels cancels at random moments while others work: the connection
// stays usable, the data right.
func TestManyCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, func(o *fsconf.GenOptions) { o.FlowBufferSize = 16384 })
		store := pattern(200000)
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
			io := req.(*wire.IOReq)
			if io.Dir == wire.IOWrite {
				p.expect(tag, int(io.Aggregate), func(b []byte) {
					if !bytes.Equal(b, store[io.Offset:io.Offset+io.Aggregate]) {
						t.Errorf("other bytes than those at %d were written", io.Offset)
					}
					time.Sleep(time.Millisecond)
					p.reply(tag, wire.OpIO, 0, &wire.IOResp{})
					p.reply(tag, wire.OpWriteCompletion, 0, &wire.WriteCompletionResp{Total: io.Aggregate})
				})
				return
			}
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: int64(len(store))})
			for b := store[io.Offset : io.Offset+io.Aggregate]; len(b) > 0; {
				n := min(16384, len(b))
				p.flow(tag, b[:n])
				b = b[n:]
				time.Sleep(time.Millisecond)
			}
		}
		c := f.client(Options{})
		file := fakeFile(c, 65536)
		done := make(chan bool)
		for w := range 8 {
			go func() {
				defer func() { done <- true }()
				r := rand.New(rand.NewPCG(uint64(w), 1))
				for range 60 {
					off := r.IntN(100000)
					n := 20000 + r.IntN(80000)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(60))*time.Millisecond)
					buf := bytes.Clone(store[off : off+n])
					if r.IntN(2) == 0 {
						_, _ = file.WriteAt(ctx, [][]byte{buf}, int64(off))
					} else {
						clear(buf)
						if m, err := file.ReadAt(ctx, [][]byte{buf}, int64(off)); err == nil && !bytes.Equal(buf[:m], store[off:off+n]) {
							t.Errorf("other bytes than those at %d were read", off)
						}
					}
					for i := range buf {
						buf[i] = 0xaa
					}
					cancel()
				}
			}()
		}
		for range 8 {
			<-done
		}
		require.Equal(t, 2, f.dialCount(), "nothing of this breaks a connection")
	})
}
