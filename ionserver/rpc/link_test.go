package rpc

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/buf"
)

// tcpPair is two ends of a connection over loopback.
func tcpPair(t *testing.T) (a, b net.Conn) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	a, err = net.Dial("tcp", lis.Addr().String())
	require.NoError(t, err)
	b, err = lis.Accept()
	require.NoError(t, err)
	return a, b
}

func testLink(t *testing.T, conn net.Conn) *link {
	l := newLink(conn, new(buf.Pool))
	t.Cleanup(l.abort)
	return l
}

// TestLinkKeepsTheOrder: what is written arrives, whether it is lent or
// copied, and memory that was not lent may be used again at once.
func TestLinkKeepsTheOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		pair func(*testing.T) (net.Conn, net.Conn)
	}{
		{"a socket", tcpPair},
		{"no socket", func(*testing.T) (net.Conn, net.Conn) { return net.Pipe() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := c.pair(t)
			out, in := testLink(t, a), testLink(t, b)
			rnd := rand.New(rand.NewPCG(1, 2))
			lent := make([]byte, 1<<20)
			for i := range lent {
				lent[i] = byte(rnd.Uint32())
			}
			h, _ := lentBy(out, lent)
			out.lend(h)
			var want bytes.Buffer
			got := make(chan []byte)
			go func() {
				p, _ := io.ReadAll(in)
				got <- p
			}()
			scratch := make([]byte, 40<<10)
			for range 400 {
				var p []byte
				if n := rnd.IntN(len(scratch)); rnd.IntN(2) == 0 {
					at := rnd.IntN(len(lent) - n)
					p = lent[at : at+n]
				} else {
					p = scratch[:n]
					for i := range p {
						p[i] = byte(rnd.Uint32())
					}
				}
				want.Write(p)
				_, err := out.Write(p)
				require.NoError(t, err)
				clear(scratch)
			}
			require.NoError(t, out.Close())
			require.True(t, h.ended.Load(), "a closed link borrows nothing")
			require.True(t, bytes.Equal(want.Bytes(), <-got))
		})
	}
}

// lentBy is memory lent to l; back is closed when it is given back.
func lentBy(l *link, p []byte) (h *hold, back chan struct{}) {
	back = make(chan struct{})
	return &hold{mem: p, letGo: func() { close(back) }, link: l}, back
}

// TestLentUntilSent: the transport lets go of memory as soon as it has written
// it; the link gives it back when the socket has it.
func TestLentUntilSent(t *testing.T) {
	a, b := tcpPair(t)
	defer b.Close()
	l := testLink(t, a)
	require.NoError(t, a.(*net.TCPConn).SetWriteBuffer(128<<10))
	require.NoError(t, b.(*net.TCPConn).SetReadBuffer(128<<10))
	h, back := lentBy(l, make([]byte, 8<<20))
	l.lend(h)
	for at := 0; at < maxUnsent; at += 16 << 10 {
		_, err := l.Write(h.mem[at : at+16<<10])
		require.NoError(t, err)
	}
	l.letGo(h)
	select {
	case <-back:
		require.Fail(t, "given back before it was sent")
	case <-time.After(50 * time.Millisecond):
	}
	_, err := io.CopyN(io.Discard, b, maxUnsent)
	require.NoError(t, err)
	<-back
}

// TestLinkGivesUp: a peer that takes nothing does not keep Close, a waiting
// Write or what was lent.
func TestLinkGivesUp(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	l := testLink(t, a)
	h, back := lentBy(l, make([]byte, 1<<20))
	l.lend(h)
	failed := make(chan error)
	go func() {
		for {
			if _, err := l.Write(h.mem); err != nil {
				failed <- err
				return
			}
		}
	}()
	time.Sleep(10 * time.Millisecond)
	l.abort()
	require.Error(t, <-failed)
	<-back
	late, lateBack := lentBy(l, make([]byte, 1<<20))
	l.lend(late)
	<-lateBack
}

// TestReplyToACutLink: what is to be sent over a link that was cut comes back at
// once, before anybody has looked at it.
func TestReplyToACutLink(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	l := testLink(t, a)
	l.abort()
	s := newSender(l, nil)
	for _, d := range []func() Data{
		func() Data { return Static(make([]byte, minLent-1)) },
		func() Data { return Static(make([]byte, 1<<20)) },
		func() Data { return Pooled(new(buf.Pool).New(1 << 20)) },
		func() Data { return Lent([][]byte{make([]byte, 1<<20), make([]byte, 1<<10)}, func() {}) },
	} {
		var it item
		want := d()
		n := want.Len()
		s.load(&it, want)
		require.Equal(t, n, it.frame.Data.Len())
		require.Equal(t, n < minLent, it.short == n)
		it.frame.Data.Release()
	}
}

// trickle delivers a stream in pieces of random sizes.
type trickle struct {
	net.Conn // nil
	rnd      *rand.Rand
	rest     []byte
}

func (c *trickle) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[:min(len(c.rest), 1+c.rnd.IntN(1<<uint(c.rnd.IntN(19))))])
	c.rest = c.rest[n:]
	return n, nil
}

// TestReceivedInPlace reads frames as gRPC does, padded ones too, and keeps
// some of them: nobody writes to a piece that has not been put back, and all
// but what straddled two slabs was never copied.
func TestReceivedInPlace(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	type frame struct {
		content []byte
		padding int // 0: none
	}
	var frames []frame
	var stream []byte
	for range 2000 {
		n := 1025 + rnd.IntN(16384-1025)
		f := frame{content: make([]byte, n)}
		for i := 0; i+8 <= n; i += 8 {
			binary.LittleEndian.PutUint64(f.content[i:], rnd.Uint64())
		}
		var h [9]byte
		if rnd.IntN(10) == 0 {
			f.padding = 1 + rnd.IntN(200)
			h[4] = 0x8 // PADDED
			n += 1 + f.padding
		}
		h[0], h[1], h[2] = byte(n>>16), byte(n>>8), byte(n)
		stream = append(stream, h[:]...)
		if f.padding > 0 {
			stream = append(stream, byte(f.padding))
		}
		stream = append(stream, f.content...)
		stream = append(stream, make([]byte, f.padding)...)
		frames = append(frames, f)
	}
	var in inbound
	in.init(&trickle{rnd: rnd, rest: stream}, new(buf.Pool))
	type kept struct {
		handle *[]byte
		want   []byte
	}
	var held []kept
	release := func(k kept) {
		require.True(t, bytes.Equal(k.want, *k.handle))
		in.Put(k.handle)
	}
	for _, f := range frames {
		var h [9]byte
		_, err := io.ReadFull(&in, h[:])
		require.NoError(t, err)
		n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		handle := in.Get(n)
		b := *handle
		if f.padding > 0 {
			_, err = io.ReadFull(&in, b[:1])
			require.NoError(t, err)
			require.Equal(t, byte(f.padding), b[0])
			b = b[:len(b)-1]
		}
		_, err = io.ReadFull(&in, b)
		require.NoError(t, err)
		*handle = b[:len(f.content)]
		held = append(held, kept{handle, f.content})
		for len(held) > 0 && rnd.IntN(3) > 0 {
			i := rnd.IntN(len(held))
			release(held[i])
			held = append(held[:i], held[i+1:]...)
		}
	}
	for _, k := range held {
		release(k)
	}
	_, err := in.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}
