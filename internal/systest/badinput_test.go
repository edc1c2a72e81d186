package systest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestBadCommandLines checks that each mistake gives one clear line, soon.
func TestBadCommandLines(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the binary")
	}
	t.Parallel()
	bin, dir := zoidfsBinary(t), shortTempDir(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { lis.Close() })
	mnt := filepath.Join(dir, "mnt")
	require.NoError(t, os.Mkdir(mnt, 0o755))
	for _, tt := range []struct {
		name string
		args []string
		says string // part of the line
	}{
		{"unknown subcommand", []string{"frobnicate"}, "frobnicate"},
		{"unknown flag", []string{"up", "--frob"}, "frob"},
		{"operand too many", []string{"down", "extra"}, "extra"},
		{"no nodes", []string{"up", "--dir", dir + "/a", "--nodes", "0"}, "nodes"},
		{"negative servers", []string{"up", "--dir", dir + "/a", "--servers", "-1"}, "servers"},
		{"number that is none", []string{"up", "--dir", dir + "/a", "--ions", "many"}, "many"},
		{"unknown mode", []string{"up", "--dir", dir + "/a", "--consistency", "stronk"}, "stronk"},
		{"visibility that is none", []string{"up", "--dir", dir + "/a", "--visibility", "soon"}, "soon"},
		{"cache too small", []string{"mount", mnt, "--ion", "127.0.0.1:1", "-o", "cache=1K"}, "16M"},
		{"bad pvfs url", []string{"up", "--dir", dir + "/a", "--pvfs", "http://x/y"}, "http://x/y"},
		{"pvfs url without name", []string{"ion", "--listen", "127.0.0.1:0", "--pvfs", "tcp://127.0.0.1:3334"}, "tcp://127.0.0.1:3334"},
		{"nobody listens at pvfs", []string{"ion", "--listen", "127.0.0.1:0", "--pvfs", "tcp://127.0.0.1:1/zoidfs"}, "127.0.0.1:1"},
		{"up with nobody at pvfs", []string{"up", "--dir", dir + "/b", "--pvfs", "tcp://127.0.0.1:1/zoidfs"}, "127.0.0.1:1"},
		{"listen address that is none", []string{"ion", "--listen", "nowhere", "--pvfs", "tcp://127.0.0.1:1/zoidfs"}, "nowhere"},
		{"mount without ion", []string{"mount", mnt}, "ion"},
		{"nobody listens at ion", []string{"mount", mnt, "--ion", "127.0.0.1:1"}, "127.0.0.1:1"},
		{"nobody listens at ion, foreground", []string{"mount", mnt, "--ion", "127.0.0.1:1", "--foreground"}, "127.0.0.1:1"},
		{"ion is mute", []string{"mount", mnt, "--ion", lis.Addr().String()}, lis.Addr().String()},
		{"mount point that is not there", []string{"mount", dir + "/nope", "--ion", "127.0.0.1:1"}, dir + "/nope"},
		{"unknown mount option", []string{"mount", mnt, "--ion", "127.0.0.1:1", "-o", "frob=1"}, "frob"},
		{"pvfsd without anything", []string{"pvfsd"}, ""},
		{"pvfsd with a missing file", []string{"pvfsd", "--config", dir + "/nope.conf", "--server", "a"}, "nope.conf"},
		{"pvfsd with a file that is none", []string{"pvfsd", "--config", "/etc/passwd", "--server", "a"}, "/etc/passwd"},
		{"pvfsd with a data directory that cannot be", []string{"pvfsd", "--listen", "127.0.0.1:0", "--data", "/dev/null/x"}, "/dev/null"},
		{"stats of nothing", []string{"stats", "--dir", dir + "/nope"}, "nope"},
		{"stats of a directory", []string{"stats", dir}, dir},
		{"stats of a port where nobody is", []string{"stats", "127.0.0.1:1"}, "127.0.0.1:1"},
		{"status of nothing", []string{"status", "--dir", dir + "/nope"}, "nope"},
		{"launch without a system", []string{"launch", "--dir", dir + "/nope", "-n", "2", "--", "true"}, "nope"},
		{"launch of no ranks", []string{"launch", "--dir", dir + "/nope", "-n", "0", "--", "true"}, ""},
		{"launch of nothing", []string{"launch", "--dir", dir + "/nope", "-n", "1"}, ""},
		{"enter without a system", []string{"enter", "--dir", dir + "/nope", "--node", "0", "--", "true"}, "nope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // some wait for those who do not answer
			out, err := command{timeout: 30 * time.Second}.try(append([]string{bin}, tt.args...)...)
			require.Error(t, err, "output: %s", out)
			require.NotContains(t, err.Error(), "no end within", "output: %s", out)
			require.NotContains(t, out, "goroutine ", "a stack trace")
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if tt.args[0] != "ion" && tt.args[0] != "pvfsd" && tt.name != "nobody listens at ion, foreground" { // these log too
				require.Len(t, lines, 1, "one clear line")
			}
			require.Contains(t, lines[len(lines)-1], tt.says)
		})
	}
	t.Cleanup(func() { require.NoFileExists(t, dir+"/a/cluster.json") })
}

// TestBadInput runs a system and does to it what no one should.
func TestBadInput(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	t.Parallel()
	r := newRig(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"names", badNames},
		{"offsets", badOffsets},
		{"calls that are not there", badCalls},
		{"garbage on every port", badGarbage},
		{"wrong file system name", badFSName},
		{"stale cluster file", badStaleCluster},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(t, r)
			p := startProc(t, r.subdir(t), 1) // it still works
			p.ok(t, op{Do: "open", Path: "after", FD: 1, Flags: create})
			p.ok(t, op{Do: "pwrite", FD: 1, Len: stripe + 1, Fill: 1})
			requireRead(t, p, 0, stripe+1, 1)
		})
	}
	if r.cluster != nil {
		r.cluster.noPanics(t)
	}
}

func badNames(t *testing.T, r *rig) {
	r = r.under(t, "names")
	p, q := startProc(t, r, 0), startProc(t, r, 1)
	long, longest := strings.Repeat("n", 256), strings.Repeat("n", 255)
	for _, o := range []op{
		{Do: "open", Path: long, FD: 1, Flags: create}, {Do: "stat", Path: long}, {Do: "mkdir", Path: long},
		{Do: "unlink", Path: long}, {Do: "symlink", Path: long, To: "x"}, {Do: "readlink", Path: long}, {Do: "rmdir", Path: long},
	} {
		require.Equal(t, unix.ENAMETOOLONG, p.do(t, o).Errno, "%s", o.Do)
	}
	p.ok(t, op{Do: "open", Path: longest, FD: 1, Flags: create | unix.O_EXCL})
	p.ok(t, op{Do: "pwrite", FD: 1, Len: 100, Fill: 1})
	require.EqualValues(t, 100, q.ok(t, op{Do: "stat", Path: longest}).N)
	require.Equal(t, unix.ENAMETOOLONG, q.do(t, op{Do: "rename", Path: longest, To: long}).Errno)
	for _, name := range []string{"new\nline", "-rf", " ", "\xff\xfe\x01", "ünï", "a\\b", "*", strings.Repeat("ä", 127)} {
		at := func(node int, name string) string { return filepath.Join(r.dirs[node], name) }
		require.NoError(t, os.Rename(at(0, longest), at(0, name)))
		require.Equal(t, name, shell(t, r.dirs[1], "printf '%s' *"))
		require.NoError(t, os.Rename(at(1, name), at(1, longest)))
	}
	target := strings.Repeat("t", 4095)
	if res := p.do(t, op{Do: "symlink", Path: "sym", To: target}); res.Errno == 0 {
		require.Equal(t, target, q.ok(t, op{Do: "readlink", Path: "sym"}).Text)
	} else {
		require.Equal(t, unix.ENAMETOOLONG, res.Errno)
	}
	require.Equal(t, unix.ENAMETOOLONG, p.do(t, op{Do: "symlink", Path: "sym2", To: target + "t"}).Errno)
	deep := strings.Repeat("d/", 40)
	shell(t, r.dirs[0], "mkdir -p "+deep+" && echo bottom > "+deep+"f")
	require.Equal(t, "bottom\n", shell(t, r.dirs[1], "cat "+deep+"f"))
	file := filepath.Join(r.dirs[0], longest)
	require.Error(t, unix.Setxattr(file, "user."+strings.Repeat("x", 260), []byte("v"), 0))
	require.Error(t, unix.Setxattr(file, "user.big", make([]byte, 1<<20), 0))
	_, err := unix.Getxattr(file, "user.none", make([]byte, 10))
	require.ErrorIs(t, err, unix.ENODATA)
	require.ErrorIs(t, unix.Setxattr(file, "user.none", nil, unix.XATTR_REPLACE), unix.ENODATA)
	require.NoError(t, unix.Setxattr(file, "user.some", []byte("v"), unix.XATTR_CREATE))
	require.ErrorIs(t, unix.Setxattr(file, "user.some", []byte("v"), unix.XATTR_CREATE), unix.EEXIST)
	_, err = unix.Getxattr(filepath.Join(r.dirs[1], longest), "user.some", nil)
	require.NoError(t, err)
}

func badOffsets(t *testing.T, r *rig) {
	r = r.under(t, "offsets")
	p, q := pair(t, r)
	p.ok(t, op{Do: "pwrite", FD: 1, Len: 100, Fill: 1})
	const end = math.MaxInt64
	refused := []any{unix.EFBIG, unix.EINVAL, unix.EOVERFLOW}
	for _, tt := range []struct {
		o    op
		want []any
	}{
		{op{Do: "pwrite", FD: 1, Off: -1, Len: 1}, []any{unix.EINVAL}},
		{op{Do: "pread", FD: 1, Off: -1, Len: 1}, []any{unix.EINVAL}},
		{op{Do: "pwrite", FD: 1, Off: math.MinInt64, Len: 1}, []any{unix.EINVAL}},
		{op{Do: "pwrite", FD: 1, Off: end, Len: 1}, refused},
		{op{Do: "pwrite", FD: 1, Off: end - 1, Len: 4096}, refused},
		{op{Do: "pwrite", FD: 1, Off: end - 5000, Len: 1 << 20}, refused},
		{op{Do: "ftruncate", FD: 1, Len: -1}, []any{unix.EINVAL}},
		{op{Do: "truncate", Path: "x", Len: -1}, []any{unix.EINVAL}},
		{op{Do: "pread", FD: 1, Off: end, Len: 4096}, append(refused, unix.Errno(0))},
		{op{Do: "pread", FD: 1, Off: end - 10, Len: 4096}, append(refused, unix.Errno(0))},
		{op{Do: "pwrite", FD: 1, Off: 50, Len: 0}, []any{unix.Errno(0)}},
		{op{Do: "pread", FD: 1, Off: 50, Len: 0}, []any{unix.Errno(0)}},
	} {
		res := p.do(t, tt.o)
		require.Contains(t, tt.want, res.Errno, "%v", tt.o)
		if tt.o.Do == "pread" {
			require.Zero(t, max(0, res.N), "%v", tt.o)
		}
		// A write that ends at the last byte may be cut short, but nothing else changed.
		require.EqualValues(t, 100, q.ok(t, op{Do: "fstat", FD: 1}).N, "size after %v", tt.o)
	}
	for _, size := range []int64{1 << 40, 1 << 46, 1 << 60, end} {
		res := p.do(t, op{Do: "ftruncate", FD: 1, Len: size})
		if res.Errno != 0 {
			require.Contains(t, refused, res.Errno, "truncate to %d", size)
			continue
		}
		require.Equal(t, size, q.ok(t, op{Do: "fstat", FD: 1}).N)
		got := q.ok(t, op{Do: "pread", FD: 1, Off: size - 10, Len: 10})
		require.Equal(t, make([]byte, 10), got.Data)
	}
	require.GreaterOrEqual(t, q.ok(t, op{Do: "fstat", FD: 1}).N, int64(1<<40), "a sparse file of a terabyte")
	p.ok(t, op{Do: "pwrite", FD: 1, Off: 1<<40 - 3, Len: 10, Fill: 7})
	requireRead(t, q, 1<<40-3, 10, 7)
	p.ok(t, op{Do: "ftruncate", FD: 1, Len: 100})
	requireRead(t, q, 0, 100, 1)
	p.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Off: end - 10, Len: 0})
	require.NotZero(t, q.do(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Off: end - 1, Len: 1}).Errno)
	q.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Off: 0, Len: 100})
}

// badCalls makes calls that the file system does not have: clean errors.
func badCalls(t *testing.T, r *rig) {
	r.needCluster(t)
	r = r.under(t, "calls")
	f, err := os.Create(filepath.Join(r.dirs[0], "f"))
	require.NoError(t, err)
	defer f.Close()
	require.ErrorIs(t, os.Link(f.Name(), f.Name()+"2"), unix.EPERM, "hard links do not exist")
	_, err = unix.Open(r.dirs[0], unix.O_TMPFILE|unix.O_RDWR, 0o600)
	require.Error(t, err)
	require.Contains(t, []error{unix.EOPNOTSUPP, unix.ENOTSUP, unix.EISDIR, unix.ENOENT}, err)
	require.Error(t, unix.Mkfifo(filepath.Join(r.dirs[0], "fifo"), 0o600))
	require.Error(t, unix.Mknod(filepath.Join(r.dirs[0], "dev"), unix.S_IFCHR|0o600, 259))
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096)
	require.Error(t, err)
	_, err = unix.IoctlGetInt(int(f.Fd()), 0x12345678)
	require.Error(t, err)
	require.Equal(t, "f\n", shell(t, r.dirs[1], "ls -A"))
	hidden := shell(t, r.cluster.rig().dirs[0], "ls -A")
	require.NotContains(t, hidden, "orphan", "the hidden directory is hidden")
	_, err = os.Stat(filepath.Join(r.cluster.rig().dirs[0], ".zoidfs-orphans"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// badGarbage talks nonsense to every port of the system.
func badGarbage(t *testing.T, r *rig) {
	c := r.needCluster(t)
	f := c.file(t)
	var addrs []string
	for _, s := range f.PVFSD {
		addrs = append(addrs, s.Addr)
		if s.Metrics != "" {
			addrs = append(addrs, s.Metrics)
		}
	}
	for _, s := range f.IONs {
		addrs = append(addrs, s.Addr)
	}
	noise := make([]byte, 256<<10)
	_, _ = rand.Read(noise)
	frame := func(size uint64) []byte { // a PVFS2 header that announces size bytes
		b := binary.LittleEndian.AppendUint32(nil, 0xCABF)
		b = binary.LittleEndian.AppendUint32(b, 2)
		b = binary.LittleEndian.AppendUint64(b, 1)
		return append(binary.LittleEndian.AppendUint64(b, size), noise[:200]...)
	}
	preface := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	payloads := map[string][]byte{
		"nothing": nil, "one byte": {0}, "noise": noise, "zeros": make([]byte, 4096),
		"http": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "ones": []byte(strings.Repeat("\xff", 4096)),
		"pvfs frame of 200": frame(200), "pvfs frame of 4 GiB": frame(1 << 32), "pvfs frame of 2^64-1": frame(math.MaxUint64),
		"pvfs frame of zero": frame(0), "http2 preface": preface, "http2 and noise": append(append([]byte{}, preface...), noise...),
		"tls hello": append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise[:600]...),
	}
	work := startProc(t, r.under(t, "garbage"), 0)
	work.ok(t, op{Do: "open", Path: "x", FD: 1, Flags: create})
	for _, addr := range addrs {
		for name, b := range payloads {
			conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
			require.NoError(t, err, "%s after garbage", addr)
			_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = conn.Write(b)
			if tcp, ok := conn.(*net.TCPConn); ok && len(name)%2 == 0 {
				_ = tcp.CloseWrite()
			}
			_, _ = io.CopyN(io.Discard, conn, 100)
			_ = conn.Close()
		}
		// A crowd that connects and leaves, and one that stays mute.
		for i := range 100 {
			conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
			require.NoError(t, err)
			if i%2 == 0 {
				_ = conn.Close()
			} else {
				defer conn.Close()
			}
		}
		work.ok(t, op{Do: "pwrite", FD: 1, Len: 5 << 20, Fill: uint64(len(addr))})
		requireRead(t, work, 0, 5<<20, uint64(len(addr)))
	}
	require.Equal(t, f.pids(), c.file(t).pids())
	for _, pid := range f.pids() {
		require.True(t, running(pid), "process %d is gone", pid)
	}
}

func badFSName(t *testing.T, r *rig) {
	c := r.needCluster(t)
	url := c.file(t).PVFS
	wrong := url[:strings.LastIndexByte(url, '/')] + "/nosuchfs"
	out, err := command{timeout: 30 * time.Second}.try(c.bin, "ion", "--listen", "127.0.0.1:0", "--pvfs", wrong)
	require.ErrorContains(t, err, "exit status", out)
	require.Contains(t, out, "nosuchfs")
	out, err = command{timeout: 30 * time.Second}.try(c.bin, "up", "--dir", filepath.Join(c.dir, "second"), "--pvfs", wrong)
	require.ErrorContains(t, err, "exit status", out)
	require.Contains(t, out, "nosuchfs")
	// A pvfsd where an I/O node is expected.
	mnt := t.TempDir()
	out, err = command{timeout: 30 * time.Second}.try(c.bin, "mount", mnt, "--ion", c.file(t).PVFSD[0].Addr)
	require.ErrorContains(t, err, "exit status", out)
}

// badStaleCluster starts a system from a cluster file of processes that are
// no more, whose pids others have by now.
func badStaleCluster(t *testing.T, r *rig) {
	c := r.needCluster(t)
	b, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	require.NoError(t, err)
	dir := filepath.Join(shortTempDir(t), "stale")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	stale := strings.ReplaceAll(string(b), c.dir, dir)
	for _, pid := range c.file(t).pids() {
		stale = strings.ReplaceAll(stale, fmt.Sprint(`"pid": `, pid), fmt.Sprint(`"pid": `, os.Getpid()))
		stale = strings.ReplaceAll(stale, fmt.Sprint(`"pid":`, pid), fmt.Sprint(`"pid":`, os.Getpid()))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cluster.json"), []byte(stale), 0o644))
	_, _ = c.try("down", "--dir", dir) // must not end this process, whose pid it names
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cluster.json"), []byte("{ not json"), 0o644))
	out, err := c.try("down", "--dir", dir)
	require.Error(t, err, out)
	require.NotContains(t, out, "goroutine ")
}

// TestFullDisk runs a system on a small file system and fills it.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	t.Parallel()
	if os.Getenv("ZOIDFS_SYSTEST_DIRS") != "" {
		t.Skip("needs a zoidfs system")
	}
	needRoot(t, "mounts a tmpfs")
	disk := filepath.Join(shortTempDir(t), "disk")
	require.NoError(t, os.Mkdir(disk, 0o755))
	command{}.run(t, "mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", disk)
	t.Cleanup(func() { _, _ = command{}.try("umount", disk) })
	c := newCluster(t, filepath.Join(disk, "sys"))
	c.up(t)
	r := c.rig()
	shell(t, r.dirs[0], "head -c 5000000 /dev/urandom > keep; for i in $(seq 20); do echo $i > s$i; done")
	want := shell(t, r.dirs[1], "sha256sum keep s*")
	for round := range 2 {
		out, err := command{dir: r.dirs[0]}.try("dd", "if=/dev/zero", fmt.Sprint("of=fill", round), "bs=1M", "count=200")
		require.Error(t, err, "96 MiB hold 200")
		require.Contains(t, out, "No space left on device")
		// What needs no space works, what needs some fails cleanly or works.
		require.Equal(t, want, shell(t, r.dirs[1], "sha256sum keep s*"))
		out, err = command{dir: r.dirs[1]}.try("sh", "-c", "head -c 3000000 /dev/zero > more")
		if err != nil {
			require.Contains(t, out, "No space left on device")
		}
		_, _ = command{dir: r.dirs[1]}.try("mkdir", "newdir")
		shell(t, r.dirs[1], "rm -rf fill* more newdir")
		shell(t, r.dirs[1], "head -c 20000000 /dev/zero > again && cmp -n 20000000 again /dev/zero && rm again")
	}
	require.Equal(t, want, shell(t, r.dirs[0], "sha256sum keep s*"))
	c.down(t)
	c.up(t)
	require.Equal(t, want, shell(t, r.dirs[0], "sha256sum keep s*"))
	c.noPanics(t)
}
