package ranks

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that tells a thread of itself,
// not the first one, and waits for the end of its input.
const childEnv = "ZOIDFS_RANKS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		fmt.Println(thread())
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// thread returns the id of a thread of this process that is not the first.
func thread() int {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlock
		tid <- unix.Gettid()
		select {}
	}()
	if n := <-tid; n != os.Getpid() {
		return n
	}
	return thread()
}

// child is a process with an environment that the test has chosen.
type child struct {
	cmd    *exec.Cmd
	thread uint32
	end    func()
}

func (c *child) pid() uint32 { return uint32(c.cmd.Process.Pid) }

// start starts a process with these variables, by argv if there is one, in a
// session of its own: that of the tests may have no number in this pid namespace.
func start(t *testing.T, vars string, argv ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	if len(argv) > 0 {
		cmd = exec.Command(argv[0], append(argv[1:], exe)...)
	}
	cmd.Env = append([]string{childEnv + "=1", "PATH=" + os.Getenv("PATH")}, strings.Fields(vars)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{cmd: cmd}
	ended := false
	c.end = func() {
		if !ended {
			ended = true
			_ = in.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(c.end)
	_, err = fmt.Fscan(out, &c.thread)
	require.NoError(t, err)
	return c
}
