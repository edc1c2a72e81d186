package replay

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/trace"
)

// story is a trace of two processes: one makes a file and hands it to the other,
// which appends, locks, copies and moves it.
func story() []*trace.Trace {
	at := int64(0)
	call := func(proc uint32, o trace.Op, c trace.Call) trace.Call {
		c.Op, c.Proc, c.Start, c.End = o, proc, at, at+5
		at += 10
		return c
	}
	calls := []trace.Call{
		call(1, trace.Mkdir, trace.Call{Path: "d", Arg: 0o755}),
		call(1, trace.Create, trace.Call{Path: "d/f", File: 7, Open: 1, Arg: unix.O_RDWR}),
		call(1, trace.Getattr, trace.Call{File: 7}),
		call(1, trace.Write, trace.Call{File: 7, Open: 1, Off: 100, Len: 50, N: 50}),
		call(1, trace.Lock, trace.Call{File: 7, Open: 1, Off: 0, Len: trace.MaxOff}),
		call(1, trace.Fsync, trace.Call{File: 7, Open: 1}),
		call(1, trace.Unlock, trace.Call{File: 7, Open: 1, Off: 0, Len: trace.MaxOff}),
		call(1, trace.Flush, trace.Call{File: 7, Open: 1}),
		call(2, trace.Open, trace.Call{Path: "d/f", File: 7, Open: 2, Arg: unix.O_WRONLY | unix.O_APPEND}),
		call(2, trace.Flush, trace.Call{File: 7, Open: 2}), // of a copy
		call(2, trace.Write, trace.Call{File: 7, Open: 2, Off: 150, Len: 10, N: 10, Arg: trace.WriteAppend}),
		call(2, trace.Flush, trace.Call{File: 7, Open: 2}),
		call(2, trace.Read, trace.Call{File: 8, Open: 3, Off: 10, Len: 20, N: 20}), // was open before
		call(2, trace.Open, trace.Call{Path: "d/none", Arg: unix.O_RDONLY, Errno: syscall.ENOENT}),
		call(2, trace.Truncate, trace.Call{File: 7, Len: 155}),
		call(2, trace.Rename, trace.Call{Path: "d/f", To: "d/g"}),
		call(1, trace.Readdir, trace.Call{Path: "d"}),
		call(1, trace.Unlink, trace.Call{Path: "surprise"}),
		call(1, trace.Unlink, trace.Call{Path: "d/gone", Errno: syscall.EACCES}), // here: ENOENT
	}
	return []*trace.Trace{{
		Procs: []trace.Process{{ID: 1, PID: 1}, {ID: 2, PID: 2}},
		Files: map[uint64]string{7: "d/f", 8: "other/h"}, Calls: calls,
	}}
}

func TestReplay(t *testing.T) {
	traces := story()
	calls, err := trace.Merge(traces)
	require.NoError(t, err)
	for name, speed := range map[string]float64{"as fast as it goes": 0, "at speed": 1} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			res, err := Run(context.Background(), traces, calls, Options{Dir: dir, Speed: speed})
			require.NoError(t, err)
			require.NoFileExists(t, filepath.Join(dir, "d/f"))
			b, err := os.ReadFile(filepath.Join(dir, "d/g"))
			require.NoError(t, err)
			require.Len(t, b, 155)
			require.Equal(t, byte(103), b[103])
			st, err := os.Stat(filepath.Join(dir, "other/h"))
			require.NoError(t, err)
			require.EqualValues(t, 30, st.Size(), "what was read is there")
			require.NoFileExists(t, filepath.Join(dir, "surprise"))
			require.Equal(t, 1, res.Skipped)
			require.Equal(t, &Kind{Calls: 2, Bytes: 60, Took: res.Kinds[trace.Write].Took, Then: 10}, res.Kinds[trace.Write])
			differ := 0
			for _, k := range res.Kinds {
				differ += k.Differ
			}
			require.Equal(t, 1, differ, res.First)
			require.ErrorIs(t, res.First[trace.Unlink].Err, syscall.ENOENT)
		})
	}
}

// TestOrder has one process wait for the other, as in the trace.
func TestOrder(t *testing.T) {
	tr := &trace.Trace{Procs: []trace.Process{{ID: 1}, {ID: 2}}, Files: map[uint64]string{}}
	for i := int64(0); i < 200; i += 2 {
		tr.Calls = append(tr.Calls,
			trace.Call{Op: trace.Mkdir, Proc: 1 + uint32(i/2%2), Path: "d", Arg: 0o755, Start: 10 * i, End: 10*i + 5},
			trace.Call{Op: trace.Rmdir, Proc: 2 - uint32(i/2%2), Path: "d", Start: 10*i + 10, End: 10*i + 15})
	}
	calls, err := trace.Merge([]*trace.Trace{tr})
	require.NoError(t, err)
	res, err := Run(context.Background(), []*trace.Trace{tr}, calls, Options{Dir: t.TempDir()})
	require.NoError(t, err)
	require.Empty(t, res.First)
}

func TestReplayEndsWithItsContext(t *testing.T) {
	traces := story()
	last := &traces[0].Calls[len(traces[0].Calls)-1]
	last.Start, last.End = int64(time.Hour), int64(time.Hour)
	calls, err := trace.Merge(traces)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Run(ctx, traces, calls, Options{Dir: t.TempDir(), Speed: 1})
	require.ErrorIs(t, err, context.Canceled)
	_, err = Run(ctx, traces, calls, Options{Speed: -1})
	require.ErrorContains(t, err, "negative")
}
