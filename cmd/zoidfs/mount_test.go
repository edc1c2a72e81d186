package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/internal/errno"
)

func TestMountByHandAndByMount8(t *testing.T) {
	s := newSystem(t)
	s.do("up", "--nodes", "1", "--ions", "2", "--servers", "1", "--metrics")
	f := s.file()
	s.write(0, "file", "content\n")

	t.Run("Metrics", func(t *testing.T) {
		for addr, want := range map[string]string{
			f.PVFSD[0].Metrics: "go_goroutines", f.IONs[0].Metrics: "zoidfs_pvfs_requests_total{op=",
			f.Nodes[0].Metrics: `zoidfs_app_calls_total{op="write"} 1`,
		} {
			require.Contains(t, get(t, "http://"+addr+"/metrics"), want)
			require.Contains(t, get(t, "http://"+addr+"/debug/pprof/goroutine?debug=1"), "goroutine profile: total")
		}
	})

	point := filepath.Join(s.dir, "point")
	require.NoError(t, os.Mkdir(point, 0o755))
	unmount := func(t *testing.T) {
		require.NoError(t, mounts.Unmount(t.Context(), point, false))
		require.Eventually(t, func() bool { return s.servers(point) == 0 }, 10*time.Second, 20*time.Millisecond)
	}
	read := func(t *testing.T) {
		t.Helper()
		b, err := os.ReadFile(point + "/file")
		require.NoError(t, err)
		require.Equal(t, "content\n", string(b))
	}
	one := f.IONs[1].Addr

	t.Run("Daemon", func(t *testing.T) {
		require.Empty(t, ok(t, "mount", point, "--ion", one))
		read(t)
		r := zoidfs(t, "mount", point, "--ion", one)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.errOut, "zoidfs mount: ")
		require.Contains(t, r.errOut, point)
		require.Equal(t, 1, strings.Count(r.errOut, "\n"))
		m, found, err := mounts.At(point)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, mounts.Mount{Point: point, FSType: "fuse.zoidfs", Source: one}, m)
		df := shell{}.run(t, "df", "--output=source,fstype", point)
		require.Regexp(t, one+` +fuse\.zoidfs`, df.out)
		unmount(t)
	})

	t.Run("StaleMountIsRepaired", func(t *testing.T) {
		ok(t, "mount", point, "--ion", one)
		for _, pid := range s.serverPIDs(point) {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		require.Eventually(t, func() bool { _, err := os.Stat(point); return errno.DeadMount(err) }, 10*time.Second, 10*time.Millisecond)
		ok(t, "mount", point, "--ion", one)
		read(t)
		unmount(t)
		_, found, err := mounts.At(point)
		require.NoError(t, err)
		require.False(t, found, "the dead one is gone as well")
	})

	t.Run("SIGTERMUnmounts", func(t *testing.T) {
		log := filepath.Join(s.dir, "by-hand.log")
		ok(t, "mount", point, "--ion", one, "--log-file", log, "--log-format", "json")
		for _, pid := range s.serverPIDs(point) {
			require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
		}
		require.Eventually(t, func() bool { return s.servers(point) == 0 }, 10*time.Second, 20*time.Millisecond)
		_, found, err := mounts.At(point)
		require.NoError(t, err)
		require.False(t, found)
		b, err := os.ReadFile(log)
		require.NoError(t, err)
		require.Contains(t, string(b), `"msg":"mounted","mountpoint":"`+point)
		require.Contains(t, string(b), `"msg":"unmounted"`)
	})

	t.Run("ReadOnlyAndRestricted", func(t *testing.T) {
		needRoot(t, "changes mount flags")
		ok(t, "mount", point, "--ion", f.IONs[0].Addr+","+one, "-o", "ro,noexec,nosuid")
		require.ErrorIs(t, os.WriteFile(point+"/file", nil, 0o644), syscall.EROFS)
		table, err := os.ReadFile("/proc/self/mounts")
		require.NoError(t, err)
		require.Regexp(t, point+` fuse\.zoidfs ro,\S*noexec`, string(table))
		unmount(t)
	})

	t.Run("HelperLink", func(t *testing.T) {
		link := filepath.Join(s.dir, "mount.fuse.zoidfs")
		require.NoError(t, os.Symlink(os.Getenv(binEnv), link))
		r := shell{}.run(t, link, one, point, "-o", "rw,noatime,_netdev")
		require.Zero(t, r.code, r.errOut)
		read(t)
		unmount(t)
	})

	t.Run("Mount8", func(t *testing.T) {
		needRoot(t, "calls mount(8)")
		if _, err := exec.LookPath("mount.fuse3"); err != nil {
			skipOrFail(t, "mount.fuse3 is missing: apt-get install fuse3")
		}
		// mount.fuse3 looks for us where programs are installed, so be there,
		// in a mount namespace of the test's own.
		inside := func(script string) result {
			return shell{}.run(t, "unshare", "-m", "sh", "-ec", `mount --bind "$0" /usr/local/bin; `+script,
				filepath.Dir(os.Getenv(binEnv)), f.IONs[0].Addr+","+one, point)
		}
		r := inside(`mount -t fuse.zoidfs "$1" "$2" -o nosuid,nodev; cat "$2/file"; findmnt -no SOURCE,FSTYPE "$2"; umount "$2"`)
		require.Zero(t, r.code, r.errOut)
		require.Equal(t, "content\n"+f.IONs[0].Addr+" fuse.zoidfs\n", r.out)
		r = inside(`mount -t fuse.zoidfs "$1" "$2" -o frob=1`)
		require.NotZero(t, r.code)
		require.Contains(t, r.errOut, `zoidfs mount: unknown mount option "frob=1"`)
	})

	t.Run("Foreground", func(t *testing.T) {
		cmd := exec.Command(os.Getenv(binEnv), "mount", point, "--ion", one, "--foreground")
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool { _, err := os.Stat(point + "/file"); return err == nil }, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		require.NoError(t, cmd.Wait())
		_, err := os.Stat(point + "/file")
		require.ErrorIs(t, err, os.ErrNotExist)
	})

	t.Run("WrongMountPoint", func(t *testing.T) {
		for path, want := range map[string]string{
			s.dir + "/nothing":      s.dir + "/nothing does not exist",
			s.dir + "/cluster.json": s.dir + "/cluster.json is not a directory",
		} {
			r := zoidfs(t, "mount", path, "--ion", one)
			require.Equal(t, 1, r.code)
			require.Equal(t, "zoidfs mount: mount point "+want+"\n", r.errOut)
		}
	})

	t.Run("WrongFileSystem", func(t *testing.T) {
		r := zoidfs(t, "ion", "--listen", "127.0.0.1:0", "--pvfs", "tcp://"+f.PVFSD[0].Addr+"/frob")
		require.Equal(t, 1, r.code)
		last := r.errOut[strings.LastIndex(strings.TrimRight(r.errOut, "\n"), "\n")+1:]
		require.Contains(t, last, "frob")
	})
}

// serverPIDs returns the processes that serve a mount at point.
func (s *system) serverPIDs(point string) []int {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var out []int
	for _, name := range lines {
		b, err := os.ReadFile(name)
		if err == nil && strings.HasPrefix(string(b), "zoidfs\x00mount\x00"+point+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			out = append(out, pid)
		}
	}
	return out
}

func (s *system) servers(point string) int { return len(s.serverPIDs(point)) }

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}
