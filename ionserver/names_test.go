package ionserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// TestExclusiveCreate: of many who create one name, one succeeds.
func TestExclusiveCreate(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	mounts := []*mount{s.mount(t), s.mount(t)}
	for round := range 10 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				_, _, err := mounts[i%2].create(mounts[0].root, fmt.Sprint("name", round), true)
				switch errno.Of(err) {
				case 0:
					won.Add(1)
				case syscall.EEXIST:
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
	}
}

// TestCreateFindsTheOne: without O_EXCL all get the same file.
func TestCreateFindsTheOne(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	mounts := []*mount{s.mount(t), s.mount(t)}
	var mu sync.Mutex
	handles, created := map[uint64]bool{}, 0
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			h, c, err := mounts[i%2].create(mounts[0].root, "one", false)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			handles[h] = true
			if c {
				created++
			}
		})
	}
	wg.Wait()
	require.Len(t, handles, 1)
	require.Equal(t, 1, created)
}

// exists reports whether PVFS2 has the object.
func (s *system) exists(h uint64) bool {
	_, err := s.nodes[0].client.GetAttr(s.t.Context(), pvfs.Handle(h))
	if err != nil {
		require.ErrorIs(s.t, err, syscall.ENOENT)
	}
	return err == nil
}

// awaitGone waits until the object has lingered and is gone.
func (s *system) awaitGone(h uint64) {
	s.t.Helper()
	until(s.t, "what lingered is gone", func() bool { return !s.exists(h) })
}

// leftovers lists the directory of orphans.
func (s *system) leftovers() (names []string) {
	require.NoError(s.t, s.nodes[0].eachLeftover(s.t.Context(), func(e pvfs.Dirent) { names = append(names, e.Name) }))
	return names
}

// TestUnlinkWhileOpen: on either home, the file lives until its last close.
func TestUnlinkWhileOpen(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	for home := range 2 {
		h, name := a.fileHomedAt(a.root, fmt.Sprint("f", home, "."), home)
		for _, m := range []*mount{a, a, b} {
			_, err := m.open(h, 0)
			require.NoError(t, err)
		}
		require.NoError(t, a.write(h, 0, []byte("still here"), 0))
		r, err := b.unlink(b.root, name)
		require.NoError(t, err)
		require.True(t, r.Open)
		require.Equal(t, h, r.Handle)
		_, err = a.lookup(a.root, name)
		require.ErrorIs(t, err, syscall.ENOENT)
		require.Contains(t, s.leftovers(), orphanName(h))
		b.closeFile(h)
		a.closeFile(h)
		at, err := a.stat(h)
		require.NoError(t, err)
		require.Zero(t, at.Nlink)
		got, err := a.read(h, 0, 100)
		require.NoError(t, err)
		require.Equal(t, "still here", string(got))
		a.closeFile(h)
		s.awaitGone(h)
		until(t, "its entry is gone", func() bool { return !slices.Contains(s.leftovers(), orphanName(h)) })
		_, err = a.stat(h)
		require.ErrorIs(t, err, syscall.ESTALE)
		_, err = a.open(h, 0)
		require.ErrorIs(t, err, syscall.ESTALE)
	}
}

// TestUnlinkWhileClosing: of a file whose last close comes while its name is
// taken away nothing is left, not even the entry that was to keep it.
func TestUnlinkWhileClosing(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	a, b := s.mount(t), s.mount(t)
	gone := make(map[string]bool)
	for round := range 40 {
		h, name := a.fileHomedAt(a.root, fmt.Sprint("f", round, "."), 0)
		_, err := a.open(h, 0)
		require.NoError(t, err)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			a.closeFile(h)
		}()
		_, err = b.unlink(b.root, name)
		require.NoError(t, err)
		<-closed
		gone[orphanName(h)] = true
	}
	until(t, "all entries are gone", func() bool {
		return !slices.ContainsFunc(s.leftovers(), func(name string) bool { return gone[name] })
	})
}

// TestRenameOverOpenFile: what the new name meant lives on for those who have
// it open.
func TestRenameOverOpenFile(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	old := a.file(a.root, "old")
	_, err := b.open(old, 0)
	require.NoError(t, err)
	require.NoError(t, a.write(old, 0, []byte("old"), 0))
	fresh := a.file(a.root, "tmp")
	require.NoError(t, a.write(fresh, 0, []byte("new"), 0))
	r, err := a.rename(a.root, "tmp", a.root, "old", 0)
	require.NoError(t, err)
	require.Equal(t, fresh, r.Moved)
	require.Equal(t, old, r.Replaced)
	require.True(t, r.Open)
	h, err := b.lookup(b.root, "old")
	require.NoError(t, err)
	require.Equal(t, fresh, h)
	got, err := b.read(old, 0, 10)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	b.closeFile(old)
	s.awaitGone(old)
}

// TestOpenAfterTheNameIsGone: open(2) looks a file up and opens it in two
// steps. Whoever has taken the first still succeeds with the second if the
// file was replaced in between, or unlinked right after it was made.
func TestOpenAfterTheNameIsGone(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	for home := range 2 {
		old, name := a.fileHomedAt(a.root, fmt.Sprint("replaced", home, "."), home)
		_, err := a.open(old, 0) // no newcomer any more
		require.NoError(t, err)
		a.closeFile(old)
		a.file(a.root, "tmp")
		r, err := a.rename(a.root, "tmp", a.root, name, 0)
		require.NoError(t, err)
		require.False(t, r.Open)
		at, err := b.open(old, 0)
		require.NoError(t, err, "home %d: looked up before the rename", home)
		require.Zero(t, at.Nlink)

		made, name := a.fileHomedAt(a.root, fmt.Sprint("made", home, "."), home)
		_, err = b.unlink(b.root, name)
		require.NoError(t, err)
		_, err = a.open(made, 0)
		require.NoError(t, err, "home %d: made, and unlinked by another", home)
		require.NoError(t, a.write(made, 0, []byte("mine"), 0))
		a.closeFile(made)
		s.awaitGone(made)
		require.True(t, s.exists(old), "lives until its last close")
		b.closeFile(old)
		s.awaitGone(old)
	}
}

// TestCreateOpens: CREATE counts the open if it can. Such a file does not
// linger: its maker has it open already.
func TestCreateOpens(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	a, b := s.mount(t), s.mount(t)
	create := func(name string, excl bool) (*ionpb.EntryResp, error) {
		var r ionpb.EntryResp
		err := a.atHome(ionpb.Op_CREATE, a.root, &ionpb.CreateReq{Name: []byte(name), Mode: 0o644, Excl: excl, Open: true}, &r)
		return &r, err
	}
	for home := range 2 {
		here := home == a.place.Home(a.root)
		var r *ionpb.EntryResp
		var name string
		for i := 0; r == nil || a.place.Home(r.Handle) != home; i++ {
			var err error
			name = fmt.Sprint("f", home, ".", i)
			r, err = create(name, true)
			require.NoError(t, err)
		}
		h := r.Handle
		n := s.nodes[home]
		require.True(t, r.Opened)
		require.True(t, n.home.hasOpens(h))
		require.Equal(t, here, r.Session == 0)
		if !here {
			require.Equal(t, a.links[home].session, r.Session)
		}
		_, err := create(name, true)
		require.ErrorIs(t, err, syscall.EEXIST)
		again, err := create(name, false)
		require.NoError(t, err)
		require.Equal(t, h, again.Handle)
		require.False(t, again.Opened || again.Created, "found, as ever")
		u, err := b.unlink(b.root, name)
		require.NoError(t, err)
		require.True(t, u.Open)
		require.NoError(t, a.write(h, 0, []byte("still here"), 0))
		a.closeFile(h)
		require.False(t, s.exists(h), "home %d: it was open once", home)
	}
	at := a.place.Home(a.root)
	var r *ionpb.EntryResp
	for i := 0; r == nil || a.place.Home(r.Handle) != at; i++ {
		var err error
		r, err = create(fmt.Sprint("g", i), true)
		require.NoError(t, err)
	}
	_, err := a.call(t.Context(), at, rpc.Frame{Op: ionpb.Op_BYE}, nil, nil)
	require.NoError(t, err)
	require.False(t, s.nodes[at].home.hasOpens(r.Handle), "the end of the session ends it")
}

// TestOldFileDoesNotLinger: the space of a file that is unlinked later than
// right after it was made is free at once.
func TestOldFileDoesNotLinger(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	var files []uint64
	for i := range 8 { // on both homes
		files = append(files, m.file(m.root, fmt.Sprint("f", i)))
	}
	time.Sleep(lingerTime)
	for i, h := range files {
		_, err := m.unlink(m.root, fmt.Sprint("f", i))
		require.NoError(t, err)
		require.False(t, s.exists(h))
	}
}

func TestRenameRules(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	d1, d2 := m.mkdir(m.root, "d1"), m.mkdir(m.root, "d2")
	m.file(d1, "f1")
	m.file(d2, "f2")
	m.mkdir(d1, "empty")
	full := m.mkdir(d2, "full")
	m.file(full, "x")
	deep := m.mkdir(full, "deep")
	for _, c := range []struct {
		name  string
		od    uint64
		on    string
		nd    uint64
		nn    string
		flags uint32
		want  syscall.Errno
	}{
		{"nothing there", d1, "none", d2, "n", 0, syscall.ENOENT},
		{"file over directory", d1, "f1", d2, "full", 0, syscall.EISDIR},
		{"directory over file", d1, "empty", d2, "f2", 0, syscall.ENOTDIR},
		{"directory over a full one", d1, "empty", d2, "full", 0, syscall.ENOTEMPTY},
		{"no replace", d1, "f1", d2, "f2", unix.RENAME_NOREPLACE, syscall.EEXIST},
		{"exchange with nothing", d1, "f1", d2, "none", unix.RENAME_EXCHANGE, syscall.ENOENT},
		{"below itself", d2, "full", deep, "n", 0, syscall.EINVAL},
		{"into itself", d2, "full", full, "n", 0, syscall.EINVAL},
		{"exchange with what is below", d2, "full", full, "deep", unix.RENAME_EXCHANGE, syscall.EINVAL},
		{"onto itself", d1, "f1", d1, "f1", 0, 0},
		{"no replace of nothing", d1, "f1", d2, "moved", unix.RENAME_NOREPLACE, 0},
		{"back", d2, "moved", d1, "f1", 0, 0},
		{"exchange", d1, "f1", d2, "f2", unix.RENAME_EXCHANGE, 0},
		{"exchange with a directory", d1, "f1", d2, "full", unix.RENAME_EXCHANGE, 0},
		{"directory over an empty one", d1, "f1", d1, "empty", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, _ := m.lookup(c.od, c.on)
			to, _ := m.lookup(c.nd, c.nn)
			_, err := m.rename(c.od, c.on, c.nd, c.nn, c.flags)
			require.Equal(t, c.want, errno.Of(err), "%v", err)
			if c.want != 0 {
				return
			}
			now, err := m.lookup(c.nd, c.nn)
			require.NoError(t, err)
			require.Equal(t, from, now)
			was, err := m.lookup(c.od, c.on)
			switch {
			case c.flags == unix.RENAME_EXCHANGE:
				require.NoError(t, err)
				require.Equal(t, to, was)
			case c.od != c.nd || c.on != c.nn:
				require.ErrorIs(t, err, syscall.ENOENT)
			}
		})
	}
}

// TestRenameGoesOn: a rename that broke off when the new name was there, and the old
// one still, as when an I/O node is killed, is brought to its end by the next try.
func TestRenameGoesOn(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	for _, flags := range []uint32{0, unix.RENAME_NOREPLACE} {
		name := fmt.Sprint("x", flags)
		d1, d2 := m.mkdir(m.root, name+"from"), m.mkdir(m.root, name+"to")
		x, other := m.mkdir(d1, name), m.mkdir(m.root, name+"other")
		require.NoError(t, s.nodes[0].pvfs.Link(t.Context(), pvfs.Handle(d2), name, pvfs.Handle(x)))
		_, err := m.rename(d1, name, d2, name, flags)
		require.NoError(t, err)
		_, err = m.lookup(d1, name)
		require.ErrorIs(t, err, syscall.ENOENT)
		now, err := m.lookup(d2, name)
		require.NoError(t, err)
		require.Equal(t, x, now)
		require.NoError(t, m.atHome(ionpb.Op_RMDIR, m.root, &ionpb.NameReq{Name: []byte(name + "from")}, nil))
		_, err = m.rename(m.root, name+"other", x, name, flags)
		require.NoError(t, err, "where it is now is known")
		_, err = m.rename(d2, name, other, name, flags)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
}

// TestExchangeGoesOn: an exchange that is asked for again is brought to its end,
// however far an I/O node had come that was killed.
func TestExchangeGoesOn(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	d1, d2 := m.mkdir(m.root, "from"), m.mkdir(m.root, "to")
	for _, c := range []struct {
		name             string
		first, second    bool // which steps were done
		doubt, exchanged bool
	}{
		{"not begun", false, false, true, true},
		{"half done", true, false, true, true},
		{"done", true, true, true, true},
		{"done, by another call", true, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := m.mkdir(d1, c.name), m.file(d2, c.name)
			relink := func(dir, to uint64) {
				_, err := s.nodes[0].pvfs.Relink(t.Context(), pvfs.Handle(dir), c.name, pvfs.Handle(to))
				require.NoError(t, err)
			}
			if c.first {
				relink(d2, a)
			}
			if c.second {
				relink(d1, b)
			}
			f := rpc.Frame{Op: ionpb.Op_RENAME, Handle: d2}
			if c.doubt {
				f.Flags = uint32(ionpb.Flag_IN_DOUBT)
			}
			var r ionpb.RenameResp
			_, err := m.call(t.Context(), m.place.Home(d2), f, &ionpb.RenameReq{
				OldDir: d1, OldName: []byte(c.name), NewName: []byte(c.name), Flags: unix.RENAME_EXCHANGE, Meant: a, Unopened: b,
			}, &r)
			require.NoError(t, err)
			want := [2]uint64{b, a}
			if !c.exchanged {
				want = [2]uint64{a, b}
			} else {
				require.Equal(t, [2]uint64{a, b}, [2]uint64{r.Moved, r.Replaced})
			}
			one, err := m.lookup(d1, c.name)
			require.NoError(t, err)
			two, err := m.lookup(d2, c.name)
			require.NoError(t, err)
			require.Equal(t, want, [2]uint64{one, two})
			in := map[bool]uint64{true: d2, false: d1}[c.exchanged]
			note, err := s.nodes[0].pvfs.GetXattr(t.Context(), pvfs.Handle(a), parentXattr)
			require.NoError(t, err)
			require.Equal(t, parentNote(pvfs.Handle(in)).Value, note, "where the directory is, is known")
		})
	}
}

// TestRenameRaces: files wander between directories of both homes while
// others exchange, replace and look; no file is lost and none is there twice.
func TestRenameRaces(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	mounts := []*mount{s.mount(t), s.mount(t)}
	var dirs []uint64
	for i := range 4 {
		dirs = append(dirs, mounts[0].mkdir(mounts[0].root, fmt.Sprint("d", i)))
	}
	const files = 6
	want := map[uint64]bool{}
	for i := range files {
		want[mounts[0].file(dirs[i%4], fmt.Sprint("n", i))] = true
	}
	var wg sync.WaitGroup
	for id := range 6 {
		m := mounts[id%2]
		rnd := rand.New(rand.NewPCG(uint64(id), 5))
		wg.Go(func() {
			for range 60 {
				od, nd := dirs[rnd.IntN(4)], dirs[rnd.IntN(4)]
				on, nn := fmt.Sprint("n", rnd.IntN(files)), fmt.Sprint("n", rnd.IntN(files))
				flags := []uint32{unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[rnd.IntN(2)]
				_, err := m.rename(od, on, nd, nn, flags)
				if e := errno.Of(err); err != nil && e != syscall.ENOENT && e != syscall.EEXIST {
					t.Errorf("rename: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got := map[uint64]int{}
	for _, d := range dirs {
		for _, e := range mounts[1].list(d) {
			got[e.Handle]++
		}
	}
	require.Len(t, got, len(want))
	for h, n := range got {
		require.True(t, want[h])
		require.Equal(t, 1, n)
	}
}

// list reads a whole directory, a few entries at a time.
func (m *mount) list(dir uint64) (out []*ionpb.Dirent) {
	m.t.Helper()
	var token []byte
	for {
		var r ionpb.ReadDirResp
		require.NoError(m.t, m.atHome(ionpb.Op_READDIR, dir, &ionpb.ReadDirReq{Token: token, Max: 3}, &r))
		out = append(out, r.Entries...)
		if r.Eof {
			return out
		}
		token = r.Token
	}
}

// TestDirectoriesNeverFormACircle: two mounts move directories into each
// other at the same time; every directory stays reachable from the root.
func TestDirectoriesNeverFormACircle(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	mounts := []*mount{s.mount(t), s.mount(t)}
	root := mounts[0].root
	const n = 5
	dirs := make([]uint64, n)
	for i := range dirs {
		dirs[i] = mounts[0].mkdir(root, fmt.Sprint("d", i))
	}
	var mu sync.Mutex
	parent := map[uint64]uint64{} // as far as the test knows; moves may fail
	var wg sync.WaitGroup
	for id := range 4 {
		rnd := rand.New(rand.NewPCG(uint64(id), 11))
		wg.Go(func() {
			for range 25 {
				i, to := rnd.IntN(n), root
				if k := rnd.IntN(n + 1); k < n {
					to = dirs[k]
				}
				mu.Lock()
				from, ok := parent[dirs[i]]
				mu.Unlock()
				if !ok {
					from = root
				}
				name := fmt.Sprint("d", i)
				_, err := mounts[id%2].rename(from, name, to, name, 0)
				switch errno.Of(err) {
				case 0:
					mu.Lock()
					parent[dirs[i]] = to
					mu.Unlock()
				case syscall.ENOENT, syscall.EINVAL, syscall.ENOTEMPTY:
				default:
					t.Errorf("rename: %v", err)
				}
			}
		})
	}
	wg.Wait()
	var found []uint64
	var walk func(dir uint64)
	walk = func(dir uint64) {
		for _, e := range mounts[0].list(dir) {
			if e.Type == ionpb.ObjType_DIR && slices.Contains(dirs, e.Handle) {
				require.NotContains(t, found, e.Handle)
				found = append(found, e.Handle)
				walk(e.Handle)
			}
		}
	}
	walk(root)
	require.ElementsMatch(t, dirs, found)
}

func TestReadDir(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	top := m.list(m.root)
	require.Len(t, top, 1, "the directory of orphans is hidden")
	require.Equal(t, "lost+found", string(top[0].Name), "PVFS2 servers make it")
	dir := m.mkdir(m.root, "dir")
	want := map[string]ionpb.ObjType{}
	for i := range 10 {
		name := fmt.Sprintf("\xff%d", i) // not UTF-8
		m.file(dir, name)
		want[name] = ionpb.ObjType_FILE
	}
	m.mkdir(dir, "sub")
	want["sub"] = ionpb.ObjType_DIR
	require.NoError(t, m.atHome(ionpb.Op_SYMLINK, dir, &ionpb.SymlinkReq{Name: []byte("link"), Target: []byte("to")}, nil))
	want["link"] = ionpb.ObjType_LINK
	got := map[string]ionpb.ObjType{}
	for _, e := range m.list(dir) {
		got[string(e.Name)] = e.Type
	}
	require.Equal(t, want, got)
	err := m.atHome(ionpb.Op_RMDIR, m.root, &ionpb.NameReq{Name: []byte("dir")}, nil)
	require.ErrorIs(t, err, syscall.ENOTEMPTY)
	require.Len(t, m.list(dir), len(want), "nothing happened")
	link, err := m.lookup(dir, "link")
	require.NoError(t, err)
	var r ionpb.ReadlinkResp
	require.NoError(t, m.atHome(ionpb.Op_READLINK, link, nil, &r))
	require.Equal(t, "to", string(r.Target))
}

func TestXattrs(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m := s.mount(t)
	d := m.mkdir(m.root, "d")
	set := func(flags uint32) error {
		return m.atHome(ionpb.Op_SETXATTR, d, &ionpb.SetXattrReq{Name: []byte("user.a"), Value: []byte("v"), Flags: flags}, nil)
	}
	require.ErrorIs(t, set(unix.XATTR_REPLACE), syscall.ENODATA)
	require.NoError(t, set(unix.XATTR_CREATE))
	require.ErrorIs(t, set(unix.XATTR_CREATE), syscall.EEXIST)
	var l ionpb.ListXattrResp
	require.NoError(t, m.atHome(ionpb.Op_LISTXATTR, d, nil, &l))
	require.Equal(t, [][]byte{[]byte("user.a")}, l.Names, "our own note of the parent is hidden")
	var v ionpb.XattrResp
	require.NoError(t, m.atHome(ionpb.Op_GETXATTR, d, &ionpb.NameReq{Name: []byte("user.a")}, &v))
	require.Equal(t, "v", string(v.Value))
	require.NoError(t, m.atHome(ionpb.Op_REMOVEXATTR, d, &ionpb.NameReq{Name: []byte("user.a")}, nil))
	err := m.atHome(ionpb.Op_GETXATTR, d, &ionpb.NameReq{Name: []byte("user.a")}, &v)
	require.True(t, errors.Is(err, syscall.ENODATA), "%v", err)
}
