package fsck_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// quick does without the pause that only matters while others work.
var quick = fsck.Options{Settle: time.Millisecond}

// rig is a file system of three servers to be damaged. All errors of the
// methods end the test.
type rig struct {
	t   *testing.T
	cl  *pvfsdtest.Cluster
	c   *pvfs.Client
	dir string
	ctx context.Context
}

func noStuffing(o *fsconf.GenOptions) { o.NoStuffing = true }

// smallPools makes servers hold a few objects in reserve instead of a thousand.
func smallPools(text string) string {
	return strings.NewReplacer("1024,1024,1024,32,1024", "32,32,32,32,32", "256,256,256,16,256", "8,8,8,8,8").Replace(text)
}

func newRig(t *testing.T, edit func(*fsconf.GenOptions)) *rig {
	dir := t.TempDir()
	cl := pvfsdtest.Start(t, 3, pvfsdtest.Options{Dir: dir, Gen: edit, Edit: smallPools})
	c, err := pvfs.Dial(t.Context(), cl.URL(), pvfs.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	r := &rig{t, cl, c, dir, t.Context()}
	r.file(c.Root(), "healthy", 200_000)
	d := r.mkdir(c.Root(), "dir")
	r.file(d, "healthy", 10)
	r.symlink(d, "link")
	require.Eventually(t, func() bool { // the servers have filled their pools
		rep := r.check()
		return len(rep.Findings) == 0 && rep.Changing == 0 && rep.Objects["reserved"] > 0
	}, 20*time.Second, 20*time.Millisecond)
	return r
}

func (r *rig) file(dir pvfs.Handle, name string, n int) pvfs.Attr {
	a, err := r.c.Create(r.ctx, dir, name, pvfs.CreateOptions{Mode: 0o644})
	require.NoError(r.t, err)
	_, err = r.c.File(a).WriteAt(r.ctx, [][]byte{make([]byte, n)}, 0)
	require.NoError(r.t, err)
	return a
}

func (r *rig) mkdir(dir pvfs.Handle, name string) pvfs.Handle {
	a, err := r.c.Mkdir(r.ctx, dir, name, pvfs.CreateOptions{Mode: 0o755})
	require.NoError(r.t, err)
	return a.Handle
}

func (r *rig) symlink(dir pvfs.Handle, name string) pvfs.Handle {
	a, err := r.c.Symlink(r.ctx, dir, name, "target", 0, 0)
	require.NoError(r.t, err)
	return a.Handle
}

func (r *rig) unlink(dir pvfs.Handle, name string) {
	_, err := r.c.Unlink(r.ctx, dir, name)
	require.NoError(r.t, err)
}

func (r *rig) link(dir pvfs.Handle, name string, h pvfs.Handle) {
	require.NoError(r.t, r.c.Link(r.ctx, dir, name, h))
}

func (r *rig) removeObject(h pvfs.Handle) { require.NoError(r.t, r.c.RemoveObject(r.ctx, h)) }

// owner is the number of the server that owns h.
func (r *rig) owner(h pvfs.Handle) int {
	alias, ok := r.c.Owner(h)
	require.True(r.t, ok)
	return int(alias[1] - '0')
}

// edit changes the store of server i behind its back.
func (r *rig) edit(i int, fn func(tx *bolt.Tx) error) {
	r.t.Helper()
	r.cl.Kill(i)
	db, err := bolt.Open(filepath.Join(r.dir, fmt.Sprintf("s%d", i), "meta", "meta.db"), 0o600, &bolt.Options{Timeout: time.Second})
	require.NoError(r.t, err)
	require.NoError(r.t, db.Update(fn))
	require.NoError(r.t, db.Close())
	r.cl.Restart(i)
}

func keyOf(h pvfs.Handle) []byte { return binary.BigEndian.AppendUint64(nil, uint64(h)) }

// copyObject makes another object like h, which has the handle to on server i.
func (r *rig) copyObject(h pvfs.Handle, i int, to pvfs.Handle) {
	var record []byte
	r.edit(r.owner(h), func(tx *bolt.Tx) error {
		record = bytes.Clone(tx.Bucket([]byte("objects")).Get(keyOf(h)))
		return nil
	})
	require.NotEmpty(r.t, record)
	r.edit(i, func(tx *bolt.Tx) error { return tx.Bucket([]byte("objects")).Put(keyOf(to), record) })
}

func (r *rig) dropObject(i int, h pvfs.Handle) {
	r.edit(i, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("objects"))
		require.NotNil(r.t, b.Get(keyOf(h)))
		return b.Delete(keyOf(h))
	})
}

func (r *rig) dirdata(dir pvfs.Handle) pvfs.Handle {
	alias, _ := r.c.Owner(dir)
	attrs, errs, err := r.c.Inspect(r.ctx, alias, []pvfs.Handle{dir})
	require.NoError(r.t, err)
	require.NoError(r.t, errs[0])
	return attrs[0].DistDir.Dirdata[0]
}

// someReserved is a datafile that the pool of a server holds.
func (r *rig) someReserved() (h pvfs.Handle) {
	require.Eventually(r.t, func() bool {
		err := r.c.EachHandle(r.ctx, "s0", true, func(hs []pvfs.Handle) error {
			if len(hs) > 0 {
				h = hs[len(hs)-1]
			}
			return nil
		})
		return err == nil && h != 0
	}, 20*time.Second, 10*time.Millisecond)
	return h
}

func (r *rig) check() *fsck.Report {
	r.t.Helper()
	rep, err := fsck.Check(r.ctx, r.c, quick)
	require.NoError(r.t, err)
	return rep
}

func (r *rig) repair(rep *fsck.Report) {
	r.t.Helper()
	require.NoError(r.t, fsck.Repair(r.ctx, r.c, rep, quick, fsck.RepairOptions{Orphans: true, Entries: true, Force: true}))
}

func kinds(fs []fsck.Finding) []string {
	out := []string{}
	for i := range fs {
		out = append(out, string(fs[i].Kind)+" "+fs[i].Type)
	}
	slices.Sort(out)
	return out
}

func lines(rep *fsck.Report) []string {
	var out []string
	for i := range rep.Findings {
		out = append(out, rep.Findings[i].String())
	}
	return out
}

// Each kind of damage is found, and nothing else. What can be repaired is, and
// the file system is clean again; the rest is left alone until heal, which does
// what somebody would do who looked at it.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(r *rig) (heal func())
		want   []string // kind and type
		left   int
		path   string // of a finding
	}{
		{name: "nothing", damage: func(r *rig) func() { return nil }, want: []string{}},
		{name: "file without a name", damage: func(r *rig) func() {
			r.file(r.c.Root(), "x", 1000)
			r.unlink(r.c.Root(), "x")
			return nil
		}, want: []string{"orphan metafile"}},
		{name: "symlink without a name", damage: func(r *rig) func() {
			r.symlink(r.c.Root(), "x")
			r.unlink(r.c.Root(), "x")
			return nil
		}, want: []string{"orphan symlink"}},
		{name: "empty directory without a name", damage: func(r *rig) func() {
			r.mkdir(r.c.Root(), "x")
			r.unlink(r.c.Root(), "x")
			return nil
		}, want: []string{"orphan directory"}},
		{name: "directory with files without a name", damage: func(r *rig) func() {
			r.file(r.mkdir(r.mkdir(r.c.Root(), "x"), "below"), "file", 10)
			r.unlink(r.c.Root(), "x")
			return nil
		}, want: []string{"orphan directory"}},
		{name: "datafiles without a file", damage: func(r *rig) func() {
			a := r.file(r.c.Root(), "x", 1000)
			r.unlink(r.c.Root(), "x")
			r.removeObject(a.Handle)
			return nil
		}, want: []string{"orphan datafile", "orphan datafile", "orphan datafile"}},
		{name: "entry of a removed object", damage: func(r *rig) func() {
			d := r.mkdir(r.c.Root(), "d")
			r.removeObject(r.symlink(d, "x"))
			return nil
		}, want: []string{"dangling "}, path: "/d/x"},
		{name: "entry of a handle of nobody", damage: func(r *rig) func() {
			alias := fmt.Sprintf("s%d", r.owner(r.c.Root()))
			require.NotEmpty(r.t, alias)
			r.link(r.c.Root(), "x", 1<<61-1)
			return nil
		}, want: []string{"dangling "}, path: "/x"},
		{name: "file that lost a datafile", damage: func(r *rig) func() {
			a := r.file(r.mkdir(r.c.Root(), "d"), "x", 1000)
			r.removeObject(a.Layout.DFiles[1])
			d, err := r.c.Lookup(r.ctx, r.c.Root(), "d")
			require.NoError(r.t, err)
			return func() { require.NoError(r.t, r.c.Remove(r.ctx, d, "x")) }
		}, want: []string{"lost-datafile datafile"}, left: 1, path: "/d/x"},
		{name: "file that was being removed", damage: func(r *rig) func() {
			a := r.file(r.c.Root(), "x", 1000)
			r.unlink(r.c.Root(), "x")
			r.removeObject(a.Layout.DFiles[0])
			return nil
		}, want: []string{"orphan metafile"}},
		{name: "two names of a file", damage: func(r *rig) func() {
			a := r.file(r.c.Root(), "x", 1000)
			r.link(r.mkdir(r.c.Root(), "d"), "y", a.Handle)
			return func() { r.unlink(r.c.Root(), "x") }
		}, want: []string{"shared metafile"}, left: 1},
		{name: "two names of a directory", damage: func(r *rig) func() {
			r.link(r.c.Root(), "y", r.mkdir(r.c.Root(), "x"))
			return func() { r.unlink(r.c.Root(), "x") }
		}, want: []string{"shared directory"}, left: 1},
		{name: "name of the root", damage: func(r *rig) func() {
			r.link(r.c.Root(), "x", r.c.Root())
			return func() { r.unlink(r.c.Root(), "x") }
		}, want: []string{"shared directory"}, left: 1, path: "/x"},
		{name: "name of a datafile", damage: func(r *rig) func() {
			r.link(r.c.Root(), "y", r.file(r.c.Root(), "x", 10).Layout.DFiles[0])
			return func() { r.unlink(r.c.Root(), "y") }
		}, want: []string{"wrong-type datafile"}, left: 1, path: "/y"},
		{name: "name of a dirdata object", damage: func(r *rig) func() {
			r.link(r.c.Root(), "y", r.dirdata(r.mkdir(r.c.Root(), "x")))
			return func() { r.unlink(r.c.Root(), "y") }
		}, want: []string{"wrong-type dirdata"}, left: 1, path: "/y"},
		{name: "datafile of a pool in use", damage: func(r *rig) func() {
			r.link(r.c.Root(), "x", r.someReserved())
			return func() { r.unlink(r.c.Root(), "x") }
		}, want: []string{"shared "}, left: 1, path: "/x"},
		{name: "two files with the same datafiles", damage: func(r *rig) func() {
			a := r.file(r.c.Root(), "x", 1000)
			twin := a.Handle + 1<<30
			r.copyObject(a.Handle, r.owner(a.Handle), twin)
			r.link(r.c.Root(), "twin", twin)
			return func() { r.unlink(r.c.Root(), "twin"); r.removeObject(twin) }
		}, want: []string{"shared datafile", "shared datafile", "shared datafile"}, left: 3},
		{name: "file without a name that shares datafiles", damage: func(r *rig) func() {
			a := r.file(r.c.Root(), "x", 1000)
			r.copyObject(a.Handle, r.owner(a.Handle), a.Handle+1<<30)
			return func() { r.removeObject(a.Handle + 1<<30) }
		}, want: []string{"orphan metafile", "shared datafile", "shared datafile", "shared datafile"}, left: 4},
		{name: "object on a foreign server", damage: func(r *rig) func() {
			h := r.symlink(r.c.Root(), "x")
			to := (r.owner(h) + 1) % 3
			r.copyObject(h, to, h)
			return func() { r.dropObject(to, h) }
		}, want: []string{"misplaced symlink"}, left: 1},
		{name: "entry that is not listed", damage: func(r *rig) func() {
			d := r.mkdir(r.c.Root(), "d")
			dd := r.dirdata(d)
			r.symlink(d, "x")
			r.edit(r.owner(dd), func(tx *bolt.Tx) error {
				c := tx.Bucket([]byte("order")).Cursor()
				k, _ := c.Seek(keyOf(dd))
				require.True(r.t, bytes.HasPrefix(k, keyOf(dd)))
				return c.Delete()
			})
			return func() { r.unlink(d, "x") }
		}, want: []string{"orphan symlink", "wrong-count dirdata"}, left: 1, path: "/d"},
		{name: "directory below itself", damage: func(r *rig) func() {
			a := r.mkdir(r.c.Root(), "a")
			b := r.mkdir(a, "b")
			r.file(b, "file", 10)
			r.link(b, "up", a)
			r.unlink(r.c.Root(), "a")
			return func() { r.link(r.c.Root(), "a", a); r.unlink(b, "up") }
		}, want: []string{"detached directory"}, left: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, noStuffing)
			heal := c.damage(r)
			rep := r.check()
			require.Equal(t, c.want, kinds(rep.Findings), lines(rep))
			require.Equal(t, len(c.want), rep.Left())
			if c.path != "" {
				require.True(t, slices.ContainsFunc(rep.Findings, func(f fsck.Finding) bool { return f.Path == c.path }), lines(rep))
			}
			again := r.check()
			again.Began, again.Took = rep.Began, rep.Took
			require.Equal(t, rep, again, "looking changes nothing")
			r.repair(rep)
			require.Equal(t, c.left, rep.Left(), lines(rep))
			if heal != nil {
				heal()
			}
			rep = r.check()
			r.repair(rep) // what heal leaves, if anything
			require.Zero(t, rep.Left(), lines(rep))
			require.Empty(t, lines(r.check()))
		})
	}
}

// A directory that has lost its dirdata, and dirdata without a directory, are
// found whatever the server makes of them.
func TestTornDirectories(t *testing.T) {
	r := newRig(t, noStuffing)
	d, e := r.mkdir(r.c.Root(), "d"), r.mkdir(r.c.Root(), "e")
	torn, left := r.dirdata(d), r.dirdata(e)
	r.dropObject(r.owner(torn), torn)
	r.dropObject(r.owner(e), e)
	rep := r.check()
	for _, h := range []pvfs.Handle{torn, left} {
		require.True(t, slices.ContainsFunc(rep.Findings, func(f fsck.Finding) bool { return f.Handle == h || f.Handle == d && h == torn }), lines(rep))
	}
	require.True(t, slices.ContainsFunc(rep.Findings, func(f fsck.Finding) bool { return f.Kind == fsck.Dangling && f.Path == "/e" }), lines(rep))
}

// Lost+found keeps what is below a directory that lost its name.
func TestAdopted(t *testing.T) {
	r := newRig(t, noStuffing)
	d := r.mkdir(r.c.Root(), "x")
	r.file(d, "file", 10)
	r.unlink(r.c.Root(), "x")
	rep := r.check()
	r.repair(rep)
	require.Equal(t, "not empty, named /lost+found/#"+fmt.Sprint(d), rep.Findings[0].Repair)
	lf, err := r.c.Lookup(r.ctx, r.c.Root(), "lost+found")
	require.NoError(t, err)
	got, err := r.c.Lookup(r.ctx, lf, "#"+fmt.Sprint(d))
	require.NoError(t, err)
	require.Equal(t, d, got)
}

// What is young may be about to get its name.
func TestGrace(t *testing.T) {
	r := newRig(t, noStuffing)
	a := r.file(r.c.Root(), "x", 10)
	r.unlink(r.c.Root(), "x")
	b := r.file(r.c.Root(), "y", 10)
	r.unlink(r.c.Root(), "y")
	r.removeObject(b.Handle) // its datafiles have no times
	rep := r.check()
	require.Equal(t, []string{"orphan datafile", "orphan datafile", "orphan datafile", "orphan metafile"}, kinds(rep.Findings))
	o := fsck.RepairOptions{Orphans: true, Grace: 5 * time.Minute}
	orphans, entries, young := rep.Repairable(o)
	require.Equal(t, []int{3, 0, 1}, []int{orphans, entries, young})
	named := *rep
	named.Findings = slices.DeleteFunc(slices.Clone(rep.Findings), func(f fsck.Finding) bool { return f.Ctime == 0 })
	require.NoError(t, fsck.Repair(r.ctx, r.c, &named, quick, o))
	require.Equal(t, "left: younger than 5m0s", named.Findings[0].Repair)

	// It gets its name between the check and the repair.
	r.link(r.c.Root(), "again", a.Handle)
	o.Force = true
	require.NoError(t, fsck.Repair(r.ctx, r.c, &named, quick, o))
	require.Equal(t, 1, named.Left(), lines(&named))
	_, err := r.c.GetAttr(r.ctx, a.Handle)
	require.NoError(t, err, "it is not removed")

	o.Force, o.Grace = false, 200*time.Millisecond
	began := rep.Began
	require.NoError(t, fsck.Repair(r.ctx, r.c, rep, quick, o))
	require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond, "datafiles are watched for a while")
	require.Empty(t, lines(r.check()))
}

// A server that does not answer is no finding.
func TestServerDown(t *testing.T) {
	r := newRig(t, noStuffing)
	c, err := pvfs.Dial(t.Context(), r.cl.URL(), pvfs.Options{Timeout: 300 * time.Millisecond})
	require.NoError(t, err)
	defer c.Close()
	r.cl.Kill(1)
	_, err = fsck.Check(t.Context(), c, quick)
	require.ErrorContains(t, err, "s1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = fsck.Check(ctx, c, quick)
	require.ErrorIs(t, err, context.Canceled)
}

func TestBounded(t *testing.T) {
	r := newRig(t, noStuffing)
	for i := range 10 {
		r.symlink(r.c.Root(), fmt.Sprint(i))
		r.unlink(r.c.Root(), fmt.Sprint(i))
	}
	rep, err := fsck.Check(t.Context(), r.c, fsck.Options{Settle: 1, MaxFindings: 4})
	require.NoError(t, err)
	require.Len(t, rep.Findings, 4)
	require.EqualValues(t, 6, rep.More)
	require.Equal(t, 10, rep.Left())
}

// Files that were unlinked while open are named by their I/O node.
func TestOpenFiles(t *testing.T) {
	r := newRig(t, noStuffing)
	a := r.file(r.c.Root(), "x", 10)
	d := r.mkdir(r.c.Root(), ".zoidfs-orphans")
	r.symlink(d, "session.ion0:7000.1")
	require.NoError(t, r.c.Rename(r.ctx, r.c.Root(), "x", d, fmt.Sprintf("%016x", uint64(a.Handle))))
	rep := r.check()
	require.Empty(t, lines(rep))
	require.Equal(t, 1, rep.Open)
}
