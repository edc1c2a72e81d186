package rpc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

func newRegion(t testing.TB, n int64) *shared.Region {
	r, err := shared.New(n)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// random fills p with what only seed knows.
func random(p []byte, seed uint64) []byte {
	var s [32]byte
	s[0], s[1], s[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	_, _ = rand.NewChaCha8(s).Read(p)
	return p
}

// near serves s with region, and connects to it with own as production does.
func near(t testing.TB, s *service, region, own *shared.Region) *Conn {
	return dialNearly(t, serve(t, s, ServerOptions{Shared: region}), own)
}

// dialNearly is dial with memory to show.
func dialNearly(t testing.TB, addr string, own *shared.Region) *Conn {
	listens(t, addr)
	return dial(t, addr, Options{Dialer: Options{Shared: own}.withDefaults().Dialer})
}

// onLoan is how many loans of a connection were not returned.
func (l *lender) onLoan() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.loans)
}

// isLent reports whether d lies in what the peer of c has shown.
func isLent(c *Conn, d Data) bool {
	mem := c.link.near.borrower.mem
	for _, b := range d.bufs {
		h := &hold{mem: mem}
		if !h.contains(b.ReadOnlyData()) {
			return false
		}
	}
	return true
}

// slots lends the parts of a region and gets them back.
type slots struct {
	region *shared.Region
	size   int
	free   chan int
}

func newSlots(r *shared.Region, size int) *slots {
	s := &slots{r, size, make(chan int, len(r.Bytes())/size)}
	for i := range cap(s.free) {
		s.free <- i
	}
	return s
}

// take returns pieces with the content of seed; free poisons them when they come back.
func (s *slots) take(seed uint64, cuts ...int) Data {
	i := <-s.free
	mem := random(s.region.Bytes()[i*s.size:(i+1)*s.size], seed)
	var pieces [][]byte
	at := 0
	for _, c := range append(cuts, len(mem)) {
		pieces = append(pieces, mem[at:c])
		at = c
	}
	return Lent(pieces, func() {
		clear(mem)
		s.free <- i
	})
}

// wait returns when all slots are free.
func (s *slots) wait() {
	for range cap(s.free) {
		<-s.free
	}
}

// TestLoans: both sides lend what lies in their memory, in one piece or several, and
// nothing changes before the other has done with it.
func TestLoans(t *testing.T) {
	const size = 128 << 10
	there := newSlots(newRegion(t, 32*size), size)
	here := newSlots(newRegion(t, 32*size), size)
	var lent atomic.Int64
	s := &service{handle: func(r *Request) {
		if got := r.Data.Append(nil); len(got) > 0 {
			want := random(make([]byte, size), r.Frame.Handle)
			if r.Data.Len() != size || !bytes.Equal(bytes.Join(got, nil), want) {
				r.Fail(syscall.EIO)
				return
			}
		}
		if r.Data.lend { // else it came through the socket
			lent.Add(1)
		}
		if r.Frame.Handle%5 == 0 {
			r.Reply(&Frame{Data: Static(random(make([]byte, size), r.Frame.Handle+1))})
			return
		}
		r.Reply(&Frame{Data: there.take(r.Frame.Handle+1, 1000, 70_000)})
	}}
	c := near(t, s, there.region, here.region)
	work := func(seed uint64) error {
		data := here.take(seed, 90_000)
		if seed%3 == 0 { // some are sent, and loans returned with them
			data.Release()
			data = Static(random(make([]byte, size), seed))
		}
		reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_WRITE, Handle: seed, Data: data})
		if err == nil {
			err = reply.Err()
		}
		if err != nil {
			return err
		}
		defer reply.Data.Release()
		got := make([]byte, size+1)
		if n := reply.Data.CopyTo(got); n != size || !bytes.Equal(got[:n], random(make([]byte, size), seed+1)) {
			return fmt.Errorf("%d: other bytes came", seed)
		}
		return nil
	}
	done := make(chan error)
	const callers, calls = 4, 50
	for i := range uint64(callers) {
		go func() {
			for k := range uint64(calls) {
				if err := work(i<<8 | k); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		require.NoError(t, <-done)
	}
	require.Positive(t, lent.Load())
	here.wait() // all of it comes back, with nothing more to be said
	there.wait()
}

// TestWhatIsNotLent goes the way of all payloads.
func TestWhatIsNotLent(t *testing.T) {
	region := newRegion(t, 8<<20)
	most := int(newLender(region, nil).most)
	mem := random(region.Bytes(), 1)
	cases := map[string][][]byte{
		"short":      {mem[:minLoan-1]},
		"elsewhere":  {bytes.Clone(mem[:minLoan])},
		"partly":     {mem[:minLoan], bytes.Clone(mem[minLoan : 2*minLoan])},
		"too much":   {mem[:most+1]},
		"in crumbs":  crumbs(mem[:2*1024*(maxRefs+1)], 2*1024),
		"none there": {},
	}
	for name, pieces := range cases {
		t.Run(name, func(t *testing.T) {
			s := &service{handle: func(r *Request) { r.Reply(&Frame{Data: Lent(pieces, func() {})}) }}
			c := near(t, s, region, newRegion(t, 1<<20))
			reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_READ})
			require.NoError(t, err)
			want := bytes.Join(pieces, nil)
			require.True(t, len(want) == 0 || !isLent(c, reply.Data))
			require.True(t, bytes.Equal(want, bytes.Join(reply.Data.Append(nil), nil)))
			reply.Data.Release()
		})
	}
}

func crumbs(p []byte, n int) (out [][]byte) {
	for ; len(p) > 0; p = p[n:] {
		out = append(out, p[:n])
	}
	return out
}

// TestLoanOutlivesItsConnection: who has borrowed may read on when the
// connection is gone, and only then does the lender have its memory back.
func TestLoanOutlivesItsConnection(t *testing.T) {
	for _, who := range []string{"borrower", "lender"} {
		t.Run(who+" ends it", func(t *testing.T) {
			const size = 256 << 10
			there := newSlots(newRegion(t, 16*size), size)
			s := &service{handle: func(r *Request) { r.Reply(&Frame{Data: there.take(7)}) }}
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			stop := serveOn(t, lis, s, ServerOptions{Shared: there.region})
			c := dialNearly(t, lis.Addr().String(), newRegion(t, 1<<20))
			reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_READ})
			require.NoError(t, err)
			require.True(t, isLent(c, reply.Data))
			if who == "borrower" {
				require.NoError(t, c.Close())
			}
			stop()
			<-c.Broken()
			require.Len(t, there.free, cap(there.free)-1, "it is on loan")
			require.True(t, bytes.Equal(random(make([]byte, size), 7), bytes.Join(reply.Data.Append(nil), nil)))
			reply.Data.Release()
			require.NoError(t, c.Close())
			there.wait()
		})
	}
}

// TestBorrowerDies: its end returns what it had.
func TestBorrowerDies(t *testing.T) {
	if addr := os.Getenv("ZOIDFS_TEST_BORROW"); addr != "" {
		c := dialNearly(t, addr, newRegion(t, 1<<20))
		reply, err := c.Call(t.Context(), &Frame{Op: ionpb.Op_READ})
		require.NoError(t, err)
		require.True(t, isLent(c, reply.Data))
		fmt.Println("borrowed")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
		return
	}
	const size = 256 << 10
	there := newSlots(newRegion(t, 16*size), size)
	s := &service{handle: func(r *Request) { r.Reply(&Frame{Data: there.take(7)}) }}
	addr := serve(t, s, ServerOptions{Shared: there.region})
	cmd := child(t, "TestBorrowerDies", "ZOIDFS_TEST_BORROW="+addr)
	require.Len(t, there.free, cap(there.free)-1)
	require.NoError(t, cmd.Process.Kill())
	there.wait()
}

// child runs a test in a process of its own until that has said something.
func child(t *testing.T, test string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "borrowed\n", said)
	return cmd
}

// TestStrangersAreShownNothing: only root and this user may see the memory.
func TestStrangersAreShownNothing(t *testing.T) {
	region := newRegion(t, 1<<20)
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@zoidfs-test-%d", rand.Uint64())})
	require.NoError(t, err)
	defer lis.Close()
	for _, stranger := range []bool{false, true} {
		here, err := net.DialUnix("unix", nil, lis.Addr().(*net.UnixAddr))
		require.NoError(t, err)
		there, err := lis.AcceptUnix()
		require.NoError(t, err)
		met := make(chan net.Conn)
		go func() {
			c, _ := welcome(there, region, func(*net.UnixConn) bool { return !stranger })
			met <- c
		}()
		c, err := greet(here, region)
		require.NoError(t, err)
		w := <-met
		require.NotNil(t, w)
		require.Equal(t, stranger, c.(*nearConn).borrower == nil)
		require.Equal(t, stranger, w.(*nearConn).lender == nil)
		require.NotNil(t, w.(*nearConn).borrower)
		require.NoError(t, c.Close())
		require.NoError(t, w.Close())
	}
}

// TestBadLoans: a peer cannot make us read beyond what it has shown.
func TestBadLoans(t *testing.T) {
	mem := make([]byte, 1<<20)
	refs := func(n ...uint64) (b []byte) {
		for _, x := range n {
			b = protowire.AppendVarint(b, x)
		}
		return b
	}
	many := []uint64{1}
	for range maxRefs + 1 {
		many = append(many, 0, 1024)
	}
	for name, bad := range map[string][]byte{
		"nothing":    {},
		"cut":        refs(1, 0),
		"behind":     refs(1, 1<<20, 1),
		"across":     refs(1, 1<<20-10, 11),
		"far behind": refs(1, 1<<63, 10),
		"overflow":   refs(1, 10, 1<<64-1),
		"long":       refs(1, 0, 1<<20, 0, 1<<20, 0, 1<<20, 0, 1<<20, 0, 1),
		"many":       refs(many...),
	} {
		b := &borrower{mem: mem, uses: 1}
		d, err := b.borrow(bad)
		require.Error(t, err, name)
		require.Zero(t, d.Len(), name)
		require.Equal(t, 1, b.uses, name)
	}
	b := &borrower{mem: mem, uses: 1}
	d, err := b.borrow(refs(1, 1<<20-10, 10))
	require.NoError(t, err)
	require.Equal(t, 10, d.Len())
	d.Release()
	require.Equal(t, []uint64{1}, b.back)
}

// TestLenderHearsOfOtherLoans: what was never lent, or twice returned, is nothing.
func TestLenderHearsOfOtherLoans(t *testing.T) {
	region := newRegion(t, 1<<20)
	here, there, err := os.Pipe()
	require.NoError(t, err)
	defer there.Close()
	l := newLender(region, here)
	back := 0
	require.NotNil(t, l.lend(Lent([][]byte{region.Bytes()[:minLoan]}, func() { back++ })))
	l.returned(7)
	require.Zero(t, back)
	l.returned(1)
	l.returned(1)
	require.Equal(t, 1, back)
	require.Zero(t, l.onLoan())
	require.Zero(t, l.bytes)
	l.end()
	require.Nil(t, l.lend(Data{}), "nothing is lent any more")
}

// TestNoGreeting: who connects and says nothing, or hands over what is no memory,
// is shut out, and nobody else notices.
func TestNoGreeting(t *testing.T) {
	s := &service{handle: func(r *Request) { r.Reply(new(Frame)) }}
	addr := serve(t, s, ServerOptions{Shared: newRegion(t, 1<<20)})
	listens(t, addr)
	silent, err := net.DialUnix("unix", nil, nearAddr(addr))
	require.NoError(t, err)
	defer silent.Close()
	liar, err := net.DialUnix("unix", nil, nearAddr(addr))
	require.NoError(t, err)
	defer liar.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	_, _, err = liar.WriteMsgUnix([]byte{1}, syscall.UnixRights(int(null.Fd()), int(null.Fd())), nil)
	require.NoError(t, err)
	_, err = liar.Read(make([]byte, 1))
	require.Error(t, err)
	c := dialNearly(t, addr, newRegion(t, 1<<20))
	_, err = c.Call(context.Background(), &Frame{Op: ionpb.Op_READ})
	require.NoError(t, err)
}
