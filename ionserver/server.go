package ionserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/cache"
	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/internal/round"
	"github.com/zoidfs/zoidfs/internal/shared"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

const (
	// DefaultCache is the memory for file data of an I/O node that was not told.
	DefaultCache = 512 << 20
	// MinCache is the least such memory: less could not hold the requests of a
	// few mounts.
	MinCache = 64 << 20
	// DefaultWriteBack is how old written bytes get before they go to the PVFS2
	// servers, if nothing else sends them there earlier.
	DefaultWriteBack = 5 * time.Second
)

// Options configures an I/O node. PVFS, Listener and Self are needed.
type Options struct {
	PVFS     *pvfs.Client // the file system; the caller closes it after Run
	Listener net.Listener // where mounts and peers connect; Run closes it

	// Peers are the addresses of all I/O nodes of the file system, this one
	// included, as mounts reach them; the same on every node. Empty means
	// that Self is alone.
	Peers []string
	Self  string // this node's address as it stands in Peers

	// TakeOver has this node end the service of those that serve with another list,
	// which hang perhaps; else Run fails while one of them answers.
	TakeOver bool

	DomainSize int64 // bytes of a file domain, the same on every node; 0: collective.DefaultDomainSize
	Workers    int   // requests of a class at work at once; 0: 64
	CacheBytes int64 // of file data in memory, clean and unstable; 0: DefaultCache

	Lease        time.Duration // silence that ends a session; 0: 15 s
	Calm         time.Duration // how long mounts must not have fought over an inode before it is leased again; 0: 1 s
	ViewInterval time.Duration // between two looks for a newer view; 0: 2 s
	Persist      time.Duration // how long a modification time may stay unsaved; 0: 3 s
	WriteBack    time.Duration // age at which written bytes go to the PVFS2 servers; 0: DefaultWriteBack
	Drain        time.Duration // how long Run lets work go on when asked to stop; 0: 10 s

	// NoCollective has every request carried out as it comes, merged with none
	// and held for none; the caches and leases stay.
	NoCollective bool

	// NoDataLeases has owners give no leases, so that each read and write of a
	// mount comes here: for measuring what leases are worth.
	NoDataLeases bool

	Name     string       // shown in status; empty: Self
	Software string       // version shown to mounts
	Logger   *slog.Logger // nil: discard

	// PeerDialer connects to another I/O node; nil: TCP.
	PeerDialer func(ctx context.Context, addr string) (net.Conn, error)
}

// Validate names the field that is wrong, and fills in what was left out.
func (o *Options) Validate() error {
	switch {
	case o.PVFS == nil:
		return errors.New("ionserver: no PVFS2 client")
	case o.Listener == nil:
		return errors.New("ionserver: no listener")
	case o.Self == "":
		return errors.New("ionserver: own address is empty")
	case o.DomainSize < 0 || o.Workers < 0 || o.Lease < 0 || o.Calm < 0 || o.ViewInterval < 0 || o.Persist < 0 || o.WriteBack < 0 || o.Drain < 0:
		return errors.New("ionserver: an option is negative")
	case o.CacheBytes != 0 && o.CacheBytes < MinCache:
		return fmt.Errorf("ionserver: cache of %d bytes is less than %d", o.CacheBytes, MinCache)
	}
	if len(o.Peers) == 0 {
		o.Peers = []string{o.Self}
	}
	if o.DomainSize == 0 {
		o.DomainSize = collective.DefaultDomainSize
	}
	if o.Workers == 0 {
		o.Workers = 64
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCache
	}
	for d, def := range map[*time.Duration]time.Duration{
		&o.Lease: 15 * time.Second, &o.Calm: calmTime, &o.ViewInterval: 2 * time.Second,
		&o.Persist: 3 * time.Second, &o.WriteBack: DefaultWriteBack, &o.Drain: 10 * time.Second,
	} {
		if *d == 0 {
			*d = def
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Peers = slices.Clone(o.Peers)
	v := view{members: o.Peers, domainSize: o.DomainSize}
	if err := v.validate(o.Self); err != nil {
		return fmt.Errorf("ionserver: %w", err)
	}
	return nil
}

// Server is one I/O node.
type Server struct {
	opt       Options
	pvfs      *pvfs.Client
	log       *slog.Logger
	boot      uint64 // changes with every start
	started   time.Time
	placement *collective.Placement
	self      int // index of this node in the view's members
	ops       map[ionpb.Op]operation
	peerOps   map[ionpb.Op]operation
	pool      *buf.Pool
	memory    *shared.Region // of the cache; nil: it cannot be shown
	counters  *rpc.Counters
	ended     context.Context // has ended: locks that would have to wait fail at once

	sched    *scheduler
	sessions *sessionTable
	jobs     *jobTable
	guard    *viewGuard
	home     *home
	owner    *owner
	flushes  *round.Group[uint64, flushing, struct{}] // by file
	figures  *figures
	locks    *lockService
	journal  *round.Journal // of what was carried out together
	names    keyLock[nameKey]
	made     recent      // files, by the home of their directory
	opened   recent      // files, by their home
	believed recent      // what requests in doubt were told that they had made
	peers    []*peerLink // by index in the view's members; nil for this node

	// Set by Run before the first request, constant after.
	work        context.Context // of requests at work
	epoch       uint64
	orphanDir   uint64
	unclean     bool     // mounts were connected when this node last ended, or the view before
	oldSessions []string // used by start and sweepFiles only: their traces
	firstGrace  bool     // used by start and sweepFiles only: in that for the view before
	grace       *grace

	mu       sync.Mutex
	active   int           // guarded by mu; requests at work, blocked LOCKs apart
	stopping bool          // guarded by mu
	drained  chan struct{} // guarded by mu; closed when stopping and active is 0
}

// New checks the options and prepares an I/O node. It does no I/O.
func New(opt Options) (*Server, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	p, err := collective.NewPlacement(opt.Peers, opt.DomainSize)
	if err != nil {
		return nil, err
	}
	ended, end := context.WithCancel(context.Background())
	end()
	s := &Server{
		ended: ended,
		opt:   opt, pvfs: opt.PVFS, log: opt.Logger, boot: rand.Uint64() | 1, started: time.Now(),
		placement: p, self: slices.Index(opt.Peers, opt.Self),
		ops: operations(), peerOps: peerOperations(), pool: new(buf.Pool), counters: new(rpc.Counters),
		sched:    newScheduler(defaultLimits(opt.Workers)),
		sessions: newSessionTable(opt.Lease),
		jobs:     newJobTable(),
		guard:    newViewGuard(opt.ViewInterval * 5 / 2),
		grace:    newGrace(),
		drained:  make(chan struct{}),
	}
	s.memory = cache.NewMemory(opt.CacheBytes)
	store, err := cache.New(cache.Options{Bytes: opt.CacheBytes, Memory: s.memory})
	if err != nil {
		return nil, fmt.Errorf("ionserver: %w", err)
	}
	s.home, s.owner, s.locks = newHome(s), newOwner(s, store), newLockService()
	s.journal = round.NewJournal(journalled)
	s.flushes = newFlushes(s)
	s.figures = newFigures(s)
	s.peers = make([]*peerLink, len(opt.Peers))
	for i, addr := range opt.Peers {
		if i != s.self {
			s.peers[i] = newPeerLink(s, i, addr)
		}
	}
	return s, nil
}

// Addr is where the node listens.
func (s *Server) Addr() net.Addr { return s.opt.Listener.Addr() }

// Run serves until ctx ends. Then it takes no more requests, lets those at
// work finish for the Drain time, writes everything back, saves modification
// times and returns when all its goroutines have ended; with an error if something
// could not be written back. It returns early, with an error, if the file
// system cannot be reached or served at all; a view that was taken over by
// other I/O nodes does not end it (see Status).
func (s *Server) Run(ctx context.Context) error {
	defer s.opt.Listener.Close()
	defer s.owner.close()
	work, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	s.work = work
	if err := s.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.log.Info("serving", "addr", s.opt.Listener.Addr().String(), "epoch", s.epoch, "members", s.opt.Peers, "grace", s.unclean)

	serve, endServe := context.WithCancel(work)
	defer endServe()
	g, _ := errgroup.WithContext(work)
	failed := make(chan struct{})
	g.Go(func() error {
		err := rpc.Serve(serve, s.opt.Listener, s, rpc.ServerOptions{
			Pool: s.pool, Logger: s.log, Counters: s.counters, Workers: maxPending, MaxPending: maxPending,
			Shared: s.memory,
		})
		if serve.Err() == nil {
			close(failed)
			return fmt.Errorf("ionserver: serve: %w", err)
		}
		return nil
	})
	background, endBackground := context.WithCancel(work)
	defer endBackground()
	g.Go(func() error { return s.watchView(serve) }) // the last writes still need it
	g.Go(func() error { return s.sweepSessions(background, g) })
	g.Go(func() error { return s.sweepFiles(background) })
	g.Go(func() error { return s.owner.writeBackAll(background) })
	g.Go(func() error { return s.owner.spread(background) })
	g.Go(func() error { return s.owner.fetchSoon(work) }) // reads wait for what it fetches
	for _, p := range s.peers {
		if p != nil {
			g.Go(func() error { return p.run(work) })
		}
	}

	select {
	case <-ctx.Done():
	case <-failed:
	}
	s.drain()
	endBackground()
	unsaved := s.owner.finish(work, s.opt.Drain)
	s.home.persistAll(work, s.opt.Drain)
	endServe()
	endWork()
	err := errors.Join(g.Wait(), unsaved)
	s.flushes.Wait()
	s.figures.Wait()
	last, endLast := context.WithTimeout(context.WithoutCancel(ctx), s.opt.Drain)
	defer endLast()
	s.unmarkServing(last)
	s.log.Info("stopped")
	return err
}

// begin counts a request as at work. It is false once the server stops.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.active++
	return true
}

// end is the counterpart of begin.
func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.checkDrainedLocked()
}

// beginAgain counts a request that had ended with end, to wait, as at work.
func (s *Server) beginAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active++
}

func (s *Server) checkDrainedLocked() {
	if !s.stopping || s.active > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// drain waits until nothing is at work, but not for ever. Requests that come
// meanwhile are not answered: their mounts send them again to a successor.
func (s *Server) drain() {
	s.mu.Lock()
	s.stopping = true
	s.checkDrainedLocked()
	s.mu.Unlock()
	t := time.NewTimer(s.opt.Drain)
	defer t.Stop()
	select {
	case <-s.drained:
	case <-t.C:
		s.log.Warn("stopping although requests are at work")
	}
}

// start finds out under which view to serve and what an earlier run left.
func (s *Server) start(ctx context.Context) error {
	if err := s.findOrphanDir(ctx); err != nil {
		return fmt.Errorf("ionserver: directory of orphans: %w", err)
	}
	if err := s.markServing(ctx); err != nil {
		return fmt.Errorf("ionserver: mark of service: %w", err)
	}
	if err := s.establishView(ctx); err != nil {
		s.unmarkServing(ctx)
		return fmt.Errorf("ionserver: view: %w", err)
	}
	if err := s.loadLeftovers(ctx); err != nil {
		return fmt.Errorf("ionserver: what an earlier run left: %w", err)
	}
	s.grace.begin(time.Now().Add(s.opt.Lease), slices.DeleteFunc(s.everybody(), func(at int) bool { return at == s.self }))
	return nil
}

// sweepSessions ends silent sessions until ctx ends. What that takes at PVFS2
// is done in goroutines of g, so that an absent server holds nobody up.
func (s *Server) sweepSessions(ctx context.Context, g *errgroup.Group) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		expired, next := s.sessions.expired(time.Now())
		tick.Reset(min(next, s.opt.Lease/5))
		for _, sess := range expired {
			s.log.Warn("session expired", "session", sess.id, "name", sess.name)
			if s.sessions.kill(sess) {
				s.locks.dropSession(sess.id)
				s.jobs.dropSession(sess.id, time.Now())
				s.home.grants.dropSession(sess)
				s.owner.dropSession(sess.id)
				g.Go(func() error { s.cleanUp(sess); return nil })
			}
		}
	}
}

// sweepFiles saves modification times, destroys orphans and forgets what is
// not used, until ctx ends.
func (s *Server) sweepFiles(ctx context.Context) error {
	tick := time.NewTicker(s.opt.Persist)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		s.endGrace(ctx, now)
		s.owner.expire(now)
		s.made.expire(now)
		s.opened.expire(now)
		s.believed.expire(now)
		s.home.grants.expire(now)
		s.home.dirs.expire(now)
		s.home.persistAll(ctx, s.opt.Lease)
		s.owner.keepTold(ctx, s.opt.Lease)
		s.home.retryOrphans(ctx)
	}
}

// endSession drops everything that a session held.
func (s *Server) endSession(sess *session) {
	if s.sessions.kill(sess) {
		s.locks.dropSession(sess.id)
		s.jobs.dropSession(sess.id, time.Now())
		s.home.grants.dropSession(sess)
		s.owner.dropSession(sess.id)
		s.cleanUp(sess)
	}
}

// cleanUp is the part of a session's end that PVFS2 sees.
func (s *Server) cleanUp(sess *session) {
	s.home.dropSession(s.work, sess)
	s.forgetSession(s.work, sess)
}

func (s *Server) fsid() uint32 { return uint32(s.pvfs.FSID()) }

func (s *Server) viewMsg() *ionpb.View {
	return &ionpb.View{
		Epoch: s.epoch, Members: s.opt.Peers, Fsid: s.fsid(), FsName: s.pvfs.FSName(),
		Root: uint64(s.pvfs.Root()), DomainSize: s.opt.DomainSize,
	}
}
