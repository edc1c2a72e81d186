package cluster

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/proc"
)

func testDir(t *testing.T) Dir {
	t.Helper()
	d, err := NewDir(t.TempDir())
	require.NoError(t, err)
	return d
}

func TestSaveAndLoad(t *testing.T) {
	d := testDir(t)
	_, err := d.Load()
	require.ErrorIs(t, err, syscall.ENOENT)
	require.ErrorContains(t, err, "zoidfs up --dir "+string(d))

	f := &File{
		Version: Version, PVFS: "tcp://127.0.0.1:1/zoidfs", FSID: 7, Consistency: "strong",
		PVFSD: []Server{{Alias: "pvfsd0", Addr: "127.0.0.1:1", Role: Role{ID: proc.ID{PID: 12, Start: "b-34"}}}},
		IONs:  []ION{{Addr: "127.0.0.1:2"}},
		Nodes: []Node{{Name: "node0"}, {Name: "node1"}},
	}
	require.NoError(t, d.Save(f))
	got, err := d.Load()
	require.NoError(t, err)
	require.Equal(t, f, got)
	require.Equal(t, string(d)+"/node1/zfs", got.Nodes[1].Mount)
	require.Equal(t, string(d)+"/data/pvfsd0", got.PVFSD[0].Data)

	b, err := os.ReadFile(string(d) + "/cluster.json")
	require.NoError(t, err)
	for _, want := range []string{`"pid": 12`, `"alias": "pvfsd0"`, `"mount": "` + string(d) + `/node0/zfs"`, `"log": "`, `"consistency": "strong"`} {
		require.Contains(t, string(b), want)
	}
	left, err := filepath.Glob(string(d) + "/*.tmp*")
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestMovedDirectoryHasPathsWhereItIs(t *testing.T) {
	d := testDir(t)
	require.NoError(t, d.Save(&File{Version: Version, Nodes: []Node{{Name: "node0"}}}))
	moved := Dir(string(d) + "-moved")
	require.NoError(t, os.Rename(string(d), string(moved)))
	t.Cleanup(func() { os.RemoveAll(string(moved)) })
	f, err := moved.Load()
	require.NoError(t, err)
	require.Equal(t, string(moved)+"/node0/zfs", f.Nodes[0].Mount)
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"garbage", "{", "unexpected end of JSON input"},
		{"another version", `{"version": 2}`, "version 2, this program knows version 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := testDir(t)
			require.NoError(t, os.WriteFile(d.file(), []byte(tt.content), 0o644))
			_, err := d.Load()
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestLockIsExclusive(t *testing.T) {
	d := testDir(t)
	release, err := d.Lock()
	require.NoError(t, err)
	_, err = d.Lock()
	require.ErrorIs(t, err, syscall.EBUSY)
	release()
	release, err = d.Lock()
	require.NoError(t, err)
	release()
}

func TestFreeAddrs(t *testing.T) {
	addrs, err := FreeAddrs(20, nil)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range addrs {
		require.False(t, seen[a], "%s twice", a)
		seen[a] = true
		require.False(t, InUse(a))
	}
	l, err := net.Listen("tcp", addrs[0])
	require.NoError(t, err)
	defer l.Close()
	require.True(t, InUse(addrs[0]))
}
