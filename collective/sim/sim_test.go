package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func run(t *testing.T, c Config, way Way) Result {
	t.Helper()
	r, err := Run(c, way)
	require.NoError(t, err)
	return r
}

// random returns a small Config of anything.
func random(r *rand.Rand) Config {
	return Config{
		Ranks: 1 + r.IntN(200), Nodes: 1, IONs: 1 + r.IntN(5), Servers: 1 + r.IntN(5),
		Pattern: Pattern(r.IntN(len(patterns))), Read: r.IntN(2) == 0, Denied: r.IntN(4) == 0,
		Calls: 1 + r.IntN(10), Size: 1 + r.Int64N(1<<17), Barrier: r.IntN(2) == 0,
		Jitter: time.Duration(r.IntN(1e6)), Absent: float64(r.IntN(2)) * 0.2, Seed: r.Uint64(),
		Strip: 1 + r.Int64N(1<<16), Domain: 1 << (17 + r.IntN(6)),
	}
}

// TestSameSeedSameResult: and another one another.
func TestSameSeedSameResult(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		c := random(r)
		for _, way := range []Way{Merged, Plain, TwoPhase} {
			require.Equal(t, fmt.Sprint(run(t, c, way)), fmt.Sprint(run(t, c, way)))
		}
	}
	c := Config{Ranks: 256, Jitter: time.Millisecond}
	one := run(t, c, Merged)
	c.Seed = 1
	require.NotEqual(t, one, run(t, c, Merged))
}

// TestEveryCallIsAnswered: with whatever pattern, and ranks that never come, no
// byte is written twice or not at all, none is read twice from the servers, and merging
// costs no requests, but where nodes read ahead what others want.
func TestEveryCallIsAnswered(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 150 {
		c := random(r)
		c.Nodes = 1 + r.IntN(c.Ranks)
		plain, merged, ideal := run(t, c, Plain), run(t, c, Merged), run(t, c, TwoPhase)
		name := fmt.Sprintf("run %d: %+v", i, c)
		require.Equal(t, plain.Calls, merged.Calls, name)
		require.Equal(t, plain.Calls, ideal.Calls, name)
		reads := c.Pattern == WholeFile || c.Read && c.Pattern < Create
		if !reads || c.Denied {
			require.LessOrEqual(t, merged.IONRequests, plain.IONRequests, name)
		}
		if reads {
			size := c.Defaults()
			require.LessOrEqual(t, merged.ServerBytes, size.fileSize(), name)
		}
		if c.Pattern < Create && !c.Read {
			require.Equal(t, int64(plain.Calls)*c.Size, merged.ServerBytes, name)
			require.Equal(t, merged.ServerBytes, plain.ServerBytes, name)
			require.Equal(t, merged.ServerBytes, ideal.ServerBytes, name)
			require.LessOrEqual(t, merged.ServerRequests, plain.ServerRequests, name)
		}
		if c.Pattern == Open {
			require.LessOrEqual(t, merged.ServerRequests, c.Calls, name)
		}
	}
}

// TestWholeFileIsReadOnce: however many ranks there are, the servers are asked
// for each byte once, and so are the I/O nodes by each node.
func TestWholeFileIsReadOnce(t *testing.T) {
	c := Config{Ranks: 512, Nodes: 8, IONs: 2, Servers: 4, Pattern: WholeFile, Calls: 64, Size: 128 << 10, Jitter: 100 * time.Microsecond}
	r := run(t, c, Merged)
	require.Equal(t, int64(8<<20), r.ServerBytes)
	require.LessOrEqual(t, r.IONBytes, int64(8*8<<20))
	require.Equal(t, int64(512*8<<20), run(t, c, Plain).ServerBytes)
}

// TestHoldsPay: where nothing may be kept, nodes learn to wait for ranks that read in
// step, and send one request where they would have sent two; without holds the result
// is the same.
func TestHoldsPay(t *testing.T) {
	c := Config{Ranks: 256, Nodes: 4, IONs: 1, Calls: 64, Size: 4096, Domain: 64 << 20, Pattern: Strided, Read: true, Denied: true, Barrier: true, Jitter: 5 * time.Microsecond}
	with := run(t, c, Merged)
	c.Rounds.Hold.Off = true
	without := run(t, c, Merged)
	require.Positive(t, with.Node.Held)
	require.Zero(t, without.Node.Held)
	require.Less(t, 3*with.IONRequests, 2*without.IONRequests)
	require.Equal(t, without.ServerBytes, with.ServerBytes)
}

func TestConfigValidate(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Ranks = -1 }, func(c *Config) { c.Nodes = c.Ranks + 1 }, func(c *Config) { c.Ranks, c.Calls = 1<<20, 1<<20 },
		func(c *Config) { c.Pattern = 99 }, func(c *Config) { c.Absent = 1 }, func(c *Config) { c.Jitter = -1 },
		func(c *Config) { c.Size = c.Domain + 1 }, func(c *Config) { c.Model.ServerBandwidth = 0 }, func(c *Config) { c.Model.NetLatency = -1 },
		func(c *Config) { c.Rounds.Members = -1 }, func(c *Config) { c.Strip = -1 },
		func(c *Config) { c.Size, c.Domain = 1<<50, 1<<50 },
	} {
		c := Config{}.Defaults()
		require.NoError(t, c.Validate())
		change(&c)
		require.Error(t, c.Validate(), "%+v", c)
		_, err := Run(c, Merged)
		require.Error(t, err)
	}
	var p Pattern
	require.Error(t, p.UnmarshalText([]byte("zigzag")))
	for _, want := range Patterns() {
		require.NoError(t, p.UnmarshalText([]byte(want.String())))
		require.Equal(t, want, p)
	}
}

// TestPatternsCoverTheFile: each byte below the end once, but for the blocks
// of BlockCyclic that are not full.
func TestPatternsCoverTheFile(t *testing.T) {
	for _, p := range []Pattern{Segmented, Strided, Nested, BlockCyclic} {
		c := Config{Ranks: 12, Calls: 8, Size: 10, Pattern: p}
		var all []extent.Extent
		for r := range c.Ranks {
			for i := range c.Calls {
				all = append(all, c.call(r, i, c.side()).ext)
			}
		}
		require.Equal(t, []extent.Extent{{Off: 0, Len: c.fileSize()}}, extent.Normalize(all), "%v", p)
		require.Equal(t, c.fileSize(), extent.Total(all))
	}
}

// TestSpans against the dumbest set of bytes.
func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		var s spans
		var bytes [300]bool
		for range 30 {
			e := extent.Extent{Off: r.Int64N(250), Len: r.Int64N(50)}
			grown := int64(0)
			for i := e.Off; i < e.End(); i++ {
				if !bytes[i] {
					grown++
				}
				bytes[i] = true
			}
			require.Equal(t, grown, s.add(e))
			require.Equal(t, extent.Normalize(s), append([]extent.Extent{}, s...))
			ask := extent.Extent{Off: r.Int64N(250), Len: r.Int64N(50)}
			var lacks int64
			for i := ask.Off; i < ask.End(); i++ {
				if !bytes[i] {
					lacks++
				}
			}
			missing := s.missing(ask)
			require.Equal(t, lacks, extent.Total(missing))
			for _, m := range missing {
				require.False(t, bytes[m.Off] || bytes[m.End()-1])
			}
		}
	}
}
