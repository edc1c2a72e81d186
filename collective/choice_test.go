package collective

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestChoiceByCost: two nodes that want pieces and leave holes between get whole
// domains where requests are dear, and what they ask for where bytes are.
func TestChoiceByCost(t *testing.T) {
	const kib, mib, domain = 1 << 10, 1 << 20, 4 << 20
	for _, c := range []struct {
		name             string
		latency, perByte float64 // ns
		piece, step      int64
		want             Way
		says             string
	}{
		{"small pieces", 1e5, 1, 4 * kib, 8 * kib, Aggregated, "whole domains (2.0"},
		{"large ones of a quick server", 1e4, 1, 512 * kib, mib, PassThrough, "as asked for (1.2 ms a MiB; whole domains 1.8"},
		{"large ones of a slow server", 20e6, 1, 512 * kib, mib, Aggregated, "is wanted; as asked for 4"},
		{"without holes", 1e4, 1, 512 * kib, 512 * kib, Aggregated, "100% is wanted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			costs := measured(c.latency, c.perByte, 4*kib, mib, 16*mib)
			l := Lookahead{
				Domain: domain, Owned: func(int64) bool { return true },
				Price: func(extents int, bytes int64) time.Duration { return costs.Estimate(1, extents, bytes) },
			}
			var got Choice
			for i := range int64(4 * mib / c.step) {
				e := extent.Extent{Off: i * c.step, Len: c.piece}
				l.Note(uint64(1+i%2), 7, e, e.Len, 1)
				a, behind := l.Miss(e, 4*domain, 4*domain)
				require.Nil(t, behind)
				if a != nil {
					l.Landed(a)
					got = a.Choice
				} else {
					got = l.Chosen()
				}
				if got.Whole > 0 {
					break
				}
			}
			require.Equal(t, c.want, got.Way, "%v", got)
			require.Contains(t, got.String(), c.says)
		})
	}
	require.Equal(t, "as asked for", Choice{}.String())
	require.Equal(t, "what several asked for", Choice{Way: Gathered}.String())
}
