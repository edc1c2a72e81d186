package systest

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testPrograms runs unmodified programs, with one node to write and the other
// to read wherever that makes sense.
func testPrograms(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"git", programGit},
		{"tar", programTar},
		{"sqlite", programSqlite},
		{"fio", programFio},
		{"compileall", programCompileall},
		{"cp and rsync", programCopy},
		{"mmap in python", programMmap},
		{"unlink while open", programUnlinkOpen},
		{"flock in a shell", programFlock},
		{"lock waits can be interrupted", programInterruptedLock},
		{"locks end with their process", programLockOwnerDies},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, r.subdir(t)) })
	}
}

// programGit makes a repository on one node, clones it on the other and checks
// both, with a conflict-free push back.
func programGit(t *testing.T, r *rig) {
	need(t, "git", "git")
	git := command{dir: r.dirs[0], env: []string{
		"HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}}
	git.run(t, "git", "config", "--global", "safe.directory", "*")
	git.run(t, "git", "init", "-q", "-b", "main", "repo")
	shell(t, r.dirs[0]+"/repo", `for i in $(seq 120); do mkdir -p d$((i%9)); seq $((i*7)) > d$((i%9))/f$i; done; ln -s d1/f1 link; printf '#!/bin/sh\n' > run; chmod 755 run`)
	git.dir = r.dirs[0] + "/repo"
	for i := range 5 {
		shell(t, git.dir, fmt.Sprintf("echo %d >> d1/f1", i))
		git.run(t, "git", "add", "-A")
		git.run(t, "git", "commit", "-q", "-m", fmt.Sprint("commit ", i))
	}
	git.run(t, "git", "gc", "-q")
	git.dir = r.dirs[1]
	git.run(t, "git", "clone", "-q", "--no-local", "repo", "clone")
	git.dir = r.dirs[1] + "/clone"
	git.run(t, "git", "fsck", "--strict", "--full")
	shell(t, git.dir, "echo more > new")
	git.run(t, "git", "add", "-A")
	git.run(t, "git", "commit", "-q", "-m", "from the other node")
	git.run(t, "git", "push", "-q", "origin", "HEAD:other")
	git.dir = r.dirs[0] + "/repo"
	git.run(t, "git", "fsck", "--strict", "--full")
	git.run(t, "git", "checkout", "-q", "other")
	require.Empty(t, strings.TrimSpace(git.run(t, "git", "status", "--porcelain")))
	require.Equal(t, "6\n", git.run(t, "git", "rev-list", "--count", "HEAD"))
	shell(t, r.dirs[0], `diff -r --no-dereference -x .git repo clone`)
}

// goSource returns a directory of Go's source tree.
func goSource(t *testing.T, sub string) string {
	t.Helper()
	need(t, "go", "golang-go")
	return filepath.Join(strings.TrimSpace(command{}.run(t, "go", "env", "GOROOT")), "src", sub)
}

func programTar(t *testing.T, r *rig) {
	need(t, "tar", "tar")
	src, archive := goSource(t, "net"), filepath.Join(t.TempDir(), "src.tar")
	command{}.run(t, "tar", "-cf", archive, "-C", filepath.Dir(src), "net")
	command{dir: r.dirs[0]}.run(t, "tar", "-xpf", archive)
	require.Empty(t, command{dir: r.dirs[1]}.run(t, "tar", "-df", archive), "tar --diff on the other node")
	command{dir: r.dirs[1]}.run(t, "diff", "-r", "net", src)
	// What the mount gives to tar is the same tree again.
	again := filepath.Join(t.TempDir(), "again.tar")
	command{dir: r.dirs[1]}.run(t, "tar", "-cf", again, "net")
	command{}.run(t, "tar", "-df", again, "-C", filepath.Dir(src))
	command{dir: r.dirs[0]}.run(t, "rm", "-r", "net")
	require.Empty(t, strings.TrimSpace(command{dir: r.dirs[1]}.run(t, "ls", "-A")))
}

// programSqlite lets two processes on each node count in one database.
func programSqlite(t *testing.T, r *rig) {
	need(t, "sqlite3", "sqlite3")
	command{dir: r.dirs[0]}.run(t, "sqlite3", "db", "CREATE TABLE c(n INTEGER); INSERT INTO c VALUES(0); CREATE TABLE log(who, i); CREATE INDEX x ON log(who, i);")
	const procs, each = 4, 15
	var wg sync.WaitGroup
	errs := make([]error, procs)
	for p := range procs {
		wg.Go(func() {
			for i := range each {
				sql := fmt.Sprintf("BEGIN IMMEDIATE; UPDATE c SET n=n+1; INSERT INTO log VALUES(%d, %d); COMMIT;", p, i)
				out, err := command{dir: r.dirs[p%2]}.try("sqlite3", "-cmd", ".timeout 60000", "db", sql)
				if err != nil {
					errs[p] = fmt.Errorf("process %d, transaction %d: %w: %s", p, i, err, out)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	for _, dir := range r.dirs {
		out := command{dir: dir}.run(t, "sqlite3", "db", "SELECT n FROM c; SELECT count(*) FROM log; PRAGMA integrity_check;")
		require.Equal(t, fmt.Sprintf("%d\n%d\nok\n", procs*each, procs*each), out)
	}
}

// programFio writes with verification on one node and verifies again on the
// other.
func programFio(t *testing.T, r *rig) {
	need(t, "fio", "fio")
	for _, tt := range []struct{ name, rw, bs, size string }{
		{"random", "randwrite", "4k", "1m"},
		{"randomrw", "randrw", "1k-20k", "1m"},
		{"sequential", "write", "256k", "8m"},
		{"unaligned", "randwrite", "3000", "600000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"fio", "--name=" + tt.name, "--rw=" + tt.rw, "--size=" + tt.size, "--numjobs=4", "--ioengine=psync",
				"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randseed=1", "--group_reporting", "--output-format=terse", "--bs=" + tt.bs}
			if strings.Contains(tt.bs, "-") {
				args[len(args)-1] = "--bsrange=" + tt.bs
			}
			work := t.TempDir()
			command{dir: work}.run(t, append(args, "--do_verify=1", "--directory="+r.dirs[0])...)
			if tt.rw != "randrw" {
				command{dir: work}.run(t, append(args, "--verify_only", "--directory="+r.dirs[1])...)
			}
		})
	}
	t.Run("one shared file", func(t *testing.T) {
		// Four jobs on two mounts write their own quarters of one file.
		job := func(dir int, extra ...string) []string {
			return append([]string{"fio", "--name=shared", "--filename=" + r.dirs[dir] + "/one", "--rw=randwrite", "--bs=4k", "--size=512k", "--offset_increment=512k", "--output-format=terse",
				"--ioengine=psync", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randseed=7"}, extra...)
		}
		work := t.TempDir()
		shell(t, r.dirs[1], "truncate -s 2M one")
		command{dir: work}.run(t, job(0, "--numjobs=4", "--do_verify=1")...)
		command{dir: work}.run(t, job(1, "--numjobs=4", "--verify_only")...)
	})
}

func programCompileall(t *testing.T, r *rig) {
	need(t, "python3", "python3")
	shell(t, r.dirs[0], `
		lib=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
		mkdir pkgs && cp -r "$lib/json" "$lib/email" "$lib/html" pkgs/
		find pkgs -name __pycache__ -prune -exec rm -r {} +
		python3 -m compileall -q -j 2 pkgs`)
	shell(t, r.dirs[1], `
		test "$(find pkgs -name '*.py' | wc -l)" = "$(find pkgs -name '*.pyc' | wc -l)"
		mv pkgs/json pkgs/json2
		PYTHONPATH=pkgs python3 -c '
import json2, sys
assert json2.loads("[1, 2]") == [1, 2]
assert json2.__file__.startswith("'$PWD'") or json2.__file__.startswith("pkgs"), json2.__file__
assert "__pycache__" in json2.decoder.__cached__'
		python3 -m compileall -q --invalidation-mode checked-hash -f pkgs`)
}

func programCopy(t *testing.T, r *rig) {
	need(t, "rsync", "rsync")
	src := t.TempDir()
	shell(t, src, `
		mkdir -p tree/sub/empty tree/mode && cd tree
		seq 100000 > big; head -c 300001 /dev/urandom > random; : > nothing
		truncate -s 5M sparse; echo end >> sparse
		ln -s ../random sub/up; ln -s dangling sub/none
		touch -d '2001-02-03 04:05:06' big; chmod 4711 random; chmod 0 nothing; chmod 2750 mode
		for i in $(seq 60); do echo $i > sub/$i; done`)
	shell(t, r.dirs[0], fmt.Sprintf(`cp -a %s/tree one`, src))
	compare := func(node int, name string) {
		t.Helper()
		list := `find . \( -type d -printf '%P %y %m %U %G\n' \) -o -printf '%P %y %m %U %G %l %s %Ts\n' | sort`
		want, got := shell(t, src+"/tree", list), shell(t, filepath.Join(r.dirs[node], name), list)
		require.Equal(t, want, got)
		shell(t, src, fmt.Sprintf("diff -r --no-dereference tree %s/%s", r.dirs[node], name))
	}
	compare(1, "one")
	shell(t, r.dirs[1], fmt.Sprintf(`rsync -a %s/tree/ two/`, src))
	compare(0, "two")
	require.Empty(t, shell(t, r.dirs[0], fmt.Sprintf(`rsync -a --checksum --itemize-changes %s/tree/ two/`, src)), "nothing to do the second time")
	shell(t, src, `echo changed >> tree/big; rm tree/sub/7`)
	shell(t, r.dirs[0], fmt.Sprintf(`rsync -a --delete --inplace %s/tree/ two/`, src))
	compare(1, "two")
	shell(t, r.dirs[1], `cp -a one three && rm -r one && mv three one && test -e one/sub/empty`)
}

func programMmap(t *testing.T, r *rig) {
	need(t, "python3", "python3")
	command{dir: r.dirs[0]}.run(t, "python3", "-c", `
import mmap
with open("m", "w+b") as f:
    f.truncate(3 << 20)
    m = mmap.mmap(f.fileno(), 0)
    for i in range(0, len(m), 4099):
        m[i:i+4] = i.to_bytes(4, "little")
    m.flush()
    m.close()`)
	command{dir: r.dirs[1]}.run(t, "python3", "-c", `
import mmap
with open("m", "r+b") as f:
    b = f.read()
    assert len(b) == 3 << 20, len(b)
    m = mmap.mmap(f.fileno(), 0)
    for i in range(0, len(b) - 4, 4099):
        assert b[i:i+4] == i.to_bytes(4, "little"), i
        assert m[i:i+4] == b[i:i+4], i
    assert b.count(0) > 2 << 20`)
}

func programUnlinkOpen(t *testing.T, r *rig) {
	need(t, "python3", "python3")
	// tempfile unlinks while open; the other node removes the directory entry
	// of a file that is being read.
	shell(t, r.dirs[0], `python3 -c '
import tempfile, os
with tempfile.TemporaryFile(dir=".") as f:
    f.write(b"x" * 100000); f.flush(); f.seek(0)
    assert f.read() == b"x" * 100000
    assert os.fstat(f.fileno()).st_nlink == 0
assert os.listdir(".") == [], os.listdir(".")'`)
	shell(t, r.dirs[0], fmt.Sprintf(`
		seq 50000 > f
		exec 3< f
		rm %s/f
		test ! -e f
		test "$(md5sum <&3)" = "$(seq 50000 | md5sum)"
		exec 3<&-
		test -z "$(ls -A)"`, r.dirs[1]))
}

func programFlock(t *testing.T, r *rig) {
	need(t, "flock", "util-linux")
	shell(t, r.dirs[0], "echo 0 > count; : > lock")
	script := `for i in $(seq 15); do flock lock sh -c 'n=$(cat count); echo $((n+1)) > count'; done`
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = command{dir: r.dirs[i%2]}.try("bash", "-euc", script) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, "60\n", shell(t, r.dirs[1], "cat count"))
	// Readers share, a writer does not get in.
	shell(t, r.dirs[0], fmt.Sprintf(`
		exec 3< lock; flock -s 3
		flock -s -n %[1]s/lock true
		! flock -x -n %[1]s/lock true
		flock -u 3
		flock -x -n %[1]s/lock true`, r.dirs[1]))
}

// programInterruptedLock waits for a lock that the other node holds and is
// woken by a signal: both kinds of locks.
func programInterruptedLock(t *testing.T, r *rig) {
	need(t, "python3", "python3")
	holder := startProc(t, r, 0)
	holder.ok(t, op{Do: "open", Path: "lock", FD: 1, Flags: create})
	holder.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10})
	began := time.Now()
	shell(t, r.dirs[1], `python3 -c '
import fcntl, signal, time
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
f = open("lock", "r+b")
signal.setitimer(signal.ITIMER_REAL, 0.4)
try:
    fcntl.lockf(f, fcntl.LOCK_EX, 5, 5)
    raise SystemExit("got a lock that another node holds")
except Alarm:
    pass
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)
try:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 9)
    raise SystemExit("got the last byte")
except BlockingIOError:
    pass'`)
	need(t, "flock", "util-linux")
	shell(t, r.dirs[0], fmt.Sprintf(`exec 3< lock; flock 3; ! flock -w 0.4 %s/lock true; flock -u 3; flock -n %[1]s/lock true`, r.dirs[1]))
	require.Less(t, time.Since(began), 20*time.Second)
	// The wait that was given up holds nothing after the holder goes.
	holder.ok(t, op{Do: "close", FD: 1})
	other := startProc(t, r, 0)
	other.ok(t, op{Do: "open", Path: "lock", FD: 1, Flags: create})
	other.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Off: 0, Len: 100})
}

// programLockOwnerDies kills a process that holds a lock while another waits.
func programLockOwnerDies(t *testing.T, r *rig) {
	a, b := startProc(t, r, 0), startProc(t, r, 1)
	for _, p := range []*proc{a, b} {
		p.ok(t, op{Do: "open", Path: "lock", FD: 1, Flags: create})
	}
	a.ok(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10})
	require.NotZero(t, b.do(t, op{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10}).Errno, "the lock is held")
	got := make(chan error, 1)
	go func() {
		res, err := b.run([]op{{Do: "lock", FD: 1, Flags: unix.F_WRLCK, Len: 10, Fill: 1}})
		if err == nil && res[0].Errno != 0 {
			err = res[0].Errno
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("the wait ended while the lock is held: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	a.kill()
	require.NoError(t, <-got)
}
