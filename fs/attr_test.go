package fs

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSetAttrOf(t *testing.T) {
	in := func(valid uint32) *fuse.SetAttrIn {
		var s fuse.SetAttrIn
		s.Valid, s.Mode, s.Uid, s.Gid = valid, 0o104755, 11, 12
		s.Size, s.Atime, s.Mtime, s.Atimensec = 13, 14, 15, 999
		return &s
	}
	got, e := setAttrOf(in(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_SIZE|fuse.FATTR_ATIME|fuse.FATTR_MTIME), false)
	require.Zero(t, e)
	require.Equal(t, uint32(0o4755), *got.Mode)
	require.Equal(t, []uint32{11, 12}, []uint32{*got.UID, *got.GID})
	require.Equal(t, []int64{13, 14, 15}, []int64{*got.Size, *got.Atime, *got.Mtime})
	require.False(t, got.AtimeNow || got.MtimeNow || got.KillSUID)

	got, e = setAttrOf(in(fuse.FATTR_ATIME|fuse.FATTR_ATIME_NOW|fuse.FATTR_MTIME|fuse.FATTR_MTIME_NOW|fuse.FATTR_KILL_SUIDGID), false)
	require.Zero(t, e)
	require.Nil(t, got.Atime)
	require.Nil(t, got.Mtime)
	require.True(t, got.AtimeNow && got.MtimeNow && got.KillSUID)

	got, e = setAttrOf(in(fuse.FATTR_MTIME), true)
	require.Zero(t, e)
	require.Nil(t, got.Atime, "UTIME_OMIT")
	require.Nil(t, got.Mode)

	huge := in(fuse.FATTR_SIZE)
	huge.Size = maxOffset + 1
	_, e = setAttrOf(huge, false)
	require.Equal(t, syscall.EFBIG, e)
}

func TestStorableMode(t *testing.T) {
	for _, tc := range []struct {
		mode uint32
		dir  bool
		want uint32
		e    syscall.Errno
	}{
		{0, false, 0, 0},
		{0o7777, false, 0o6777, 0},
		{0o2775, true, 0o2775, 0},
		{0o1777, true, 0, syscall.EPERM},
	} {
		got, e := storableMode(tc.mode, tc.dir)
		require.Equal(t, tc.e, e, "%o", tc.mode)
		require.Equal(t, tc.want, got, "%o", tc.mode)
	}
}

func TestModes(t *testing.T) {
	r := newRig(t, 1)
	f := r.path(0, "f")
	require.NoError(t, os.WriteFile(f, nil, 0o644))
	for _, mode := range []uint32{0, 0o7, 0o4755, 0o2755, 0o600} {
		require.NoError(t, unix.Chmod(f, mode))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(f, &st))
		require.Equal(t, unix.S_IFREG|mode, st.Mode)
	}
	require.NoError(t, unix.Chmod(f, 0o1600), "the bit means nothing on a file")
	d := r.path(0, "d")
	require.ErrorIs(t, unix.Mkdir(d, 0o1777), syscall.EPERM)
	require.NoError(t, unix.Mkdir(d, 0o755))
	require.ErrorIs(t, unix.Chmod(d, 0o1777), syscall.EPERM)

	require.NoError(t, os.Chown(d, 0, 4242))
	require.NoError(t, unix.Chmod(d, 0o2777))
	w := startWorkerAs(t, &syscall.Credential{Uid: 1234, Gid: 1234})
	w.do(request{Op: "umask", Mode: 0o027})
	w.do(request{Op: "mkdir", Path: d + "/sub", Mode: 0o777})
	st := w.do(request{Op: "stat", Path: d + "/sub"})
	require.Equal(t, uint32(unix.S_IFDIR|0o2750), st.Mode)
	require.Equal(t, uint32(4242), st.GID, "a setgid directory hands down its group")
	w.open(d+"/file", unix.O_CREAT|unix.O_WRONLY)
	st = w.do(request{Op: "stat", Path: d + "/file"})
	require.Equal(t, uint32(unix.S_IFREG|0o640), st.Mode)
	require.Equal(t, uint32(4242), st.GID)
}

func TestPermissionsAreChecked(t *testing.T) {
	r := newRig(t, 1)
	f := r.path(0, "secret")
	require.NoError(t, os.WriteFile(f, []byte("x"), 0o600))
	w := startWorkerAs(t, &syscall.Credential{Uid: 1234, Gid: 1234})
	require.Equal(t, syscall.EACCES, w.try(request{Op: "open", Path: f}).Errno)
	require.Equal(t, syscall.EPERM, w.try(request{Op: "chmod", Path: f, Mode: 0o666}).Errno)
	require.NoError(t, os.Chmod(f, 0o644))
	w.open(f, unix.O_RDONLY)
	require.NoError(t, os.Chmod(f, 0o600))
	require.Equal(t, syscall.EACCES, w.try(request{Op: "open", Path: f}).Errno, "seen at once")
	require.NoError(t, os.Chmod(r.dirs[0], 0o700))
	require.Equal(t, syscall.EACCES, w.try(request{Op: "stat", Path: f}).Errno)
}

func TestSetuidIsCleared(t *testing.T) {
	r := newRig(t, 1)
	w := startWorkerAs(t, &syscall.Credential{Uid: 1234, Gid: 1234})
	f := r.path(0, "f")
	mode := func() uint32 { return w.do(request{Op: "stat", Path: f}).Mode & 0o7777 }
	arm := func(m uint32) {
		require.NoError(t, os.WriteFile(f, []byte("1234"), 0o666))
		require.NoError(t, unix.Chmod(f, m))
	}
	for name, change := range map[string]func(){
		"write":    func() { w.write(w.open(f, unix.O_RDWR), 0, "x") },
		"append":   func() { w.do(request{Op: "write", FD: w.open(f, unix.O_WRONLY|unix.O_APPEND), Data: []byte("x")}) },
		"truncate": func() { w.do(request{Op: "truncate", Path: f, Len: 1}) },
		"O_TRUNC":  func() { w.open(f, unix.O_RDWR|unix.O_TRUNC) },
	} {
		t.Run(name, func(t *testing.T) {
			arm(0o6777)
			change()
			require.Equal(t, uint32(0o777), mode())
		})
	}
	arm(0o6777)
	before := r.nodes[0].requests(t, "setattr")
	w.open(f, unix.O_RDWR|unix.O_TRUNC)
	require.Equal(t, before, r.nodes[0].requests(t, "setattr"), "by the OPEN itself")
	arm(0o6766)
	w.write(w.open(f, unix.O_RDWR), 0, "x")
	require.Equal(t, uint32(0o2766), mode(), "setgid without group execute is not a privilege")
	arm(0o6777)
	require.NoError(t, os.WriteFile(f, []byte("root may"), 0o666))
	require.Equal(t, uint32(0o6777), mode())
	require.NoError(t, os.Chown(f, 1234, 1234))
	require.Equal(t, uint32(0o777), mode(), "by chown always")
}

func TestTimes(t *testing.T) {
	r := newRig(t, 1)
	f := r.path(0, "f")
	require.NoError(t, os.WriteFile(f, nil, 0o644))
	set := func(a, m unix.Timespec) (unix.Timespec, unix.Timespec) {
		t.Helper()
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{a, m}, 0))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(f, &st))
		return st.Atim, st.Mtim
	}
	omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}
	a, m := set(unix.Timespec{Sec: 1000, Nsec: 5}, unix.Timespec{Sec: 2000})
	require.Equal(t, unix.Timespec{Sec: 1000}, a, "whole seconds")
	require.Equal(t, unix.Timespec{Sec: 2000}, m)
	a, m = set(omit, unix.Timespec{Sec: 3000})
	require.Equal(t, int64(1000), a.Sec)
	require.Equal(t, int64(3000), m.Sec)
	a, m = set(now, omit)
	require.InDelta(t, time.Now().Unix(), a.Sec, 5)
	require.Equal(t, int64(3000), m.Sec)
	require.NoError(t, os.WriteFile(f, []byte("x"), 0o644))
	_, m = set(omit, omit)
	require.InDelta(t, time.Now().Unix(), m.Sec, 5, "set by a write")
}

func TestWhatPVFS2Lacks(t *testing.T) {
	r := newRig(t, 1)
	f := r.path(0, "f")
	require.NoError(t, unix.Mknod(f, unix.S_IFREG|0o600, 0))
	fi, err := os.Lstat(f)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode())
	require.ErrorIs(t, unix.Mkfifo(r.path(0, "fifo"), 0o600), syscall.EPERM)
	require.ErrorIs(t, unix.Mknod(r.path(0, "null"), unix.S_IFCHR|0o600, 0x103), syscall.EPERM)
	require.ErrorIs(t, os.Link(f, r.path(0, "link")), syscall.EPERM)
	_, err = unix.Open(r.dirs[0], unix.O_TMPFILE|unix.O_RDWR, 0o600)
	require.Equal(t, syscall.EOPNOTSUPP, err)
	fd, err := unix.Open(f, unix.O_RDWR, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.Equal(t, syscall.EOPNOTSUPP, unix.Fallocate(fd, 0, 0, 100))

	long := strings.Repeat("n", 256)
	for name, err := range map[string]error{
		"lookup":  func() error { _, err := os.Stat(r.path(0, long)); return err }(),
		"create":  os.WriteFile(r.path(0, long), nil, 0o600),
		"mkdir":   os.Mkdir(r.path(0, long), 0o700),
		"symlink": os.Symlink("x", r.path(0, long)),
		"rename":  os.Rename(f, r.path(0, long)),
	} {
		require.ErrorIs(t, err, syscall.ENAMETOOLONG, name)
	}
	require.NoError(t, os.WriteFile(r.path(0, long[1:]), nil, 0o600))
}

func TestStat(t *testing.T) {
	r := newRig(t, 1)
	f := r.path(0, "f")
	require.NoError(t, os.WriteFile(f, make([]byte, 10000), 0o644))
	var st, dir unix.Stat_t
	require.NoError(t, unix.Stat(f, &st))
	require.EqualValues(t, 10000, st.Size)
	require.EqualValues(t, 20, st.Blocks)
	require.EqualValues(t, 1, st.Nlink)
	require.GreaterOrEqual(t, st.Blksize, int64(4096))
	require.NoError(t, unix.Stat(r.dirs[0], &dir))
	require.EqualValues(t, 1, dir.Nlink)
	require.NotEqual(t, st.Ino, dir.Ino)

	fd, err := os.Open(f)
	require.NoError(t, err)
	defer fd.Close()
	for _, tc := range []struct {
		off, want int64
		whence    int
		err       error
	}{
		{0, 0, unix.SEEK_DATA, nil}, {9999, 9999, unix.SEEK_DATA, nil}, {10000, 0, unix.SEEK_DATA, syscall.ENXIO},
		{0, 10000, unix.SEEK_HOLE, nil}, {10000, 0, unix.SEEK_HOLE, syscall.ENXIO}, {0, 10000, io.SeekEnd, nil},
	} {
		off, err := unix.Seek(int(fd.Fd()), tc.off, tc.whence)
		require.Equal(t, tc.err, err, tc)
		if err == nil {
			require.Equal(t, tc.want, off, tc)
		}
	}

	var sf unix.Statfs_t
	require.NoError(t, unix.Statfs(r.dirs[0], &sf))
	require.EqualValues(t, 255, sf.Namelen)
	require.NotZero(t, sf.Blocks)
	require.LessOrEqual(t, sf.Bavail, sf.Blocks)
}

// TestReaddirIsASnapshot deletes while it lists, as rm -r does.
func TestReaddirIsASnapshot(t *testing.T) {
	r := newRig(t, 2)
	const files = 300
	want := map[string]bool{}
	for i := range files {
		name := fmt.Sprint("file", i)
		want[name] = true
		require.NoError(t, os.WriteFile(r.path(0, name), nil, 0o600))
	}
	d, err := os.Open(r.dirs[1])
	require.NoError(t, err)
	defer d.Close()
	for {
		ents, err := d.ReadDir(100)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		for _, e := range ents {
			require.True(t, want[e.Name()], e.Name())
			require.Zero(t, e.Type(), "regular")
			delete(want, e.Name())
			require.NoError(t, os.Remove(r.path(0, e.Name())))
		}
	}
	require.Empty(t, want)
	require.NoError(t, os.WriteFile(r.path(0, "new"), nil, 0o600))
	_, err = d.Seek(0, io.SeekStart)
	require.NoError(t, err)
	names, err := d.Readdirnames(-1)
	require.NoError(t, err)
	require.Equal(t, []string{"new"}, names, "rewinddir looks again")
	require.NoError(t, os.Remove(r.path(1, "new")))
	require.NoError(t, os.Remove(r.dirs[1]))
}

func TestOrphanDirectoryIsHidden(t *testing.T) {
	r := newRig(t, 1)
	root := r.nodes[0].Mountpoint()
	f, err := os.Create(r.path(0, "f"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Remove(f.Name()))
	ents, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range ents {
		require.NotContains(t, e.Name(), "zoidfs")
	}
	hidden := root + "/.zoidfs-orphans"
	_, err = os.Stat(hidden)
	require.ErrorIs(t, err, syscall.ENOENT)
	require.Error(t, os.Mkdir(hidden, 0o700))
	require.Error(t, os.Rename(r.dirs[0], hidden))
}
