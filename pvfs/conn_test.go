package pvfs

import (
	"bytes"
	"context"
	"math/rand/v2"
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
		n, err := fakeFile(c, 65536).WriteAt(t.Context(), [][]byte{data[:5], {}, data[5:300001], data[300001:]}, 100)
		require.NoError(t, err)
		require.Equal(t, 600000, n)
		require.Equal(t, int64(600000), c.Stats().BytesWritten)
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

func TestLostConnectionIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		tries := 0
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
			if tries++; tries < 3 {
				_ = p.Close()
				return
			}
			p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
		}
		c := f.client(Options{})
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		require.Equal(t, int64(2), c.Stats().Retries)
		require.Equal(t, int64(3), c.Stats().Requests["getattr"])
	})
}

func TestUnreachableServerIsNamedAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 2, nil)
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) { _ = p.Close() }
		c := f.client(Options{Timeout: 40 * time.Second})
		f.setRefuse(true)
		begin := time.Now()
		_, err := c.GetAttr(t.Context(), object(c, 1))
		require.ErrorIs(t, err, syscall.EIO)
		require.Equal(t, syscall.EIO, errno.Of(err))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.ErrorContains(t, err, "s1")
		require.ErrorContains(t, err, "host:1")
		require.InDelta(t, 40, time.Since(begin).Seconds(), 2)
	})
}

func TestServerThatComesBackIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		down := true
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			if down {
				_ = p.Close()
				return
			}
			p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
		}
		c := f.client(Options{})
		f.setRefuse(true)
		time.AfterFunc(30*time.Second, func() {
			down = false
			f.setRefuse(false)
		})
		begin := time.Now()
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		require.InDelta(t, 30, time.Since(begin).Seconds(), 2)
	})
}

func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		f.serve = func(*fakeConn, int64, wire.RequestHeader, wire.Request) {}
		c := f.client(Options{})
		begin := time.Now()
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.Equal(t, syscall.EIO, errno.Of(err))
		require.ErrorContains(t, err, "s0")
		require.Equal(t, DefaultTimeout, time.Since(begin))
		require.Equal(t, 2, f.dialCount())
		_, err = c.GetAttr(t.Context(), object(c, 0))
		require.Error(t, err)
		require.Equal(t, 3, f.dialCount(), "a silent connection is not used again")
	})
}

func TestProgressHoldsOffTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, func(o *fsconf.GenOptions) { o.FlowBufferSize = 16384 })
		data := pattern(16384 * 5)
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: int64(len(data))})
			for i := range 5 {
				time.Sleep(50 * time.Second)
				p.flow(tag, data[i*16384:(i+1)*16384])
			}
		}
		c := f.client(Options{})
		got := make([]byte, len(data))
		n, err := fakeFile(c, 65536).ReadAt(t.Context(), [][]byte{got}, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got[:n]))
	})
}

func TestRefusedWriteRetiresTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		stuck := make(chan struct{})
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, _ wire.Request) {
			if h.Op == wire.OpGetAttr {
				p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
				return
			}
			p.reply(tag, wire.OpIO, wire.StatusOf(syscall.EROFS), nil)
			<-stuck // the data are never read
		}
		c := f.client(Options{})
		_, err := fakeFile(c, 65536).WriteAt(t.Context(), [][]byte{pattern(1 << 20)}, 0)
		require.ErrorIs(t, err, syscall.EROFS)
		_, err = c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		require.Equal(t, 3, f.dialCount(), "on another connection")
		time.Sleep(2 * retireGrace)
		close(stuck)
	})
}

func TestMalformedMessages(t *testing.T) {
	for _, x := range []struct {
		name  string
		send  func(p *fakeConn, tag int64)
		fatal bool // for the connection
	}{
		{"bad magic", func(p *fakeConn, _ int64) { p.send(make([]byte, 24)) }, true},
		{"unknown tag", func(p *fakeConn, tag int64) { p.reply(tag+1, wire.OpGetAttr, 0, symlinkAttr(1)) }, true},
		{"a request", func(p *fakeConn, tag int64) { p.send(wire.Header{Mode: wire.Unexpected, Tag: tag}.Append(nil)) }, true},
		{"too long", func(p *fakeConn, tag int64) {
			p.send(wire.Header{Mode: wire.Rend, Tag: tag, Size: maxResponse + 1}.Append(nil))
		}, true},
		{"truncated", func(p *fakeConn, _ int64) { p.send(make([]byte, 3)); _ = p.Close() }, true},
		{"garbage", func(p *fakeConn, tag int64) { p.flow(tag, bytes.Repeat([]byte{0xff}, 99)) }, false},
		{"another op", func(p *fakeConn, tag int64) { p.reply(tag, wire.OpStatFS, 0, &wire.StatFSResp{}) }, false},
		{"empty", func(p *fakeConn, tag int64) { p.flow(tag, nil) }, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeFS(t, 1, nil)
				tries := 0
				f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
					if tries++; tries == 1 {
						x.send(p, tag)
						return
					}
					p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
				}
				c := f.client(Options{})
				_, err := c.GetAttr(t.Context(), object(c, 0))
				if x.fatal {
					require.NoError(t, err, "sent again on a new connection")
					require.Equal(t, 3, f.dialCount())
					return
				}
				require.ErrorIs(t, err, syscall.EPROTO)
				_, err = c.GetAttr(t.Context(), object(c, 0))
				require.NoError(t, err)
				require.Equal(t, 2, f.dialCount(), "an error for that caller alone")
			})
		})
	}
}

func TestTooMuchFlowData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		data := pattern(40000)
		tries := 0
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: 40000})
			if tries++; tries == 1 {
				p.flow(tag, make([]byte, 40001))
				return
			}
			p.flow(tag, data)
		}
		c := f.client(Options{})
		got := make([]byte, 40000)
		_, err := fakeFile(c, 65536).ReadAt(t.Context(), [][]byte{got}, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		f.serve = func(*fakeConn, int64, wire.RequestHeader, wire.Request) {}
		c := f.client(Options{})
		done := make(chan error)
		go func() {
			_, err := c.GetAttr(context.Background(), object(c, 0))
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.Equal(t, syscall.EIO, errno.Of(<-done))
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.Equal(t, syscall.EIO, errno.Of(err))
		require.Error(t, c.Link(t.Context(), c.Root(), "x", 1))
		require.NoError(t, c.Close())
	})
}

func TestDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		for _, url := range []string{"", "host:0/fake", "tcp://host:0", "tcp://host:0/", "tcp://host:0/a/b", "ib://x/fake", "tcp:///fake"} {
			_, err := Dial(t.Context(), url, Options{Dial: f.dial})
			require.ErrorIs(t, err, syscall.EINVAL, url)
		}
		_, err := Dial(t.Context(), "tcp://host:0/other", Options{Dial: f.dial})
		require.ErrorIs(t, err, syscall.ENOENT)
		require.ErrorContains(t, err, `"other"`)
		require.ErrorContains(t, err, "fake")
		_, err = Dial(t.Context(), "tcp://host:0/fake", Options{Dial: f.dial, Timeout: -1})
		require.ErrorIs(t, err, syscall.EINVAL)
		f.text = "nonsense"
		_, err = Dial(t.Context(), "tcp://host:0/fake", Options{Dial: f.dial})
		require.ErrorIs(t, err, syscall.EPROTO)
		f.closing.Wait()
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
