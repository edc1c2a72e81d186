package fs

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	maxDrops  = 8                     // files whose pages are being dropped at a time
	dropPause = 10 * time.Millisecond // between two drops of one file
	maxPaged  = 4096                  // files of which is known what pages they have; programs stay when they are closed
)

// pages knows of which files the kernel may hold pages, for mappings, sendfile(2)
// and splice(2), and has it drop them soon after the right to keep what they were
// filled with has ended. Nobody waits for that: see docs/ARCHITECTURE.md.
//
// A page is filled by a READ, which the kernel does not send on behalf of a lock
// owner. One that was under way when the right ended fills a page that may have been
// dropped already; so the pages are dropped once more when its answer has been handed
// over.
type pages struct {
	point string
	log   *slog.Logger
	open  *openModes
	wake  chan struct{} // capacity 1: something is due

	mu       sync.Mutex
	files    map[uint64]*paged   // by handle; guarded by mu
	due      []*paged            // those with a time to drop; guarded by mu
	droppers map[uint32]struct{} // threads that have pages dropped; guarded by mu
}

// paged is a file of which the kernel may hold pages, open on this node or a program. All
// fields are guarded by pages.mu.
type paged struct {
	node     *node     // that was used last
	kernel   uint64    // the kernel's number of node, 0 if not known
	era      uint64    // moves when what was read before may not be kept any more; not 0
	clean    uint64    // the era from which all pages are that the kernel has; another one: not all
	program  bool      // it was executed
	fills    int       // READs that fill pages, until their answers are handed over
	filled   bool      // pages were filled since the last drop began
	drop     time.Time // when the pages are to be dropped; zero: they may stay
	dropping bool
	dropped  time.Time // when the last drop ended
}

func newPages(point string, log *slog.Logger, open *openModes) *pages {
	return &pages{
		point: point, log: log, open: open, wake: make(chan struct{}, 1),
		files: make(map[uint64]*paged), droppers: make(map[uint32]struct{}),
	}
}

// stale tells that what was read of a file before may not be kept any more.
func (p *pages) stale(handle uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.files[handle]
	if f == nil {
		return
	}
	f.era++
	if f.filled && p.open.any(handle) {
		p.dropLocked(f, time.Now())
	}
}

// wrote tells that this node has changed a file, or is going to; the kernel knows.
func (p *pages) wrote(handle uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.files[handle]; f != nil {
		f.era++
	}
}

// execute begins an open of n to execute it, in which the kernel reads by way of its
// pages. It may keep those that it has if all were filled under leases that this node
// has still, which leased tells. Else it drops them, and those that come are clean.
func (p *pages) execute(n *node, leased bool) (era uint64, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fileLocked(n)
	f.program = true
	return f.era, leased && f.clean == f.era && f.fills == 0 && f.drop.IsZero() && !f.dropping
}

func (p *pages) fileLocked(n *node) *paged {
	f := p.files[n.handle]
	if f == nil {
		f = &paged{era: 1}
		p.files[n.handle] = f
	}
	f.node = n
	return f
}

// closed tells that a file was closed. Once nobody has it open its pages need not be
// dropped: the next open does.
func (p *pages) closed(handle uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.files[handle]; f != nil && !p.open.any(handle) {
		p.undueLocked(f)
		if !f.program || f.clean != f.era || len(p.files) > maxPaged {
			delete(p.files, handle)
		}
	}
}

// dropLocked has the pages of f dropped at that time. mu is held.
func (p *pages) dropLocked(f *paged, at time.Time) {
	if pause := f.dropped.Add(dropPause); at.Before(pause) {
		at = pause
	}
	switch {
	case f.drop.IsZero():
		p.due = append(p.due, f)
	case f.drop.Before(at):
		return
	}
	f.drop = at
	p.wakeUp()
}

func (p *pages) undueLocked(f *paged) {
	f.drop = time.Time{}
	p.due = slices.DeleteFunc(p.due, func(x *paged) bool { return x == f })
}

// fill is a READ by which the kernel fills pages.
type fill struct {
	p    *pages
	f    *paged
	era  uint64
	keep time.Time // until when what it has brought may be kept; zero: until stale
}

// fill begins one of n, through an open that began in an era if it is to execute it.
func (p *pages) fill(n *node, opened uint64) fill {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fileLocked(n)
	if f.era == opened {
		f.clean = opened
	}
	f.fills++
	f.filled = true
	return fill{p: p, f: f, era: f.era}
}

// until tells until when what it has brought may be kept, before it is handed over.
func (l *fill) until(keep time.Time) {
	if l.keep = keep; keep.IsZero() {
		return
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.f.era++; l.era == l.f.era-1 {
		l.era = l.f.era
	}
}

// of tells the kernel's number of the file.
func (l *fill) of(kernel uint64) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.f.kernel = kernel
}

// end is called when the answer has been handed over.
func (l *fill) end() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.f.fills--
	switch {
	case l.f.era != l.era:
		l.p.dropLocked(l.f, time.Now())
	case !l.keep.IsZero():
		l.p.dropLocked(l.f, l.keep)
	}
}

// pageResult is the answer to a READ that fills pages.
type pageResult struct {
	*readResult
	fill fill
}

func (r *pageResult) Done() {
	r.readResult.Done()
	r.fill.end()
}

// readPages is Read of what the kernel fills pages with.
func (n *node) readPages(c *call, f *openFile, off int64, size int) (fuse.ReadResult, error) {
	fill, asked := n.m.pages.fill(n, f.era), time.Now()
	data, err := f.Read(c, off, size)
	if err != nil {
		fill.end()
		return nil, err
	}
	fill.until(f.KeepUntil(data, off, size, asked))
	if data.Len() == 0 { // go-fuse does not call Done for nothing
		data.Release()
		fill.end()
		return fuse.ReadResultData(nil), nil
	}
	return &pageResult{(*readResult)(data), fill}, nil
}

// run drops pages until ctx is done and the last thread that does has ended.
func (p *pages) run(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(maxDrops)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		f, next := p.next(time.Now())
		if f != nil {
			group.Go(func() error { p.dropNow(f); return nil })
			continue
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer.C:
		}
	}
	return group.Wait()
}

// next begins to drop the pages of a file that is due, or tells how long none is.
func (p *pages) next(now time.Time) (f *paged, after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	after = time.Hour
	for _, f := range p.due {
		switch left := f.drop.Sub(now); {
		case f.dropping:
		case left > 0:
			after = min(after, left)
		default:
			p.undueLocked(f)
			f.dropping, f.filled = true, f.fills > 0
			return f, 0
		}
	}
	return nil, after
}

// dropNow has the kernel drop the pages of a file, those that are dirty after it has
// written them back.
func (p *pages) dropNow(f *paged) {
	p.mu.Lock()
	node, kernel := f.node, f.kernel
	p.mu.Unlock()
	if err := p.reopen(node, kernel); err != nil {
		p.log.Debug("pages are not dropped", "handle", node.handle, "err", err)
	}
	p.ended(f)
}

// ended tells that a drop is over.
func (p *pages) ended(f *paged) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.dropping, f.dropped = false, time.Now()
	if !f.drop.IsZero() {
		f.drop = f.dropped.Add(dropPause)
		p.wakeUp()
	}
}

func (p *pages) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// fuseHandleType is FILEID_INO64_GEN, and fuse_fh_to_dentry its reader.
// Source: fs/fuse/inode.c of Linux 6.18.
const fuseHandleType = 0x81

// reopen opens a file as a program would, upon which the kernel drops its pages.
//
// To notify the kernel instead would be a call on the FUSE device that waits for
// pages that are being read. If this process were killed meanwhile, the device would
// stay open until that call ends, and the READ that it waits for unanswered until the
// device is closed. So this thread has no device, see Server.flushPages, and whatever
// it waits for ends when the others have gone.
func (p *pages) reopen(n *node, kernel uint64) error {
	root, err := openApart(p.point)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	thread := uint32(unix.Gettid())
	p.mu.Lock()
	p.droppers[thread] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.droppers, thread)
		p.mu.Unlock()
	}()
	id := binary.NativeEndian.AppendUint32(nil, uint32(kernel>>32))
	id = binary.NativeEndian.AppendUint32(id, uint32(kernel))
	id = binary.NativeEndian.AppendUint32(id, uint32(n.StableAttr().Gen))
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(fuseHandleType, id), flags)
	if err != nil { // it takes CAP_DAC_READ_SEARCH
		fd, err = unix.Openat(root, n.Path(nil), flags|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// dropHandle is what the kernel knows an open file by that reopen has opened; go-fuse
// counts its own from 1.
const dropHandle = 1 << 63

// drops reports whether a thread has pages dropped.
func (p *pages) drops(thread uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.droppers[thread]
	return ok
}

// openDrop is the answer to reopen.
func openDrop(out *fuse.OpenOut) fuse.Status {
	out.Fh, out.OpenFlags = dropHandle, fuse.FOPEN_DIRECT_IO|fuse.FOPEN_NOFLUSH
	return fuse.OK
}
