package pvfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// preamble is a response to GETCONFIG that begins as another protocol's would.
func preamble(version, encoding, op uint32, status wire.Status) func(p *fakeConn, tag int64) {
	return func(p *fakeConn, tag int64) {
		b := wire.AppendResponse(nil, wire.OpGetConfig, status, &wire.GetConfigResp{Config: p.fs.text})
		binary.LittleEndian.PutUint32(b, version)
		binary.LittleEndian.PutUint32(b[4:], encoding)
		binary.LittleEndian.PutUint32(b[8:], op)
		p.flow(tag, b)
	}
}

// TestDialToStrangers meets what is no server of ours: one error, at once, that
// names it and says what is wrong.
func TestDialToStrangers(t *testing.T) {
	const getconfig = uint32(wire.OpGetConfig)
	for _, x := range []struct {
		name  string
		greet func(p *fakeConn, tag int64)
		want  []string
	}{
		{"older version", preamble(6001, 2, getconfig, 0), []string{"6001", "7000"}},
		{"newer version", preamble(8000, 2, getconfig, 0), []string{"8000", "7000"}},
		{"other encoding", preamble(7000, 1, getconfig, 0), []string{"encoding 1", "7000"}},
		{"refuses our version", preamble(7000, 2, uint32(wire.OpProtoError), wire.StatusOf(syscall.EPROTONOSUPPORT)), []string{"7000"}},
		{"another operation", preamble(7000, 2, uint32(wire.OpStatFS), 0), []string{"statfs"}},
		{"garbage in a message", func(p *fakeConn, tag int64) { p.flow(tag, bytes.Repeat([]byte{0xa5}, 200)) }, []string{"encoding"}},
		{"no message", func(p *fakeConn, _ int64) { p.send([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, []string{"magic"}},
		{"endless message", func(p *fakeConn, tag int64) {
			p.send(wire.Header{Mode: wire.Rend, Tag: tag, Size: 1 << 40}.Append(nil))
		}, []string{"bytes"}},
		{"long configuration", func(p *fakeConn, tag int64) {
			p.reply(tag, wire.OpGetConfig, 0, &wire.GetConfigResp{Config: strings.Repeat("#", wire.MaxConfig+1)})
		}, []string{"7000"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeFS(t, 1, nil)
				f.greet = x.greet
				begin := time.Now()
				_, err := Dial(t.Context(), "tcp://host:0/fake", Options{Dial: f.dial})
				require.Error(t, err)
				require.Contains(t, []syscall.Errno{syscall.EPROTO, syscall.EPROTONOSUPPORT}, errno.Of(err))
				require.Zero(t, time.Since(begin), "no use in trying again")
				for _, s := range append(x.want, "server host:0") {
					require.ErrorContains(t, err, s)
				}
				require.NotContains(t, err.Error(), "\n")
				f.closing.Wait()
			})
		})
	}
}

// TestGarbageLater has a server that made sense once: it is asked again.
func TestGarbageLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		tries := 0
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			if tries++; tries < 4 {
				p.send(bytes.Repeat([]byte("garbage "), 100))
				return
			}
			p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
		}
		c := f.client(Options{})
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, _ wire.Request) {
			p.flow(tag, bytes.Repeat([]byte{0xff}, 99))
		}
		_, err = c.GetAttr(t.Context(), object(c, 0))
		require.ErrorIs(t, err, syscall.EPROTO)
		require.ErrorContains(t, err, "server s0 at host:0", "who said it")
	})
}

// TestRightsDoNotExpire has servers that look at the time, hours away from ours,
// and a request that is sent again long after it was made.
func TestRightsDoNotExpire(t *testing.T) {
	for name, skew := range map[string]time.Duration{"same clock": 0, "ahead": 30 * time.Hour, "behind": -30 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeFS(t, 1, nil)
				f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
					now := time.Now().Add(skew).Unix()
					st := wire.Status(0)
					if a, ok := req.(*wire.GetAttrReq); ok && a.Cred.Timeout < now || !h.Cap.IsNull() && h.Cap.Timeout < now {
						st = wire.StatusOf(syscall.EACCES)
					}
					if h.Op == wire.OpGetAttr {
						p.reply(tag, h.Op, st, symlinkAttr(1))
						return
					}
					p.reply(tag, h.Op, st, &wire.SmallIOResp{Dir: wire.IOWrite, Result: 5})
				}
				c := f.client(Options{Timeout: 3 * time.Hour})
				file := fakeFile(c, 65536)
				for range 3 {
					_, err := c.GetAttr(t.Context(), object(c, 0))
					require.NoError(t, err)
					_, err = file.WriteAt(t.Context(), [][]byte{[]byte("bytes")}, 0)
					require.NoError(t, err)
					time.Sleep(100 * time.Hour)
				}
				for _, s := range c.order { // and one that waits for its server
					s.close()
				}
				f.setRefuse(true)
				time.AfterFunc(2*time.Hour, func() { f.setRefuse(false) })
				_, err := file.WriteAt(t.Context(), [][]byte{[]byte("bytes")}, 0)
				require.NoError(t, err)
			})
		})
	}
}

// TestRefusalIsToldAtOnce: who may do everything and is refused has no reason to
// try again.
func TestRefusalIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, _ wire.Request) {
			p.reply(tag, h.Op, wire.StatusOf(syscall.EACCES), nil)
		}
		c := f.client(Options{})
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.ErrorIs(t, err, syscall.EACCES)
		_, err = fakeFile(c, 65536).WriteAt(t.Context(), [][]byte{[]byte("bytes")}, 0)
		require.ErrorIs(t, err, syscall.EACCES)
		require.Zero(t, c.Stats().Retries)
	})
}

// TestServersThatCheckTimes works on embedded servers that let rights expire.
func TestServersThatCheckTimes(t *testing.T) {
	fs := pvfsdtest.Start(t, 2, pvfsdtest.Options{Edit: func(s string) string {
		require.Contains(t, s, "TurnOffTimeouts yes")
		return strings.Replace(s, "TurnOffTimeouts yes", "TurnOffTimeouts no", 1)
	}})
	c, err := Dial(t.Context(), fs.URL(), Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	d, err := c.Mkdir(t.Context(), c.Root(), "d", CreateOptions{})
	require.NoError(t, err)
	a, err := c.Create(t.Context(), d.Handle, "f", CreateOptions{})
	require.NoError(t, err)
	for _, n := range []int{10, 300000} {
		_, err = c.File(a).WriteAt(t.Context(), [][]byte{pattern(n)}, 0)
		require.NoError(t, err)
	}
	require.NoError(t, c.Remove(t.Context(), d.Handle, "f"))
	require.NoError(t, c.Rmdir(t.Context(), c.Root(), "d"))
}

// TestHangingServer has one server of two that takes requests and is silent: the
// other one is as quick as ever, and after the timeout the error names it.
func TestHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 2, nil)
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
			if p.server == 1 {
				return
			}
			if h.Op == wire.OpGetAttr {
				p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
				return
			}
			p.reply(tag, wire.OpSmallIO, 0, &wire.SmallIOResp{Dir: wire.IOWrite, Result: req.(*wire.SmallIOReq).Total})
		}
		c := f.client(Options{Timeout: 20 * time.Second})
		begin := time.Now()
		hung := make(chan error, 20)
		for range cap(hung) - 1 { // the first to give up ends the connection of them all
			go func() {
				_, err := c.GetAttr(context.Background(), object(c, 1))
				hung <- err
			}()
		}
		go func() { // half of it on each server
			_, err := fakeFile(c, 1000).WriteAt(context.Background(), [][]byte{pattern(2000)}, 0)
			hung <- err
		}()
		for range 19 {
			time.Sleep(time.Second)
			before := time.Now()
			_, err := c.GetAttr(t.Context(), object(c, 0))
			require.NoError(t, err)
			require.Zero(t, time.Since(before))
		}
		for range cap(hung) {
			err := <-hung
			require.Equal(t, syscall.EIO, errno.Of(err))
			require.ErrorContains(t, err, "server s1 at host:1")
			require.Equal(t, 20*time.Second, time.Since(begin))
		}
	})
}

// TestRestartInTheMiddleOfAFlow loses a server when half of the data have gone,
// several times; afterwards it holds another number of bytes than before.
func TestRestartInTheMiddleOfAFlow(t *testing.T) {
	const size = 200000
	data := pattern(size)
	newFS := func(t *testing.T) *fakeFS {
		return newFakeFS(t, 1, func(o *fsconf.GenOptions) { o.FlowBufferSize = 16384 })
	}
	for _, half := range []int{0, 1, 16384, 100000, size} {
		t.Run("write", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFS(t)
				tries := 0
				f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
					if tries++; tries < 4 {
						p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: 7})
						_, _ = p.flowData(tag, half)
						_ = p.Close()
						return
					}
					got, _ := p.flowData(tag, size)
					if !bytes.Equal(data, got) {
						t.Error("other bytes were sent again")
					}
					p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: int64(half)})
					p.reply(tag, wire.OpWriteCompletion, 0, &wire.WriteCompletionResp{Total: size})
				}
				c := f.client(Options{})
				n, err := fakeFile(c, 65536).WriteAt(t.Context(), [][]byte{data[:33333], data[33333:]}, 0)
				require.NoError(t, err)
				require.Equal(t, size, n)
				s := c.Stats()
				require.Equal(t, []int64{3, size}, []int64{s.Retries, s.BytesWritten})
			})
		})
		t.Run("read", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFS(t)
				tries := 0
				f.serve = func(p *fakeConn, tag int64, _ wire.RequestHeader, req wire.Request) {
					var have []byte
					if tries++; tries < 4 {
						p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: size})
						have = bytes.Repeat([]byte{0xee}, half) // not there any more later
					} else {
						have = data[:size-1000]
						p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: int64(len(have))})
					}
					for len(have) > 0 {
						n := min(16384, len(have))
						p.flow(tag, have[:n])
						have = have[n:]
					}
					if tries < 4 {
						_ = p.Close()
					}
				}
				c := f.client(Options{})
				got := make([]byte, size)
				n, err := fakeFile(c, 65536).ReadAt(t.Context(), [][]byte{got[:33333], got[33333:]}, 0)
				require.NoError(t, err)
				if half == size { // the first answer was whole
					require.Equal(t, size, n)
					return
				}
				require.Equal(t, size-1000, n)
				require.True(t, bytes.Equal(data[:n], got[:n]))
				s := c.Stats()
				require.Equal(t, []int64{3, int64(n)}, []int64{s.Retries, s.BytesRead})
			})
		})
	}
}

// TestAnotherFileSystemAtTheAddress has the servers replaced by those of another
// file system while the client is away: nothing is done to that one.
func TestAnotherFileSystemAtTheAddress(t *testing.T) {
	ours, theirs := pvfsdtest.Start(t, 2, pvfsdtest.Options{}), pvfsdtest.Start(t, 2, pvfsdtest.Options{})
	var moved atomic.Bool
	c, err := Dial(t.Context(), ours.URL(), Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if moved.Load() {
			for i := range 2 {
				if addr == ours.Addr(i) {
					addr = theirs.Addr(i)
					break
				}
			}
		}
		return dialTCP(ctx, network, addr)
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	a, err := c.Create(t.Context(), c.Root(), "f", CreateOptions{})
	require.NoError(t, err)
	moved.Store(true)
	for _, s := range c.order {
		s.close()
	}
	for name, op := range map[string]func() error{
		"create":  func() error { _, err := c.Create(t.Context(), c.Root(), "g", CreateOptions{}); return err },
		"getattr": func() error { _, err := c.GetAttr(t.Context(), c.Root()); return err },
		"lookup":  func() error { _, err := c.Lookup(t.Context(), c.Root(), "f"); return err },
		"write":   func() error { _, err := c.File(a).WriteAt(t.Context(), [][]byte{pattern(100)}, 0); return err },
		"flow":    func() error { _, err := c.File(a).WriteAt(t.Context(), [][]byte{pattern(50000)}, 0); return err },
		"statfs":  func() error { _, err := c.StatFS(t.Context()); return err },
	} {
		err := op()
		require.ErrorIs(t, err, syscall.EIO, name)
		require.ErrorContains(t, err, "no longer serves this file system", name)
	}
	d, err := Dial(t.Context(), theirs.URL(), Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	ents, _, _, err := d.ReadDir(t.Context(), d.Root(), 0, 10)
	require.NoError(t, err)
	for _, e := range ents {
		require.Equal(t, "lost+found", e.Name)
	}
}
