package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	bufferBudget = 256 << 20 // bytes of flow buffers, besides one a connection and direction
	defaultFlow  = 30        // seconds without progress of a transfer until the peer is given up
	rootMode     = 0o777     // of the root directory and lost+found, as OrangeFS makes them
	lostAndFound = "lost+found"
)

// Options describes one server of a file system.
type Options struct {
	Config   *fsconf.Config // the configuration all servers share; must hold exactly one file system
	Alias    string         // which of its servers this is
	Listener net.Listener   // nil: Open listens on the address that Config gives to Alias
	Logger   *slog.Logger   // nil discards
}

// Validate names the first field that is wrong.
func (o Options) Validate() error {
	if o.Config == nil {
		return errors.New("Config is nil")
	}
	if len(o.Config.FileSystems) != 1 {
		return fmt.Errorf("Config has %d file systems, not one: %v", len(o.Config.FileSystems), o.Config.Names())
	}
	srv, ok := o.Config.Server(o.Alias)
	if !ok {
		return fmt.Errorf("Alias %q is not in the configuration", o.Alias)
	}
	if fs := &o.Config.FileSystems[0]; !fs.IsMeta(o.Alias) && !fs.IsData(o.Alias) {
		return fmt.Errorf("Alias %q has no handle range in file system %q", o.Alias, fs.Name)
	}
	if len(o.Config.FileSystems[0].Data) == 0 {
		return fmt.Errorf("file system %q has no data server", o.Config.FileSystems[0].Name)
	}
	if _, ok := o.Config.Addr(o.Alias); !ok {
		return fmt.Errorf("Alias %q has no tcp address", o.Alias)
	}
	if srv.DataStorageSpace == "" || srv.MetadataStorageSpace == "" {
		return fmt.Errorf("Alias %q has no DataStorageSpace or MetadataStorageSpace", o.Alias)
	}
	return nil
}

// settings is what follows from the options alone.
type settings struct {
	fs           *fsconf.FileSystem
	dataAliases  []string          // data servers in the order of the configuration
	byURL        map[string]string // data server by address, as layouts have it
	exports      *exports
	flowBuffer   int           // bytes of a flow message
	flowTimeout  time.Duration // without progress of a transfer
	frameTimeout time.Duration // without progress of a header or request
}

// Server is one PVFS2 server with its data directory.
type Server struct {
	settings
	opt   Options
	log   *slog.Logger
	clock func() time.Time

	ln      net.Listener
	store   *store
	streams *streams
	peers   map[string]*peer // every other server by alias
	trash   chan struct{}    // capacity 1: there are bytestreams to unlink

	pools    map[string]*pool // datafiles of every other data server by alias
	dirPools map[string]*pool // dirdata of every other metadata server by alias

	turns     turns         // splits by bucket, removals by directory
	splits    chan splitJob // buckets that are full
	unsettled chan struct{} // capacity 1: settle has something to do

	bufs     buf.Pool
	budget   chan struct{} // a token a flow buffer in use
	maxConns int64         // leaves descriptors for files

	started     int64 // seconds since the epoch
	stats       stats
	users       users
	mode        mode
	dataSync    atomic.Bool // every write is made durable
	timeoutsOff atomic.Bool // credentials and capabilities never expire
}

// Open locks and checks the data directory, creating it at first use, and
// starts listening; requests are served once Run is called. It fails with
// EBUSY while another process uses the directory and with EINVAL when the
// directory belongs to another file system or another server. The listener in
// opt is the Server's from then on; it is closed on failure.
func Open(opt Options) (*Server, error) {
	s, err := open(opt)
	if err != nil && opt.Listener != nil {
		opt.Listener.Close()
	}
	return s, err
}

func open(opt Options) (*Server, error) {
	if err := opt.Validate(); err != nil {
		return nil, errno.Wrap("pvfsd.Open", syscall.EINVAL, err)
	}
	s := newServer(opt)
	exp, err := parseExports(s.fs.Export)
	if err != nil {
		return nil, errno.Wrap("pvfsd.Open", syscall.EINVAL, err)
	}
	s.exports = exp
	srv, _ := opt.Config.Server(opt.Alias)
	ids := &allocator{meta: s.fs.MetaRanges(opt.Alias), data: s.fs.DataRanges(opt.Alias), root: wire.Handle(s.fs.RootHandle)}
	id := identity{wire.FSID(s.fs.ID), opt.Alias}
	if s.store, err = openStore(srv.MetadataStorageSpace, id, ids); err != nil {
		return nil, err
	}
	s.store.q.syncMeta.Store(s.fs.Hints.SyncMeta)
	if err := s.openRest(srv, id); err != nil {
		if s.streams != nil {
			s.streams.close()
		}
		return nil, errors.Join(err, s.store.close())
	}
	return s, nil
}

// newServer is a Server with everything that follows from the options alone.
func newServer(opt Options) *Server {
	s := &Server{opt: opt, log: opt.Logger, clock: time.Now, trash: make(chan struct{}, 1)}
	s.splits, s.unsettled = make(chan splitJob, splitQueue), make(chan struct{}, 1)
	s.fs, s.frameTimeout = &opt.Config.FileSystems[0], frameTimeout
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.started = s.now()
	s.flowBuffer = s.fs.FlowBufferSize
	d := opt.Config.Defaults
	s.flowTimeout = time.Duration(d.ServerJobFlowTimeout) * time.Second
	if s.flowTimeout <= 0 {
		s.flowTimeout = defaultFlow * time.Second
	}
	s.budget = make(chan struct{}, max(1, bufferBudget/s.flowBuffer))
	s.dataSync.Store(s.fs.Hints.SyncData)
	s.timeoutsOff.Store(d.TurnOffTimeouts)
	s.peers, s.byURL = make(map[string]*peer), make(map[string]string)
	for _, alias := range s.fs.Aliases() {
		if addr, ok := opt.Config.Addr(alias); ok && alias != opt.Alias {
			s.peers[alias] = newPeer(alias, addr)
		}
	}
	for _, r := range s.fs.Data {
		s.dataAliases = append(s.dataAliases, r.Alias)
		s.byURL[opt.Config.URL(r.Alias)] = r.Alias
	}
	s.pools, s.dirPools = s.newPools(wire.TypeDatafile, s.fs.Data), s.newPools(wire.TypeDirdata, s.fs.Meta)
	return s
}

// openRest opens what comes after the store: bytestreams, root, pools, socket.
func (s *Server) openRest(srv fsconf.Server, id identity) error {
	if err := s.openData(srv, id); err != nil {
		return err
	}
	if err := s.makeRoot(); err != nil {
		return err
	}
	err := s.store.update(func(t *txn) error {
		for _, p := range s.pools {
			p.have = t.countPool(p)
		}
		for _, p := range s.dirPools {
			p.have = t.countPool(p)
		}
		return t.recover()
	})
	if err != nil {
		return err
	}
	if s.ln = s.opt.Listener; s.ln == nil {
		if s.ln, err = s.listen(); err != nil {
			return fmt.Errorf("pvfsd.Open: %w", err)
		}
	}
	s.wakeJanitor()
	s.wakeSettler()
	return nil
}

// openData opens the bytestreams.
func (s *Server) openData(srv fsconf.Server, id identity) error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("open file limit: %w", err)
	}
	// Half of what may be open is for connections, a quarter for bytestreams.
	maxOpen := int(min(lim.Cur, 1<<20))
	s.maxConns = int64(maxOpen / 2)
	locked := filepath.Clean(srv.DataStorageSpace) == filepath.Clean(srv.MetadataStorageSpace)
	lock, err := id.claim(srv.DataStorageSpace, locked)
	if err != nil {
		return err
	}
	if s.streams, err = openStreams(srv.DataStorageSpace, lock, maxOpen); err != nil {
		if lock != nil {
			lock.Close()
		}
		return err
	}
	s.streams.syncData = s.syncData
	s.streams.exists = func(h wire.Handle) error {
		return s.store.view(func(t *txn) error { return t.isDatafile(h) })
	}
	return nil
}

// listen listens on the configured address, or on its port alone when that is
// what others reach this machine by and none of its own addresses.
func (s *Server) listen() (net.Listener, error) {
	addr, _ := s.opt.Config.Addr(s.opt.Alias)
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRNOTAVAIL) && !s.opt.Config.Defaults.TCPBindSpecific {
		_, port, _ := net.SplitHostPort(addr)
		return net.Listen("tcp", ":"+port)
	}
	return ln, err
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close releases what Open took when Run was never called.
func (s *Server) Close() error {
	s.streams.close()
	return errors.Join(s.ln.Close(), s.store.close())
}

// Run serves until ctx is done or serving fails for good, then closes every
// connection, makes everything durable and unlocks the data directory. It is
// called once. It returns nil after ctx is done.
func (s *Server) Run(ctx context.Context) error {
	// The committer outlives those who wait for it.
	var committer errgroup.Group
	cctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	committer.Go(func() error { return s.store.q.run(cctx) })

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.accept(gctx) })
	g.Go(func() error { return s.cleanUp(gctx) })
	g.Go(func() error { return s.settle(gctx) })
	for range splitWorkers {
		g.Go(func() error { return s.keepSplit(gctx) })
	}
	for _, p := range s.allPools() {
		g.Go(func() error { return s.keepFilled(gctx, p) })
	}
	s.log.Info("serving", "alias", s.opt.Alias, "fs", s.fs.Name, "addr", s.ln.Addr().String())
	err := g.Wait()
	stop()
	for _, p := range s.peers {
		p.close()
	}
	err = errors.Join(err, committer.Wait())
	s.streams.close()
	err = errors.Join(err, s.store.close())
	s.log.Info("stopped", "alias", s.opt.Alias)
	return err
}

// accept takes connections until ctx is done, and returns when all have ended.
func (s *Server) accept(ctx context.Context) error {
	var conns errgroup.Group
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { s.ln.Close() })
	defer s.ln.Close() // stop may be faster
	defer stop()
	for {
		nc, err := s.ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.ENOBUFS):
			s.log.Warn("accept", "err", err)
			if !sleep(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		if s.stats.connections.Add(1) > s.maxConns {
			s.stats.connections.Add(-1)
			s.log.Warn("connection refused: too many", "peer", nc.RemoteAddr())
			nc.Close()
			continue
		}
		s.setBuffers(nc)
		conns.Go(func() error {
			defer s.stats.connections.Add(-1)
			if err := newConn(s, nc).run(ctx); err != nil {
				s.log.Debug("connection ended", "peer", nc.RemoteAddr(), "err", err)
			}
			return nil
		})
	}
}

// setBuffers gives the socket the sizes that the configuration asks for.
func (s *Server) setBuffers(nc net.Conn) {
	d := s.opt.Config.Defaults
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	if d.TCPBufferSend > 0 {
		tcp.SetWriteBuffer(d.TCPBufferSend)
	}
	if d.TCPBufferReceive > 0 {
		tcp.SetReadBuffer(d.TCPBufferReceive)
	}
}

func (s *Server) now() int64 { return s.clock().Unix() }

func (s *Server) expires() bool { return !s.timeoutsOff.Load() }

func (s *Server) syncData() bool { return s.dataSync.Load() }

// makeRoot makes the root directory on its owner at first start, with a
// directory where repair tools put what has lost its name.
func (s *Server) makeRoot() error {
	root := wire.Handle(s.fs.RootHandle)
	if alias, ok := s.fs.Owner(uint64(root)); !ok || alias != s.opt.Alias {
		return nil
	}
	return s.store.update(func(t *txn) error {
		_, err := t.object(root)
		if err == nil || !errors.Is(err, syscall.ENOENT) {
			return err
		}
		if err := s.store.ids.putDirectory(t, root, s.newObject(wire.TypeDirectory, &wire.Attr{Perms: rootMode})); err != nil {
			return err
		}
		found, err := s.store.ids.take(t, wire.TypeDirectory, nil)
		if err != nil {
			return err
		}
		o := s.newObject(wire.TypeDirectory, &wire.Attr{Perms: rootMode})
		if err := s.store.ids.putDirectory(t, found, o); err != nil {
			return err
		}
		dir, err := t.typed(root, wire.TypeDirectory)
		if err != nil {
			return err
		}
		_, err = t.link(dir.other, lostAndFound, found, s.now())
		return err
	})
}
