package ionserver

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

func (m *mount) setMode(h uint64, mode string) error {
	return m.setXattr(h, consistency.Xattr, mode, 0)
}

func (m *mount) removeMode(h uint64) error {
	return m.atHome(ionpb.Op_REMOVEXATTR, h, &ionpb.NameReq{Name: []byte(consistency.Xattr)}, nil)
}

// openMode is the mode that an open is told.
func (m *mount) openMode(h uint64) ionpb.Consistency {
	m.t.Helper()
	a, err := m.open(h, 0)
	require.NoError(m.t, err)
	m.closeFile(h)
	return a.Consistency
}

// made makes a file and returns it with the mode that its maker is told.
func (m *mount) made(dir uint64, name string) (uint64, ionpb.Consistency) {
	m.t.Helper()
	var r ionpb.EntryResp
	require.NoError(m.t, m.atHome(ionpb.Op_CREATE, dir, &ionpb.CreateReq{Name: []byte(name), Mode: 0o644, Excl: true}, &r))
	return r.Handle, r.Attr.Consistency
}

// requests is how many requests of a kind all I/O nodes have sent so far.
func (s *system) requests(op string) (n int64) {
	for _, at := range s.nodes {
		n += at.client.Stats().Requests[op]
	}
	return n
}

func TestModeOfFile(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m, other := s.mount(t), s.mount(t)
	for at := range 2 {
		h, name := m.fileHomedAt(m.root, fmt.Sprintf("f%d-", at), at)
		require.Equal(t, ionpb.Consistency_DEFAULT, m.openMode(h))
		_, err := m.getXattr(h, consistency.Xattr)
		require.ErrorIs(t, err, syscall.ENODATA)
		require.ErrorIs(t, m.removeMode(h), syscall.ENODATA)
		require.ErrorIs(t, m.setXattr(h, consistency.Xattr, "commit", unix.XATTR_REPLACE), syscall.ENODATA)

		for _, mode := range consistency.All() {
			require.NoError(t, m.setMode(h, mode.String()))
			require.Equal(t, ionpb.ConsistencyOf(mode), other.openMode(h), "the next open, wherever it is from")
			got, err := other.getXattr(h, consistency.Xattr)
			require.NoError(t, err)
			require.Equal(t, mode.String(), got)
			stored, err := s.nodes[1-at].client.GetXattr(t.Context(), pvfs.Handle(h), consistency.Xattr)
			require.NoError(t, err)
			require.Equal(t, mode.String(), string(stored), "where other tools see it")
		}
		for _, bad := range []string{"", "default", "weak", "Commit", "commit ", "commit\x00\x00"} {
			err := m.setMode(h, bad)
			require.ErrorIs(t, err, syscall.EINVAL, bad)
			require.ErrorContains(t, err, "there are strong, commit, session, eventual, laminated")
		}
		require.ErrorIs(t, m.setXattr(h, consistency.Xattr, "strong", unix.XATTR_CREATE), syscall.EEXIST)
		require.Equal(t, ionpb.Consistency_LAMINATED, m.openMode(h), "what failed changes nothing")
		require.NoError(t, m.setMode(h, "session\x00"), "as a string of C")
		require.Equal(t, ionpb.Consistency_SESSION, m.openMode(h))

		_, err = m.rename(m.root, name, m.mkdir(m.root, fmt.Sprintf("d%d", at)), "moved", 0)
		require.NoError(t, err)
		require.Equal(t, ionpb.Consistency_SESSION, other.openMode(h), "a file takes its mode along")
		require.NoError(t, other.removeMode(h))
		require.Equal(t, ionpb.Consistency_DEFAULT, m.openMode(h))
	}
}

// TestModeOfOthers checks what tools of PVFS2 may have set, seen by an I/O node
// that has just started.
func TestModeOfOthers(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	m := s.mount(t)
	for value, want := range map[string]ionpb.Consistency{
		"commit": ionpb.Consistency_COMMIT_MODE, "commit\x00": ionpb.Consistency_COMMIT_MODE,
		"": ionpb.Consistency_STRONG, "relaxed": ionpb.Consistency_STRONG, "default": ionpb.Consistency_STRONG,
	} {
		h := m.file(m.root, fmt.Sprintf("f%q", value))
		require.NoError(t, s.nodes[0].client.SetXattr(t.Context(), pvfs.Handle(h), consistency.Xattr, []byte(value), 0))
		s.nodes[0].home.chosen = choices{}
		require.Equal(t, want, m.openMode(h), "%q", value)
	}
}

func TestModeIsInherited(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	d := m.mkdir(m.root, "d")
	plain, mode := m.made(d, "plain")
	require.Equal(t, ionpb.Consistency_DEFAULT, mode)
	require.NoError(t, m.setMode(d, "session"))
	require.Equal(t, ionpb.Consistency_DEFAULT, m.openMode(plain), "what is there stays as it is")
	for i := range 8 { // homes of both nodes
		h, mode := m.made(d, fmt.Sprint("f", i))
		require.Equal(t, ionpb.Consistency_SESSION, mode)
		require.Equal(t, ionpb.Consistency_SESSION, m.openMode(h))
		sub := m.mkdir(d, fmt.Sprint("d", i))
		v, err := m.getXattr(sub, consistency.Xattr)
		require.NoError(t, err)
		require.Equal(t, "session", v)
		h, mode = m.made(sub, "f")
		require.Equal(t, ionpb.Consistency_SESSION, mode)
		require.Equal(t, ionpb.Consistency_SESSION, m.openMode(h))
		up, err := s.nodes[0].client.GetXattr(t.Context(), pvfs.Handle(sub), parentXattr)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%x", d), string(up))
	}
	h, mode := m.made(d, ".out.shfp.1.2")
	require.Equal(t, ionpb.Consistency_DEFAULT, mode, "its name says it all")
	_, err := m.getXattr(h, consistency.Xattr)
	require.ErrorIs(t, err, syscall.ENODATA)

	require.NoError(t, m.setMode(d, "commit"))
	_, mode = m.made(d, "after")
	require.Equal(t, ionpb.Consistency_COMMIT_MODE, mode)
	require.NoError(t, m.removeMode(d))
	_, mode = m.made(d, "last")
	require.Equal(t, ionpb.Consistency_DEFAULT, mode)
}

// TestModeCostsNoRequests counts what the servers are asked.
func TestModeCostsNoRequests(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	d := m.mkdir(m.root, "d")
	count := func(n int, prefix string) (get, set int64) {
		get, set = s.requests("geteattr"), s.requests("seteattr")
		for i := range n {
			m.file(d, fmt.Sprint(prefix, i))
		}
		return s.requests("geteattr") - get, s.requests("seteattr") - set
	}
	get, set := count(20, "a")
	require.LessOrEqual(t, get, int64(1), "the directory is asked once at most")
	require.Zero(t, set)
	get, set = count(20, "b")
	require.Zero(t, get)
	require.Zero(t, set)
	require.NoError(t, m.setMode(d, "commit"))
	get, set = count(20, "c")
	require.Zero(t, get, "known from the change")
	require.EqualValues(t, 20, set, "one a file")

	get, set = s.requests("geteattr"), s.requests("seteattr")
	m.mkdir(d, "sub")
	require.Zero(t, s.requests("geteattr")-get)
	require.EqualValues(t, 1, s.requests("seteattr")-set, "together with the note of the parent")

	h := m.file(d, "open")
	m.openMode(h)
	get = s.requests("geteattr")
	for range 10 {
		require.Equal(t, ionpb.Consistency_COMMIT_MODE, m.openMode(h))
	}
	require.Zero(t, s.requests("geteattr")-get, "opens that follow ask no more")
}

// TestModeChangesAmongOpens has opens and a change race: an open that begins
// after a change has ended sees it.
func TestModeChangesAmongOpens(t *testing.T) {
	s := startSystem(t, 2, 1, nil)
	m := s.mount(t)
	d := m.mkdir(m.root, "d")
	h := m.file(d, "f")
	stop, end := context.WithCancel(t.Context())
	var g errgroup.Group
	for range 4 {
		o := s.mount(t)
		g.Go(func() error {
			for stop.Err() == nil {
				if _, err := o.open(h, 0); err != nil {
					return err
				}
				if err := o.atHome(ionpb.Op_CLOSE, h, &ionpb.CloseReq{Count: 1}, nil); err != nil {
					return err
				}
				if _, _, err := o.create(d, "x", false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range 50 {
		mode := consistency.All()[i%5]
		require.NoError(t, m.setMode(h, mode.String()))
		require.Equal(t, ionpb.ConsistencyOf(mode), m.openMode(h))
		require.NoError(t, m.setMode(d, mode.String()))
		_, got := m.made(d, fmt.Sprint("made", i))
		require.Equal(t, ionpb.ConsistencyOf(mode), got)
	}
	end()
	require.NoError(t, g.Wait())
}
