package systest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
)

// explained is what `zoidfs explain --json` prints.
type explained struct {
	Handle uint64 `json:"handle,string"`
	Told   []struct {
		Who, Where string
		Records    []collective.Record
	}
}

// of returns the records of an operation that those of a kind remember.
func (e explained) of(who, op string) (out []collective.Record) {
	for _, t := range e.Told {
		for _, r := range t.Records {
			if t.Who == who && r.Op == op {
				out = append(out, r)
			}
		}
	}
	return out
}

func (r *rig) explain(t *testing.T, args ...string) (e explained) {
	t.Helper()
	out := r.needCluster(t).zoidfs(t, append([]string{"explain", "--json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(out), &e), out)
	return e
}

// testExplain: what was written in many small pieces went to the servers
// together, and who asks is told so; a file that nobody used has no story.
func testExplain(t *testing.T, r *rig) {
	c := r.needCluster(t)
	r = r.subdir(t)
	path := r.dirs[0] + "/many"
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	const pieces, size = 64, 4096
	for i := range pieces {
		_, err := f.WriteAt(bytes.Repeat([]byte{byte(i)}, size), int64(i)*2*size)
		require.NoError(t, err)
	}
	require.NoError(t, f.Sync())

	e := r.explain(t, path)
	require.NotZero(t, e.Handle)
	var bytes int64
	requests := 0
	for _, rec := range e.of("I/O node", "write back") {
		require.Equal(t, e.Handle, rec.Object)
		bytes += rec.Moved
		requests += rec.Requests
	}
	require.EqualValues(t, pieces*size, bytes)
	require.Positive(t, requests)
	require.LessOrEqual(t, requests, pieces)

	text := c.zoidfs(t, "explain", path)
	require.Contains(t, text, "mount "+path+"\n")
	require.Contains(t, text, "write back: ")
	require.Contains(t, text, "256 KiB moved")
	require.Contains(t, text, "(estimated ")

	asked := 0
	for _, rec := range e.of("mount", "fsync") {
		asked += rec.Requests
	}
	require.Equal(t, 1, asked, "of the mount")
	asked = 0
	for _, rec := range e.of("I/O node", "fsync") {
		asked += rec.Requests
	}
	require.Positive(t, asked, "to the servers")
	for _, rec := range r.explain(t, r.dirs[0]).of("I/O node", "create") {
		require.GreaterOrEqual(t, rec.Requests, 2*rec.Calls, "an object and a name")
		require.NotEmpty(t, rec.Fewer)
		asked = -rec.Calls
	}
	require.Equal(t, -1, asked, "files that were made in the directory")
	read, err := os.ReadFile(r.dirs[1] + "/many")
	require.NoError(t, err)
	var moved int64
	for _, rec := range r.explain(t, r.dirs[1]+"/many").of("mount", "read") {
		require.Positive(t, rec.Requests)
		moved += rec.Moved
	}
	require.EqualValues(t, len(read), moved, "by the READs of the other mount")

	require.NoError(t, os.WriteFile(r.dirs[0]+"/other", nil, 0o644))
	require.Empty(t, r.explain(t, r.dirs[1]+"/other").of("I/O node", "write back"))
	require.NotContains(t, c.zoidfs(t, "explain", "--job", "00000000000000ff", path), "write back: ")
	mount := c.zoidfs(t, "explain", filepath.Join(c.dir, "node0", "zfs"))
	require.Contains(t, mount, fmt.Sprintf("%d  write back: ", e.Handle), "of all files")
	out, err := c.try("explain", t.TempDir())
	require.Error(t, err)
	require.Contains(t, out, "is no file or directory of a zoidfs mount")
}
