package pvfs

import (
	"context"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// TestCancelledCallerLeavesItsAnswer cancels a caller that receives for itself,
// after some of its answer has come; another reader takes the rest.
func TestCancelledCallerLeavesItsAnswer(t *testing.T) {
	data := pattern(1000)
	answer := wire.AppendResponseFrame(nil, 0, wire.OpSmallIO, 0, &wire.SmallIOResp{Dir: wire.IORead, BstreamSize: 1000, Result: 1000, Data: data})
	for name, first := range map[string]int{
		"nothing": 0, "half a header": wire.HeaderSize / 2, "a header": wire.HeaderSize, "half of it": len(answer) / 2, "all but a byte": len(answer) - 1,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeFS(t, 1, nil)
				more := make(chan struct{})
				f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, _ wire.Request) {
					if h.Op == wire.OpGetAttr {
						p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
						return
					}
					b := wire.AppendResponseFrame(nil, tag, wire.OpSmallIO, 0, &wire.SmallIOResp{Dir: wire.IORead, BstreamSize: 1000, Result: 1000, Data: data})
					p.send(b[:first])
					<-more
					p.send(b[first:])
				}
				c := f.client(Options{})
				_, err := c.GetAttr(t.Context(), object(c, 0))
				require.NoError(t, err)
				synctest.Wait() // for the loop to leave the connection

				ctx, cancel := context.WithCancel(t.Context())
				buf := make([]byte, 1000)
				done := make(chan error)
				start := time.Now()
				go func() {
					_, err := fakeFile(c, 65536).ReadAt(ctx, [][]byte{buf}, 0)
					done <- err
				}()
				synctest.Wait()
				cancel()
				require.ErrorIs(t, <-done, context.Canceled)
				require.Equal(t, leadTime, time.Since(start), "it received for itself")
				close(more)
				_, err = c.GetAttr(t.Context(), object(c, 0))
				require.NoError(t, err, "the connection is still framed")
				require.Equal(t, make([]byte, 1000), buf, "memory that was given back is not touched")
				require.Equal(t, 2, f.dialCount())
			})
		})
	}
}

// TestCallerLeavesLongMessages has a caller that receives for itself when the
// data of another's read come: they are not for it to wait for.
func TestCallerLeavesLongMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFS(t, 1, nil)
		data := pattern(100000)
		asked, more := make(chan struct{}), make(chan struct{})
		var late int64
		f.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, _ wire.Request) {
			switch {
			case h.Op == wire.OpIO:
				p.reply(tag, wire.OpIO, 0, &wire.IOResp{BstreamSize: 100000})
				p.send(wire.Header{Mode: wire.Rend, Tag: tag, Size: 100000}.Append(nil))
				p.send(data[:50000])
				<-more
				p.send(data[50000:])
				p.reply(late, wire.OpGetAttr, 0, symlinkAttr(1))
			case late == 0:
				late = -1
				p.reply(tag, wire.OpGetAttr, 0, symlinkAttr(1))
			default:
				late = tag
				close(asked)
			}
		}
		c := f.client(Options{})
		_, err := c.GetAttr(t.Context(), object(c, 0))
		require.NoError(t, err)
		synctest.Wait() // for the loop to leave the connection

		ctx, cancel := context.WithCancel(t.Context())
		done, read := make(chan error), make(chan error)
		go func() {
			_, err := c.GetAttr(ctx, object(c, 0))
			done <- err
		}()
		<-asked
		buf := make([]byte, 100000)
		go func() {
			_, err := fakeFile(c, 65536).ReadAt(t.Context(), [][]byte{buf}, 0)
			read <- err
		}()
		synctest.Wait()
		start := time.Now()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Zero(t, time.Since(start))
		close(more)
		require.NoError(t, <-read)
		require.Equal(t, data, buf)
		require.Equal(t, 2, f.dialCount())
	})
}

// TestNothingIsReceivedTwice: a deadline that is over before anything is tried
// brings no bytes, also if the read before brought some.
func TestNothingIsReceivedTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	peer, err := l.Accept()
	require.NoError(t, err)
	defer peer.Close()
	_, err = peer.Write([]byte("hello"))
	require.NoError(t, err)

	raw, err := nc.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	c := &conn{nc: nc, raw: raw}
	c.in.init(c)
	buf := make([]byte, 10)
	n, err := c.receiveInto(buf)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.NoError(t, nc.SetReadDeadline(time.Unix(1, 0)))
	n, err = c.receiveInto(buf)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, n)
}
