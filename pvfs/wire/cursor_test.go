package wire

import (
	"math"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func drain(t *testing.T, d Datatype, off, size int64) []extent.Extent {
	t.Helper()
	c, err := d.Cursor(off, size)
	require.NoError(t, err)
	var out []extent.Extent
	for e, ok := c.Next(); ok; e, ok = c.Next() {
		out = append(out, e)
	}
	require.Zero(t, c.Left())
	return out
}

// pieces is extents from offsets and lengths in turn.
func pieces(offLen ...int64) (out []extent.Extent) {
	for i := 0; i < len(offLen); i += 2 {
		out = append(out, extent.Extent{Off: offLen[i], Len: offLen[i+1]})
	}
	return out
}

func must(d Datatype, err error) Datatype {
	if err != nil {
		panic(err)
	}
	return d
}

func TestCursor(t *testing.T) {
	for _, c := range []struct {
		name      string
		d         Datatype
		off, size int64
		want      []extent.Extent
	}{
		{"plain range of many tiles is one extent", Contiguous(100), 1000, 100, pieces(1000, 100)},
		{"a tile of one byte", Contiguous(1), 1 << 50, 1 << 40, pieces(1<<50, 1<<40)},
		{"a byte alone, as a tool sends it", Datatype{[]TypeRecord{byteRecord()}}, 0, 300000, pieces(0, 300000)},
		{"longer than a block length can say", Contiguous(1 << 40), 5, 1 << 40, pieces(5, 1<<40)},
		{"nothing", Contiguous(10), 7, 0, nil},
		{"vector", must(HVector(3, 10, 100)), 0, 30, pieces(0, 10, 100, 10, 200, 10)},
		{"vector from within a block to within a tile", must(HVector(3, 10, 100)), 15, 25,
			pieces(105, 5, 200, 20)}, // the next tile begins at 210
		{"dense vector", must(HVector(3, 10, 10)), 3, 100, pieces(3, 100)},
		{"displaced vector", must(HVectorAt(70000, 2, 4096, 65536)), 4000, 4192,
			pieces(74000, 96, 135536, 4096)},
		{"displaced vector, second tile", must(HVectorAt(100, 2, 4, 10)), 6, 6,
			pieces(112, 6)},
		{"indexed", must(HIndexed(pieces(100, 50, 70000, 3000, 140000, 10))), 0, 3060,
			pieces(100, 50, 70000, 3000, 140000, 10)},
		{"indexed backwards", must(HIndexed(pieces(500, 50, 100, 50))), 25, 50,
			pieces(525, 25, 100, 25)},
		{"indexed that touch", must(HIndexed(pieces(100, 50, 150, 50, 250, 1))), 10, 91,
			pieces(110, 90, 250, 1)},
		{"indexed once", must(HIndexed(pieces(100, 50))), 0, 50, pieces(100, 50)},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, drain(t, c.d, c.off, c.size))
			cur, err := c.d.Cursor(c.off, c.size)
			require.NoError(t, err)
			lo, hi := int64(math.MaxInt64), int64(0)
			for _, e := range c.want {
				lo, hi = min(lo, e.Off), max(hi, e.End())
			}
			if c.want == nil {
				lo = 0
			}
			require.Equal(t, extent.Extent{Off: lo, Len: hi - lo}, cur.Bounds())
		})
	}
}

// TestBuiltAsCaptured compares built types with those OrangeFS programs sent.
func TestBuiltAsCaptured(t *testing.T) {
	want := map[string]Datatype{
		"13_unstuff_write":    Contiguous(70000),
		"22_vec_small_write":  must(HVector(16, 100, 1000)),
		"22f_vec_1dfile_many": must(HVector(200, 400, 1000)),
		"22e_vec_disp_write":  must(HVectorAt(70000, 8, 4096, 65536)),
		"23_hindexed_write":   must(HIndexed(pieces(100, 50, 70000, 3000, 140000, 10, 200000, 5000))),
		"23c_hindexed_big":    must(HIndexed(pieces(10, 30000, 65000, 60000, 300000, 20000))),
	}
	found := map[string]bool{}
	for _, m := range corpus(t) {
		from := m.From[:len(m.From)-3] // two-digit message numbers here
		d, ok := want[from]
		if !ok || m.Kind != "request" || found[from] {
			continue
		}
		_, body, err := DecodeRequest(m.b)
		require.NoError(t, err)
		switch b := body.(type) {
		case *IOReq:
			require.Equal(t, b.Type, d, from)
			found[from] = true
		case *SmallIOReq:
			require.Equal(t, b.Type, d, from)
			found[from] = true
		}
	}
	require.Len(t, found, len(want))
}

func TestBuildersRefuse(t *testing.T) {
	for name, build := range map[string]func() (Datatype, error){
		"no blocks":           func() (Datatype, error) { return HVector(0, 1, 1) },
		"empty blocks":        func() (Datatype, error) { return HVector(1, 0, 1) },
		"overlapping blocks":  func() (Datatype, error) { return HVector(2, 10, 9) },
		"endless vector":      func() (Datatype, error) { return HVector(math.MaxInt32, 1, math.MaxInt64/2) },
		"negative place":      func() (Datatype, error) { return HVectorAt(-1, 1, 1, 1) },
		"place out of range":  func() (Datatype, error) { return HVectorAt(math.MaxInt64, 1, 1, 1) },
		"no pieces":           func() (Datatype, error) { return HIndexed(nil) },
		"too many pieces":     func() (Datatype, error) { return HIndexed(make([]extent.Extent, MaxNested+1)) },
		"an empty piece":      func() (Datatype, error) { return HIndexed(pieces(0, 1, 5, 0)) },
		"a piece before 0":    func() (Datatype, error) { return HIndexed(pieces(-1, 1)) },
		"a piece of 2^31":     func() (Datatype, error) { return HIndexed(pieces(0, 1<<31)) },
		"a piece off the end": func() (Datatype, error) { return HIndexed(pieces(math.MaxInt64, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build()
			require.ErrorIs(t, err, syscall.EINVAL)
		})
	}
}

// change is d with its records changed.
func change(d Datatype, f func(r []TypeRecord)) Datatype {
	r := append([]TypeRecord(nil), d.Records...)
	f(r)
	return Datatype{r}
}

func TestCursorRefuses(t *testing.T) {
	v := must(HVector(3, 10, 100))
	for _, c := range []struct {
		name      string
		d         Datatype
		off, size int64
	}{
		{"no records", Datatype{}, 0, 1},
		{"too many records", Datatype{make([]TypeRecord, MaxNested+2)}, 0, 1},
		{"negative offset", v, -1, 1},
		{"negative size", v, 0, -1},
		{"end of the stream", v, math.MaxInt64, 1},
		{"end of the file", v, math.MaxInt64 / 5, 1},
		{"element is itself", change(v, func(r []TypeRecord) { r[0].Elem = 0 }), 0, 1},
		{"next is itself", change(v, func(r []TypeRecord) { r[0].Next = 0 }), 0, 1},
		{"next leads back", change(must(HVectorAt(0, 2, 1, 2)), func(r []TypeRecord) { r[1].Next = 0 }), 0, 1},
		{"element out of range", change(v, func(r []TypeRecord) { r[0].Elem = 2 }), 0, 1},
		{"next out of range", change(v, func(r []TypeRecord) { r[0].Next = math.MaxInt32 }), 0, 1},
		{"leaf with a next", change(v, func(r []TypeRecord) { r[1].Next = 1 }), 0, 1},
		{"negative leaf", change(v, func(r []TypeRecord) { r[1].Size = -1 }), 0, 1},
		{"negative blocks", change(v, func(r []TypeRecord) { r[0].Blocks = -1 }), 0, 1},
		{"negative elements", change(v, func(r []TypeRecord) { r[0].Elems = -1 }), 0, 1},
		{"inverted bounds", change(v, func(r []TypeRecord) { r[0].UB = -1 }), 0, 1},
		{"bounds too far apart", change(v, func(r []TypeRecord) { r[0].LB = math.MinInt64 }), 0, 1},
		{"says another size", change(v, func(r []TypeRecord) { r[0].Size++ }), 0, 1},
		{"no data", change(v, func(r []TypeRecord) { r[0].Blocks, r[0].Size = 0, 0 }), 0, 1},
		{"tiles in one place", change(v, func(r []TypeRecord) { r[0].UB = 0 }), 0, 31},
		{"before the file", change(v, func(r []TypeRecord) { r[0].Offset = -1 }), 0, 30},
		{"blocks before the file", change(v, func(r []TypeRecord) { r[0].Stride = -1 }), 0, 30},
		{"data too long", change(v, func(r []TypeRecord) { r[1].Size, r[0].Elems = 1<<40, 1<<30 }), 0, 1},
		{"blocks too far apart", change(v, func(r []TypeRecord) { r[0].Stride = math.MaxInt64 }), 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.d.Cursor(c.off, c.size)
			require.ErrorIs(t, err, syscall.EINVAL)
		})
	}
}

// expand is the file offset of every byte of record i and what follows it, the
// dumbest way.
func expand(r []TypeRecord, i int32, origin int64) (out []int64) {
	for ; i >= 0; i = r[i].Next {
		if r[i].Elem < 0 {
			for k := range r[i].Size {
				out = append(out, origin+r[i].Offset+k)
			}
			continue
		}
		e := &r[r[i].Elem]
		for b := range int64(r[i].Blocks) {
			for k := range int64(r[i].Elems) {
				out = append(out, expand(r, r[i].Elem, origin+r[i].Offset+b*r[i].Stride+k*(e.UB-e.LB))...)
			}
		}
	}
	return out
}

// randomType is a sound or nearly sound type of small numbers, elements and
// next records shared at random.
func randomType(r *rand.Rand) Datatype {
	n := int32(1 + r.IntN(6))
	recs := make([]TypeRecord, n)
	for i := n - 1; i >= 0; i-- {
		rec := &recs[i]
		*rec = TypeRecord{Offset: int64(r.IntN(20)), Elems: int32(r.IntN(4)), Blocks: int32(r.IntN(4)),
			Stride: int64(r.IntN(30) - 5), UB: int64(r.IntN(25)), Elem: -1, Next: -1}
		if i == n-1 || r.IntN(5) == 0 {
			rec.Size = int64(r.IntN(5))
			if r.IntN(2) == 0 {
				rec.UB = rec.Size
			}
			continue
		}
		rec.Elem = i + 1 + r.Int32N(n-i-1)
		if r.IntN(2) == 0 {
			rec.Next = i + 1 + r.Int32N(n-i-1)
		}
	}
	recs[0].UB += 10
	d := Datatype{recs}
	if recs[0].Elem >= 0 {
		recs[0].Size = int64(len(expand(recs, 0, 0)))
	}
	return d
}

// TestCursorAgainstBytes compares with the list of all bytes.
func TestCursorAgainstBytes(t *testing.T) {
	sound := 0
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 2))
		d := randomType(r)
		tile := expand(d.Records, 0, 0)
		if len(tile) == 0 || len(tile) > 3000 {
			continue
		}
		off, size := int64(r.IntN(3*len(tile))), int64(1+r.IntN(3*len(tile)))
		lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
		var want []int64
		for k := off; k < off+size; k++ {
			n := int64(len(tile))
			at := k/n*(d.Records[0].UB-d.Records[0].LB) + tile[k%n]
			want = append(want, at)
			lo, hi = min(lo, at), max(hi, at+1)
		}
		c, err := d.Cursor(off, size)
		if err != nil {
			require.Negative(t, lo, "seed %d: %v", seed, err)
			continue
		}
		require.Equal(t, extent.Extent{Off: lo, Len: hi - lo}, c.Bounds(), "seed %d", seed)
		require.Equal(t, want, walk(t, c, r), "seed %d", seed)
		sound++
	}
	require.Greater(t, sound, 5000)
}

// walk is every byte that c yields, by Next, NextMax and Skip at random; Skip
// is checked by a second cursor over what is skipped.
func walk(t *testing.T, c *Cursor, r *rand.Rand) (got []int64) {
	mode := r.IntN(3)
	for c.Left() > 0 {
		left, limit := c.Left(), int64(math.MaxInt64)
		if mode > 0 {
			limit = int64(1 + r.IntN(7))
		}
		if mode == 2 && r.IntN(3) == 0 {
			o := *c
			o.end = min(o.at+limit, o.end)
			c.Skip(limit)
			require.Equal(t, left-c.Left(), o.Left())
			c = &Cursor{recs: c.recs, nodes: c.nodes, period: c.period, at: c.at, end: c.end}
			got = append(got, walk(t, &o, rand.New(rand.NewPCG(0, 0)))...)
			continue
		}
		e, ok := c.NextMax(limit)
		require.True(t, ok)
		require.Positive(t, e.Len)
		require.LessOrEqual(t, e.Len, limit)
		require.Equal(t, left-e.Len, c.Left())
		for k := range e.Len {
			got = append(got, e.Off+k)
		}
	}
	_, ok := c.Next()
	require.False(t, ok)
	return got
}

// TestCursorHostile is about types whose counts say far more than they hold:
// they cost what their records cost.
func TestCursorHostile(t *testing.T) {
	deep := make([]TypeRecord, MaxNested+1)
	for i := range deep {
		deep[i] = TypeRecord{Elems: math.MaxInt32, Blocks: math.MaxInt32, UB: 1, Elem: int32(i + 1), Next: -1}
	}
	deep[MaxNested] = TypeRecord{UB: 1, Elem: -1, Next: -1}
	_, err := (&Datatype{deep}).Cursor(0, 1)
	require.ErrorIs(t, err, syscall.EINVAL, "2^6200 elements of no data")

	double := make([]TypeRecord, 60) // every record is twice the one after it
	for i := range double {
		double[i] = TypeRecord{Elems: 1, Blocks: 1, Stride: 3, UB: 3, Elem: int32(i + 1), Next: int32(i + 1)}
	}
	double[59] = TypeRecord{Size: 1, UB: 3, Elem: -1, Next: -1}
	double[0].Size = 1 << 59
	c, err := (&Datatype{double}).Cursor(1<<58, 1000)
	require.NoError(t, err)
	n := 0
	for _, ok := c.Next(); ok; _, ok = c.Next() {
		n++
	}
	require.Equal(t, 1000, n, "the same byte again and again")

	vector := must(HVector(math.MaxInt32, 1, 2))
	c, err = vector.Cursor(1<<30, 1<<40)
	require.NoError(t, err)
	e, ok := c.Next()
	require.True(t, ok)
	require.Equal(t, extent.Extent{Off: 1 << 31, Len: 1}, e)
	c.Skip(1 << 39)
	require.Equal(t, int64(1<<39-1), c.Left())
}

func TestCursorAllocs(t *testing.T) {
	d := must(HVector(1000, 10, 100))
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		c, _ := d.Cursor(5, 9000)
		for _, ok := c.Next(); ok; _, ok = c.Next() {
		}
	}), 4.0)
}
