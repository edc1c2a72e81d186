package fs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/trace"
)

// setTrace sets the attribute by which traces begin and end.
func (m *mountProc) setTrace(t testing.TB, q TraceRequest) error {
	t.Helper()
	b, err := json.Marshal(q)
	require.NoError(t, err)
	return unix.Setxattr(m.point, TraceXattr, b, 0)
}

// readTrace reads the calls on one file.
func readTrace(t testing.TB, file, name string) *trace.Trace {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	tr, err := trace.Decode(f, 1<<20, func(tr *trace.Trace, c *trace.Call) bool {
		return filepath.Base(tr.Name(c)) == name || filepath.Base(c.To) == name
	})
	require.NoError(t, err)
	return tr
}

func TestTrace(t *testing.T) {
	r := newRig(t, 1)
	m := r.nodes[0]
	early, err := os.Create(r.path(0, "early"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "trace")
	require.NoError(t, m.setTrace(t, TraceRequest{File: file}))
	require.ErrorIs(t, m.setTrace(t, TraceRequest{File: file + "2"}), syscall.EBUSY)
	require.NoFileExists(t, file+"2")

	f, err := os.OpenFile(r.path(0, "f"), os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("hello"), 10)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	_, err = f.ReadAt(make([]byte, 3), 12)
	require.NoError(t, err)
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 4, Len: 6}
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_SETLKW, &lock))
	require.NoError(t, f.Truncate(3))
	require.NoError(t, f.Chmod(0o600))
	require.NoError(t, f.Close())
	log, err := os.OpenFile(r.path(0, "f"), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = log.WriteString("tail")
	require.NoError(t, err)
	require.NoError(t, log.Close())
	_, err = early.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, os.Rename(r.path(0, "f"), r.path(0, "g")))
	require.ErrorIs(t, os.Remove(r.path(0, "f")), syscall.ENOENT)

	var s TraceStatus
	m.get(t, TraceXattr, &s)
	require.True(t, s.Running)
	require.NoError(t, m.setTrace(t, TraceRequest{}))
	require.ErrorIs(t, m.setTrace(t, TraceRequest{}), syscall.ESRCH)
	m.get(t, TraceXattr, &s)
	require.False(t, s.Running || s.Full, s)
	require.Empty(t, s.Error)
	require.Zero(t, s.Dropped)
	require.NoError(t, early.Close())

	tr := readTrace(t, file, "f")
	require.False(t, tr.Cut)
	require.Equal(t, s.Calls, tr.Footer.Calls)
	require.Equal(t, m.point, tr.Mountpoint)
	var got []string
	for i := range tr.Calls {
		c := &tr.Calls[i]
		require.LessOrEqual(t, tr.Started, c.Start)
		require.LessOrEqual(t, c.Start, c.End)
		if c.Op == trace.Getattr || c.Op == trace.Lookup || c.Op == trace.Release {
			continue // as the kernel likes
		}
		require.Equal(t, os.Getpid(), tr.Process(c).PID)
		require.NotZero(t, tr.Process(c).Started)
		got = append(got, c.String())
	}
	dir := filepath.Base(r.dirs[0]) + "/"
	require.Equal(t, []string{
		"create " + dir + "f O_RDWR|O_CREAT", "write [10,15)", "fsync", "read [12,15)", "lock [4,10)", "truncate to 3", "chmod 0600",
		"flush", "unlock [0," + strconv.Itoa(trace.MaxOff) + ")",
		"open " + dir + "f O_WRONLY|O_APPEND", "write [3,7)", "flush", "rename " + dir + "f to " + dir + "g",
	}, got)
	create, write := tr.Calls[indexOf(t, tr, trace.Create)], tr.Calls[indexOf(t, tr, trace.Write)]
	require.Equal(t, consistency.Strong, create.Mode)
	require.Equal(t, create.Open, write.Open)
	require.Equal(t, create.File, write.File)
	require.Len(t, readTrace(t, file, "early").Calls, 1, "a file that was open before is known by its name")
}

func indexOf(t testing.TB, tr *trace.Trace, o trace.Op) int {
	for i := range tr.Calls {
		if tr.Calls[i].Op == o {
			return i
		}
	}
	require.Fail(t, "no such call", o)
	return 0
}

func TestTraceRequests(t *testing.T) {
	r := newRig(t, 1)
	m, dir := r.nodes[0], t.TempDir()
	for _, q := range []TraceRequest{{File: "relative"}, {File: r.path(0, "t")}, {File: m.point}, {File: dir + "/t", Limit: 1}} {
		require.ErrorIs(t, m.setTrace(t, q), syscall.EINVAL, q)
	}
	require.ErrorIs(t, m.setTrace(t, TraceRequest{File: dir + "/none/t"}), syscall.ENOENT)
	require.NoError(t, os.Symlink(dir+"/x", dir+"/link"))
	require.ErrorIs(t, m.setTrace(t, TraceRequest{File: dir + "/link"}), syscall.EEXIST)
	require.ErrorIs(t, unix.Setxattr(m.point, TraceXattr, []byte("{"), 0), syscall.EINVAL)
	require.ErrorIs(t, unix.Removexattr(m.point, TraceXattr), syscall.EPERM)
	require.ErrorIs(t, unix.Setxattr(r.dirs[0], TraceXattr, []byte("{}"), 0), syscall.EPERM)
	var s TraceStatus
	m.get(t, TraceXattr, &s)
	require.Equal(t, TraceStatus{}, s)
}

// TestTraceEndsWithTheMount finds a whole trace after the mount was stopped.
func TestTraceEndsWithTheMount(t *testing.T) {
	r := newRig(t, 1)
	m := r.startMount(t, mountArgs{})
	file := filepath.Join(t.TempDir(), "trace")
	require.NoError(t, m.setTrace(t, TraceRequest{File: file}))
	require.NoError(t, os.WriteFile(filepath.Join(m.point, filepath.Base(r.dirs[0]), "f"), []byte("x"), 0o644))
	require.NoError(t, m.stop())
	tr := readTrace(t, file, "f")
	require.False(t, tr.Cut)
	indexOf(t, tr, trace.Write)
}
