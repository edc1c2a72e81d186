package pvfs

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeFS is a file system of scripted servers: each request but GETCONFIG goes
// to serve, which may answer it, later or never.
type fakeFS struct {
	t       testing.TB
	text    string
	conf    *fsconf.Config
	refuse  bool // guarded by mu: dialing fails
	serve   func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request)
	greet   func(p *fakeConn, tag int64) // nil: answers GETCONFIG as it should
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	mu      sync.Mutex
	dials   int // guarded by mu
	closing sync.WaitGroup
}

// fakeConn is the server's end of a connection.
type fakeConn struct {
	net.Conn
	fs     *fakeFS
	server int
	mu     sync.Mutex             // held for a whole message
	flows  map[int64]*expectation // by tag; of the goroutine that reads
}

// expectation is flow data that will come between other messages.
type expectation struct {
	left int
	got  []byte
	then func([]byte)
}

// expect calls then with the next n bytes of data for tag.
func (p *fakeConn) expect(tag int64, n int, then func([]byte)) {
	p.flows[tag] = &expectation{left: n, then: then}
}

func newFakeFS(t testing.TB, servers int, edit func(*fsconf.GenOptions)) *fakeFS {
	gen := fsconf.GenOptions{FSName: "fake", FSID: 77}
	for i := range servers {
		gen.Servers = append(gen.Servers, fsconf.ServerSpec{Alias: "s" + string(rune('0'+i)), Addr: "host:" + string(rune('0'+i)), Dir: "/x"})
	}
	if edit != nil {
		edit(&gen)
	}
	text, err := fsconf.Generate(gen)
	require.NoError(t, err)
	conf, err := fsconf.Parse(text)
	require.NoError(t, err)
	f := &fakeFS{t: t, text: text, conf: conf}
	f.dial = f.dialPipe
	return f
}

func (f *fakeFS) dialPipe(_ context.Context, _, addr string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse {
		return nil, syscall.ECONNREFUSED
	}
	f.dials++
	mine, theirs := net.Pipe()
	p := &fakeConn{Conn: theirs, fs: f, server: int(addr[len(addr)-1] - '0'), flows: map[int64]*expectation{}}
	f.closing.Go(p.run)
	return mine, nil
}

func (f *fakeFS) setRefuse(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = on
}

func (f *fakeFS) dialCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

// client dials; the test ends with all goroutines gone.
func (f *fakeFS) client(opt Options) *Client {
	opt.Dial = f.dial
	c, err := Dial(context.Background(), "tcp://host:0/fake", opt)
	require.NoError(f.t, err)
	f.t.Cleanup(func() {
		require.NoError(f.t, c.Close())
		f.closing.Wait()
	})
	return c
}

func (p *fakeConn) run() {
	defer p.Close()
	for {
		h, b, err := p.read()
		if err != nil {
			return
		}
		if x := p.flows[h.Tag]; x != nil && h.Mode != wire.Unexpected {
			x.got = append(x.got, b...)
			if x.left -= len(b); x.left <= 0 {
				delete(p.flows, h.Tag)
				x.then(x.got)
			}
			continue
		}
		if h.Mode != wire.Unexpected {
			p.fs.t.Errorf("flow data that nobody reads, %d bytes", h.Size)
			return
		}
		rh, req, err := wire.DecodeRequest(b)
		if err != nil {
			p.fs.t.Errorf("request: %v", err)
			return
		}
		if rh.Op == wire.OpGetConfig && p.fs.greet != nil {
			p.fs.greet(p, h.Tag)
			continue
		}
		if rh.Op == wire.OpGetConfig {
			p.reply(h.Tag, rh.Op, 0, &wire.GetConfigResp{Config: p.fs.text})
			continue
		}
		p.fs.serve(p, h.Tag, rh, req)
	}
}

func (p *fakeConn) read() (wire.Header, []byte, error) {
	var hb [wire.HeaderSize]byte
	if _, err := io.ReadFull(p, hb[:]); err != nil {
		return wire.Header{}, nil, err
	}
	h, err := wire.DecodeHeader(hb[:])
	if err != nil {
		return h, nil, err
	}
	b := make([]byte, h.Size)
	_, err = io.ReadFull(p, b)
	return h, b, err
}

// reply sends a response; the client may be gone.
func (p *fakeConn) reply(tag int64, op wire.Op, st wire.Status, body wire.Response) {
	p.send(wire.AppendResponseFrame(nil, tag, op, st, body))
}

// flow sends a message of data.
func (p *fakeConn) flow(tag int64, b []byte) {
	p.send(append(wire.Header{Mode: wire.ModeFor(len(b)), Tag: tag, Size: int64(len(b))}.Append(nil), b...))
}

func (p *fakeConn) send(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.Write(b)
}

// flowData receives messages of data for tag until n bytes have come, and
// returns them with the size of each message.
func (p *fakeConn) flowData(tag int64, n int) (all []byte, sizes []int) {
	for len(all) < n {
		h, b, err := p.read()
		if err != nil {
			return all, sizes
		}
		if h.Tag != tag || h.Mode != wire.ModeFor(len(b)) {
			p.fs.t.Errorf("message of tag %d, mode %d, %d bytes instead of data of %d", h.Tag, h.Mode, len(b), tag)
			return all, sizes
		}
		all, sizes = append(all, b...), append(sizes, len(b))
	}
	return all, sizes
}

// fakeFile is a file with one datafile on each server; no request is made.
func fakeFile(c *Client, strip int64) *File {
	l := &Layout{Dist: wire.NewSimpleStripe(strip)}
	for _, h := range c.fs.Data {
		l.DFiles = append(l.DFiles, Handle(h.Ranges[0].First+5))
	}
	return c.File(Attr{Handle: c.Root() + 1, Layout: l})
}

// object is a handle that server i owns.
func object(c *Client, i int) Handle { return Handle(c.fs.Meta[i].Ranges[0].Last - 9) }
