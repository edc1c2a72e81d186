package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testCalls makes calls with rules of their own and looks at the result from
// the other node.
func testCalls(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"readdir while names change", callReaddir},
		{"permissions of other users", callPermissions},
		{"setuid goes with a write", callSetuid},
		{"truncate by open", callOpenTrunc},
		{"fallocate", callFallocate},
		{"holes", callHoles},
		{"sync and direct opens", callSyncDirect},
		{"programs run from the mount", callExec},
		{"statfs and the mount table", callStatfs},
		{"directories move", callMoveDirs},
		{"extended attributes", callXattrs},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, r.subdir(t)) })
	}
}

// callReaddir reads a directory in small steps on one node while the other
// creates and removes names: whatever stays is seen exactly once.
func callReaddir(t *testing.T, r *rig) {
	const stay = 900
	for i := range stay {
		require.NoError(t, os.WriteFile(filepath.Join(r.dirs[i%2], fmt.Sprint("stay", i)), nil, 0o644))
	}
	for i := range 100 {
		require.NoError(t, os.WriteFile(filepath.Join(r.dirs[0], fmt.Sprint("go", i)), nil, 0o644))
	}
	d, err := os.Open(r.dirs[0])
	require.NoError(t, err)
	defer d.Close()
	seen := map[string]int{}
	for step := 0; ; step++ {
		names, err := d.Readdirnames(37)
		for _, n := range names {
			seen[n]++
		}
		if err != nil {
			break
		}
		for i := range 4 {
			_ = os.Remove(filepath.Join(r.dirs[1], fmt.Sprint("go", 4*step+i)))
			require.NoError(t, os.WriteFile(filepath.Join(r.dirs[1], fmt.Sprintf("come%d-%d", step, i)), nil, 0o644))
		}
	}
	for i := range stay {
		require.Equal(t, 1, seen[fmt.Sprint("stay", i)], "stay%d", i)
	}
	for n, count := range seen {
		require.Equal(t, 1, count, n)
	}
	all, err := os.ReadDir(r.dirs[1])
	require.NoError(t, err)
	for _, e := range all {
		require.True(t, e.Type().IsRegular(), e.Name())
	}
	command{dir: r.dirs[0]}.run(t, "sh", "-c", "ls | xargs rm")
	all, err = os.ReadDir(r.dirs[1])
	require.NoError(t, err)
	require.Empty(t, all)
}

// as returns the command line that runs a script as another user.
func as(uid, gid int, groups, script string) []string {
	who := "--clear-groups"
	if groups != "" {
		who = "--groups=" + groups
	}
	return []string{"setpriv", fmt.Sprint("--reuid=", uid), fmt.Sprint("--regid=", gid), who, "sh", "-c", script}
}

func callPermissions(t *testing.T, r *rig) {
	needRoot(t, "becomes other users")
	need(t, "setpriv", "util-linux")
	shell(t, r.dirs[0], `
		chmod 755 .; echo secret > mine; chmod 600 mine
		echo shared > group; chown 0:4321 group; chmod 640 group
		mkdir open sticky; chmod 777 open; echo x > sticky/roots`)
	// PVFS2 has no sticky bit; a directory never pretends to be protected by it.
	sticky := os.Chmod(filepath.Join(r.dirs[0], "sticky"), 0o777|os.ModeSticky)
	if sticky != nil {
		require.ErrorIs(t, sticky, unix.EPERM)
	}
	for _, tt := range []struct {
		name, groups, script string
		ok                   bool
	}{
		{"read what is not allowed", "", "cat mine", false},
		{"group without membership", "", "cat group", false},
		{"supplementary group", "4321", "cat group", true},
		{"write for a reader", "4321", "echo y >> group", false},
		{"create in a closed directory", "", "touch new", false},
		{"create in an open one", "", "touch open/new && test $(stat -c %u:%g open/new) = 5000:5000", true},
		{"remove in a sticky directory", "", "rm -f sticky/roots", false},
		{"rename in a sticky directory", "", "mv sticky/roots sticky/mine", false},
		{"own file in a sticky directory", "", "touch sticky/own && rm sticky/own", true},
		{"give away", "", "chown 0 open/new", false},
		{"chmod of another's", "", "chmod 777 mine", false},
		{"chmod of one's own", "", "chmod 400 open/new && test ! -w open/new", true},
		{"to a group of one's own", "4321", "chgrp 4321 open/new", true},
		{"to a foreign group", "", "chgrp 0 open/new", false},
		{"umask", "", "umask 027; touch open/masked; mkdir open/dir; test $(stat -c %a open/masked) = 640; test $(stat -c %a open/dir) = 750", true},
	} {
		if sticky != nil && strings.Contains(tt.script, "sticky") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			out, err := command{dir: r.dirs[1]}.try(as(5000, 5000, tt.groups, tt.script)...)
			require.Equal(t, tt.ok, err == nil, "%v: %s", err, out)
		})
	}
	require.Equal(t, "secret\n", shell(t, r.dirs[1], "cat mine"))
	shell(t, r.dirs[0], "mkdir setgid && chown 0:4321 setgid && chmod 2777 setgid")
	command{dir: r.dirs[1]}.run(t, as(5000, 5000, "", "touch setgid/f && mkdir setgid/d")...)
	require.Equal(t, "4321\n4321\n2755\n", shell(t, r.dirs[0], "stat -c %g setgid/f setgid/d; stat -c %a setgid/d"))
}

func callSetuid(t *testing.T, r *rig) {
	needRoot(t, "becomes other users")
	need(t, "setpriv", "util-linux")
	for _, tt := range []struct{ name, script string }{
		{"write", "echo more >> f"},
		{"truncate", "truncate -s 1 f"},
		{"open with O_TRUNC", ": > f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shell(t, r.dirs[0], "rm -f f; echo data > f; chown 5000:5000 f; chmod 6777 f")
			command{dir: r.dirs[1]}.run(t, as(5001, 5001, "", tt.script)...)
			require.Equal(t, "777\n", shell(t, r.dirs[0], "stat -c %a f"))
		})
	}
	t.Run("chown", func(t *testing.T) {
		shell(t, r.dirs[0], "rm -f f; echo data > f; chown 5000:5000 f; chmod 6755 f")
		command{dir: r.dirs[1]}.run(t, as(5000, 5000, "5002", "chgrp 5002 f")...)
		require.Equal(t, "755\n", shell(t, r.dirs[0], "stat -c %a f"))
	})
}

func callOpenTrunc(t *testing.T, r *rig) {
	p, q := pair(t, r)
	for _, n := range edgeSizes {
		p.ok(t, op{Do: "pwrite", FD: 1, Len: n, Fill: 1})
		q.ok(t, op{Do: "open", Path: "x", FD: 2, Flags: unix.O_WRONLY | unix.O_TRUNC})
		require.Zero(t, p.ok(t, op{Do: "fstat", FD: 1}).N)
		require.Zero(t, p.ok(t, op{Do: "pread", FD: 1, Len: 100}).N)
		q.ok(t, op{Do: "pwrite", FD: 2, Off: 5, Len: 1, Fill: 2})
		require.Equal(t, []byte{0, 0, 0, 0, 0, 2}, p.ok(t, op{Do: "pread", FD: 1, Len: 100}).Data)
		q.ok(t, op{Do: "close", FD: 2})
	}
}

func callFallocate(t *testing.T, r *rig) {
	f, err := os.Create(filepath.Join(r.dirs[0], "f"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("data")
	require.NoError(t, err)
	size := func() int64 {
		st, err := os.Stat(filepath.Join(r.dirs[1], "f"))
		require.NoError(t, err)
		return st.Size()
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, 5<<20)
	if err != nil {
		require.ErrorIs(t, err, unix.EOPNOTSUPP, "a clean refusal")
		require.EqualValues(t, 4, size())
	} else {
		require.EqualValues(t, 5<<20, size())
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1, 2)
	want := "d\x00\x00a"
	if err != nil {
		require.ErrorIs(t, err, unix.EOPNOTSUPP)
		want = "data"
	}
	b, err := os.ReadFile(filepath.Join(r.dirs[1], "f"))
	require.NoError(t, err)
	require.Equal(t, want, string(b[:4]))
	// posix_fallocate of the C library falls back to writes.
	need(t, "fallocate", "util-linux")
	command{dir: r.dirs[0]}.run(t, "fallocate", "-x", "-l", "300000", "g")
	require.Equal(t, "300000\n", shell(t, r.dirs[1], "stat -c %s g"))
}

func callHoles(t *testing.T, r *rig) {
	shell(t, r.dirs[0], "printf begin > f; truncate -s 9M f; printf end >> f")
	f, err := os.Open(filepath.Join(r.dirs[1], "f"))
	require.NoError(t, err)
	defer f.Close()
	const size = 9<<20 + 3
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	require.NoError(t, err)
	require.Zero(t, at)
	hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	require.NoError(t, err)
	require.True(t, hole >= 5 && hole <= size, "a hole at %d", hole)
	at, err = unix.Seek(int(f.Fd()), size-1, unix.SEEK_DATA)
	require.NoError(t, err)
	require.EqualValues(t, size-1, at)
	for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
		_, err = unix.Seek(int(f.Fd()), size, whence)
		require.ErrorIs(t, err, unix.ENXIO)
	}
	shell(t, r.dirs[1], "cp --sparse=always f g && cmp f g && cp --sparse=never f h")
	shell(t, r.dirs[0], "cmp f g && cmp f h")
}

func callSyncDirect(t *testing.T, r *rig) {
	for name, flags := range map[string]string{"sync": "oflag=sync", "dsync": "oflag=dsync", "direct": "oflag=direct", "fsync": "conv=fsync", "append": "oflag=append"} {
		shell(t, r.dirs[0], fmt.Sprintf("head -c 1048576 /dev/urandom > src; dd if=src of=%[1]s bs=65536 %[2]s status=none", name, flags))
		shell(t, r.dirs[1], "cmp src "+name)
	}
	shell(t, r.dirs[1], "dd if=src iflag=direct bs=65536 status=none | cmp - src")
	d, err := os.Open(r.dirs[0])
	require.NoError(t, err)
	require.NoError(t, d.Sync(), "fsync of a directory")
	require.NoError(t, d.Close())
	shell(t, r.dirs[0], "sync -f src")
}

func callExec(t *testing.T, r *rig) {
	shell(t, r.dirs[0], `cp "$(command -v ls)" program; printf '#!/bin/sh\necho "script $1"\n' > script; chmod 755 program script`)
	require.Equal(t, "program\nscript\n", shell(t, r.dirs[1], "./program"))
	require.Equal(t, "script 7\n", shell(t, r.dirs[1], "./script 7"))
	shell(t, r.dirs[1], "cp program other && rm program && mv other program && ./program > /dev/null")
}

func callStatfs(t *testing.T, r *rig) {
	r.needCluster(t)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(r.dirs[0], &st))
	require.EqualValues(t, 0x65735546, st.Type)
	require.Positive(t, st.Bsize)
	require.Positive(t, st.Bavail)
	require.LessOrEqual(t, st.Bfree, st.Blocks)
	require.EqualValues(t, 255, st.Namelen)
	var types []string
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 2 && slices.Contains(r.cluster.rig().dirs, f[1]) {
			types = append(types, f[2])
		}
	}
	require.Equal(t, []string{"fuse.zoidfs", "fuse.zoidfs"}, types)
	require.Contains(t, shell(t, r.dirs[0], "df -T ."), "fuse.zoidfs")
	info, err := os.Stat(r.dirs[0])
	require.NoError(t, err)
	require.GreaterOrEqual(t, info.Sys().(*syscall.Stat_t).Nlink, uint64(1))
	require.NoError(t, os.WriteFile(filepath.Join(r.dirs[0], "f"), make([]byte, 10), 0o644))
	info, err = os.Stat(filepath.Join(r.dirs[1], "f"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, info.Sys().(*syscall.Stat_t).Blksize, int64(64<<10), "programs read and write in units of a stripe")
}

// callMoveDirs moves directories while the other node works below them.
func callMoveDirs(t *testing.T, r *rig) {
	shell(t, r.dirs[0], "mkdir -p a/b/c x/y; echo 1 > a/b/c/f")
	f, err := os.OpenFile(filepath.Join(r.dirs[1], "a/b/c/f"), os.O_RDWR|os.O_APPEND, 0)
	require.NoError(t, err)
	defer f.Close()
	shell(t, r.dirs[0], "mv a/b x/y/moved")
	_, err = f.WriteString("2\n")
	require.NoError(t, err)
	require.Equal(t, "1\n2\n", shell(t, r.dirs[0], "cat x/y/moved/c/f"))
	require.Equal(t, "1\n2\n", shell(t, r.dirs[1], "cat x/y/moved/c/f"))
	require.Equal(t, "moved\n", shell(t, r.dirs[1], "ls x/y"))
	require.Equal(t, filepath.Join(r.dirs[1], "x/y")+"\n", shell(t, r.dirs[1], "cd x/y/moved && cd .. && pwd -P"))
	out, err := command{dir: r.dirs[1]}.try("sh", "-c", "mv x x/y/moved/c/x")
	require.Error(t, err, out)
	require.Equal(t, "1\n2\n", shell(t, r.dirs[0], "cat x/y/moved/c/f"))
	// A cycle that neither node could make alone.
	shell(t, r.dirs[0], "mkdir -p m n")
	var errs [2]error
	ps := startProcs(t, r, 2)
	for i, res := range runAll(t, ps, [][]op{
		{{Do: "rename", Path: "m", To: "n/m"}},
		{{Do: "rename", Path: "n", To: "m/n"}},
	}) {
		if res[0].Errno != 0 {
			errs[i] = res[0].Errno
		}
	}
	require.True(t, errs[0] != nil || errs[1] != nil, "both renames succeed: the directories hang from each other")
	require.Regexp(t, `(?m)^\./(m/n|n/m)$`, shell(t, r.dirs[0], "find . -type d"))
}

func callXattrs(t *testing.T, r *rig) {
	paths := [2]string{filepath.Join(r.dirs[0], "f"), filepath.Join(r.dirs[1], "f")}
	require.NoError(t, os.WriteFile(paths[0], nil, 0o644))
	value := strings.Repeat("v", 1000)
	require.NoError(t, unix.Setxattr(paths[0], "user.one", []byte(value), 0))
	require.NoError(t, unix.Setxattr(paths[1], "user.two", []byte("2"), 0))
	buf := make([]byte, 4096)
	n, err := unix.Getxattr(paths[1], "user.one", buf)
	require.NoError(t, err)
	require.Equal(t, value, string(buf[:n]))
	_, err = unix.Getxattr(paths[1], "user.one", buf[:10])
	require.ErrorIs(t, err, unix.ERANGE)
	n, err = unix.Listxattr(paths[0], buf)
	require.NoError(t, err)
	names := strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	require.Equal(t, []string{"user.one", "user.two"}, names)
	require.NoError(t, unix.Removexattr(paths[1], "user.one"))
	_, err = unix.Getxattr(paths[0], "user.one", buf)
	require.ErrorIs(t, err, unix.ENODATA)
	require.ErrorIs(t, unix.Removexattr(paths[0], "user.one"), unix.ENODATA)
}
