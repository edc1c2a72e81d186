package pvfs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// lifeSeconds is how long the capabilities and credentials that we make are
// good. Each request has new ones, so they need not outlive more than the time
// that a call may take; but servers compare them with their own clocks.
const lifeSeconds = 7 * 24 * 3600

// Client is a connection to one file system. Make it with Dial.
type Client struct {
	conf    *fsconf.Config
	fs      *fsconf.FileSystem
	fsid    wire.FSID
	servers map[string]*server // by alias
	order   []*server          // as in the configuration, metadata servers first
	meta    []*server          // those of metadata, in order
	data    []*server          // those of datafiles, in order
	issuer  string
	creds   wire.Credential // but for its timeout
	timeout time.Duration
	log     *slog.Logger
	dialer  func(ctx context.Context, network, addr string) (net.Conn, error)
	started time.Time
	dirs    *dirCache
	losses  atomic.Uint64 // see Generation
	turns   turns         // of making entries in directories whose buckets split
	stats   stats
	tasks   errgroup.Group // all goroutines
	calls   sync.Pool      // of *call; not shared, as calls hold channels and timers
	moves   sync.Pool      // of *transfer

	mu     sync.Mutex
	closed bool // guarded by mu
}

// Dial connects to the file system that url names, tcp://HOST:PORT/FSNAME. It
// asks that server and then every server of the file system for the
// configuration, which must be the same everywhere. The error is ENOENT if
// there is no file system of that name, EINVAL for a url of another form.
func Dial(ctx context.Context, url string, opt Options) (*Client, error) {
	if err := opt.Validate(); err != nil {
		return nil, errno.Wrap("pvfs.Dial", syscall.EINVAL, err)
	}
	addr, name, err := splitURL(url)
	if err != nil {
		return nil, errno.Wrap("pvfs.Dial", syscall.EINVAL, err)
	}
	c := &Client{
		timeout: cmp.Or(opt.Timeout, DefaultTimeout),
		log:     opt.Logger,
		dialer:  opt.Dial,
		started: time.Now(),
		dirs:    newDirCache(),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.dialer == nil {
		c.dialer = dialTCP
	}
	host, _ := os.Hostname()
	c.creds = wire.Credential{Groups: []uint32{0}, Issuer: "C:" + host[:min(len(host), 200)]}
	if err := c.mount(ctx, addr, name); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("mount %s: %w", url, err)
	}
	return c, nil
}

func splitURL(url string) (addr, name string, err error) {
	rest, ok := strings.CutPrefix(url, "tcp://")
	host, name, slash := strings.Cut(rest, "/")
	if !ok || !slash || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q is not tcp://HOST:PORT/FSNAME", url)
	}
	addr, err = fsconf.HostPort("tcp://" + host)
	return addr, name, err
}

// mount gets the configuration and makes the servers.
func (c *Client) mount(ctx context.Context, addr, name string) error {
	c.fs = &fsconf.FileSystem{FlowBufferSize: 262144}
	first := newServer(c, Server{Alias: addr, Addr: addr}, "")
	text, err := first.config(ctx)
	first.close()
	if err != nil {
		return err
	}
	if c.conf, err = fsconf.Parse(text); err != nil {
		return errno.Wrap("pvfs.Dial", syscall.EPROTO, err)
	}
	fs, ok := c.conf.FileSystem(name)
	if !ok {
		return errno.Wrap("pvfs.Dial", syscall.ENOENT, fmt.Errorf("no file system %q on server %s, which has %s", name, addr, strings.Join(c.conf.Names(), ", ")))
	}
	c.fs, c.fsid = fs, wire.FSID(fs.ID)
	c.servers = map[string]*server{}
	for _, alias := range fs.Aliases() {
		a, ok := c.conf.Addr(alias)
		if !ok {
			return errno.Wrap("pvfs.Dial", syscall.EPROTO, fmt.Errorf("server %s has no tcp address", alias))
		}
		s := newServer(c, Server{Alias: alias, Addr: a, Meta: fs.IsMeta(alias), Data: fs.IsData(alias)}, c.conf.URL(alias))
		c.servers[alias] = s
		c.order = append(c.order, s)
	}
	for _, h := range fs.Meta {
		c.meta = append(c.meta, c.servers[h.Alias])
	}
	for _, h := range fs.Data {
		c.data = append(c.data, c.servers[h.Alias])
	}
	c.issuer = "S:" + fs.Meta[0].Alias
	return c.sameEverywhere(ctx, text)
}

// sameEverywhere checks that all servers have the same configuration.
func (c *Client) sameEverywhere(ctx context.Context, text string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range c.order {
		g.Go(func() error {
			got, err := s.config(ctx)
			if err == nil && got != text {
				err = errno.Wrap("pvfs.Dial", syscall.EPROTO, fmt.Errorf("server %s at %s has another configuration", s.Alias, s.Addr))
			}
			return err
		})
	}
	return g.Wait()
}

func (s *server) config(ctx context.Context) (string, error) {
	var resp wire.GetConfigResp
	if _, err := s.ask(ctx, &wire.GetConfigReq{}, &resp); err != nil {
		return "", fmt.Errorf("ask server %s at %s for its configuration, protocol %d: %w", s.Alias, s.Addr, wire.Version, err)
	}
	return resp.Config, nil
}

// Close ends all connections and waits for their goroutines. Calls in progress
// fail with EIO.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for _, s := range c.order {
		s.close()
	}
	return c.tasks.Wait()
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// spawn runs f in a goroutine that Close waits for; false if c is closed.
func (c *Client) spawn(f func() error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.tasks.Go(f)
	return true
}

func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.isClosed() {
		return nil, errClosed
	}
	return c.dialer(ctx, network, addr)
}

// Generation counts the connections that ended. A restarted server may give the
// handles of removed objects to new ones at once, so what is remembered by
// handle holds only while Generation stays the same: it changes before any
// answer of a restarted server arrives.
func (c *Client) Generation() uint64 { return c.losses.Load() }

// lostConn forgets what may be about other objects once a server restarted.
func (c *Client) lostConn() {
	c.losses.Add(1)
	c.dirs.reset()
}

// now is the time since the client was made, in nanoseconds.
func (c *Client) now() int64 { return int64(time.Since(c.started)) }

func (c *Client) since(t int64) time.Duration { return time.Duration(c.now() - t) }

// FSID identifies the file system.
func (c *Client) FSID() wire.FSID { return c.fsid }

// FSName is the name of the file system.
func (c *Client) FSName() string { return c.fs.Name }

// Root is the handle of the root directory.
func (c *Client) Root() Handle { return Handle(c.fs.RootHandle) }

// Servers lists all servers of the file system, metadata servers first.
func (c *Client) Servers() []Server {
	out := make([]Server, len(c.order))
	for i, s := range c.order {
		out[i] = s.Server
	}
	return out
}

// Ping asks one server whether it answers; ENOENT for an unknown alias.
func (c *Client) Ping(ctx context.Context, alias string) error {
	s, ok := c.servers[alias]
	if !ok {
		return errno.Wrap("pvfs.Ping", syscall.ENOENT, fmt.Errorf("no server %q", alias))
	}
	_, err := s.ask(ctx, &wire.NoopReq{}, nil)
	return err
}

// StatFS adds up the state of all servers. As files are striped over all of
// them, the space is that of the fullest server times their number.
func (c *Client) StatFS(ctx context.Context) (StatFS, error) {
	resps := make([]wire.StatFSResp, len(c.order))
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range c.order {
		g.Go(func() error {
			_, err := s.ask(ctx, &wire.StatFSReq{FSID: c.fsid}, &resps[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return StatFS{}, err
	}
	st := StatFS{Servers: len(c.order), ServersOfData: len(c.data)}
	first := true
	for i, s := range c.order {
		st.Handles += resps[i].HandlesTotal
		st.HandlesFree += resps[i].HandlesAvailable
		if !s.Data {
			continue
		}
		if first || resps[i].Total < st.Total {
			st.Total = resps[i].Total
		}
		if first || resps[i].Available < st.Free {
			st.Free = resps[i].Available
		}
		first = false
	}
	st.Total *= int64(len(c.data))
	st.Free *= int64(len(c.data))
	return st, nil
}
