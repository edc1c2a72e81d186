package ionserver

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

// waits reports whether somebody waits for a key's lock.
func (l *keyLock[K]) waits(key K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queues[key]
	return len(q) > 0 && !q[len(q)-1].held
}

// homeOf is the I/O node that is an inode's home.
func (s *system) homeOf(h uint64) *node { return s.nodes[s.nodes[0].placement.Home(h)] }

// during runs f until a lock has somebody wait, then act, and returns what f does.
func during[K comparable, A any](t *testing.T, l *keyLock[K], key K, f func() A, act func()) A {
	t.Helper()
	done := make(chan A, 1)
	go func() { done <- f() }()
	for !l.waits(key) {
		require.Empty(t, done, "it did not wait")
	}
	act()
	return <-done
}

// TestListBetween: nobody sees in a list what is there in the middle of a change.
func TestListBetween(t *testing.T) {
	s := newScene(t)
	n, k := s.homeOf(s.dir), nameKey{s.dir, "file"}
	release, ok := n.names.TryLock(k, true)
	require.True(t, ok)
	n.home.dirs.begin(k, s.nodes[0].started)
	p := n.Server.pvfs
	_, err := p.Unlink(t.Context(), pvfs.Handle(s.dir), "file")
	require.NoError(t, err)
	names := during(t, &n.names, k, func() (names []string) {
		var r ionpb.ReadDirResp
		if s.a.atHome(ionpb.Op_READDIR, s.dir, &ionpb.ReadDirReq{Max: 100}, &r) != nil {
			return nil
		}
		for _, e := range r.Entries {
			names = append(names, string(e.Name))
		}
		return names
	}, func() {
		require.NoError(t, p.Link(t.Context(), pvfs.Handle(s.dir), "file", pvfs.Handle(s.file)))
		n.home.dirs.end(k)
		release()
	})
	require.ElementsMatch(t, []string{"file", "sub", "empty"}, names)
}

// TestLookupOfReplaced: a name that is replaced while it is looked up means something
// all the time.
func TestLookupOfReplaced(t *testing.T) {
	s := newScene(t)
	for i := 0; s.homeOf(s.empty) != s.homeOf(s.dir); i++ { // which looks at the attributes as well
		s = s.fresh(fmt.Sprint(i))
	}
	n := s.homeOf(s.empty)
	release, err := lockKey(background{}, context.Background(), &n.home.ops, s.empty, true)
	require.NoError(t, err)
	found := during(t, &n.home.ops, s.empty, func() uint64 {
		h, err := s.a.lookup(s.dir, "empty")
		if err != nil {
			return 0
		}
		return h
	}, func() {
		_, err := s.b.rename(s.dir, "sub", s.dir, "empty", 0)
		require.NoError(t, err)
		release()
	})
	require.Equal(t, s.sub, found)
}
