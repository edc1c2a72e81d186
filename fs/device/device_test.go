package device

import (
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a file system in which every name is a file.
type tree struct {
	fuse.RawFileSystem
	dev   *Device
	calls chan string // the kinds of calls that have begun
	write func(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status)
	read  func(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status)
	lock  func(cancel <-chan struct{}) fuse.Status

	mounted func() // is called before it is served, if not nil
}

const fileSize = 1 << 30

func (f *tree) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.NodeId, out.Ino, out.Mode, out.Nlink, out.Size = 2, 2, syscall.S_IFREG|0o666, 1, fileSize
	return fuse.OK
}

func (f *tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, syscall.S_IFREG|0o666, 1
	if in.NodeId == fuse.FUSE_ROOT_ID {
		out.Mode = syscall.S_IFDIR | 0o777
	}
	out.Size = fileSize
	return fuse.OK
}

func (f *tree) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

func (f *tree) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return f.write(cancel, in, data)
}

func (f *tree) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	return f.read(cancel, in, buf)
}

func (f *tree) SetLkw(cancel <-chan struct{}, _ *fuse.LkIn) fuse.Status { return f.lock(cancel) }

// eachWay runs a test over the device alone, and over rings if the kernel offers them.
func eachWay(t *testing.T, test func(t *testing.T, w way)) {
	if os.Geteuid() != 0 {
		t.Skip("mounts as root")
	}
	t.Run("device", func(t *testing.T) { test(t, 0) })
	t.Run("rings", func(t *testing.T) {
		if on, err := os.ReadFile("/sys/module/fuse/parameters/enable_uring"); err != nil || on[0] != 'Y' {
			t.Skip("the kernel does not offer FUSE over io_uring")
		}
		test(t, fuse.CAP_OVER_IO_URING)
	})
}

// way is what a mount asks of the kernel.
type way uint64

// serve mounts f until the test ends, and returns the path of a file.
func (w way) serve(t *testing.T, f *tree) string {
	t.Helper()
	point := t.TempDir()
	f.RawFileSystem = fuse.NewDefaultRawFileSystem()
	f.calls = make(chan string, 1000)
	var err error
	f.dev, err = Mount(f, point, &fuse.MountOptions{
		FsName: "test", Name: "device", DirectMountStrict: true, MaxWrite: 1 << 20, EnableLocks: true,
		ExtraCapabilities: uint64(w),
		PanicHandler:      func(any) fuse.Status { return fuse.EIO },
	}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, w != 0, f.dev.OverRings())
	if f.mounted != nil {
		f.mounted()
	}
	ended := make(chan error)
	go func() { ended <- f.dev.Serve() }()
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != syscall.EINVAL { // EINVAL: the test has done so
			require.NoError(t, err)
		}
		require.NoError(t, <-ended)
	})
	return filepath.Join(point, "file")
}

// file is a file of our own mount. It is no os.File: that asks the kernel to watch the
// file, which asks us, in a way that keeps the Go scheduler waiting.
type file int

func open(t *testing.T, path string) file {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return file(fd)
}

func (f file) WriteAt(p []byte, off int64) (int, error) { return unix.Pwrite(int(f), p, off) }
func (f file) ReadAt(p []byte, off int64) (int, error)  { return unix.Pread(int(f), p, off) }

// TestBytes: what is written arrives as it was, of any size, and so does what is read.
func TestBytes(t *testing.T) { eachWay(t, testBytes) }

func testBytes(t *testing.T, w way) {
	var mu sync.Mutex
	var got []byte
	var off uint64
	f := &tree{}
	f.write = func(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
		mu.Lock()
		defer mu.Unlock()
		got, off = append([]byte(nil), data...), in.Offset
		return uint32(len(data)), fuse.OK
	}
	f.read = func(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
		mu.Lock()
		defer mu.Unlock()
		half := len(buf) / 2
		return fuse.ReadResultVector([][]byte{got[:half], nil, got[half:len(buf)]}), fuse.OK
	}
	file := open(t, w.serve(t, f))
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	for _, n := range []int{1, 2, smallSize - 80, smallSize - 79, smallSize, 4096, 1<<20 - 1, 1 << 20} {
		_, err := file.WriteAt(want[:n], int64(n))
		require.NoError(t, err)
		mu.Lock()
		require.Equal(t, want[:n], got)
		require.EqualValues(t, n, off)
		mu.Unlock()
		back := make([]byte, n)
		_, err = file.ReadAt(back, 0)
		require.NoError(t, err)
		require.Equal(t, want[:n], back)
	}
}

// TestAnotherTakesTheirPlace: as many requests are carried out as there are
// processors for, and one more for each that says that it waits.
func TestAnotherTakesTheirPlace(t *testing.T) { eachWay(t, testAnotherTakesTheirPlace) }

func testAnotherTakesTheirPlace(t *testing.T, w way) {
	f := &tree{}
	waits, let := make(chan bool, 1000), make(chan struct{})
	begun := make(chan struct{}, 1000)
	f.write = func(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
		begun <- struct{}{}
		if <-waits {
			f.dev.Waits(cancel)
			<-let
		}
		return in.Size, fuse.OK
	}
	file := open(t, w.serve(t, f))
	const writers = 300
	done := make(chan error, writers)
	for range writers {
		go func() {
			_, err := file.WriteAt([]byte("x"), 0)
			done <- err
		}()
	}
	if active := f.dev.queues[0].active; w == 0 {
		for range active {
			<-begun
		}
		for k := range writers - active { // each makes room for one more
			require.Empty(t, begun, k)
			waits <- true
			<-begun
		}
		require.Empty(t, begun)
		loops, waiting := f.dev.busy()
		require.Equal(t, writers, loops)
		require.Equal(t, writers-active, waiting)
		for range active {
			waits <- true
		}
	} else {
		for range writers {
			waits <- true
			<-begun
		}
	}
	close(let)
	for range writers {
		require.NoError(t, <-done)
	}
	for range 2 * writers { // a loop ends when it comes back
		waits <- false
		_, err := file.WriteAt([]byte("x"), 0)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { // the last replies are seen before they are accounted for
		loops, waiting := f.dev.busy()
		return waiting == 0 && loops <= f.dev.active()+1 && f.dev.big.Load() == 0
	}, 10*time.Second, time.Millisecond)
}

// active is how many loops are to take requests.
func (d *Device) active() (n int) {
	for _, q := range d.queues {
		n += q.active
	}
	return n
}

// busy is how many loops there are, and how many of their requests wait.
func (d *Device) busy() (loops, waiting int) {
	for _, q := range d.queues {
		q.mu.Lock()
		loops += len(q.loops)
		waiting += q.waiting
		q.mu.Unlock()
	}
	return loops, waiting
}

// TestLongRequests: others go on while much data is moved, by one loop for each that
// does, also if it waits besides.
func TestLongRequests(t *testing.T) { eachWay(t, testLongRequests) }

func testLongRequests(t *testing.T, w way) {
	f := &tree{}
	let := make(chan struct{})
	begun := make(chan struct{}, 10)
	wait := func(cancel <-chan struct{}) {
		f.dev.Waits(cancel)
		begun <- struct{}{}
		<-let
	}
	f.write = func(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
		if in.Size > longSize {
			wait(cancel)
		}
		return in.Size, fuse.OK
	}
	f.read = func(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
		begun <- struct{}{}
		<-let
		return fuse.ReadResultData(make([]byte, len(buf))), fuse.OK
	}
	file := open(t, w.serve(t, f))
	done := make(chan error)
	const long = 3
	for range long {
		go func() {
			_, err := file.WriteAt(make([]byte, longSize+1), 0)
			done <- err
		}()
		go func() {
			_, err := file.ReadAt(make([]byte, longSize+1), 0)
			done <- err
		}()
	}
	for range 2 * long {
		<-begun
	}
	_, err := file.WriteAt(make([]byte, longSize), 0)
	require.NoError(t, err)
	loops, waiting := f.dev.busy()
	require.Equal(t, 2*long, waiting)
	require.Equal(t, 2*long+f.dev.active(), loops)
	close(let)
	for range 2 * long {
		require.NoError(t, <-done)
	}
	_, err = file.WriteAt(make([]byte, longSize), 0)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, waiting := f.dev.busy()
		return waiting == 0
	}, 10*time.Second, time.Millisecond)
}

// hold has requests of a kind wait until they are interrupted.
func (f *tree) hold(kind string) func(cancel <-chan struct{}) {
	return func(cancel <-chan struct{}) {
		f.dev.Waits(cancel)
		f.calls <- kind
		<-cancel
		f.calls <- kind + " interrupted"
	}
}

// held is a file system whose reads, writes and locks wait until they are interrupted.
func held() *tree {
	f := &tree{}
	f.write = func(cancel <-chan struct{}, _ *fuse.WriteIn, _ []byte) (uint32, fuse.Status) {
		f.hold("write")(cancel)
		return 0, fuse.EINTR
	}
	f.read = func(cancel <-chan struct{}, _ *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
		f.hold("read")(cancel)
		return nil, fuse.EINTR
	}
	f.lock = func(cancel <-chan struct{}) fuse.Status {
		f.hold("lock")(cancel)
		return fuse.EINTR
	}
	return f
}

// programs make a call each, on the file $1.
var programs = map[string]string{
	"write": `exec dd if=/dev/zero of="$1" count=1 conv=notrunc status=none`,
	"read":  `exec cat "$1"`,
	"lock":  `exec flock "$1" true`,
}

// TestInterrupt: a caller that dies of a signal interrupts its request, of those that
// are carried out here and of those that go-fuse takes apart.
func TestInterrupt(t *testing.T) { eachWay(t, testInterrupt) }

func testInterrupt(t *testing.T, w way) {
	f := held()
	path := w.serve(t, f)
	for kind, program := range programs {
		cmd := exec.Command("sh", "-c", program, "sh", path)
		require.NoError(t, cmd.Start())
		require.Equal(t, kind, <-f.calls)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.Equal(t, kind+" interrupted", <-f.calls)
		require.Error(t, cmd.Wait())
	}
}

// TestTakenAway: requests in progress are interrupted when the mount is taken away by
// force, and Serve returns.
func TestTakenAway(t *testing.T) { eachWay(t, testTakenAway) }

func testTakenAway(t *testing.T, w way) {
	f := held()
	path := w.serve(t, f)
	var cmds []*exec.Cmd
	for _, program := range programs {
		for range 4 {
			cmd := exec.Command("sh", "-c", program, "sh", path)
			require.NoError(t, cmd.Start())
			cmds = append(cmds, cmd)
			<-f.calls
		}
	}
	require.NoError(t, unix.Unmount(filepath.Dir(path), unix.MNT_FORCE|unix.MNT_DETACH))
	got := map[string]int{}
	for range cmds {
		got[<-f.calls]++
	}
	require.Equal(t, map[string]int{"write interrupted": 4, "read interrupted": 4, "lock interrupted": 4}, got)
	for _, cmd := range cmds {
		require.Error(t, cmd.Wait())
	}
}

// TestTakenAwayAroundOne: a request that has been interrupted before, and goes on, does
// not keep others from being interrupted when the mount is taken away.
func TestTakenAwayAroundOne(t *testing.T) { eachWay(t, testTakenAwayAroundOne) }

func testTakenAwayAroundOne(t *testing.T, w way) {
	f := held()
	let := make(chan struct{})
	first := true
	wait := f.lock
	f.lock = func(cancel <-chan struct{}) fuse.Status {
		if !first {
			return wait(cancel)
		}
		first = false
		f.dev.Waits(cancel)
		status := wait(cancel)
		<-let
		return status
	}
	path := w.serve(t, f)
	start := func() *exec.Cmd {
		cmd := exec.Command("sh", "-c", programs["lock"], "sh", path)
		require.NoError(t, cmd.Start())
		require.Equal(t, "lock", <-f.calls)
		return cmd
	}
	cmds := []*exec.Cmd{start()}
	require.NoError(t, cmds[0].Process.Signal(syscall.SIGTERM))
	require.Equal(t, "lock interrupted", <-f.calls)
	const others = 8 // of which some come behind the first, in whatever order
	for range others {
		cmds = append(cmds, start())
	}
	require.NoError(t, unix.Unmount(filepath.Dir(path), unix.MNT_FORCE|unix.MNT_DETACH))
	for range others {
		require.Equal(t, "lock interrupted", <-f.calls)
	}
	close(let)
	for _, cmd := range cmds {
		require.Error(t, cmd.Wait())
	}
}

// TestManyWait: requests that are behind others on a processor's queue are passed on
// when those wait, here for the last of them.
func TestManyWait(t *testing.T) { eachWay(t, testManyWait) }

func testManyWait(t *testing.T, w way) {
	const callers = 3 * ringEntries
	f := &tree{}
	var mu sync.Mutex
	came, started, all := 0, make(chan struct{}), make(chan struct{})
	f.lock = func(cancel <-chan struct{}) fuse.Status {
		<-started // and while the first does not say that it waits, others come
		f.dev.Waits(cancel)
		mu.Lock()
		if came++; came == callers {
			close(all)
		}
		mu.Unlock()
		<-all
		return fuse.OK
	}
	file := open(t, w.serve(t, f))
	done := make(chan error)
	for range callers {
		go func() {
			runtime.LockOSThread() // for good
			if err := runOn(0); err != nil {
				done <- err
				return
			}
			done <- unix.FcntlFlock(uintptr(file), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		}()
	}
	time.Sleep(300 * time.Millisecond)
	close(started)
	for range callers {
		require.NoError(t, <-done)
	}
}

// TestReachable: a process that may run everywhere can use rings, there are as many as
// processors.
func TestReachable(t *testing.T) {
	n, err := processors()
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, runtime.NumCPU())
	require.NoError(t, reachable(runtime.NumCPU()))
	require.Error(t, reachable(1<<16), "there are not so many")
}

// TestRefusedEntries: where the kernel does not take the entries of a ring, it has
// requests come from the device.
func TestRefusedEntries(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		f := &tree{}
		f.write = func(_ <-chan struct{}, in *fuse.WriteIn, _ []byte) (uint32, fuse.Status) { return in.Size, fuse.OK }
		f.mounted = func() {
			for _, q := range f.dev.queues[1:] {
				q.ring.qid = math.MaxUint16 // there is no such processor
			}
		}
		file := open(t, w.serve(t, f))
		_, err := file.WriteAt([]byte("x"), 0)
		require.NoError(t, err)
	})
}

// TestInterruptOvertakes: an interrupt that comes before its request finds it later.
func TestInterruptOvertakes(t *testing.T) {
	d := newDevice(fuse.NewDefaultRawFileSystem(), &fuse.MountOptions{Name: "test", MaxWrite: 1 << 16}, slog.New(slog.DiscardHandler))
	q := d.queues[0]
	l := q.newLoop()
	q.loops[l] = struct{}{}
	const unique = 7
	go d.interruptSoon(unique)
	time.Sleep(5 * time.Millisecond)
	q.begin(l, unique, true, false)
	<-l.cancel
	q.end(l)
	q.begin(l, unique+1, true, false)
	d.interruptSoon(unique) // gives up
	select {
	case <-l.cancel:
		t.Fatal("another request was interrupted")
	default:
	}
}

// TestFailures: an error and a panic of the file system are what the caller gets, and
// the mount goes on.
func TestFailures(t *testing.T) { eachWay(t, testFailures) }

func testFailures(t *testing.T, w way) {
	f := &tree{}
	f.write = func(_ <-chan struct{}, in *fuse.WriteIn, _ []byte) (uint32, fuse.Status) {
		if in.Offset == 0 {
			panic("broken")
		}
		return 0, fuse.Status(syscall.EDQUOT)
	}
	f.read = func(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
		if in.Offset == 0 {
			panic("broken")
		}
		return nil, fuse.Status(syscall.EACCES)
	}
	file := open(t, w.serve(t, f))
	for range 3 {
		_, err := file.WriteAt([]byte("x"), 0)
		require.ErrorIs(t, err, syscall.EIO)
		_, err = file.WriteAt([]byte("x"), 1)
		require.ErrorIs(t, err, syscall.EDQUOT)
		_, err = file.ReadAt([]byte("x"), 0)
		require.ErrorIs(t, err, syscall.EIO)
		_, err = file.ReadAt([]byte("x"), 1)
		require.ErrorIs(t, err, syscall.EACCES)
	}
}

// TestMessages sends requests that the kernel would not, through a socket. A reply
// comes to each that is a whole header, and the device goes on.
func TestMessages(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(pair[0])
	f := &tree{RawFileSystem: fuse.NewDefaultRawFileSystem()}
	f.write = func(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
		return uint32(len(data)), fuse.OK
	}
	opt := &fuse.MountOptions{Name: "test", MaxWrite: 1 << 16}
	d := newDevice(f, opt, slog.New(slog.DiscardHandler))
	d.fd = pair[1]
	defer unix.Close(pair[1])
	l := d.queues[0].newLoop()
	send := func(opcode uint32, size int) (errno syscall.Errno, n int) {
		in := make([]byte, size)
		if size >= int(unsafe.Sizeof(fuse.InHeader{})) {
			h := (*fuse.InHeader)(unsafe.Pointer(&in[0]))
			h.Opcode, h.Length, h.Unique = opcode, uint32(size), 7
		}
		require.NoError(t, unix.Send(pair[0], in, 0))
		require.True(t, l.one())
		out := make([]byte, 1<<16)
		require.NoError(t, unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 1000}))
		n, err := unix.Read(pair[0], out)
		if err != nil {
			return 0, 0
		}
		h := (*fuse.OutHeader)(unsafe.Pointer(&out[0]))
		require.EqualValues(t, n, h.Length)
		if size >= int(unsafe.Sizeof(fuse.InHeader{})) {
			require.EqualValues(t, 7, h.Unique)
		}
		return syscall.Errno(-h.Status), n
	}
	for _, c := range []struct {
		name         string
		opcode, size int
		want         syscall.Errno
	}{
		{"a READ without its fields", opRead, 40, syscall.EIO},
		{"a READ that lacks a byte", opRead, int(unsafe.Sizeof(fuse.ReadIn{})) - 1, syscall.EIO},
		{"a WRITE without its fields", opWrite, 41, syscall.EIO},
		{"a WRITE of nothing", opWrite, int(unsafe.Sizeof(fuse.WriteIn{})), 0},
		{"an interrupt of nothing", opInterrupt, int(unsafe.Sizeof(fuse.InterruptIn{})), syscall.EAGAIN},
		{"an interrupt without its field", opInterrupt, 40, syscall.EIO},
		{"an operation that there is not", 4000, 40, syscall.ENOSYS},
		{"a list without its fields", opReadDir, 40, syscall.EIO},
		{"an attribute without its fields", opGetXAttr, 40, syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			errno, n := send(uint32(c.opcode), c.size)
			require.Equal(t, c.want, errno)
			require.NotZero(t, n)
		})
	}
	t.Run("less than a header", func(t *testing.T) {
		for _, size := range []int{1, 39} {
			send(opRead, size)
		}
	})
	errno, _ := send(opWrite, int(unsafe.Sizeof(fuse.WriteIn{}))+5)
	require.Zero(t, errno)
}

// TestAllocations counts those of a WRITE.
func TestAllocations(t *testing.T) {
	f := &tree{RawFileSystem: fuse.NewDefaultRawFileSystem()}
	f.write = func(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
		return uint32(len(data)), fuse.OK
	}
	d := newDevice(f, &fuse.MountOptions{Name: "test", MaxWrite: 1 << 16}, slog.New(slog.DiscardHandler))
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(null)
	d.fd = null
	l := d.queues[0].newLoop()
	in := make([]byte, int(unsafe.Sizeof(fuse.WriteIn{}))+4096)
	(*fuse.InHeader)(unsafe.Pointer(&in[0])).Opcode = opWrite
	require.Zero(t, testing.AllocsPerRun(1000, func() { l.handle(in) }))
}
