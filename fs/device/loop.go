package device

import (
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The operations that are not left to go-fuse, or need more room than others.
const (
	opRead        = 15
	opWrite       = 16
	opGetXAttr    = 22
	opListXAttr   = 23
	opReadDir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opReadDirPlus = 44
)

// readAgain is when reading is tried again that failed for no known reason.
const readAgain = 100 * time.Millisecond

const (
	headRoom  = 4096     // for what precedes the data of a request
	smallSize = 512      // of requests that are taken out of the large buffer
	replyRoom = 16 << 10 // for a reply, besides data that is asked for by size
	longSize  = 64 << 10 // of data that take long to move
	headSize  = int(unsafe.Sizeof(fuse.OutHeader{}))
)

// loop reads requests and carries them out, one at a time.
type loop struct {
	d     *Device
	small [smallSize]byte
	reply []byte   // of what go-fuse answers
	head  struct { // of a reply to READ or WRITE
		fuse.OutHeader
		fuse.WriteOut
	}
	iov []syscall.Iovec // of a reply to READ

	mu     sync.Mutex
	unique uint64        // guarded by mu; of the request that is carried out; 0: none
	direct bool          // guarded by mu; it is a READ or a WRITE
	cancel chan struct{} // of that; closed when it is interrupted
	closed bool          // guarded by mu
	over   bool          // guarded by mu; it has ended
}

func (d *Device) newLoop() *loop {
	return &loop{d: d, reply: make([]byte, replyRoom), cancel: make(chan struct{})}
}

// run is the loop.
func (l *loop) run() {
	l.setOver(false)
	for l.d.more(l) {
		if !l.one() {
			l.d.stop(l)
		}
	}
	l.setOver(true)
	l.d.spare.Put(l)
}

func (l *loop) setOver(over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = over
}

// one reads a request and carries it out; false if the kernel has let go of the
// mount.
func (l *loop) one() bool {
	d := l.d
	large := d.large.Get().(*[]byte)
	n, ok := d.next(*large)
	in := (*large)[:n]
	if n > smallSize {
		d.big.Add(1)
		defer d.big.Add(-1)
		defer d.large.Put(large)
	} else {
		in = l.small[:copy(l.small[:], in)]
		d.large.Put(large)
	}
	if ok {
		l.handle(in)
	}
	return ok
}

// next reads a request; false if the kernel has let go of the mount.
func (d *Device) next(buf []byte) (n int, ok bool) {
	for {
		n, err := syscall.Read(d.fd, buf)
		switch err {
		case nil:
			return n, true
		case syscall.ENODEV, syscall.ECONNABORTED:
			return 0, false
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT: // the last: who asked has gone
		default:
			d.log.Error("read a request from the kernel", "err", err)
			time.Sleep(readAgain)
		}
	}
}

// as is what in starts with; zeros if in is too short.
func as[T any](in []byte) *T {
	var zero T
	if len(in) < int(unsafe.Sizeof(zero)) {
		return new(T) // go-fuse will refuse it
	}
	return (*T)(unsafe.Pointer(&in[0]))
}

// handle carries a request out, and replies. What is too short is left to go-fuse,
// which says so.
func (l *loop) handle(in []byte) {
	head := as[fuse.InHeader](in)
	switch {
	case head.Opcode == opRead && len(in) >= int(unsafe.Sizeof(fuse.ReadIn{})):
		l.begin(head.Unique, true)
		in := as[fuse.ReadIn](in)
		l.d.move(in.Size, l.cancel, func() { l.read(in) })
	case head.Opcode == opWrite && len(in) >= int(unsafe.Sizeof(fuse.WriteIn{})):
		l.begin(head.Unique, true)
		in, data := as[fuse.WriteIn](in), in[unsafe.Sizeof(fuse.WriteIn{}):]
		l.d.move(in.Size, l.cancel, func() { l.write(in, data) })
	case head.Opcode == opInterrupt && l.d.interrupted(as[fuse.InterruptIn](in).Unique):
		return // an interrupt that was passed on is not answered
	default:
		l.begin(head.Unique, false)
		l.pass(head, in)
	}
	l.end()
}

// pass has go-fuse carry a request out.
func (l *loop) pass(head *fuse.InHeader, in []byte) {
	room := replyRoom
	switch head.Opcode {
	case opRead, opReadDir, opReadDirPlus:
		room += int(as[fuse.ReadIn](in).Size)
	case opGetXAttr, opListXAttr:
		room += int(as[fuse.GetXAttrIn](in).Size)
	case opIoctl:
		room += int(as[fuse.IoctlIn](in).OutSize)
	}
	if len(l.reply) < room {
		l.reply = make([]byte, room)
	}
	n, status := l.d.proto.HandleRequest([][]byte{in}, [][]byte{l.reply})
	switch {
	case !status.Ok():
		l.fail(head.Unique, status)
	case n > 0:
		l.d.reply(unsafe.Pointer(&l.reply[0]), uintptr(n))
	}
}

// read carries out a READ: the data goes to the kernel from where it lies.
func (l *loop) read(in *fuse.ReadIn) {
	result, status := l.d.read(l.cancel, in)
	if !status.Ok() {
		l.fail(in.Unique, status)
		return
	}
	defer result.Done()
	data, status := slices(result)
	if !status.Ok() {
		l.fail(in.Unique, status)
		return
	}
	n := headSize
	l.iov = append(l.iov[:0], syscall.Iovec{Base: (*byte)(unsafe.Pointer(&l.head)), Len: uint64(headSize)})
	for _, p := range data {
		if len(p) > 0 {
			l.iov = append(l.iov, syscall.Iovec{Base: &p[0], Len: uint64(len(p))})
			n += len(p)
		}
	}
	l.head.OutHeader = fuse.OutHeader{Length: uint32(n), Unique: in.Unique}
	_, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(l.d.fd), uintptr(unsafe.Pointer(&l.iov[0])), uintptr(len(l.iov)))
	l.d.replied(errno)
	clear(l.iov)
}

// slices is where the data of a result lies.
func slices(r fuse.ReadResult) ([][]byte, fuse.Status) {
	if s, ok := r.(interface {
		Slices() ([][]byte, fuse.Status)
	}); ok {
		return s.Slices()
	}
	b, status := r.Bytes(nil)
	return [][]byte{b}, status
}

// write carries out a WRITE.
func (l *loop) write(in *fuse.WriteIn, data []byte) {
	n, status := l.d.write(l.cancel, in, data)
	if !status.Ok() {
		l.fail(in.Unique, status)
		return
	}
	l.head.WriteOut = fuse.WriteOut{Size: n}
	l.send(in.Unique, 0, unsafe.Sizeof(l.head))
}

// fail replies that a request failed.
func (l *loop) fail(unique uint64, status fuse.Status) {
	l.send(unique, status, unsafe.Sizeof(l.head.OutHeader))
}

// send replies with the first n bytes of l.head.
func (l *loop) send(unique uint64, status fuse.Status, n uintptr) {
	l.head.OutHeader = fuse.OutHeader{Length: uint32(n), Status: -int32(status), Unique: unique}
	l.d.reply(unsafe.Pointer(&l.head), n)
}

// reply sends n bytes at p to the kernel, which takes them without waiting for
// anything.
func (d *Device) reply(p unsafe.Pointer, n uintptr) {
	_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(d.fd), uintptr(p), n)
	d.replied(errno)
}

// replied looks at how a reply went. ENOENT: who asked does not wait any more;
// ENODEV: the mount is gone.
func (d *Device) replied(errno syscall.Errno) {
	switch errno {
	case 0, syscall.ENOENT, syscall.ENODEV:
	default:
		d.log.Warn("the kernel does not take a reply", "err", errno)
	}
}

// begin notes which request is carried out now; direct if by this package.
func (l *loop) begin(unique uint64, direct bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unique, l.direct = unique, direct
}

// end ends begin.
func (l *loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unique = 0
	if l.closed {
		l.cancel, l.closed = make(chan struct{}), false
	}
}

// cancelled interrupts the request unique if it is carried out here directly, and
// reports whether it is.
func (l *loop) cancelled(unique uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.direct || l.unique != unique {
		return false
	}
	if !l.closed {
		close(l.cancel)
		l.closed = true
	}
	return true
}

// interrupt interrupts what l carries out, and reports whether it has or nothing
// will come any more.
func (l *loop) interrupt() bool {
	l.mu.Lock()
	unique, over := l.unique, l.over
	l.mu.Unlock()
	switch {
	case over:
		return true
	case unique == 0: // it is about to begin, or to end
		return false
	case l.cancelled(unique):
		return true
	}
	in := fuse.InterruptIn{InHeader: fuse.InHeader{Opcode: opInterrupt}, Unique: unique}
	in.Length = uint32(unsafe.Sizeof(in))
	request := unsafe.Slice((*byte)(unsafe.Pointer(&in)), in.Length)
	n, _ := l.d.proto.HandleRequest([][]byte{request}, [][]byte{make([]byte, replyRoom)})
	return n == 0 // else go-fuse does not know the request, yet or any more
}
