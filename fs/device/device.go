package device

import (
	"errors"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxLarge is how many requests with data are carried out at once; each keeps a buffer
// of the greatest size that a request can have.
const maxLarge = 256

// onItsWay is more than half of how long a request can take from the kernel to who
// carries it out.
const onItsWay = time.Second

// Device is a FUSE device with a file system mounted on it.
type Device struct {
	fd       int
	point    string
	fs       fuse.RawFileSystem
	proto    *fuse.ProtocolServer
	log      *slog.Logger
	panicked func(any) fuse.Status
	blank    []byte         // as long as the longest READ
	large    sync.Pool      // of *[]byte: buffers for a request of any size
	queues   []*queue       // of the device, and then those of the processors, if any
	big      atomic.Int32   // requests in progress that keep a large buffer
	gone     atomic.Bool    // the kernel has let go of the mount
	pullers  sync.Map       // of chan bool by thread, see queue.pull
	ended    sync.WaitGroup // the loops, and who else asks something
}

// Mount mounts fs at the directory point and answers the kernel's first request.
// Small requests are carried out by one processor fewer than Go may use: one is left
// for what they start, without which Go would look for work all the time.
// The mount is visible when it returns, but nothing else is answered until Serve.
//
// If opt asks for fuse.CAP_OVER_IO_URING and the kernel offers it, requests come
// through an io_uring for each processor, besides the device.
//
// A READ of fs gets a buffer of which only the length means something, and returns
// memory of its own.
func Mount(fs fuse.RawFileSystem, point string, opt *fuse.MountOptions, log *slog.Logger) (*Device, error) {
	rings := ringsFor(opt, log)
	if rings == nil {
		without := *opt
		without.ExtraCapabilities &^= fuse.CAP_OVER_IO_URING
		opt = &without
	}
	d := newDevice(fs, opt, log)
	d.point = point
	var err error
	if d.fd, err = mount(point, opt); err != nil {
		closeRings(rings)
		return nil, err
	}
	first := d.queues[0].newLoop()
	if !first.one() {
		closeRings(rings)
		syscall.Close(d.fd)
		return nil, errors.New("taken away again at once")
	}
	if as[initReply](first.reply).Flags64()&fuse.CAP_OVER_IO_URING == 0 {
		closeRings(rings)
		return d, nil
	}
	for _, r := range rings {
		r.dev = d.fd
		d.queues = append(d.queues, d.newQueue(r, 1))
	}
	return d, nil
}

// initReply is the reply to the kernel's first request.
type initReply struct {
	fuse.OutHeader
	fuse.InitOut
}

// ringsFor makes what opt asks for, if it can.
func ringsFor(opt *fuse.MountOptions, log *slog.Logger) []*ring {
	if opt.ExtraCapabilities&fuse.CAP_OVER_IO_URING == 0 {
		return nil
	}
	rings, err := newRings(opt.MaxWrite)
	if err != nil {
		log.Debug("FUSE goes without io_uring", "err", err)
	}
	return rings
}

func newDevice(fs fuse.RawFileSystem, opt *fuse.MountOptions, log *slog.Logger) *Device {
	d := &Device{
		fs: fs, proto: fuse.NewProtocolServer(fs, opt), log: log, panicked: opt.PanicHandler,
		blank: make([]byte, opt.MaxWrite),
	}
	size := opt.MaxWrite + headRoom
	d.large.New = func() any { b := make([]byte, size); return &b }
	d.queues = []*queue{d.newQueue(nil, max(1, runtime.GOMAXPROCS(0)-1))}
	return d
}

// OverRings reports whether requests come through an io_uring.
func (d *Device) OverRings() bool { return len(d.queues) > 1 }

// Serve answers requests until the kernel has let go of the mount and the last
// request has ended. It must be called exactly once.
func (d *Device) Serve() error {
	for _, q := range d.queues {
		q.start()
	}
	d.ended.Wait()
	d.fs.OnUnmount()
	for _, q := range d.queues[1:] {
		q.ring.close()
	}
	return syscall.Close(d.fd)
}

// Waits says that the request which cancel interrupts begins to wait for something,
// which may be another request.
func (d *Device) Waits(cancel <-chan struct{}) {
	for _, direct := range []bool{true, false} {
		for _, q := range d.queues {
			if q.waits(cancel, direct) && direct {
				return
			}
		}
	}
}

// stop has no more requests taken, as l found that the kernel has let go of the mount.
// Those in progress are interrupted: nobody waits for them.
func (d *Device) stop(l *loop) {
	if d.gone.Swap(true) {
		return
	}
	others := make(map[*loop]struct{})
	for _, q := range d.queues {
		maps.Copy(others, q.stop())
		if q.ring != nil {
			q.ring.end()
		}
	}
	delete(others, l)
	for len(others) > 0 { // none is kept waiting by one that cannot be interrupted now
		maps.DeleteFunc(others, func(other *loop, _ struct{}) bool { return other.interrupt() })
		time.Sleep(time.Millisecond)
	}
}

// interrupt interrupts the request unique, and reports whether it is in progress.
func (d *Device) interrupt(unique uint64) bool {
	if slices.ContainsFunc(d.queues, func(q *queue) bool { return q.interrupted(unique) }) {
		return true
	}
	in := fuse.InterruptIn{InHeader: fuse.InHeader{Opcode: opInterrupt, Unique: math.MaxUint64}, Unique: unique}
	in.Length = uint32(unsafe.Sizeof(in))
	request := unsafe.Slice((*byte)(unsafe.Pointer(&in)), in.Length)
	n, _ := d.proto.HandleRequest([][]byte{request}, [][]byte{make([]byte, replyRoom)})
	return n == 0 // else go-fuse does not know the request, yet or any more
}

// interruptSoon is interrupt of a request that is perhaps still on its way: an
// interrupt comes from the device and may overtake it.
func (d *Device) interruptSoon(unique uint64) {
	for wait := time.Millisecond; wait < onItsWay && !d.gone.Load(); wait *= 2 {
		time.Sleep(wait)
		if d.interrupt(unique) {
			return
		}
	}
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
