package holder

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// TestWriteUnderWayIsNotSeen: what is to be seen everywhere when its write returns
// is not seen on this node before, but what was dirty there already is.
func TestWriteUnderWayIsNotSeen(t *testing.T) {
	p := newRig(t, ionserver.Options{}).node(Options{})
	w := p.open(p.file(), consistency.Commit, rw)
	defer w.close()
	f := w.file
	w.write(0, strings.Repeat("k", 10)) // kept back
	require.EqualValues(t, 10, f.glimpse().end)
	under := func(e extent.Extent, floor, end int64) {
		t.Helper()
		f.beginDirect(e)
		require.NoError(t, f.data.Write(context.Background(), e.Off, [][]byte{make([]byte, e.Len)}))
		require.EqualValues(t, floor, f.glimpse().end, "under way")
		f.endDirect(e)
		require.EqualValues(t, end, f.glimpse().end)
	}
	under(extent.Extent{Off: 5, Len: 95}, 10, 100)
	under(extent.Extent{Off: 20, Len: 10}, 100, 100)
	under(extent.Extent{Off: 3 * mib, Len: 7}, 100, 3*mib+7)
	f.discard(everything)
	require.Zero(t, f.glimpse().end)
}

// TestOldEndIsAskedAgain: bytes that were cut off between two looks are not shown
// in a size that there never was, nor are those missed that the home was told of.
func TestOldEndIsAskedAgain(t *testing.T) {
	p := newRig(t, ionserver.Options{}).node(Options{})
	w := p.open(p.file(), consistency.Commit, rw)
	defer w.close()
	for name, change := range map[string]func() int64{
		"published": func() int64 { w.fsync(); return 100 },
		"cut":       func() int64 { w.truncate(3); return 3 },
		"neither":   func() int64 { return 100 },
	} {
		t.Run(name, func(t *testing.T) {
			w.truncate(0)
			w.write(0, strings.Repeat("x", 100))
			asked, want := 0, int64(0)
			a, err := Overlaid(func() Glimpse { return w.file.glimpse() }, func() (ionclient.Attr, error) {
				asked++
				a, err := p.client.GetAttr(context.Background(), w.file.handle)
				if asked == 1 {
					want = change()
				}
				return a, err
			})
			require.NoError(t, err)
			require.Equal(t, want, a.Size)
			require.LessOrEqual(t, asked, 2)
		})
	}
}

// growing is the Attrs of a mount that knows a size until the file grows, which it
// does as soon as a read has looked at the size for the last time.
type growing struct {
	unknown
	size  int64
	looks int
	grow  func()
}

func (g *growing) Size(uint64) (size int64, since uint64, ok bool) {
	g.looks++
	if g.looks > 2 {
		return 0, 0, false
	}
	if g.looks == 2 {
		g.grow()
	}
	return g.size, 0, true
}

// TestReadOfWhatGrows: a read that meets a write over the end of the file sees all
// of it or nothing, not its bytes up to where the file ended.
func TestReadOfWhatGrows(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	for name, n := range map[string]*node{"on this node": p, "on another one": q} {
		t.Run(name, func(t *testing.T) {
			h := p.file()
			x, w := p.open(h, consistency.Strong, rw), n.open(h, consistency.Strong, rw)
			defer x.close()
			defer w.close()
			before, after := strings.Repeat("a", 7), strings.Repeat("b", 100)
			x.write(0, before)
			var grown sync.WaitGroup
			p.held.attrs = &growing{size: 7, grow: func() {
				grown.Go(func() { w.write(0, after) })
				if n != p { // where the read is in the way
					grown.Wait()
				}
			}}
			got := x.read(0, 100)
			p.held.attrs = unknown{}
			grown.Wait()
			require.Contains(t, []string{before, after}, got)
			require.Equal(t, after, x.read(0, 100))
		})
	}
}
