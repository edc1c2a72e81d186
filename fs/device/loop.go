package device

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The operations that are not left to go-fuse, or need more room than others.
const (
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
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
	headRoom   = 4096     // for what precedes the data of a request
	smallSize  = 512      // of requests that are taken out of the large buffer
	replyRoom  = 16 << 10 // for a reply, besides data that is asked for by size
	longSize   = 64 << 10 // of data that take long to move
	headSize   = int(unsafe.Sizeof(fuse.OutHeader{}))
	inHeadSize = int(unsafe.Sizeof(fuse.InHeader{}))
)

// loop takes requests and carries them out, one at a time.
type loop struct {
	d     *Device
	q     *queue
	entry *entry // that the request is in; nil: it was read from the device
	small [smallSize]byte
	reply []byte   // of what go-fuse answers
	head  struct { // of a reply to READ or WRITE
		fuse.OutHeader
		fuse.WriteOut
	}
	iov []syscall.Iovec // of a reply to READ

	// Guarded by q.mu.
	unique uint64        // of the request that is carried out; 0: none
	direct bool          // it is a READ or a WRITE
	waits  bool          // it waits, or moves much data
	cancel chan struct{} // of that; closed when it is interrupted
	closed bool
	over   bool // the loop has ended

	again chan bool // has it go on; closed when it need not any more
}

func (q *queue) newLoop() *loop {
	return &loop{d: q.d, q: q, reply: make([]byte, replyRoom), cancel: make(chan struct{}), again: make(chan bool, 1)}
}

// run is the loop.
func (l *loop) run() {
	if l.q.ring != nil {
		l.q.ring.own()
	}
	for again := true; again; {
		if l.q.ring != nil {
			l.q.settle()
		}
		for l.q.more(l) {
			if !l.one() {
				l.d.stop(l)
			}
		}
		if l.q.ring != nil {
			l.q.ring.tell()
		}
		again = <-l.again
	}
}

// one takes a request and carries it out; false if the kernel has let go of the
// mount.
func (l *loop) one() bool {
	if l.q.ring != nil {
		return l.fromRing()
	}
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

// fromRing is one of a loop that takes requests from a ring.
func (l *loop) fromRing() bool {
	e, err := l.q.ring.next()
	if err != nil {
		if err != errLetGo {
			l.d.log.Warn("the kernel does not take an entry of a ring", "err", err)
		}
		return err != errLetGo
	}
	l.entry = e
	l.handle(e.request())
	l.entry = nil
	return true
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
		in := as[fuse.ReadIn](in)
		l.q.begin(l, head.Unique, true, in.Size > longSize)
		l.read(in)
	case head.Opcode == opWrite && len(in) >= int(unsafe.Sizeof(fuse.WriteIn{})):
		in, data := as[fuse.WriteIn](in), in[unsafe.Sizeof(fuse.WriteIn{}):]
		l.q.begin(l, head.Unique, true, in.Size > longSize)
		l.write(in, data)
	case head.Opcode == opInterrupt && len(in) >= int(unsafe.Sizeof(fuse.InterruptIn{})):
		l.interruption(as[fuse.InterruptIn](in))
		return
	case l.entry != nil && l.q.pulled(l.entry, head):
		return
	default:
		l.q.begin(l, head.Unique, false, false)
		l.pass(head, in)
	}
	l.q.end(l)
}

// interruption carries out an INTERRUPT, which is not answered if it is done.
func (l *loop) interruption(in *fuse.InterruptIn) {
	switch {
	case l.d.interrupt(in.Unique):
	case l.d.OverRings():
		l.d.ended.Go(func() { l.d.interruptSoon(in.Unique) })
	default:
		l.fail(in.InHeader.Unique, fuse.EAGAIN) // the kernel will say it again
	}
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
	case l.entry != nil && n >= headSize:
		l.entry.answer(*as[fuse.OutHeader](l.reply), l.reply[headSize:n])
	case l.entry != nil: // go-fuse knows that nobody waits for it
		l.fail(head.Unique, fuse.EINTR)
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
	data, status := pieces(result)
	if !status.Ok() {
		l.fail(in.Unique, status)
		return
	}
	if l.entry != nil {
		l.entry.answer(fuse.OutHeader{Unique: in.Unique}, data...)
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

// pieces is where the data of a result lies.
func pieces(r fuse.ReadResult) ([][]byte, fuse.Status) {
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
	if l.entry != nil {
		l.entry.answer(l.head.OutHeader, unsafe.Slice((*byte)(unsafe.Pointer(&l.head)), n)[headSize:])
		return
	}
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

// interruptLocked interrupts the READ or WRITE that l carries out. q.mu is held.
func (l *loop) interruptLocked() {
	if !l.closed {
		close(l.cancel)
		l.closed = true
	}
}

// interrupt interrupts what l carries out, and reports whether it has or nothing
// will come any more.
func (l *loop) interrupt() bool {
	l.q.mu.Lock()
	unique, over := l.unique, l.over
	l.q.mu.Unlock()
	switch {
	case over:
		return true
	case unique == 0: // it is about to begin, or to end
		return false
	}
	return l.d.interrupt(unique)
}
