package proc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func sleeper(t *testing.T) (*exec.Cmd, ID) {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	require.NoError(t, cmd.Start())
	id, err := Of(cmd.Process.Pid)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, id
}

func TestStopEndsTheProcess(t *testing.T) {
	_, id := sleeper(t)
	require.True(t, id.Alive())
	require.NoError(t, id.Stop(context.Background()))
	require.False(t, id.Alive(), "a process that waits to be reaped is gone")
	require.NoError(t, id.Wait(context.Background()))
	require.ErrorIs(t, id.Signal(syscall.SIGTERM), syscall.ESRCH)
	require.NoError(t, id.Stop(context.Background()), "stopping twice is no error")
}

func TestReusedPIDIsNeverSignalled(t *testing.T) {
	cmd, id := sleeper(t)
	earlier := id
	earlier.Start += "1" // who had the pid at another time
	require.False(t, earlier.Alive())
	require.ErrorIs(t, earlier.Signal(syscall.SIGKILL), syscall.ESRCH)
	require.NoError(t, earlier.Stop(context.Background()))
	require.NoError(t, cmd.Process.Signal(syscall.Signal(0)))
	require.True(t, id.Alive(), "the process that has the pid now lives on")
}

func TestZeroIDNamesNobody(t *testing.T) {
	require.False(t, ID{}.Alive())
	require.ErrorIs(t, ID{}.Signal(syscall.SIGKILL), syscall.ESRCH)
	require.Equal(t, "no process", ID{}.String())
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo; while :; do sleep 0.1; done`)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = out.Read(make([]byte, 1)) // it ignores SIGTERM from here on
	require.NoError(t, err)
	id, err := Of(cmd.Process.Pid)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, id.Stop(ctx), context.DeadlineExceeded)
	require.Error(t, cmd.Wait())
	require.False(t, id.Alive())
}

func TestNotifierReportsOnce(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		report     func(*Notifier)
	}{
		{"failure", "no such server", func(n *Notifier) { n.Fail(errors.New("no such\nserver")); n.Ready() }},
		{"success then end", "", func(n *Notifier) { n.Ready(); n.Fail(errors.New("later")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			fd, err := syscall.Dup(int(w.Fd()))
			require.NoError(t, err)
			require.NoError(t, w.Close())
			n, err := NewNotifier(fd)
			require.NoError(t, err)
			tt.report(n)
			require.Equal(t, tt.want, ReadReport(r))
		})
	}
}

func TestNotifierRefusesWhatIsNoPipe(t *testing.T) {
	_, err := NewNotifier(9999)
	require.Error(t, err)
	n, err := NewNotifier(-1)
	require.NoError(t, err)
	n.Ready() // to nobody
	n.Fail(errors.New("x"))
}

func TestReportIsBounded(t *testing.T) {
	long := append([]byte(failPrefix), bytes.Repeat([]byte("x"), 1<<20)...)
	require.Len(t, ReadReport(bytes.NewReader(long)), maxReport-len(failPrefix))
}
