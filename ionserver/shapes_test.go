package ionserver

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

func quietSystem(t *testing.T, ions int) *system {
	return startSystem(t, ions, 2, func(_ int, o *Options) { o.Persist, o.WriteBack = time.Hour, time.Hour })
}

// makeOpen makes a file and opens it.
func (m *mount) makeOpen(dir uint64, name string) uint64 {
	m.t.Helper()
	var r ionpb.EntryResp
	require.NoError(m.t, m.atHome(ionpb.Op_CREATE, dir, &ionpb.CreateReq{Name: []byte(name), Mode: 0o644, Excl: true, Open: true}, &r))
	require.True(m.t, r.Opened)
	return r.Handle
}

// unlinkFile removes a name as a mount does that has seen a file there.
func (m *mount) unlinkFile(dir uint64, name string, h uint64) {
	m.t.Helper()
	require.NoError(m.t, m.atHome(ionpb.Op_UNLINK, dir, &ionpb.NameReq{Name: []byte(name), Unopened: h}, nil))
}

// TestCostOfUnlinking: who removes a small file asks for nothing that its home knows,
// because it was made or just looked at there.
func TestCostOfUnlinking(t *testing.T) {
	const files = 8
	s := quietSystem(t, 2)
	m := s.mount(t)
	asks := func() int64 { return s.asked("getattr") + s.asked("listattr") }
	removes := func() int64 { return s.asked("rmdirent") + s.asked("tree_remove") + s.asked("remove") }
	names := func(kind string) (out []string) {
		for i := range files {
			out = append(out, fmt.Sprint(kind, i))
		}
		return out
	}
	handles := make(map[string]uint64)
	for _, name := range append(names("made"), names("old")...) {
		handles[name] = m.makeOpen(m.root, name)
		require.NoError(t, m.write(handles[name], 0, []byte("x"), 0))
		m.closeFile(handles[name])
	}
	before, removed := asks(), removes()
	for _, name := range names("made") {
		m.unlinkFile(m.root, name, handles[name])
	}
	require.LessOrEqual(t, asks()-before, int64(1), "the layout of the root may have become too old")
	require.EqualValues(t, 2*files, removes()-removed)

	for _, name := range names("old") {
		require.NoError(t, m.atHome(ionpb.Op_FSYNC, handles[name], &ionpb.FsyncReq{}, nil))
	}
	for _, n := range s.nodes {
		for _, f := range n.owner.all() {
			f.forgetLayout()
			n.owner.put(f)
		}
	}
	before, removed = asks(), removes()
	for _, name := range names("old") {
		_, err := m.stat(handles[name])
		require.NoError(t, err)
		m.unlinkFile(m.root, name, handles[name])
	}
	require.LessOrEqual(t, asks()-before, int64(files+files/2), "the looks")
	require.EqualValues(t, 2*files, removes()-removed)
}

// TestUnlinkLeavesNoDatafiles: a file that was small when its home got to know it,
// and that was given more datafiles by whatever way since, is removed with all.
func TestUnlinkLeavesNoDatafiles(t *testing.T) {
	s := quietSystem(t, 2)
	m := s.mount(t)
	far := func(h uint64) int64 { // of the domain of another owner than the home
		off := s.domain
		for m.place.Owner(h, off) == m.place.Home(h) {
			off += s.domain
		}
		return off
	}
	for name, grow := range map[string]func(h uint64) error{
		"own write": func(h uint64) error { return m.write(h, s.domain-1, []byte("x"), 0) },
		"write":     func(h uint64) error { return m.write(h, far(h), []byte("x"), 0) },
		"size":      func(h uint64) error { return m.truncate(h, s.domain) },
		"append": func(h uint64) error {
			if err := m.truncate(h, far(h)); err != nil {
				return err
			}
			_, err := m.append(h, []byte("x"))
			return err
		},
	} {
		for _, look := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", looked at first: ", look), func(t *testing.T) {
				file := fmt.Sprint(name, look)
				h := m.makeOpen(m.root, file)
				if look {
					_, err := m.stat(h)
					require.NoError(t, err)
				}
				require.NoError(t, grow(h))
				require.NoError(t, m.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil))
				m.closeFile(h)
				client := s.nodes[0].client
				a, err := client.GetAttr(t.Context(), pvfs.Handle(h))
				require.NoError(t, err)
				require.Greater(t, len(a.Layout.DFiles), 1)
				m.unlinkFile(m.root, file, h)
				for _, d := range append(a.Layout.DFiles, a.Handle) {
					_, err := client.GetAttr(t.Context(), d)
					require.ErrorIs(t, err, syscall.ENOENT)
				}
			})
		}
	}
}
