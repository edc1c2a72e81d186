package pvfs

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// fakeDir answers what makes a directory: its attributes, objects and entries.
type fakeDir struct {
	dd       wire.DistDir
	entries  map[string]wire.Handle
	next     wire.Handle
	removed  []wire.Handle
	lose     map[wire.Op]int // answers to lose, after the work was done
	dontDo   bool            // what is lost is not done
	fail     map[wire.Op]syscall.Errno
	once     bool      // fail once
	busy     time.Time // changes are put off until then
	flushed  []wire.Handle
	targets  map[wire.Handle]string
	cut      int // bytes of a target that are given back
	requests []wire.Op
}

func (d *fakeDir) serve(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
	d.requests = append(d.requests, h.Op)
	lost := d.lose[h.Op] > 0
	if lost {
		d.lose[h.Op]--
	}
	var st wire.Status
	var resp wire.Response
	if h.Op != wire.OpGetAttr && time.Now().Before(d.busy) {
		st = wire.StatusOf(syscall.EAGAIN)
	} else if e, ok := d.fail[h.Op]; ok {
		st = wire.StatusOf(e)
		if d.once {
			delete(d.fail, h.Op)
		}
	} else if !lost || !d.dontDo {
		st, resp = d.do(req)
	}
	if lost {
		_ = p.Close()
		return
	}
	p.reply(tag, h.Op, st, resp)
}

func (d *fakeDir) do(req wire.Request) (wire.Status, wire.Response) {
	enoent := wire.StatusOf(syscall.ENOENT)
	switch m := req.(type) {
	case *wire.GetAttrReq:
		if to, ok := d.targets[m.Handle]; ok {
			return 0, &wire.GetAttrResp{Attr: wire.Attr{Type: wire.TypeSymlink, Mask: wire.AttrCommon | wire.AttrTarget, Target: to[:min(len(to), d.cut)]}}
		}
		if m.Handle > 5000 && m.Handle < 6000 {
			return 0, &wire.GetAttrResp{Attr: wire.Attr{Type: wire.TypeMetafile, Mask: wire.AttrCommon | wire.AttrDist | wire.AttrDFiles,
				Dist: wire.NewSimpleStripe(65536), DFiles: []wire.Handle{1 << 62}}}
		}
		return 0, &wire.GetAttrResp{Attr: wire.Attr{Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDistDir | wire.AttrDirHint, DistDir: d.dd}}
	case *wire.FlushReq:
		d.flushed = append(d.flushed, m.Handle)
	case *wire.BatchCreateReq:
		d.next++
		return 0, &wire.BatchCreateResp{Handles: []wire.Handle{d.next}}
	case *wire.SetAttrReq:
		d.targets[m.Handle] = m.Attr.Target
	case *wire.CreateReq:
		d.next++
		return 0, &wire.CreateResp{Handle: d.next, Stuffed: 1, Attr: wire.Attr{Type: wire.TypeMetafile, Mask: wire.AttrCommon | wire.AttrDFiles, DFiles: []wire.Handle{1 << 62}}}
	case *wire.CrDirentReq:
		if _, ok := d.entries[m.Name]; ok {
			return wire.StatusOf(syscall.EEXIST), nil
		}
		d.entries[m.Name] = m.Handle
	case *wire.RmDirentReq:
		old, ok := d.entries[m.Name]
		if !ok {
			return enoent, nil
		}
		delete(d.entries, m.Name)
		return 0, &wire.RmDirentResp{Handle: old}
	case *wire.ChDirentReq:
		old, ok := d.entries[m.Name]
		if !ok {
			return enoent, nil
		}
		d.entries[m.Name] = m.Handle
		return 0, &wire.ChDirentResp{Handle: old}
	case *wire.LookupPathReq:
		if x, ok := d.entries[m.Path]; ok {
			return 0, &wire.LookupPathResp{Handles: []wire.Handle{x}}
		}
		return enoent, nil
	case *wire.ReadDirReq:
		return 0, d.readDir(m)
	case *wire.TreeRemoveReq:
		d.removed = append(d.removed, m.Handles...)
		return 0, &wire.TreeStatusResp{Statuses: make([]wire.Status, len(m.Handles))}
	case *wire.RemoveReq:
		d.removed = append(d.removed, m.Handle)
	}
	return 0, nil
}

// readDir gives the entries of a bucket in order of their names; the token is
// the number of the next.
func (d *fakeDir) readDir(m *wire.ReadDirReq) *wire.ReadDirResp {
	info := &dirInfo{DistDir: d.dd}
	var names []string
	for name := range d.entries {
		if info.bucket(name) == m.Dirdata {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	from := 0
	if m.Token != wire.TokenStart {
		from = int(m.Token)
	}
	resp := &wire.ReadDirResp{Token: wire.TokenEnd}
	for i, name := range names[min(from, len(names)):] {
		if i == int(m.Count) {
			resp.Token = uint64(from + i)
			break
		}
		resp.Dirents = append(resp.Dirents, wire.Dirent{Name: name, Handle: d.entries[name]})
	}
	return resp
}

// inFakeDir runs f with a client on a directory of one bucket.
func inFakeDir(t *testing.T, f func(t *testing.T, c *Client, d *fakeDir)) {
	synctest.Test(t, func(t *testing.T) {
		fs := newFakeFS(t, 1, nil)
		d := &fakeDir{dd: wire.DistDir{Bitmap: []uint32{1}, Dirdata: []wire.Handle{1000}}, entries: map[string]wire.Handle{},
			next: 5000, targets: map[wire.Handle]string{}, lose: map[wire.Op]int{}, fail: map[wire.Op]syscall.Errno{}}
		fs.serve = d.serve
		f(t, fs.client(Options{}), d)
	})
}

func TestLostAnswers(t *testing.T) {
	for _, dontDo := range []bool{false, true} {
		t.Run(fmt.Sprintf("done %v", !dontDo), func(t *testing.T) {
			inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
				ctx := t.Context()
				d.dontDo = dontDo
				d.lose[wire.OpCrDirent] = 2
				a, err := c.Create(ctx, c.Root(), "x", CreateOptions{})
				require.NoError(t, err)
				require.Equal(t, a.Handle, d.entries["x"])
				require.Empty(t, d.removed)

				d.lose[wire.OpChDirent] = 1
				old, err := c.Relink(ctx, c.Root(), "x", 99)
				require.NoError(t, err)
				require.Equal(t, wire.Handle(99), d.entries["x"])
				if dontDo {
					require.Equal(t, a.Handle, old)
				} else {
					require.Zero(t, old, "nobody knows any more")
				}

				d.lose[wire.OpRmDirent] = 1
				h, err := c.Unlink(ctx, c.Root(), "x")
				require.NoError(t, err)
				require.Empty(t, d.entries)
				if dontDo {
					require.Equal(t, wire.Handle(99), h)
				} else {
					require.Zero(t, h)
				}

				d.lose[wire.OpCreate] = 1
				_, err = c.Create(ctx, c.Root(), "y", CreateOptions{})
				require.NoError(t, err)
				require.Equal(t, d.next, d.entries["y"], "the second attempt's object")
			})
		})
	}
}

func TestEntryOfAnotherAfterALostAnswer(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		d.entries["x"] = 42
		d.lose[wire.OpCrDirent] = 1
		_, err := c.Create(t.Context(), c.Root(), "x", CreateOptions{})
		require.ErrorIs(t, err, syscall.EEXIST)
		require.Equal(t, wire.Handle(42), d.entries["x"])
		require.Equal(t, []wire.Handle{1 << 62, d.next}, d.removed, "our object is removed")
	})
}

// TestEntryOfNobodyKnows: if it is not known whose entry is there, it is not said
// to be another's, and what it may name is not removed.
func TestEntryOfNobodyKnows(t *testing.T) {
	for _, e := range []syscall.Errno{syscall.EIO, syscall.EACCES} {
		inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
			d.lose[wire.OpCrDirent], d.fail[wire.OpLookupPath] = 1, e
			_, err := c.Create(t.Context(), c.Root(), "x", CreateOptions{})
			require.ErrorIs(t, err, syscall.EIO)
			require.NotErrorIs(t, err, syscall.EEXIST)
			require.Len(t, d.entries, 1)
			require.Empty(t, d.removed)
		})
	}
}

func TestFailedCreateIsUndone(t *testing.T) {
	for e, undone := range map[syscall.Errno]bool{syscall.ENOSPC: true, syscall.EEXIST: true, syscall.EACCES: true, syscall.EIO: false} {
		inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
			d.fail[wire.OpCrDirent] = e
			_, err := c.Create(t.Context(), c.Root(), "x", CreateOptions{})
			require.ErrorIs(t, err, e)
			require.Equal(t, undone, len(d.removed) > 0, "%v", e)
		})
	}
}

func TestFailedRenameIsUndone(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		ctx := t.Context()
		d.entries["old"], d.entries["over"] = 5001, 5002
		want := maps.Clone(d.entries)
		d.once = true
		for _, to := range []string{"new", "over"} {
			d.fail[wire.OpRmDirent] = syscall.EACCES
			require.ErrorIs(t, c.Rename(ctx, c.Root(), "old", c.Root(), to), syscall.EACCES)
			require.Equal(t, want, d.entries)
			require.Empty(t, d.removed)
		}
		require.NoError(t, c.Rename(ctx, c.Root(), "old", c.Root(), "over"))
		require.Equal(t, map[string]wire.Handle{"over": 5001}, d.entries)
		require.Equal(t, []wire.Handle{1 << 62, 5002}, d.removed)
	})
}

func TestFailedRemovePutsTheEntryBack(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		ctx := t.Context()
		d.entries["x"] = 5001
		d.once = true
		d.fail[wire.OpTreeRemove] = syscall.EACCES
		require.ErrorIs(t, c.Remove(ctx, c.Root(), "x"), syscall.EACCES)
		require.Equal(t, wire.Handle(5001), d.entries["x"])
		d.removed = nil
		d.fail[wire.OpTreeRemove] = syscall.ECONNREFUSED // the first datafile's server does not reach another
		require.NoError(t, c.Remove(ctx, c.Root(), "x"))
		require.Equal(t, []wire.Handle{1 << 62, 5001}, d.removed, "so the client asks itself")
	})
}

func TestServerThatDoesNotReachAnother(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		d.once = true
		d.fail[wire.OpCrDirent] = syscall.ECONNREFUSED
		a, err := c.Create(t.Context(), c.Root(), "x", CreateOptions{})
		require.NoError(t, err)
		require.Equal(t, a.Handle, d.entries["x"])
		d.once = false
		d.fail[wire.OpLookupPath] = syscall.EHOSTUNREACH
		begin := time.Now()
		_, err = c.Lookup(t.Context(), c.Root(), "x")
		require.Equal(t, syscall.EIO, errno.Of(err))
		require.ErrorContains(t, err, "s0")
		require.InDelta(t, DefaultTimeout.Seconds(), time.Since(begin).Seconds(), 2)
	})
}

func TestCancelledCreateRunsToItsEnd(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		d.lose[wire.OpCrDirent] = 1 // which takes a moment
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		_, _ = c.Create(ctx, c.Root(), "x", CreateOptions{})
		time.Sleep(time.Second)
		require.Contains(t, d.entries, "x")
	})
}

func TestSplitDirectory(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		ctx := t.Context()
		_, err := c.Create(ctx, c.Root(), "warm", CreateOptions{})
		require.NoError(t, err)
		d.requests = nil
		d.dd = wire.DistDir{TreeHeight: 2, Bitmap: []uint32{0b0011}, Dirdata: []wire.Handle{1000, 1001, 1002, 1003}}
		d.fail[wire.OpCrDirent] = syscall.EAGAIN
		d.once = true
		_, err = c.Create(ctx, c.Root(), "a", CreateOptions{})
		require.NoError(t, err)
		require.Contains(t, d.requests, wire.OpGetAttr)
		require.Equal(t, wire.Handle(1001), c.dirs.peek(c.Root()).bucket("a"))
	})
}

// TestEntriesOfASplittingDirectory makes entries from many goroutines: while
// buckets can split, one at a time.
func TestEntriesOfASplittingDirectory(t *testing.T) {
	for bitmap, want := range map[uint32]int{0b0011: 1, 0b1111: 20} {
		synctest.Test(t, func(t *testing.T) {
			fs := newFakeFS(t, 1, nil)
			d := &fakeDir{dd: wire.DistDir{TreeHeight: 2, Bitmap: []uint32{bitmap}, Dirdata: []wire.Handle{1000, 1001, 1002, 1003}},
				entries: map[string]wire.Handle{}, next: 5000}
			var mu sync.Mutex
			now, most := 0, 0
			fs.serve = func(p *fakeConn, tag int64, h wire.RequestHeader, req wire.Request) {
				mu.Lock()
				defer mu.Unlock()
				if h.Op != wire.OpCrDirent {
					d.serve(p, tag, h, req)
					return
				}
				now++
				most = max(most, now)
				time.AfterFunc(10*time.Millisecond, func() {
					mu.Lock()
					defer mu.Unlock()
					now--
					d.serve(p, tag, h, req)
				})
			}
			c := fs.client(Options{})
			var g errgroup.Group
			for i := range 20 {
				g.Go(func() error { return c.Link(context.Background(), c.Root(), fmt.Sprint(i), Handle(i+1)) })
			}
			require.NoError(t, g.Wait())
			require.Len(t, d.entries, 20)
			require.Equal(t, want, most)
		})
	}
}

// TestChangesArePutOff has servers that a repair tool keeps from changing.
func TestChangesArePutOff(t *testing.T) {
	for _, busy := range []time.Duration{DefaultTimeout / 2, 2 * DefaultTimeout} {
		for _, link := range []bool{false, true} {
			inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
				begun := time.Now()
				d.busy = begun.Add(busy)
				do := func() error {
					_, err := c.Create(t.Context(), c.Root(), "x", CreateOptions{})
					return err
				}
				if link {
					do = func() error { return c.Link(t.Context(), c.Root(), "x", 5) }
				}
				if busy > DefaultTimeout {
					require.ErrorIs(t, do(), syscall.EAGAIN)
					require.Less(t, time.Since(begun), DefaultTimeout+2*time.Second)
					return
				}
				require.NoError(t, do())
				require.Less(t, time.Since(begun), busy+2*time.Second)
				require.Contains(t, d.entries, "x")
			})
		}
	}
}

// TestFlush checks that no server is asked to flush anything but a file.
func TestFlush(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		require.NoError(t, c.Flush(t.Context(), c.Root()))
		require.Equal(t, []wire.Handle{5001}, d.flushed)
		require.Contains(t, d.removed, wire.Handle(5001))
		c.fs.Hints.SyncMeta = true
		d.requests = nil
		require.NoError(t, c.Flush(t.Context(), c.Root()))
		require.Empty(t, d.requests, "all is durable")
	})
}

// TestLongTargetIsReadBack has a server that cuts off the targets of symlinks.
func TestLongTargetIsReadBack(t *testing.T) {
	inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
		d.cut = 255
		_, err := c.Symlink(t.Context(), c.Root(), "l", strings.Repeat("x", 256), 0, 0)
		require.ErrorIs(t, err, syscall.ENAMETOOLONG)
		require.Empty(t, d.entries)
		require.Len(t, d.removed, 1)
		a, err := c.Symlink(t.Context(), c.Root(), "l", strings.Repeat("x", 255), 0, 0)
		require.NoError(t, err)
		require.Equal(t, a.Handle, d.entries["l"])
	})
}

// TestReadDirOverBuckets reads a directory that splits meanwhile.
func TestReadDirOverBuckets(t *testing.T) {
	for _, max := range []int{1, 3, 7, 1000} {
		inFakeDir(t, func(t *testing.T, c *Client, d *fakeDir) {
			d.dd = wire.DistDir{TreeHeight: 2, Bitmap: []uint32{0b0011}, Dirdata: []wire.Handle{1000, 1001, 1002, 1003}}
			for i := range 50 {
				d.entries[fmt.Sprintf("n%d", i)] = wire.Handle(i + 1)
			}
			seen := map[string]int{}
			var token DirToken
			for calls := 0; ; calls++ {
				ents, next, eof, err := c.ReadDir(t.Context(), c.Root(), token, max)
				require.NoError(t, err)
				for _, e := range ents {
					require.Equal(t, d.entries[e.Name], e.Handle)
					seen[e.Name]++
				}
				if calls == 1 {
					d.dd.Bitmap = []uint32{0b1011} // bucket 1 splits into 3
				}
				if eof {
					break
				}
				require.NotEqual(t, token, next)
				token = next
			}
			require.Len(t, seen, 50, "%d at a time", max)
		})
	}
}

// TestBucket uses the hashes of PROTOCOL.md §9.1.
func TestBucket(t *testing.T) {
	names := map[string]uint64{"f00004": 0x425ac272fcbbf70e, "lost+found": 0x3d237504b4cc7d57, "a": 0x61267769e299c331}
	for name, hash := range names {
		full := &dirInfo{DistDir: wire.DistDir{TreeHeight: 4, Bitmap: []uint32{0xffff}, Dirdata: make([]wire.Handle, 16)}}
		for i := range full.Dirdata {
			full.Dirdata[i] = wire.Handle(i)
		}
		require.Equal(t, wire.Handle(hash&15), full.bucket(name))
		few := &dirInfo{DistDir: wire.DistDir{TreeHeight: 4, Bitmap: []uint32{0b1111}, Dirdata: full.Dirdata}}
		require.Equal(t, wire.Handle(hash&3), few.bucket(name), "inactive buckets are below active ones")
		one := &dirInfo{DistDir: wire.DistDir{Bitmap: []uint32{1}, Dirdata: []wire.Handle{7}}}
		require.Equal(t, wire.Handle(7), one.bucket(name))
	}
}

func TestDirCacheIsBounded(t *testing.T) {
	d := newDirCache()
	w := &wire.Attr{Type: wire.TypeDirectory, Mask: wire.AttrDistDir, DistDir: wire.DistDir{Dirdata: []wire.Handle{1}}}
	for i := range wire.Handle(maxDirInfos + 10) {
		d.put(i, w)
		d.peek(0)
	}
	require.Equal(t, maxDirInfos, d.order.Len())
	require.Len(t, d.byH, maxDirInfos)
	require.NotNil(t, d.peek(0), "used lately")
	require.Nil(t, d.peek(1))
	d.put(0, &wire.Attr{Type: wire.TypeMetafile})
	require.Nil(t, d.peek(0))
	require.True(t, d.isOther(0))
	d.drop(0)
	require.False(t, d.isOther(0))
}

func TestDirToken(t *testing.T) {
	require.Zero(t, newDirToken(0, wire.TokenStart))
	for range 1000 {
		bucket, token := rand.IntN(1024), rand.Uint64()&(1<<48-1)
		b, tok := newDirToken(bucket, token).split()
		require.Equal(t, bucket, b)
		require.Equal(t, token, tok)
	}
}

func TestShape(t *testing.T) {
	fs := newFakeFS(t, 4, nil)
	c := &Client{fs: &fs.conf.FileSystems[0], data: make([]*server, 4)}
	for _, x := range []struct {
		name   string
		o      CreateOptions
		hint   wire.DirHint
		dist   wire.Dist
		dfiles int
	}{
		{"defaults", CreateOptions{}, wire.DirHint{}, wire.NewSimpleStripe(65536), 4},
		{"asked for", CreateOptions{NumDFiles: 2, StripSize: 5}, wire.DirHint{DFiles: 3}, wire.NewSimpleStripe(5), 2},
		{"more than there are", CreateOptions{NumDFiles: 9}, wire.DirHint{}, wire.NewSimpleStripe(65536), 4},
		{"directory", CreateOptions{}, wire.DirHint{DFiles: 3, DistName: "simple_stripe", DistParams: "strip_size:7"}, wire.NewSimpleStripe(7), 3},
		{"basic", CreateOptions{}, wire.DirHint{DistName: "basic_dist"}, wire.Dist{Name: wire.BasicDist}, 1},
		{"varstrip", CreateOptions{}, wire.DirHint{DistName: "varstrip_dist", DistParams: "strips:0:5;1:6"}, wire.Dist{Name: wire.VarstripDist, Strips: "0:5;1:6"}, 4},
		{"twod", CreateOptions{}, wire.DirHint{DistName: "twod_stripe", DistParams: "num_groups:3,strip_size:9,group_strip_factor:4"}, wire.Dist{Name: wire.TwodStripe, StripSize: 9, NumGroups: 3, GroupStripFactor: 4}, 4},
	} {
		got, err := c.shapeFor(x.o, &x.hint)
		require.NoError(t, err, x.name)
		require.Equal(t, x.dist, got.dist, x.name)
		require.Equal(t, x.dfiles, got.dfiles, x.name)
	}
	for _, x := range []struct {
		o    CreateOptions
		hint wire.DirHint
	}{
		{CreateOptions{StripSize: -1}, wire.DirHint{}}, {CreateOptions{NumDFiles: -1}, wire.DirHint{}},
		{CreateOptions{}, wire.DirHint{DistName: "other"}},
		{CreateOptions{}, wire.DirHint{DistName: "simple_stripe", DistParams: "strip_size:x"}},
		{CreateOptions{NumDFiles: 1}, wire.DirHint{DistName: "varstrip_dist", DistParams: "strips:0:5;1:6"}},
		{CreateOptions{Dist: &wire.Dist{Name: "other"}}, wire.DirHint{}},
	} {
		_, err := c.shapeFor(x.o, &x.hint)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
}

// TestTouches: to how many servers a request for extents goes.
func TestTouches(t *testing.T) {
	of := func(l *Layout) *File { return (&Client{dirs: newDirCache()}).File(Attr{Layout: l}) }
	f := of(&Layout{Dist: wire.NewSimpleStripe(10), DFiles: []Handle{1, 2, 3, 4}})
	for _, x := range []struct {
		exts []extent.Extent
		want int
	}{
		{nil, 0}, {[]extent.Extent{{Off: 5}}, 0}, {[]extent.Extent{{Off: 5, Len: 5}}, 1}, {[]extent.Extent{{Off: 5, Len: 6}}, 2},
		{[]extent.Extent{{Off: 5, Len: 5}, {Off: 45, Len: 5}}, 1}, {[]extent.Extent{{Off: 5, Len: 1 << 60}}, 4},
	} {
		require.Equal(t, x.want, f.Touches(x.exts), "%v", x.exts)
	}
	require.Equal(t, 1, of(&Layout{Dist: wire.NewSimpleStripe(10), DFiles: []Handle{1}, Stuffed: true}).Touches([]extent.Extent{{Len: 100}}))
	require.Zero(t, of(nil).Touches([]extent.Extent{{Len: 100}}))
}
