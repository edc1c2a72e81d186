package systest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// skipOrFail skips the test for want of something on this machine. Under
// CI=true nothing may be wanting.
func skipOrFail(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// need skips the test if a program is missing, naming its Debian package.
func need(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		skipOrFail(t, "%s is missing: apt-get install %s", program, pkg)
	}
}

// needRoot skips the test if it is not run by root.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		skipOrFail(t, "needs root: %s", why)
	}
}

// zoidfsBinary returns the zoidfs binary under test, built once a run.
func zoidfsBinary(t *testing.T) string {
	t.Helper()
	if s := os.Getenv("ZOIDFS_SYSTEST_BIN"); s != "" {
		return s
	}
	path, err := buildBinary()
	require.NoError(t, err)
	return path
}

// binDir holds what this run has built, once there is anything. TestMain
// removes it.
var binDir string

var buildBinary = sync.OnceValues(func() (string, error) {
	var err error
	if binDir, err = os.MkdirTemp("", "zoidfs-systest-"); err != nil {
		return "", err
	}
	if err := os.Chmod(binDir, 0o755); err != nil { // other users run it too
		return "", err
	}
	path := filepath.Join(binDir, "zoidfs")
	args := []string{"build", "-o", path}
	if os.Getenv("ZOIDFS_SYSTEST_RACE") == "1" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "../../cmd/zoidfs")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// fastDir is where systems keep their data during the tests: in memory if
// there is room, for the tests do not end the power. "" is the usual place.
func fastDir() string {
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(shm, &st) == nil && int64(st.Bavail)*st.Bsize > 4<<30 && unix.Access(shm, unix.W_OK) == nil {
		return shm
	}
	return ""
}

// shortTempDir is t.TempDir with a short name, and leaves a mount that did not
// go away alone rather than deleting files through it.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(fastDir(), "zfs")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755)) // other users use the mounts too
	t.Cleanup(func() {
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || strings.Contains(string(mounts), dir+"/") {
			t.Errorf("mounts are left under %s", dir)
			return
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

// seed returns the seed of a randomised test and logs how to repeat it.
func seed(t *testing.T) int64 {
	t.Helper()
	s := time.Now().UnixNano()
	if v := os.Getenv("ZOIDFS_SYSTEST_SEED"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		require.NoError(t, err)
		s = n
	}
	t.Logf("ZOIDFS_SYSTEST_SEED=%d", s)
	return s
}

// command is a program to run in a directory with a deadline.
type command struct {
	dir     string
	env     []string
	stdin   io.Reader
	timeout time.Duration // 0 means two minutes
}

// try runs argv and returns all its output.
func (c command) try(argv ...string) (string, error) {
	if c.timeout == 0 {
		c.timeout = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.dir, append(os.Environ(), c.env...), c.stdin, &out, &out
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no end within %v", c.timeout)
	}
	return out.String(), err
}

// run runs argv, which must succeed, and returns all its output.
func (c command) run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := c.try(argv...)
	if len(out) > 8000 {
		out = out[:8000] + "..."
	}
	require.NoErrorf(t, err, "%s: %s", strings.Join(argv, " "), out)
	return out
}

// shell runs a script, which must succeed, in a directory.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	return command{dir: dir}.run(t, "bash", "-euo", "pipefail", "-c", script)
}
