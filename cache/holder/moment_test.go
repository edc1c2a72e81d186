package holder

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// between is the context of a read in which something happens after it has looked at
// what is known, before it asks the owner: when the client looks who asks.
type between struct {
	context.Context
	once *sync.Once
	do   func()
}

func (b between) Value(key any) any {
	b.once.Do(b.do)
	return b.Context.Value(key)
}

// readAround is read with do in the middle.
func (f *fd) readAround(off int64, n int, do func()) string {
	f.t.Helper()
	return f.readIn(between{context.Background(), new(sync.Once), do}, off, n)
}

// TestReadOfWhatIsBeingPublished: a read that finds bytes of its own node, which another
// node is having published to write over them, does not show them beside what that has
// written.
func TestReadOfWhatIsBeingPublished(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	x, w := p.open(h, consistency.Strong, rw), q.open(h, consistency.Strong, rw)
	defer x.close()
	defer w.close()
	x.write(0, strings.Repeat("a", 200)) // gets the lease
	x.write(0, strings.Repeat("b", 100)) // is kept back
	d, f := x.file.domain(0), x.file
	d.mu.Lock()
	require.True(t, d.hasLocked(ionclient.LeaseWrite))
	d.mu.Unlock()
	f.mu.Lock()
	c := f.chunkLocked(chunkAt(0, mib))
	f.mu.Unlock()
	f.park(c)
	var written sync.WaitGroup
	written.Go(func() { w.write(0, strings.Repeat("c", 200)) })
	eventually(t, "the lease is revoked", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return !d.hasLocked(ionclient.LeaseWrite)
	})
	got := x.readAround(0, 200, func() {
		f.unpark(c)
		written.Wait()
	})
	require.Equal(t, strings.Repeat("c", 200), got)
}

// TestHoleBeforeWhatIsCutOff: what was unpublished when a read began, and was cut off
// since, makes no hole.
func TestHoleBeforeWhatIsCutOff(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	x, w := p.open(h, consistency.Strong, rw), q.open(h, consistency.Strong, rw)
	defer x.close()
	defer w.close()
	w.write(0, strings.Repeat("a", 200))
	x.write(5*mib, "far") // gets the lease
	x.write(5*mib, "end") // is kept back
	require.EqualValues(t, 5*mib+3, x.file.glimpse().end)
	require.Empty(t, x.readAround(100, 100, func() { w.truncate(7) }))
}

// TestEndThatComesBack: that the file ends where it ended before does not mean that it
// has ended there all the while.
func TestEndThatComesBack(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	x, w := p.open(h, consistency.Strong, syscall.O_RDONLY), q.open(h, consistency.Strong, rw)
	defer x.close()
	defer w.close()
	w.write(0, "aaaaaaa")
	looks := &sizes{at: []func() (int64, uint64, bool){
		1: func() (int64, uint64, bool) {
			w.write(0, strings.Repeat("b", 100))
			return 7, 1, true
		},
		2: func() (int64, uint64, bool) {
			w.write(0, "c")
			w.truncate(7)
			return 7, 2, true
		},
	}}
	p.held.attrs = looks
	got := x.read(0, 100)
	p.held.attrs = unknown{}
	require.Equal(t, "cbbbbbb", got)
}

// sizes is the Attrs of a mount that is told sizes one after the other, and in the end
// the last one again and again.
type sizes struct {
	unknown
	looks int
	at    []func() (int64, uint64, bool) // nil: size 7, since 1
}

func (s *sizes) Size(uint64) (int64, uint64, bool) {
	s.looks++
	switch i := s.looks - 1; {
	case i >= len(s.at):
		return 7, uint64(len(s.at)), true
	case s.at[i] == nil:
		return 7, 1, true
	default:
		return s.at[i]()
	}
}

// TestWritesOthersMaySee: while a write is under way that others may see before it
// returns, a size that is known is none to cut reads by.
func TestWritesOthersMaySee(t *testing.T) {
	r := newRig(t, ionserver.Options{})
	p, q := r.nodes()
	h := p.file()
	x, w := p.open(h, consistency.Strong, syscall.O_RDONLY), q.open(h, consistency.Strong, rw)
	defer x.close()
	defer w.close()
	w.write(0, strings.Repeat("a", 100))
	p.held.attrs = &sizes{}
	defer func() { p.held.attrs = unknown{} }()
	e := extent.Extent{Off: 50, Len: 50}
	require.Len(t, x.read(0, 60), 7)
	require.False(t, p.held.Hides(h, 7))
	x.file.beginDirect(e)
	require.True(t, p.held.Hides(h, 7))
	require.False(t, p.held.Hides(h, 100))
	require.Len(t, x.read(0, 60), 60)
	x.file.endDirect(e)
	require.Len(t, x.read(0, 60), 7)
	x.file.appending(1)
	require.True(t, p.held.Hides(h, 1000))
	require.Len(t, x.read(0, 60), 60)
	x.file.appending(-1)
}
