package systest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shareEnv is set, to a shareJob, in ranks that write or read their shares of a
// file.
const shareEnv = "ZOIDFS_SYSTEST_SHARE"

// shareJob is what the ranks of a job do with one file together.
type shareJob struct {
	Path    string
	Pattern string // of sharePatterns
	Write   bool   // else read, and compare
	Size    int64
	Meet    string // a directory, not of zoidfs, in which the ranks wait for each other
}

// meet returns when all ranks have called it with this name, like MPI_Barrier.
func (j shareJob) meet(name string, ranks int64) error {
	f, err := os.OpenFile(filepath.Join(j.Meet, name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte{1}); err != nil {
		return err
	}
	for {
		if st, err := f.Stat(); err != nil || st.Size() >= ranks {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// sharePattern says where the i-th piece of a rank lies; behind the end of the
// file when there are no more.
type sharePattern struct {
	piece int64
	at    func(rank, ranks, i int64) int64
}

const kib, mib = int64(1 << 10), int64(1 << 20)

var sharePatterns = map[string]sharePattern{
	"interleaved": {4 * kib, func(rank, ranks, i int64) int64 { return (i*ranks + rank) * 4 * kib }},
	// As if ranks were dealt to the nodes in turn.
	"in turn": {4 * kib, func(rank, ranks, i int64) int64 { return (i*ranks + rank%(ranks/2)*2 + rank/(ranks/2)) * 4 * kib }},
	// Planes of 512 KiB with rows of 8 KiB, divided by 8 ranks into 4 by 2, as
	// by the pencils of NPB BT-IO.
	"nested strided": {2 * kib, func(rank, _, i int64) int64 {
		return i/32*512*kib + (rank/4*32+i%32)*8*kib + rank%4*2*kib
	}},
	// A matrix of columns of 8 KiB in blocks of 16 columns and half a column, on a
	// grid of 2 by 4 processes, as of HPL.
	"block-cyclic": {4 * kib, func(rank, _, i int64) int64 {
		return (i/16*4+rank/2)*128*kib + i%16*8*kib + rank%2*4*kib
	}},
	"all of it": {64 * kib, func(_, _, i int64) int64 { return i * 64 * kib }},
}

// shareBytes fills p with what the file has at off; both are multiples of 8.
func shareBytes(p []byte, off int64) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(off+int64(i))*0x9e3779b97f4a7c15)
	}
}

// runShare is the program of a rank.
func runShare(text string) error {
	var job shareJob
	rank, err1 := strconv.ParseInt(os.Getenv("ZOIDFS_RANK"), 10, 64)
	ranks, err2 := strconv.ParseInt(os.Getenv("ZOIDFS_SIZE"), 10, 64)
	if err := errors.Join(json.Unmarshal([]byte(text), &job), err1, err2); err != nil {
		return err
	}
	flags := os.O_RDONLY
	if job.Write {
		flags = os.O_WRONLY | os.O_CREATE
	}
	f, err := os.OpenFile("/zfs/"+job.Path, flags, 0o644)
	if err != nil {
		return err
	}
	if err := job.meet("open", ranks); err != nil {
		return err
	}
	pattern := sharePatterns[job.Pattern]
	want, got := make([]byte, pattern.piece), make([]byte, pattern.piece)
	for i := int64(0); ; i++ {
		at := pattern.at(rank, ranks, i)
		if at >= job.Size {
			return errors.Join(job.meet("close", ranks), f.Close())
		}
		shareBytes(want, at)
		if job.Write {
			_, err = f.WriteAt(want, at)
		} else if _, err = f.ReadAt(got, at); err == nil && string(got) != string(want) {
			err = errors.New("differs from what was written")
		}
		if err != nil {
			return fmt.Errorf("rank %d, %d bytes at %d: %w", rank, pattern.piece, at, err)
		}
	}
}

// share runs the job and returns how many requests for data each node sent, and
// what reached the servers.
func (c *cluster) share(t *testing.T, ranks int, job shareJob) (rpcs []int64, servers stats) {
	t.Helper()
	job.Meet = t.TempDir()
	before := c.nodeStats(t)
	all := c.stats(t, "--dir", c.dir)
	text, err := json.Marshal(job)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	c.zoidfs(t, "launch", "--dir", c.dir, "-n", fmt.Sprint(ranks), "--", "env", shareEnv+"="+string(text), self)
	for i, s := range c.nodeStats(t) {
		n := int64(0)
		for _, op := range []string{"read", "write"} {
			n += s.RPC.Requests[op] - before[i].RPC.Requests[op]
		}
		rpcs = append(rpcs, n)
	}
	shell(t, c.rig().dirs[0], fmt.Sprintf("dd if=/dev/null of='%s' conv=fsync,notrunc status=none", job.Path))
	servers = c.stats(t, "--dir", c.dir)
	for op := range servers.PVFS.Requests {
		servers.PVFS.Requests[op] -= all.PVFS.Requests[op]
	}
	servers.PVFS.BytesRead -= all.PVFS.BytesRead
	servers.PVFS.BytesWritten -= all.PVFS.BytesWritten
	return rpcs, servers
}

func (c *cluster) nodeStats(t *testing.T) (out []stats) {
	t.Helper()
	for _, dir := range c.rig().dirs {
		out = append(out, c.stats(t, dir))
	}
	return out
}

// shareMiB is the size of the shared files of TestSharedFile.
var shareMiB = flag.Int64("share-mib", 16, "size in MiB of the files of TestSharedFile")

// TestSharedFile: ranks of two nodes that write and read one file in small
// pieces, in the patterns of real programs, cost few large requests, from each
// node and to the servers.
func TestSharedFile(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	const ranks = 8
	size := *shareMiB << 20
	perMiB := *shareMiB
	c := newCluster(t, shortTempDir(t))
	c.up(t)
	modes := []string{"strong", "commit", "session"}
	patterns := []string{"in turn", "nested strided", "block-cyclic"}
	each := func(t *testing.T, f func(t *testing.T, mode, pattern, path string)) {
		for _, mode := range modes {
			for _, pattern := range patterns {
				t.Run(mode+"/"+pattern, func(t *testing.T) { f(t, mode, pattern, mode+"/"+pattern) })
			}
		}
	}
	r := c.rig()
	for _, mode := range modes {
		require.NoError(t, os.Mkdir(r.dirs[0]+"/"+mode, 0o755))
		c.zoidfs(t, "consistency", "set", r.dirs[0]+"/"+mode, mode)
	}
	t.Run("write", func(t *testing.T) {
		each(t, func(t *testing.T, mode, pattern, path string) {
			calls := size / sharePatterns[pattern].piece
			rpcs, servers := c.share(t, ranks, shareJob{Path: path, Pattern: pattern, Write: true, Size: size})
			t.Logf("%d calls, requests of the nodes %v, to the servers %v", calls, rpcs, servers.PVFS.Requests)
			for _, n := range rpcs {
				if mode == "strong" { // kept back as soon as it is seen who writes what
					require.LessOrEqual(t, n, calls/6+64)
					continue
				}
				require.LessOrEqual(t, n, min(perMiB+8, calls/4))
			}
			require.LessOrEqual(t, servers.PVFS.Requests["io"]+servers.PVFS.Requests["small_io"], calls/100)
			require.LessOrEqual(t, servers.PVFS.BytesWritten, int64(size*11/10))
		})
	})
	for _, n := range []string{"8", "64"} { // of ranks that will read it
		c.share(t, 1, shareJob{Path: "commit/" + n, Pattern: "all of it", Write: true, Size: size / 2})
	}
	c.down(t)
	c.up(t)
	t.Run("read", func(t *testing.T) {
		each(t, func(t *testing.T, mode, pattern, path string) {
			rpcs, servers := c.share(t, ranks, shareJob{Path: path, Pattern: pattern, Size: size})
			t.Logf("requests of the nodes %v, to the servers %v", rpcs, servers.PVFS.Requests)
			for _, n := range rpcs {
				require.LessOrEqual(t, n, perMiB*6/10+48, "half as many as MiB, and those before the readers are found")
			}
			require.LessOrEqual(t, servers.PVFS.BytesRead, int64(size*11/10), "from the servers once")
			require.LessOrEqual(t, servers.PVFS.Requests["io"]+servers.PVFS.Requests["small_io"], perMiB/4*11/10+90, "the rest until the readers are found, which takes longer on a busy machine")
		})
	})
	t.Run("read by all", func(t *testing.T) {
		for _, ranks := range []int{8, 64} {
			rpcs, servers := c.share(t, ranks, shareJob{Path: fmt.Sprint("commit/", ranks), Pattern: "all of it", Size: size / 2})
			t.Logf("%d ranks, requests of the nodes %v, to the servers %v", ranks, rpcs, servers.PVFS.Requests)
			for _, n := range rpcs {
				require.LessOrEqual(t, n, perMiB/4+24, "for 64 ranks as for 8")
			}
			require.LessOrEqual(t, servers.PVFS.BytesRead, int64(size/2*11/10))
		}
	})
	c.noPanics(t)
}
