package ionserver

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

// directory is a model of a directory at the servers, and of what its home does.
type directory struct {
	t        *testing.T
	table    dirTable
	now      time.Time
	names    map[string]pvfs.Handle
	changing map[string]bool // with whether it was carried out
	load     *dirLoad
	read     []pvfs.Dirent // by load
	known    int
}

const modelDir = 7

func (d *directory) key(name string) nameKey { return nameKey{modelDir, name} }

// step does something at random: names are changed at the servers at any moment
// between begin and what follows, and read at any moment between missed and loaded.
func (d *directory) step(rnd *rand.Rand) {
	name := fmt.Sprint(rnd.IntN(5))
	done, changing := d.changing[name]
	switch {
	case rnd.IntN(200) == 0:
		d.now = d.now.Add(dirLife)
		d.table.expire(d.now)
	case rnd.IntN(100) == 0:
		d.table.change(modelDir, true)()
	case rnd.IntN(8) == 0 && d.load == nil:
		d.load, _ = d.table.missed(d.key(name), d.now)
		d.read = nil
	case rnd.IntN(8) == 0 && d.load != nil && d.read == nil:
		d.read = []pvfs.Dirent{}
		for n, h := range d.names {
			d.read = append(d.read, pvfs.Dirent{Name: n, Handle: h})
		}
	case rnd.IntN(8) == 0 && d.load != nil:
		d.table.loaded(modelDir, d.load, d.read)
		d.load = nil
	case !changing:
		d.table.begin(d.key(name), d.now)
		d.changing[name] = false
	case !done:
		if d.changing[name] = true; rnd.IntN(2) == 0 {
			d.names[name] = pvfs.Handle(rnd.Uint64() | 1)
		} else {
			delete(d.names, name)
		}
	default:
		if rnd.IntN(4) > 0 {
			d.table.means(d.key(name), meaning{handle: d.names[name]}, d.now)
		}
		d.table.end(d.key(name))
		delete(d.changing, name)
	}
}

func (d *directory) check() {
	for i := range 5 {
		name := fmt.Sprint(i)
		if done, changing := d.changing[name]; changing && done {
			continue // its holder has yet to say what it means
		}
		if m, ok := d.table.known(d.key(name), d.now); ok {
			require.Equal(d.t, d.names[name], m.handle, "name %s", name)
			d.known++
		}
	}
}

// TestNamesAreTrue: what a home knows of names is what they mean.
func TestNamesAreTrue(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	d := &directory{t: t, now: time.Now(), names: map[string]pvfs.Handle{}, changing: map[string]bool{}}
	for steps := 0; steps < 40000 || d.known < 20000; steps++ {
		require.Less(t, steps, 400000, "it knows too little: %d", d.known)
		d.step(rnd)
		d.check()
	}
	require.LessOrEqual(t, d.table.names, 5)
}

// TestNamesOfALargeDirectory: to read all names costs no more than twice what
// was spent on single ones.
func TestNamesOfALargeDirectory(t *testing.T) {
	var d dirTable
	now := time.Now()
	k := nameKey{1, "x"}
	d.begin(k, now)
	d.means(k, meaning{handle: 1}, now)
	d.end(k)
	asked, pages := 0, 0
	for range 1000 {
		asked++
		if load, mine := d.missed(k, now); mine {
			pages += load.pages
			d.loaded(1, load, nil)
		}
		require.LessOrEqual(t, pages, asked)
	}
	require.Greater(t, pages, 100)
	require.LessOrEqual(t, d.dirs[1].need, maxPages)
}

// TestTimesAreTrue: the times of a directory follow what is changed in it, and an
// answer of the past is not kept.
func TestTimesAreTrue(t *testing.T) {
	var d dirTable
	now := time.Unix(1000, 0)
	k := nameKey{1, "x"}
	_, ok := d.attr(1, now)
	require.False(t, ok)
	require.EqualValues(t, 5, d.learn(pvfs.Attr{Handle: 1, Mtime: 5}, d.ask(1), now).Mtime)
	_, ok = d.attr(1, now)
	require.False(t, ok, "nothing is changed in it")

	since := d.ask(1)
	d.begin(k, now)
	d.means(k, meaning{handle: 2}, now)
	d.end(k)
	require.EqualValues(t, 1000, d.learn(pvfs.Attr{Handle: 1, Mtime: 5, Mode: 0o700}, since, now).Mtime)
	a, ok := d.attr(1, now)
	require.True(t, ok)
	require.EqualValues(t, 1000, a.Mtime)
	require.EqualValues(t, 0o700, a.Mode)

	now = now.Add(time.Second)
	d.begin(k, now)
	d.stays(k)
	d.end(k)
	a, _ = d.attr(1, now)
	require.EqualValues(t, 1000, a.Mtime, "nothing has changed")

	since = d.ask(1)
	end := d.change(1, false)
	d.learn(a, d.ask(1), now)
	end()
	d.learn(a, since, now)
	_, ok = d.attr(1, now)
	require.False(t, ok, "asked before, or while, it was changed")

	d.learn(a, d.ask(1), now)
	_, ok = d.attr(1, now.Add(dirLife+1))
	require.False(t, ok, "others may have changed it")
	since = d.ask(1)
	d.begin(k, now)
	d.end(k) // without a word
	_, ok = d.attr(1, now)
	require.False(t, ok)
	d.learn(a, since, now)
	_, ok = d.attr(1, now)
	require.False(t, ok)
}

// TestCostOfNames: what many files in one directory cost the servers, made and
// removed by two mounts at once, which look at the name and the directory before.
func TestCostOfNames(t *testing.T) {
	const files, mounts = 100, 2
	s := startSystem(t, 2, 2, nil)
	ms := []*mount{s.mount(t), s.mount(t)}
	dir := ms[0].mkdir(ms[0].root, "d")
	for _, m := range ms { // sessions leave their traces
		for at := range s.nodes {
			h, _ := m.fileHomedAt(dir, fmt.Sprint("first", m.id, ".", at, "."), at)
			_, err := m.open(h, 0)
			require.NoError(t, err)
			m.closeFile(h)
		}
	}
	each := func(f func(m *mount, name string) error) {
		for _, n := range s.nodes {
			n.client.ResetStats()
		}
		var g errgroup.Group
		for i, m := range ms {
			g.Go(func() error {
				for n := range files / mounts {
					if _, err := m.stat(dir); err != nil {
						return err
					}
					if err := f(m, fmt.Sprint(i, ".", n)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
		for _, n := range s.nodes {
			t.Logf("%v", n.client.Stats().Requests)
		}
	}
	each(func(m *mount, name string) error {
		if _, err := m.lookup(dir, name); errno.Of(err) != syscall.ENOENT {
			return fmt.Errorf("found: %w", err)
		}
		var r ionpb.EntryResp
		req := &ionpb.CreateReq{Name: []byte(name), Mode: 0o644, Excl: true, Open: true}
		if err := m.atHome(ionpb.Op_CREATE, dir, req, &r); err != nil || !r.Opened {
			return fmt.Errorf("not opened: %w", err)
		}
		if err := m.write(r.Handle, 0, []byte("bytes"), 0); err != nil {
			return err
		}
		return m.atHome(ionpb.Op_CLOSE, r.Handle, &ionpb.CloseReq{Count: 1}, nil)
	})
	require.EqualValues(t, files, s.asked("create"))
	require.EqualValues(t, files, s.asked("crdirent"))
	require.LessOrEqual(t, s.asked("lookup_path")+s.asked("readdir"), int64(files/2), "each time the names are too old")
	require.LessOrEqual(t, s.asked("getattr"), int64(files/2))
	a, err := ms[0].stat(dir)
	require.NoError(t, err)
	require.LessOrEqual(t, time.Now().Unix()-a.Mtime, int64(60))
	require.Equal(t, ionpb.ObjType_DIR, a.Type)
}

// TestUnlistedNamesAreNotKept: that a name is free, as the home has read some time
// ago, is for one answer only. So a file that somebody else makes is found when what
// was read is too old, whoever has asked before.
func TestUnlistedNamesAreNotKept(t *testing.T) {
	s := startSystem(t, 1, 1, nil)
	m := s.mount(t)
	dir, dirs := m.mkdir(m.root, "d"), &s.nodes[0].home.dirs
	listed := func() bool {
		_, ok := dirs.known(nameKey{dir, "x"}, time.Now())
		return ok
	}
	h, kept := m.lookupLeased(dir, "free")
	require.Zero(t, h)
	require.True(t, kept, "it was asked for")
	m.file(dir, "here")
	until(t, "a free name is found in the list", func() bool {
		before := listed()
		h, kept := m.lookupLeased(dir, "free")
		require.Zero(t, h)
		if !before || !listed() {
			m.unlinkFile(dir, "other", m.file(dir, "other")) // names are being changed
			return false
		}
		require.False(t, kept)
		return true
	})
	h, kept = m.lookupLeased(dir, "here")
	require.NotZero(t, h)
	require.True(t, kept)
	_, err := s.nodes[0].client.Create(t.Context(), pvfs.Handle(dir), "free", pvfs.CreateOptions{})
	require.NoError(t, err)
	until(t, "it is found", func() bool {
		h, _ := m.lookupLeased(dir, "free")
		return h != 0
	})
}

// TestTimesOfDirectoryNeverGoBack: a home does not say that a change was later than the
// servers may have it.
func TestTimesOfDirectoryNeverGoBack(t *testing.T) {
	var table dirTable
	k, now := nameKey{7, "n"}, time.Unix(1000, 0)
	table.begin(k, now)
	table.means(k, meaning{handle: 8}, now.Add(time.Second)) // carried out in between
	table.end(k)
	a := table.learn(pvfs.Attr{Handle: 7, Mtime: 1000, Ctime: 1000}, table.ask(7), now)
	require.EqualValues(t, 1000, a.Mtime)
	require.EqualValues(t, 1000, a.Ctime)
}
