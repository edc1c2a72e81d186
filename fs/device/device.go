package device

import (
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxLarge is how many requests with data are carried out at once; each keeps a buffer
// of the greatest size that a request can have.
const maxLarge = 256

// Device is a FUSE device with a file system mounted on it.
type Device struct {
	fd       int
	fs       fuse.RawFileSystem
	proto    *fuse.ProtocolServer
	log      *slog.Logger
	panicked func(any) fuse.Status
	active   int       // loops that are to read, or to carry out a small request without waiting
	blank    []byte    // as long as the longest READ
	large    sync.Pool // of *[]byte: buffers for a request of any size
	spare    sync.Pool // of *loop: those that have ended

	mu      sync.Mutex
	loops   map[*loop]struct{}       // guarded by mu; those that run
	waiting int                      // guarded by mu; of their requests, how many wait or move much data
	long    map[<-chan struct{}]bool // guarded by mu; of those that move much, by what interrupts them
	gone    bool                     // guarded by mu; the kernel has let go of the mount
	big     atomic.Int32             // of their requests, how many keep a large buffer
	ended   sync.WaitGroup           // the loops
}

// Mount mounts fs at the directory point and answers the kernel's first request.
// Small requests are carried out by one processor fewer than Go may use: one is left
// for what they start, without which Go would look for work all the time.
// The mount is visible when it returns, but nothing else is answered until Serve.
//
// A READ of fs gets a buffer of which only the length means something, and returns
// memory of its own.
func Mount(fs fuse.RawFileSystem, point string, opt *fuse.MountOptions, log *slog.Logger) (*Device, error) {
	d := newDevice(fs, opt, log)
	var err error
	if d.fd, err = mount(point, opt); err != nil {
		return nil, err
	}
	if !d.newLoop().one() {
		syscall.Close(d.fd)
		return nil, errors.New("taken away again at once")
	}
	return d, nil
}

func newDevice(fs fuse.RawFileSystem, opt *fuse.MountOptions, log *slog.Logger) *Device {
	d := &Device{
		fs: fs, proto: fuse.NewProtocolServer(fs, opt), log: log, panicked: opt.PanicHandler,
		active: max(1, runtime.GOMAXPROCS(0)-1),
		blank:  make([]byte, opt.MaxWrite),
		loops:  make(map[*loop]struct{}),
		long:   make(map[<-chan struct{}]bool),
	}
	size := opt.MaxWrite + headRoom
	d.large.New = func() any { b := make([]byte, size); return &b }
	d.spare.New = func() any { return d.newLoop() }
	return d
}

// Serve answers requests until the kernel has let go of the mount and the last
// request has ended. It must be called exactly once.
func (d *Device) Serve() error {
	d.mu.Lock()
	for range d.active {
		d.startLocked()
	}
	d.mu.Unlock()
	d.ended.Wait()
	d.fs.OnUnmount()
	return syscall.Close(d.fd)
}

// startLocked starts one more loop.
func (d *Device) startLocked() {
	l := d.spare.Get().(*loop)
	d.loops[l] = struct{}{}
	d.ended.Go(l.run)
}

// Waits says that the request which cancel interrupts begins to wait for something,
// which may be another request. It must be said once, and Waited when the request is
// about to end.
func (d *Device) Waits(cancel <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.long[cancel] {
		return
	}
	d.waitsLocked()
}

// Waited ends Waits.
func (d *Device) Waited(cancel <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.long[cancel] {
		d.waiting--
	}
}

// waitsLocked has another loop take the place of one. mu is held.
func (d *Device) waitsLocked() {
	d.waiting++
	if len(d.loops)-d.waiting < d.active && d.big.Load() < maxLarge && !d.gone {
		d.startLocked()
	}
}

// move carries out a READ or a WRITE of so many bytes, which is as good as waiting if
// they are many.
func (d *Device) move(bytes uint32, cancel <-chan struct{}, do func()) {
	if bytes <= longSize {
		do()
		return
	}
	d.mu.Lock()
	d.long[cancel] = true
	d.waitsLocked()
	d.mu.Unlock()
	do()
	d.mu.Lock()
	delete(d.long, cancel)
	d.waiting--
	d.mu.Unlock()
}

// more reports whether l is to read another request; else it ends.
func (d *Device) more(l *loop) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.gone && len(d.loops)-d.waiting <= d.active {
		return true
	}
	delete(d.loops, l)
	return false
}

// stop has no more requests read, as l found that the kernel has let go of the mount.
// Those in progress are interrupted: nobody waits for them.
func (d *Device) stop(l *loop) {
	d.mu.Lock()
	again := d.gone
	d.gone = true
	others := maps.Clone(d.loops)
	d.mu.Unlock()
	if again {
		return
	}
	delete(others, l)
	for len(others) > 0 { // none is kept waiting by one that cannot be interrupted now
		maps.DeleteFunc(others, func(other *loop, _ struct{}) bool { return other.interrupt() })
		time.Sleep(time.Millisecond)
	}
}

// interrupted passes an interrupt of the request unique on if that is a READ or a
// WRITE in progress, and reports whether it is.
func (d *Device) interrupted(unique uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.loops {
		if l.cancelled(unique) {
			return true
		}
	}
	return false
}

// read and write call the file system, and have it fail if it panics.
func (d *Device) read(cancel <-chan struct{}, in *fuse.ReadIn) (r fuse.ReadResult, status fuse.Status) {
	defer d.recovered(&status)
	if int(in.Size) > len(d.blank) {
		return nil, fuse.EINVAL
	}
	return d.fs.Read(cancel, in, d.blank[:in.Size])
}

func (d *Device) write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (n uint32, status fuse.Status) {
	defer d.recovered(&status)
	return d.fs.Write(cancel, in, data)
}

func (d *Device) recovered(status *fuse.Status) {
	if v := recover(); v != nil {
		*status = d.panicked(v)
	}
}
