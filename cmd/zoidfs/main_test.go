package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
)

// binEnv names the binary under test, built once for all tests.
const binEnv = "ZOIDFS_CMD_TEST_BIN"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "zoidfs-cmd")
	if err == nil {
		err = os.Chmod(dir, 0o755) // for the tests that run as nobody
	}
	bin := filepath.Join(dir, "zoidfs")
	if err == nil {
		var out []byte
		if out, err = exec.Command("go", "build", "-buildvcs=false", "-o", bin, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(binEnv, bin)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// result is how a command ended.
type result struct {
	code        int
	out, errOut string
}

// shell is how the tests call commands: as whom and from where.
type shell struct {
	cred  *syscall.Credential
	dir   string
	env   []string
	stdin io.Reader
}

// zoidfs runs the binary under test to its end.
func (s shell) zoidfs(t *testing.T, args ...string) result {
	t.Helper()
	return s.run(t, os.Getenv(binEnv), args...)
}

func (s shell) run(t *testing.T, program string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = s.dir, s.stdin, &out, &errOut, 2*time.Second
	cmd.Env = append(os.Environ(), s.env...)
	if s.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err, "%s %v: %s", program, args, errOut.String())
	}
	require.NoError(t, ctx.Err(), "%v hangs: %s%s", args, out.String(), errOut.String())
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// zoidfs runs the binary under test to its end.
func zoidfs(t *testing.T, args ...string) result {
	t.Helper()
	return shell{}.zoidfs(t, args...)
}

// ok runs a command that must succeed and returns what it printed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := zoidfs(t, args...)
	require.Zero(t, r.code, "zoidfs %v: %s%s", args, r.out, r.errOut)
	return r.out
}

// nothingMounted fails the test if a mount is left below dir.
func nothingMounted(t *testing.T, dir string) {
	t.Helper()
	all, err := mounts.List()
	require.NoError(t, err)
	for _, m := range all {
		require.False(t, strings.HasPrefix(m.Point, dir+"/"), "mount %s is left", m.Point)
	}
}

// skipOrFail skips a test for want of something on this machine. Under CI=true
// nothing may be wanting.
func skipOrFail(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func needMounts(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skipOrFail(t, "no /dev/fuse: %v", err)
	}
	if os.Getuid() != 0 {
		if _, err := exec.LookPath("fusermount3"); err != nil {
			skipOrFail(t, "fusermount3 is missing: apt-get install fuse3")
		}
	}
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		skipOrFail(t, "needs root: %s", why)
	}
}
