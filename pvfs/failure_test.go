package pvfs

import (
	"bytes"
	"context"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

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
		var a Account
		_, err := c.GetAttr(WithAccount(t.Context(), &a), object(c, 0))
		require.NoError(t, err)
		require.Equal(t, int64(2), c.Stats().Retries)
		require.Equal(t, int64(3), c.Stats().Requests["getattr"])
		require.Equal(t, map[string]int64{"getattr": 3}, a.Snapshot().Requests)
	})
}

// TestGenerationChangesWithAConnection checks that what is kept by handle is
// known to be doubtful once a server may have restarted.
func TestGenerationChangesWithAConnection(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		require.NoError(t, c.Link(t.Context(), c.Root(), "a", 5))
		require.NotNil(t, c.dirs.peek(c.Root()))
		before := c.Generation()
		require.NoError(t, c.Link(t.Context(), c.Root(), "b", 5))
		require.Equal(t, before, c.Generation())
		d.lose[wire.OpLookupPath] = 1
		_, err := c.Lookup(t.Context(), c.Root(), "a")
		require.NoError(t, err)
		require.Greater(t, c.Generation(), before)
		require.Nil(t, c.dirs.peek(c.Root()))
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
