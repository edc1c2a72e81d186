package striping

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// FuzzDistribution makes a distribution of what peers may send. Those that are
// not refused place every byte once, find it again and count as they place.
func FuzzDistribution(f *testing.F) {
	for _, d := range []wire.Dist{
		wire.NewSimpleStripe(65536), {Name: wire.BasicDist}, {Name: wire.VarstripDist, Strips: "0:16384;1:32k;0:1g"},
		{Name: wire.TwodStripe, StripSize: 65536, NumGroups: 2, GroupStripFactor: 256},
	} {
		f.Add(wire.AppendDist(nil, &d), 4, int64(1<<20))
	}
	f.Fuzz(func(t *testing.T, b []byte, n int, at int64) {
		wd, err := wire.DecodeDist(b)
		if err != nil || at < 0 {
			return
		}
		d, err := New(&wd, n)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, d.Strip(), int64(0))
		require.Positive(t, Width(&wd, n))
		at = min(at, math.MaxInt64>>2)
		rest := extent.Extent{Off: at, Len: 1 << 30}
		for range 20 {
			var run dist.Run
			if run, rest = dist.Next(d, rest); rest.Empty() {
				break
			}
			require.Positive(t, run.Len)
			require.GreaterOrEqual(t, run.Server, 0)
			if n > 0 {
				require.Less(t, run.Server, n)
			}
			off, more := d.Logical(run.Server, run.Phys)
			require.Equal(t, run.Off, off)
			require.GreaterOrEqual(t, more, min(run.Len, 1))
			require.Equal(t, run.Phys, d.PhysSize(run.Server, run.Off), "bytes before it")
			require.Equal(t, run.Phys+run.Len, d.PhysSize(run.Server, run.Off+run.Len))
		}
	})
}

// FuzzWish checks what a directory may wish: what passes can be fulfilled.
func FuzzWish(f *testing.F) {
	f.Add("simple_stripe", "strip_size:65536", "4")
	f.Add("varstrip_dist", "strips:0:1000;1:30k;0:500", "2")
	f.Add("twod_stripe", "num_groups:2,strip_size:1000,group_strip_factor:3", "3\x00")
	f.Add("basic_dist", "", "1")
	f.Fuzz(func(t *testing.T, name, params, servers string) {
		l := Limits{Servers: 4, Default: 4}
		w := Wish{}
		if w.CheckXattr(KeyServers, servers, l) != nil || w.CheckXattr(KeyDist, name, l) != nil {
			return
		}
		w = Wish{Dist: name, Params: params}
		if w.Check(l) != nil {
			return
		}
		d, err := Parse(w.Dist, SplitParams(w.Params))
		require.NoError(t, err)
		_, err = New(&d, l.Default)
		require.NoError(t, err)
		again, err := Parse(d.Name, SplitParams(Params(&d)))
		require.NoError(t, err)
		require.Equal(t, d, again, "as it is shown to users")
	})
}
