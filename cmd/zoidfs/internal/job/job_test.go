package job

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script runs one shell script a rank; $R is the rank, $D a directory.
func script(dir, text string) func(int) *exec.Cmd {
	return func(rank int) *exec.Cmd {
		cmd := exec.Command("sh", "-c", text)
		cmd.Env = append(os.Environ(), fmt.Sprintf("R=%d", rank), "D="+dir)
		return cmd
	}
}

func TestCode(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       int
		ended      []string
	}{
		{"all well", "exit 0", 0, nil},
		{"the first that is not 0 counts", `case $R in 0) exit 0;; 1) exit 3;; 2) while ! test -e $D/go; do sleep 0.01; done; exit 4;; esac`, 3,
			[]string{"1 exit status 3", "2 exit status 4"}},
		{"a signal counts and ends the others", `test $R = 1 && kill -KILL $$; sleep 100`, 128 + 9, []string{"1 killed by SIGKILL"}},
		{"who ignores the end is killed", `test $R = 1 && { while ! test -e $D/armed; do sleep 0.01; done; kill -SEGV $$; }
			trap "" TERM; : >$D/armed; while :; do sleep 0.05; done`, 128 + 11, []string{"1 killed by SIGSEGV"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var ended []string
			start := time.Now()
			code, err := Run(context.Background(), Spec{
				Ranks: 3, Command: script(dir, tt.text), Grace: 200 * time.Millisecond,
				Ended: func(rank int, how string) {
					ended = append(ended, fmt.Sprint(rank, " ", how))
					require.NoError(t, os.WriteFile(dir+"/go", nil, 0o644))
				},
			})
			require.NoError(t, err)
			require.Equal(t, tt.want, code)
			require.Equal(t, tt.ended, ended)
			require.Less(t, time.Since(start), 20*time.Second)
		})
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	dir := t.TempDir()
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < 2; time.Sleep(5 * time.Millisecond) {
			names, _ := os.ReadDir(dir)
			n = len(names)
		}
		signals <- syscall.SIGUSR1
	}()
	code, err := Run(context.Background(), Spec{
		Ranks: 2, Signals: signals, Grace: time.Second,
		Command: script(dir, `trap 'exit 7' USR1; : >$D/$R; while :; do sleep 0.02; done`),
	})
	<-done
	require.NoError(t, err)
	require.Equal(t, 7, code)
}

func TestCancelEndsTheJob(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	code, err := Run(ctx, Spec{Ranks: 2, Grace: time.Second, Command: script("", "sleep 100")})
	require.NoError(t, err)
	require.Equal(t, 128+15, code)
}

func TestNothingIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	// A process that left its group and whose parent is gone.
	code, err := Run(context.Background(), Spec{Ranks: 1, Grace: time.Second,
		Command: script(dir, `(setsid sh -c 'echo $$ >$D/pid; exec sleep 100' &) ; while ! test -s $D/pid; do sleep 0.01; done`)})
	require.NoError(t, err)
	require.Zero(t, code)
	b, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(t, err)
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

func TestProgramThatCannotStart(t *testing.T) {
	_, err := Run(context.Background(), Spec{Ranks: 2, Grace: time.Second, Command: func(rank int) *exec.Cmd {
		if rank == 1 {
			return exec.Command("/no/such/program")
		}
		return exec.Command("sleep", "100")
	}})
	require.ErrorContains(t, err, "start rank 1")
	require.Empty(t, children(os.Getpid()))
}

func TestBlock(t *testing.T) {
	for _, tt := range []struct {
		size, nodes int
		want        []int
	}{
		{8, 2, []int{0, 0, 0, 0, 1, 1, 1, 1}},
		{5, 2, []int{0, 0, 0, 1, 1}},
		{2, 2, []int{0, 1}},
		{4, 1, []int{0, 0, 0, 0}},
		{7, 3, []int{0, 0, 0, 1, 1, 2, 2}},
	} {
		var got []int
		for r := range tt.size {
			got = append(got, Block(r, tt.size, tt.nodes))
		}
		require.Equal(t, tt.want, got, "%d ranks on %d nodes", tt.size, tt.nodes)
	}
}
