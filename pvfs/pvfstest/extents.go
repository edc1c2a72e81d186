package pvfstest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// sparse is a file of any size, as the dumbest model of it.
type sparse struct {
	pages map[int64]*[pageSize]byte
	size  int64
}

const pageSize = 4096

func (m *sparse) write(b []byte, off int64) {
	m.size = max(m.size, off+int64(len(b)))
	for i := range b {
		at := off + int64(i)
		p := m.pages[at/pageSize]
		if p == nil {
			p = new([pageSize]byte)
			m.pages[at/pageSize] = p
		}
		p[at%pageSize] = b[i]
	}
}

// read fills b and returns how many bytes of it are below the end of the file.
func (m *sparse) read(b []byte, off int64) int {
	n := int(min(max(m.size-off, 0), int64(len(b))))
	for i := range n {
		b[i] = 0
		if p := m.pages[(off+int64(i))/pageSize]; p != nil {
			b[i] = p[(off+int64(i))%pageSize]
		}
	}
	return n
}

// randomDist is any distribution over n servers; coarse says that its strips
// are not tiny.
func randomDist(r *rand.Rand, n int) (d wire.Dist, coarse bool) {
	strip := 1 + r.Int64N([]int64{20, 1000, 100000}[r.IntN(3)])
	switch r.IntN(4) {
	case 0:
		return wire.Dist{Name: wire.BasicDist}, true
	case 1:
		return wire.Dist{Name: wire.TwodStripe, StripSize: strip, NumGroups: 1 + uint32(r.IntN(3)), GroupStripFactor: 1 + uint32(r.IntN(5))}, strip >= 500
	case 2:
		var parts []string
		least := 2 * strip
		for i := range n + r.IntN(4) {
			size := 1 + r.Int64N(2*strip)
			least = min(least, size)
			parts = append(parts, fmt.Sprintf("%d:%d", i%n, size))
		}
		return wire.Dist{Name: wire.VarstripDist, Strips: strings.Join(parts, ";")}, least >= 500
	}
	return wire.NewSimpleStripe(strip), strip >= 500
}

// arithmetic is the map from offsets to servers, made anew from what the layout
// says.
func arithmetic(t testing.TB, l *pvfs.Layout) dist.Distribution {
	n := len(l.DFiles)
	var d dist.Distribution = dist.Basic{}
	var err error
	if l.Stuffed {
		return d
	}
	switch l.Dist.Name {
	case wire.SimpleStripe:
		d, err = dist.NewSimpleStripe(l.Dist.StripSize, n)
	case wire.TwodStripe:
		d, err = dist.NewTwoD(int(l.Dist.NumGroups), l.Dist.StripSize, int(l.Dist.GroupStripFactor), n)
	case wire.VarstripDist:
		d, err = dist.ParseVarStrip(l.Dist.Strips, n)
	}
	require.NoError(t, err)
	return d
}

// pattern picks extents, ascending and apart. regular ones must take one request
// a server, the others one for every wire.MaxNested of its own. OrangeFS counts
// strips in 32 bits, so only coarse distributions get huge gaps.
func pattern(r *rand.Rand, limit int64, coarse bool) (exts []extent.Extent, regular bool) {
	gap := []int64{3, 1000, 1 << 18, 1 << 30}[r.IntN(4)]
	if !coarse {
		gap = min(gap, 1000)
	}
	at := r.Int64N(1 + gap)
	if r.IntN(3) > 0 {
		exts, total, end := []extent.Extent{{Off: at, Len: 1 + r.Int64N(1+limit/8)}}, int64(0), int64(0)
		for range 1 + r.IntN(3) {
			once, stride := exts, exts[len(exts)-1].End()-exts[0].Off+1+r.Int64N(gap)
			total = extent.Total(once)
			for k := range int64(r.IntN(12)) {
				if end += total; end > limit {
					break
				}
				for _, e := range once {
					exts = append(exts, extent.Extent{Off: e.Off + (k+1)*stride, Len: e.Len})
				}
			}
		}
		return exts, true
	}
	for _, n := range r.Perm(1 + r.IntN(350)) { // no two of one length
		if limit -= int64(n); limit < 0 {
			break
		}
		exts = append(exts, extent.Extent{Off: at, Len: int64(n) + 1})
		at += int64(n) + 2 + r.Int64N(1+gap)
	}
	return exts, false
}

// disorder changes the order of exts, and for reads asks for some twice.
func disorder(r *rand.Rand, exts []extent.Extent, overlap bool) []extent.Extent {
	exts = slices.Clone(exts)
	if overlap && r.IntN(2) == 0 {
		for _, e := range slices.Clone(exts[:1+r.IntN(len(exts))]) {
			from := r.Int64N(e.Len)
			exts = append(exts, extent.Extent{Off: e.Off + from, Len: r.Int64N(e.Len - from + 1)})
		}
	}
	switch r.IntN(3) {
	case 0:
		slices.Reverse(exts)
	case 1:
		r.Shuffle(len(exts), func(i, j int) { exts[i], exts[j] = exts[j], exts[i] })
	}
	return exts
}

// requests is how many requests a transfer of exts must take.
func requests(d dist.Distribution, exts []extent.Extent, regular bool) int64 {
	own := map[int]int{}
	for _, e := range exts {
		seen := map[int]bool{}
		for rest := e; !rest.Empty(); {
			var run dist.Run
			if run, rest = dist.Next(d, rest); !seen[run.Server] {
				seen[run.Server] = true
				own[run.Server]++
			}
		}
	}
	n := 0
	for _, k := range own {
		if regular || len(exts) <= wire.MaxNested {
			k = 1
		}
		n += (k + wire.MaxNested - 1) / wire.MaxNested
	}
	return int64(n)
}

// transfers is how many requests of transfers f makes.
func (s *suite) transfers(f func()) int64 {
	count := func() int64 { r := s.c.Stats().Requests; return r["io"] + r["small_io"] }
	before := count()
	f()
	return count() - before
}

// counter is a Dial that counts what is sent.
type counter struct{ sent atomic.Int64 }

type countedConn struct {
	net.Conn
	c *counter
}

func (c *counter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	return countedConn{nc, c}, err
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.c.sent.Add(int64(n))
	return n, err
}

// testNoncontiguous compares noncontiguous reads and writes of random files with
// bytes, and counts requests and what is sent.
func (s *suite) testNoncontiguous(t *testing.T) {
	servers := 0
	for _, srv := range s.c.Servers() {
		if srv.Data {
			servers++
		}
	}
	files := 40
	if testing.Short() {
		files = 10
	}
	var sent counter
	c, err := pvfs.Dial(s.ctx(t), s.url, pvfs.Options{Dial: sent.dial})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	seed := rand.Uint64()
	for i := range files {
		x := &extentModel{suite: s, t: t}
		if i%2 == 0 {
			x.suite, x.sent = &suite{c: c}, &sent.sent
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		n := 1 + r.IntN(servers)
		d, coarse := randomDist(r, n)
		limit := int64(3000)
		if coarse {
			limit = 100000
		}
		_, a := s.create(t, pvfs.CreateOptions{Dist: &d, NumDFiles: n})
		x.r, x.f, x.model = r, x.c.File(a), sparse{pages: map[int64]*[pageSize]byte{}}
		for step := range 6 {
			x.id = fmt.Sprintf("seed %d, file %d (%+v over %d), step %d", seed, i, d, n, step)
			exts, regular := pattern(r, limit, coarse)
			if step%2 == 0 {
				x.write(exts, regular)
			} else {
				x.read(exts, regular)
			}
			size, err := x.f.Size(s.ctx(t))
			require.NoError(t, err, x.id)
			require.Equal(t, x.model.size, size, x.id)
		}
	}
}

// extentModel is one file and what should be in it.
type extentModel struct {
	*suite
	t     *testing.T
	r     *rand.Rand
	f     *pvfs.File
	id    string        // of the step, for failures
	model sparse        // what the file holds
	sent  *atomic.Int64 // bytes, nil if nobody counts them
}

func (x *extentModel) write(exts []extent.Extent, regular bool) {
	t := x.t
	mixed := disorder(x.r, exts, false)
	data := fill(x.r.Uint64(), int(extent.Total(exts)))
	before := int64(0)
	if x.sent != nil {
		before = x.sent.Load()
	}
	count := x.transfers(func() {
		n, err := x.f.WriteExtents(x.ctx(t), mixed, cut(x.r, data))
		require.NoError(t, err, x.id)
		require.Equal(t, int64(len(data)), n, x.id)
	})
	want := requests(arithmetic(t, x.f.Layout()), exts, regular)
	require.Equal(t, want, count, "%s: requests for %d extents", x.id, len(exts))
	if x.sent != nil {
		const perRequest = 24 + 600 + wire.MaxDistParams + 80*(wire.MaxNested+1)
		require.LessOrEqual(t, x.sent.Load()-before, int64(len(data))+perRequest*(want+1), "%s: bytes, with one unstuff", x.id)
	}
	for _, e := range mixed {
		x.model.write(data[:e.Len], e.Off)
		data = data[e.Len:]
	}
}

func (x *extentModel) read(exts []extent.Extent, regular bool) {
	t := x.t
	mixed := disorder(x.r, exts, true)
	got := fill(1, int(extent.Total(mixed)))
	count := x.transfers(func() {
		n, err := x.f.ReadExtents(x.ctx(t), mixed, cut(x.r, got))
		require.NoError(t, err, x.id)
		below := int64(0)
		for _, e := range mixed {
			want := make([]byte, e.Len)
			k := x.model.read(want, e.Off)
			require.True(t, bytes.Equal(want[:k], got[:k]), "%s: %d bytes at %d", x.id, k, e.Off)
			got, below = got[e.Len:], below+int64(k)
		}
		require.Equal(t, below, n, x.id)
	})
	want := requests(arithmetic(t, x.f.Layout()), exts, regular)
	require.Equal(t, want, count, "%s: requests for %d extents", x.id, len(exts))
}

// testSmallOrFlow looks at which request a transfer takes on one datafile.
func (s *suite) testSmallOrFlow(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{NumDFiles: 1, Dist: &wire.Dist{Name: wire.BasicDist}})
	f := s.c.File(a)
	s.mustWrite(t, f, make([]byte, 1<<20), 0)
	every := func(count int, n, stride int64) (exts []extent.Extent) {
		for i := range int64(count) {
			exts = append(exts, extent.Extent{Off: i * stride, Len: n})
		}
		return exts
	}
	for _, x := range []struct {
		name  string
		exts  []extent.Extent
		read  map[string]int64
		write map[string]int64
	}{
		{"ranges of a small request", every(63, 100, 1000), map[string]int64{"small_io": 1}, map[string]int64{"small_io": 1}},
		{"one more", every(64, 100, 1000), map[string]int64{"io": 1}, map[string]int64{"io": 1}},
		{"thousands", every(5000, 100, 200), map[string]int64{"io": 1}, map[string]int64{"io": 1}},
		{"bytes of a small answer", every(8, 2043, 3000), map[string]int64{"small_io": 1}, map[string]int64{"io": 1}},
		{"one more byte", append(every(8, 2043, 3000), extent.Extent{Off: 1 << 19, Len: 1}), map[string]int64{"io": 1}, map[string]int64{"io": 1}},
		{"touching", every(1000, 16, 16), map[string]int64{"small_io": 1}, map[string]int64{"io": 1}},
	} {
		buf := [][]byte{make([]byte, extent.Total(x.exts))}
		require.Equal(t, x.read, s.count(func() {
			_, err := f.ReadExtents(ctx, x.exts, buf)
			require.NoError(t, err)
		}), "read: %s", x.name)
		require.Equal(t, x.write, s.count(func() {
			_, err := f.WriteExtents(ctx, x.exts, buf)
			require.NoError(t, err)
		}), "write: %s", x.name)
	}
}

// testExtentErrors checks what is refused, and what looks odd and is not.
func (s *suite) testExtentErrors(t *testing.T) {
	ctx := s.ctx(t)
	_, a := s.create(t, pvfs.CreateOptions{})
	f := s.c.File(a)
	one := [][]byte{make([]byte, 10)}
	for name, exts := range map[string][]extent.Extent{
		"negative offset": {{Off: -1, Len: 10}}, "too few bytes": {{Off: 0, Len: 9}}, "too many bytes": {{Off: 0, Len: 11}},
		"negative length": {{Off: 0, Len: 15}, {Off: 15, Len: -5}}, "beyond all offsets": {{Off: 1<<63 - 5, Len: 10}},
	} {
		_, err := f.WriteExtents(ctx, exts, one)
		require.ErrorIs(t, err, syscall.EINVAL, name)
		_, err = f.ReadExtents(ctx, exts, one)
		require.ErrorIs(t, err, syscall.EINVAL, name)
	}
	_, err := f.WriteExtents(ctx, []extent.Extent{{Off: 0, Len: 6}, {Off: 5, Len: 4}}, one)
	require.ErrorIs(t, err, syscall.EINVAL, "overlap")
	n, err := f.WriteExtents(context.Background(), nil, nil)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = f.WriteExtents(ctx, []extent.Extent{{Off: 5}, {Off: 13, Len: 6}, {Off: 9, Len: 4}, {Off: 30}}, one)
	require.NoError(t, err)
	require.Equal(t, int64(10), n)
	require.Equal(t, make([]byte, 19), s.mustRead(t, f, 100, 0))
}
