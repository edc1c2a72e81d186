package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestErrorsAreOneClearLine(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	addr := taken.Addr().String()
	conf := filepath.Join(dir, "fs.conf")
	require.NoError(t, os.WriteFile(conf, []byte("<Defaults>\n"), 0o644))
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o644))
	none := filepath.Join(dir, "none")

	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"frob", 1, `zoidfs: unknown command "frob", see: zoidfs --help`},
		{"up --frob", 1, `zoidfs up: unknown flag: --frob`},
		{"up now", 1, `zoidfs up: unexpected argument "now"`},
		{"up --nodes 0", 1, `zoidfs up: --nodes must be at least 1`},
		{"up --nodes -1", 1, `zoidfs up: --nodes -1 is not between 1 and 64`},
		{"up --ions 65", 1, `zoidfs up: --ions 65 is not between 1 and 64`},
		{"up --servers x", 1, `zoidfs up: --servers "x" is not a number in range`},
		{"up --metrics=maybe", 1, `zoidfs up: --metrics "maybe" is neither true nor false`},
		{"up --timeout 5", 1, `zoidfs up: --timeout "5" is not a time, such as 5s`},
		{"up --timeout 0s", 1, `zoidfs up: --timeout 0s is not positive`},
		{"up --dir=", 1, `zoidfs up: --dir is empty`},
		{"down --dir=", 1, `zoidfs down: --dir is empty`},
		{"down --timeout -1s", 1, `zoidfs down: --timeout -1s is not positive`},
		{"up --servers 2 --pvfs tcp://a:1/fs", 1, `zoidfs up: --servers and --pvfs exclude each other`},
		{"up --pvfs a:1/fs", 1, `zoidfs up: --pvfs "a:1/fs" is not tcp://HOST:PORT/FSNAME`},
		{"up --pvfs tcp://a/fs", 1, `zoidfs up: --pvfs "tcp://a/fs" is not tcp://HOST:PORT/FSNAME`},
		{"up --consistency weak", 1, `zoidfs up: --consistency: unknown consistency mode "weak": there are strong, commit, session, eventual, laminated`},
		{"up --consistency default", 1, `zoidfs up: --consistency: unknown consistency mode "default": there are strong, commit, session, eventual, laminated`},
		{"up --collective maybe", 1, `zoidfs up: --collective "maybe" is neither on nor off`},
		{"ion --listen a:1 --pvfs tcp://b:1/c --collective=", 1, `zoidfs ion: --collective "" is neither on nor off`},
		{"mount " + dir + " --ion a:1 -o collective=yes", 1, `zoidfs mount: -o collective=yes: "yes" is neither on nor off`},
		{"mount " + dir + " --ion a:1 -o io_uring=", 1, `zoidfs mount: -o io_uring=: "" is neither on nor off`},
		{"up --visibility 1ms", 1, `zoidfs up: --visibility: "1ms" is not a time between 100ms and 1h0m0s, such as 5s`},
		{"up --log-level loud", 1, `zoidfs up: --log-level "loud" is none of debug, info, warn, error`},
		{"down there", 1, `zoidfs down: unexpected argument "there"`},
		{"explain", 1, `zoidfs explain: which PATH? Or --job JOB`},
		{"explain a b", 1, `zoidfs explain: unexpected argument "b"`},
		{"explain --job me", 1, `zoidfs explain: --job "me" is not the number of a job, of 16 hexadecimal digits`},
		{"explain a --last -1", 1, `zoidfs explain: --last -1 is negative`},
		{"explain " + dir, 1, `zoidfs explain: ` + dir + ` is no file or directory of a zoidfs mount`},
		{"explain " + none, 1, `zoidfs explain: explain of ` + none + `: no such file or directory`},
		{"simulate --ranks 0", 1, `zoidfs simulate: --ranks 0 is not positive`},
		{"simulate --ranks x", 1, `zoidfs simulate: --ranks "x" is not a list of numbers`},
		{"simulate --ranks 4 --nodes 5", 1, `zoidfs simulate: 5 nodes for 4 ranks`},
		{"simulate --ranks 9999999", 1, `zoidfs simulate: 9999999 ranks with 16 calls each are too many: at most 1048576 ranks and 16777216 calls`},
		{"simulate --servers 0", 1, `zoidfs simulate: --servers 0 is not positive`},
		{"simulate --calls -1", 1, `zoidfs simulate: --calls -1 is not positive`},
		{"simulate --nodes -1", 1, `zoidfs simulate: -1 nodes cannot be simulated`},
		{"simulate --size much", 1, `zoidfs simulate: --size: "much" is not a size`},
		{"simulate --strip-size 1X", 1, `zoidfs simulate: --strip-size: "1X" is not a size`},
		{"simulate --size 8M", 1, `zoidfs simulate: a call of 8388608 bytes is larger than a domain of 4194304`},
		{"simulate --pattern zigzag", 1, `zoidfs simulate: --pattern "zigzag" is none of segmented, strided, nested, block-cyclic, create, open, whole-file, all`},
		{"simulate --hold maybe", 1, `zoidfs simulate: --hold "maybe" is neither on nor off`},
		{"simulate --absent 1", 1, `zoidfs simulate: a share of 1 of the ranks cannot be absent`},
		{"simulate --jitter -1s", 1, `zoidfs simulate: a jitter of -1s`},
		{"simulate --server-bandwidth 0", 1, `zoidfs simulate: a bandwidth is not positive`},
		{"simulate --svg x.svg", 1, `zoidfs simulate: --svg draws over the number of ranks: give --ranks several`},
		{"simulate --ranks 1 --csv " + none + "/x", 1, `zoidfs simulate: open ` + none + `/x: no such file or directory`},
		{"simulate now", 1, `zoidfs simulate: unexpected argument "now"`},
		{"status --dir " + none, 1, `zoidfs status: no system in ` + none + `, start one with: zoidfs up --dir ` + none},
		{"stats --dir " + none, 1, `zoidfs stats: no system in ` + none + `, start one with: zoidfs up --dir ` + none},
		{"stats --dir a b", 1, `zoidfs stats: --dir and "b" exclude each other`},
		{"stats a b", 1, `zoidfs stats: unexpected argument "b"`},
		{"stats " + dir, 1, `zoidfs stats: ` + dir + ` is not the root of a zoidfs mount`},
		{"stats " + dir + "/no/such", 1, `zoidfs stats: lstat ` + dir + `/no: no such file or directory`},
		{"mount", 1, `zoidfs mount: which MOUNTPOINT?`},
		{"mount a b", 1, `zoidfs mount: unexpected argument "b"`},
		{"mount " + dir, 1, `zoidfs mount: --ion is needed: the address HOST:PORT of an I/O node`},
		{"mount " + dir + " --ion host", 1, `zoidfs mount: --ion "host" is not HOST:PORT`},
		{"mount " + dir + " --ion host:frob", 1, `zoidfs mount: --ion "host:frob": no port is called "frob"`},
		{"mount " + dir + " --ion a:1 -o consistency=weak", 1, `zoidfs mount: -o consistency=weak: unknown consistency mode "weak": there are strong, commit, session, eventual, laminated`},
		{"mount " + dir + " --ion a:1 -o visibility=5", 1, `zoidfs mount: -o visibility=5: "5" is not a time between 100ms and 1h0m0s, such as 5s`},
		{"mount " + dir + " --ion a:1 -o visibility=2h", 1, `zoidfs mount: -o visibility=2h: "2h" is not a time between 100ms and 1h0m0s, such as 5s`},
		{"mount " + dir + " --ion a:1 -o cache=15M", 1, `zoidfs mount: -o cache=15M: "15M" is not a size of at least 16M, such as 1G`},
		{"mount " + dir + " --ion a:1 -o cache=lots", 1, `zoidfs mount: -o cache=lots: "lots" is not a size of at least 16M, such as 1G`},
		{"mount " + dir + " --ion a:1 -o ro,frob", 1, `zoidfs mount: unknown mount option "frob", see: zoidfs mount --help`},
		{"mount " + dir + " --ion a:1 -o guard=maybe", 1, `zoidfs mount: -o guard=maybe: "maybe" is none of off, warn, upgrade, fail`},
		{"mount " + none + "/x --ion a:1", 1, `zoidfs mount: mount point ` + none + `/x: no such file or directory`},
		{"ion", 1, `zoidfs ion: --listen is needed: HOST:PORT to serve at`},
		{"ion --listen a:1", 1, `zoidfs ion: --pvfs is needed: tcp://HOST:PORT/FSNAME of the file system`},
		{"ion --listen a --pvfs tcp://a:1/fs", 1, `zoidfs ion: --listen "a" is not HOST:PORT`},
		{"ion --listen a:1 --pvfs tcp://a:1/fs --peers b:1,c:1", 1, `zoidfs ion: --peers b:1,c:1 does not contain this node, a:1 (see --self)`},
		{"ion --listen a:1 --pvfs tcp://a:1/fs --peers a:1,b:1,a:1", 1, `zoidfs ion: --peers has a:1 twice`},
		{"ion --listen a:1 --pvfs tcp://a:1/fs --peers a:1,c", 1, `zoidfs ion: --peers "c" is not HOST:PORT`},
		{"ion --listen a:1 --pvfs tcp://a:1/fs --pvfs-timeout 0s", 1, `zoidfs ion: --pvfs-timeout 0s is not positive`},
		{"ion --listen a:1 --pvfs tcp://a:1/fs --cache 1M", 1, `zoidfs ion: --cache "1M" is not a size of at least 64M, such as 1G`},
		{"ion --listen a:1 --pvfs tcp://a:1/fs --write-back 1h", 1, `zoidfs ion: --write-back 1h0m0s is not between 10ms and 10m0s`},
		{"ion --listen " + addr + " --pvfs tcp://a:1/fs", 1, `zoidfs ion: --listen: listen tcp ` + addr + `: bind: address already in use`},
		{"pvfsd", 1, `zoidfs pvfsd: want --config FS.CONF --server ALIAS, or --listen HOST:PORT --data DIR`},
		{"pvfsd --listen a:1", 1, `zoidfs pvfsd: --listen and --data are needed together`},
		{"pvfsd --listen a --data " + dir, 1, `zoidfs pvfsd: --listen "a" is not HOST:PORT`},
		{"pvfsd --server s0", 1, `zoidfs pvfsd: --server needs --config`},
		{"pvfsd --config a --data b", 1, `zoidfs pvfsd: --config and --listen/--data exclude each other`},
		{"pvfsd --config " + none + " --server s0", 1, `zoidfs pvfsd: --config: open ` + none + `: no such file or directory`},
		{"launch -- true", 1, `zoidfs launch: -n RANKS is needed: the number of ranks`},
		{"launch -n 2", 1, `zoidfs launch: which program? give it after --`},
		{"launch -n 0 -- true", 1, `zoidfs launch: -n 0: want between 1 and 4096 ranks`},
		{"launch -n 2 --grace -1s -- true", 1, `zoidfs launch: --grace -1s is negative`},
		{"launch -n 2 --dir " + none + " -- true", 125, `zoidfs launch: no system in ` + none + `, start one with: zoidfs up --dir ` + none},
		{"advise --dir " + none + " -- true", 1, `zoidfs advise: no system in ` + none + `, start one with: zoidfs up --dir ` + none},
		{"advise -n -1 -- true", 1, `zoidfs advise: -n -1: want between 1 and 4096 ranks`},
		{"advise -n 2", 1, `zoidfs advise: which program? give it after --`},
		{"advise --trace x true", 1, `zoidfs advise: --trace and "true" exclude each other`},
		{"advise --trace " + none, 1, `zoidfs advise: ` + none + `: no such file or directory`},
		{"advise --trace " + conf, 1, `zoidfs advise: ` + conf + `: not a trace of zoidfs, version 1`},
		{"advise --barriers " + none, 1, `zoidfs advise: --barriers: open ` + none + `: no such file or directory`},
		{"advise --barriers " + conf, 1, `zoidfs advise: --barriers: ` + conf + `: line 1: want NAME RANK ENTER LEAVE [JOB]`},
		{"advise -o " + dir + " " + dir, 1, `zoidfs advise: ` + dir + ` is not the root of a zoidfs mount`},
		{"job begin --job j --pid 4194305 " + dir, 1, `zoidfs job begin: --pid 4194305: no such process`},
		{"job begin --job j --pid 0 " + dir, 1, `zoidfs job begin: --pid 0: no such process`},
		{"advise -n 0 -- true", 1, `zoidfs advise: -n 0: want between 1 and 4096 ranks`},
		{"trace frob", 1, `zoidfs trace: "frob" is none of record, start, stop, show, replay`},
		{"trace record --dir " + none + " -- true", 1, `zoidfs trace record: no system in ` + none + `, start one with: zoidfs up --dir ` + none},
		{"trace record --dir a b", 1, `zoidfs trace record: --dir and "b" exclude each other`},
		{"trace start --limit 1k " + dir, 1, `zoidfs trace start: --limit: "1k" is not a size of at least 1M, such as 1G`},
		{"trace start -o " + dir + " " + dir, 1, `zoidfs trace start: ` + dir + ` is not the root of a zoidfs mount`},
		{"trace stop " + dir, 1, `zoidfs trace stop: ` + dir + ` is not the root of a zoidfs mount`},
		{"trace show", 1, `zoidfs trace show: which FILE of traces?`},
		{"trace show " + none, 1, `zoidfs trace show: ` + none + `: no such file or directory`},
		{"trace show " + dir, 1, `zoidfs trace show: there are no traces (*.ztrace) in ` + dir},
		{"trace show " + conf, 1, `zoidfs trace show: ` + conf + `: not a trace of zoidfs, version 1`},
		{"trace show --call frob " + conf, 1, `zoidfs trace show: --call: there is no call "frob", but: lookup getattr setattr chmod truncate readlink ` +
			`symlink mknod mkdir unlink rmdir rename open create read write copy flush fsync release readdir lock unlock`},
		{"trace show --file [ " + conf, 1, `zoidfs trace show: --file: "[" is not a pattern`},
		{"trace show --csv --summary " + conf, 1, `zoidfs trace show: --csv and --summary exclude each other`},
		{"trace replay " + conf, 1, `zoidfs trace replay: --to is needed: the DIR in which to make the calls`},
		{"trace replay --to " + none + " " + conf, 1, `zoidfs trace replay: ` + conf + `: not a trace of zoidfs, version 1`},
		{"hints --set cb_nodes=2 " + dir, 1, `zoidfs hints: ` + dir + ` is no file or directory of a zoidfs mount`},
		{"litmus --mounts a,b --rounds 0", 1, `zoidfs litmus: --rounds 0 is not positive`},
		{"litmus --mounts a,b --random -1", 1, `zoidfs litmus: --random -1 is negative`},
		{"litmus --mounts a,b --visibility -1s", 1, `zoidfs litmus: --visibility -1s is negative`},
		{"litmus --mounts a,b --mode commit --expect strong", 1, `zoidfs litmus: --mode and --expect exclude each other`},
		{"litmus check " + empty, 1, `zoidfs litmus check: ` + empty + `: there are no histories`},
		{"trace replay --speed 0 --to " + dir + " " + conf, 1, `zoidfs trace replay: --speed "0" is neither max nor a number, such as 1`},
		{"enter --node 1", 1, `zoidfs enter: which program? give it after --`},
		{"enter --dir " + none + " -- true", 125, `zoidfs enter: no system in ` + none + `, start one with: zoidfs up --dir ` + none},
		{"enter --report-fd 77 -- true", 1, `zoidfs enter: --report-fd: descriptor 77 is not an inherited pipe`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			// In this process: these never come to start or become another.
			var out, errOut bytes.Buffer
			code := run(context.Background(), append([]string{"zoidfs"}, strings.Fields(tt.args)...), &out, &errOut)
			require.Equal(t, tt.want+"\n", errOut.String())
			require.Equal(t, tt.code, code)
			require.Empty(t, out.String())
		})
	}
	_, err = os.Stat(none)
	require.ErrorIs(t, err, os.ErrNotExist, "a wrong command line must not leave anything behind")
	_, err = unix.Getxattr(dir, "user.zoidfs.cb_nodes", nil)
	require.Error(t, err, "nothing is set on files of others")
}

func TestNothingListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	for _, args := range [][]string{
		{"stats", addr},
		{"mount", t.TempDir(), "--ion", addr},
		{"ion", "--listen", "127.0.0.1:0", "--pvfs", "tcp://" + addr + "/zoidfs", "--pvfs-timeout", "1s"},
	} {
		t.Run(args[0], func(t *testing.T) {
			r := zoidfs(t, args...)
			require.Equal(t, 1, r.code)
			last := r.errOut[strings.LastIndex(strings.TrimRight(r.errOut, "\n"), "\n")+1:]
			require.Contains(t, last, "zoidfs "+args[0]+": ")
			require.Contains(t, last, addr)
		})
	}
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	root := newRoot(&bytes.Buffer{}, &bytes.Buffer{})
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			continue
		}
		t.Run(cmd.Name(), func(t *testing.T) {
			var out, errOut bytes.Buffer
			require.Zero(t, run(context.Background(), []string{"zoidfs", cmd.Name(), "--help"}, &out, &errOut))
			require.Contains(t, out.String(), "Examples:\n  ")
			require.Empty(t, errOut.String())
		})
	}
}
