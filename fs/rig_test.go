package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// rig is a file system mounted on some nodes of this machine.
type rig struct {
	ions  *ions
	nodes []*mountProc
	dirs  []string // one a node: the same directory, made for the test
}

// mountEnv makes the test binary a mount, described by mountArgs in JSON. A
// mount in the process that uses it could deadlock the Go runtime, and neither
// would die if it were killed.
const mountEnv = "ZOIDFS_FS_TEST_MOUNT"

type mountArgs struct {
	Addrs              []string
	Mountpoint, FSName string
	ReadOnly           bool
	Consistency        consistency.Mode
	Guard              Guard
	NoIOURing          bool
	user               *syscall.Credential // who mounts; nil is the user of the test
}

// mountMain mounts, says so and serves until stdin ends.
func mountMain(args string, stdin io.Reader, stdout io.Writer) error {
	var a mountArgs
	if err := json.Unmarshal([]byte(args), &a); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	life, end := context.WithCancel(context.Background())
	defer end()
	client, err := ionclient.Dial(life, ionclient.Options{Addrs: a.Addrs, Mountpoint: a.Mountpoint, Logger: log})
	if err != nil {
		return err
	}
	s, err := Mount(life, Options{
		Mountpoint: a.Mountpoint, FSName: a.FSName, ReadOnly: a.ReadOnly,
		Consistency: a.Consistency, Guard: a.Guard, NoIOURing: a.NoIOURing,
		Client: client, AllowOther: os.Geteuid() == 0, Version: "test", Logger: log,
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "mounted")
	go func() {
		io.Copy(io.Discard, stdin)
		end()
	}()
	if err := s.Run(life); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil {
		return err
	}
	io.Copy(io.Discard, stdin) // the goroutine above ends before leaks are looked for
	return goleak.Find(goleak.IgnoreAnyFunction("github.com/zoidfs/zoidfs/fs.mountMain.func1"))
}

// mountProc is the mount process of a node.
type mountProc struct {
	point string
	cmd   *exec.Cmd
	stdin io.Closer
}

// Mountpoint is the absolute path of the mount.
func (m *mountProc) Mountpoint() string { return m.point }

// get reads an attribute of the root in which the mount describes itself.
func (m *mountProc) get(t testing.TB, name string, v any) {
	t.Helper()
	size, err := unix.Getxattr(m.point, name, nil)
	require.NoError(t, err)
	b := make([]byte, 2*size) // it may have grown
	size, err = unix.Getxattr(m.point, name, b)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b[:size], v))
}

// requests is how many requests of a kind the mount has sent.
func (m *mountProc) requests(t testing.TB, kind string) uint64 {
	t.Helper()
	var s Snapshot
	m.get(t, statsXattr, &s)
	return s.RPC.Requests[kind]
}

// stop unmounts and returns how the process ended.
func (m *mountProc) stop() error {
	m.stdin.Close()
	return m.cmd.Wait()
}

// startMount runs a mount process and returns when it has mounted.
func (r *rig) startMount(t testing.TB, a mountArgs) *mountProc {
	t.Helper()
	if a.Mountpoint == "" {
		a.Mountpoint = mountpoint(t)
	}
	a.Addrs = r.ions.addrs
	args, err := json.Marshal(a)
	require.NoError(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mountEnv+"="+string(args), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.user}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, "the mount process says on stderr why")
	return &mountProc{point: a.Mountpoint, cmd: cmd, stdin: stdin}
}

// mount mounts the file system once more, until the test ends.
func (r *rig) mount(t testing.TB, a mountArgs) *mountProc {
	t.Helper()
	m := r.startMount(t, a)
	t.Cleanup(func() { require.NoError(t, m.stop(), "mount process") })
	r.nodes = append(r.nodes, m)
	return m
}

// mountpoint makes a directory that all users can reach.
func mountpoint(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zoidfs-fs-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
	return dir
}

// newRig mounts a new file system on so many nodes.
func newRig(t testing.TB, nodes int) *rig {
	t.Helper()
	needFUSE(t)
	r := &rig{ions: startIONs(t)}
	for i := range nodes {
		s := r.mount(t, mountArgs{NoIOURing: i%2 == 1}) // both ways, if the kernel has both
		dir := filepath.Join(s.Mountpoint(), strings.ReplaceAll(t.Name(), "/", "_"))
		if len(r.dirs) == 0 {
			require.NoError(t, os.Mkdir(dir, 0o777))
			require.NoError(t, os.Chmod(dir, 0o777))
		}
		r.dirs = append(r.dirs, dir)
	}
	return r
}

// path is a name in the test's directory as a node sees it.
func (r *rig) path(node int, name string) string { return filepath.Join(r.dirs[node], name) }
