package device

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What of io_uring is used here, and of its FUSE commands.
// Source: include/uapi/linux/io_uring.h and fuse.h of Linux 6.18.
const (
	setupSQE128       = 1 << 10
	setupNoSQArray    = 1 << 16
	enterGetEvents    = 1
	setupNoMmap       = 1 << 14
	sqeSize, cqeSize  = 128, 16
	opNop, opURingCmd = 0, 46
	cmdRegister       = 1 // an entry, and fetch a request into it
	cmdCommitAndFetch = 2 // reply from an entry, and fetch the next into it
)

const (
	// ringEntries is how many requests of a processor can be in progress before the
	// first begins to wait: each that does adds room for one more.
	ringEntries = 32
	ringSize    = 64 // of the submission queue; the completions' is twice as long, and the kernel keeps what does not fit
	page        = 4096
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		user                                                uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		user                                                uint64
	}
}

// sqe is a submission: an IORING_OP_URING_CMD with a struct fuse_uring_cmd_req.
type sqe struct {
	opcode, flags    uint8
	ioprio           uint16
	fd               int32
	cmd, _           uint32
	addr             uint64 // of an entry's iov
	n, cmdFlags      uint32
	user             uint64 // the number of the entry
	_                uint64
	reqFlags, commit uint64
	qid              uint16
	_                [62]byte
}

type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

// entryHead is struct fuse_uring_req_header: what comes with a request and goes with
// its reply, besides the payload.
type entryHead struct {
	inOut         [128]byte // fuse_in_header; of the reply, fuse_out_header
	op            [128]byte // what is next in the request, if it has a fixed size
	flags, commit uint64
	payload, _    uint32 // bytes
	_             uint64
}

// entry is memory for a request and its reply. The payload begins at the second page
// and what precedes it in the request is copied to before it.
type entry struct {
	id   uint64
	mem  []byte
	head *entryHead       // at the start of mem
	iov  [2]syscall.Iovec // head, payload
	ring *ring
}

// ring is the queue of one processor's requests in the kernel, and an io_uring to
// take them from. A request and the reply to the one before cost one system call
// instead of two, and a request is carried out on the processor that asks, if it is
// idle while the caller sleeps.
// Source: Documentation/filesystems/fuse/fuse-io-uring.rst of Linux.
type ring struct {
	fd          int
	dev         int    // the FUSE device
	qid         uint16 // of the processor
	size        int    // bytes of a payload
	rings, sqes []byte // memory that the kernel uses, too
	p           ringParams

	mu      sync.Mutex
	entries []*entry // guarded by mu
	taken   int      // guarded by mu; entries with a request in progress
}

// over is the number of no entry: with it nothing more will come.
const over = ^uint64(0)

// newRings makes a ring for each processor that the machine may have. It fails where
// io_uring is not to be had.
func newRings(maxWrite int) (rings []*ring, err error) {
	n, err := processors()
	if err == nil {
		err = reachable(n)
	}
	if err != nil {
		return nil, err
	}
	for qid := range n {
		r, err := newRing(qid, maxWrite)
		if err != nil {
			closeRings(rings)
			return nil, err
		}
		rings = append(rings, r)
	}
	return rings, nil
}

func closeRings(rings []*ring) {
	for _, r := range rings {
		r.close()
	}
}

// processors is how many processors the kernel has a queue for.
func processors() (int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return 0, err
	}
	first, last, ok := strings.Cut(strings.TrimSpace(string(b)), "-")
	n := 0
	if ok {
		n, err = strconv.Atoi(last)
	}
	if first != "0" || err != nil {
		return 0, errors.New("the processors are not numbered without gaps")
	}
	return n + 1, nil
}

// reachable fails if this process may not run on one of n processors that is online: it
// could not have the kernel pass on what is behind on its ring (queue.pull).
func reachable(n int) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- runOnAll(n)
	}()
	return <-done
}

func runOnAll(n int) error {
	for cpu := range n {
		b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu))
		if err == nil && len(b) > 0 && b[0] == '0' {
			continue
		}
		if err := runOn(cpu); err != nil {
			return err
		}
	}
	return nil
}

// runOn has the calling thread run on the processor cpu alone.
func runOn(cpu int) error {
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("run on processor %d: %w", cpu, err)
	}
	return nil
}

func newRing(qid, maxWrite int) (*ring, error) {
	r := &ring{fd: -1, qid: uint16(qid), size: (max(maxWrite, 2*page) + page - 1) / page * page}
	// The kernel may be given our memory, but must not be asked for its own: such a
	// mapping would keep the io_uring, and that the device, open after this process was
	// killed, for as long as a thread of it waits for a request of its own.
	var err error
	if r.rings, err = anonymous(page); err != nil {
		return nil, err
	}
	if r.sqes, err = anonymous(ringSize * sqeSize); err != nil {
		r.close()
		return nil, err
	}
	r.p.flags = setupSQE128 | setupNoSQArray | setupNoMmap
	r.p.cq.user, r.p.sq.user = addr(r.rings), addr(r.sqes)
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno != 0 {
		r.close()
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r.fd = int(fd)
	return r, nil
}

// anonymous is n bytes of memory, which begins with a page.
func anonymous(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	return mem, os.NewSyscallError("mmap", err)
}

// addr is where mem lies.
func addr(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&mem[0]))) }

// close gives everything back. No request may be in progress.
func (r *ring) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
	for _, m := range [][]byte{r.rings, r.sqes} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	for _, e := range r.entries {
		_ = unix.Munmap(e.mem)
	}
}

// at is a number that is shared with the kernel.
func (r *ring) at(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }

// makeRoom has as many entries for requests that are not waited for as there were at
// first, where so many loops take them. It reports whether there have been too few:
// requests may be behind, which the kernel passes on only when it gets a reply.
func (r *ring) makeRoom(loops int) (behind bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	came := int(atomic.LoadUint32(r.at(r.p.cq.tail)) - *r.at(r.p.cq.head))
	behind = len(r.entries) > 0 && r.taken+came >= len(r.entries)
	need := loops + ringEntries - len(r.entries)
	if behind {
		need = ringEntries // that one is left for who asks to have them passed on
	}
	err = r.growLocked(need)
	r.tellLocked()
	return behind, err
}

// passed is how many requests the kernel has passed on, modulo 1<<32.
func (r *ring) passed() uint32 { return atomic.LoadUint32(r.at(r.p.cq.tail)) }

// errLetGo says that the kernel has let go of the mount.
var errLetGo = errors.New("let go")

// letGo reports whether err says so.
func letGo(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENODEV)
}

// own binds the caller to a thread of its own, on the ring's processor if the process
// may use that. The kernel puts a request into an entry by the thread that gave the
// entry back last. So that must be one that does nothing else, least of all ask for
// something on this mount, and that does not end before the mount.
func (r *ring) own() {
	runtime.LockOSThread()
	var may unix.CPUSet
	if cpu := int(r.qid); unix.SchedGetaffinity(0, &may) == nil && may.IsSet(cpu) {
		_ = runOn(cpu)
	}
}

// growLocked adds n entries. mu is held.
func (r *ring) growLocked(n int) error {
	for range max(n, 0) {
		mem, err := anonymous(page + r.size)
		if err != nil {
			return err
		}
		e := &entry{id: uint64(len(r.entries)), mem: mem, head: (*entryHead)(unsafe.Pointer(&mem[0])), ring: r}
		e.iov[0] = syscall.Iovec{Base: &mem[0], Len: uint64(unsafe.Sizeof(*e.head))}
		e.iov[1] = syscall.Iovec{Base: &mem[page], Len: uint64(r.size)}
		r.entries = append(r.entries, e)
		r.submitLocked(cmdRegister, e)
	}
	return nil
}

// submitLocked puts a command with e where the kernel finds it once it is told. mu is
// held.
func (r *ring) submitLocked(cmd uint32, e *entry) {
	r.putLocked(sqe{
		opcode: opURingCmd, fd: int32(r.dev), cmd: cmd,
		addr: uint64(uintptr(unsafe.Pointer(&e.iov[0]))), n: uint32(len(e.iov)),
		user: e.id, commit: e.head.commit, qid: r.qid,
	})
}

func (r *ring) putLocked(s sqe) {
	if r.unsent() == r.p.sqEntries {
		r.tellLocked()
	}
	tail := r.at(r.p.sq.tail)
	i := *tail & (r.p.sqEntries - 1)
	*(*sqe)(unsafe.Pointer(&r.sqes[i*sqeSize])) = s
	atomic.StoreUint32(tail, *tail+1)
}

// unsent is how many submissions the kernel has not taken.
func (r *ring) unsent() uint32 {
	return atomic.LoadUint32(r.at(r.p.sq.tail)) - atomic.LoadUint32(r.at(r.p.sq.head))
}

// end wakes all who wait for a request: nothing more will come.
func (r *ring) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putLocked(sqe{opcode: opNop, user: over})
	r.tellLocked()
}

// tellLocked tells the kernel of all submissions. mu is held.
func (r *ring) tellLocked() {
	for n := r.unsent(); n > 0; n = r.unsent() {
		_, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, enterGetEvents, 0, 0)
		if errno != 0 && errno != syscall.EINTR && errno != syscall.EAGAIN {
			return
		}
	}
}

// reply has the kernel take the reply in e, when next it is told of something.
func (r *ring) reply(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken--
	r.submitLocked(cmdCommitAndFetch, e)
}

// tell tells the kernel of the replies.
func (r *ring) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLocked()
}

// next waits for a request, unless the kernel has let go of the mount (errLetGo) or
// does not take an entry. It tells the kernel of the replies before.
func (r *ring) next() (*entry, error) {
	for {
		e, err := r.look()
		if e != nil || err != nil {
			return e, err
		}
		_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.unsent()), 1, enterGetEvents, 0, 0)
		switch errno {
		case 0, syscall.EINTR, syscall.EAGAIN, syscall.EBUSY:
		default:
			return nil, os.NewSyscallError("io_uring_enter", errno)
		}
	}
}

// look takes a request that has come; nil if there is none.
func (r *ring) look() (*entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	head := r.at(r.p.cq.head)
	if *head == atomic.LoadUint32(r.at(r.p.cq.tail)) {
		return nil, nil
	}
	c := *(*cqe)(unsafe.Pointer(&r.rings[r.p.cq.cqes+*head&(r.p.cqEntries-1)*cqeSize]))
	err := syscall.Errno(-c.res)
	if c.user == over || letGo(err) {
		return nil, errLetGo // for all who look, so this stays there
	}
	atomic.StoreUint32(head, *head+1)
	r.tellLocked()
	if c.res != 0 { // the entry is lost
		return nil, err
	}
	r.taken++
	return r.entries[c.user], nil
}

// request is the request in e, as it would be read from the device.
func (e *entry) request() []byte {
	h := as[fuse.InHeader](e.head.inOut[:])
	payload := min(int(e.head.payload), e.ring.size)
	fixed := int(h.Length) - inHeadSize - payload // of what is in op
	if fixed < 0 || fixed > len(e.head.op) {
		return nil
	}
	start := page - fixed - inHeadSize
	copy(e.mem[start:], e.head.inOut[:inHeadSize])
	copy(e.mem[page-fixed:], e.head.op[:fixed])
	return e.mem[start : page+payload]
}

// answer makes the reply that head begins with, of data; the length in head is set.
func (e *entry) answer(head fuse.OutHeader, data ...[]byte) {
	n := 0
	for _, p := range data {
		n += copy(e.mem[page+n:], p)
	}
	head.Length = uint32(headSize + n)
	*(*fuse.OutHeader)(unsafe.Pointer(&e.head.inOut)) = head
	e.head.payload = uint32(n)
	e.ring.reply(e)
}
