package ionserver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestGuardLog has sessions 1 and 2 read and publish; times are seconds.
func TestGuardLog(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	ext := func(off, n int64) extent.Extent { return extent.Extent{Off: off, Len: n} }
	t.Run("two publish what they wrote before either had", func(t *testing.T) {
		var g guardLog
		x, _ := g.wrote(1, ext(0, 100), at(1), at(5))
		require.Nil(t, x)
		x, wrote := g.wrote(2, ext(90, 20), at(2), at(6))
		require.Equal(t, &sighting{1, ext(0, 100), at(5)}, x)
		require.True(t, wrote)
	})
	t.Run("written after the other had published", func(t *testing.T) {
		var g guardLog
		g.wrote(1, ext(0, 100), at(1), at(5))
		x, _ := g.wrote(2, ext(0, 100), at(5.5), at(6))
		require.Nil(t, x)
	})
	t.Run("neighbours", func(t *testing.T) {
		var g guardLog
		g.wrote(1, ext(0, 100), at(1), at(5))
		x, _ := g.wrote(2, ext(100, 100), at(2), at(6))
		require.Nil(t, x)
	})
	t.Run("one's own", func(t *testing.T) {
		var g guardLog
		g.wrote(1, ext(0, 100), at(1), at(5))
		require.Nil(t, g.read(1, ext(0, 100), at(2), at(5.5)))
		x, _ := g.wrote(1, ext(0, 100), at(2), at(6))
		require.Nil(t, x)
	})
	t.Run("read between write and publish", func(t *testing.T) {
		var g guardLog
		require.Nil(t, g.read(2, ext(0, 10), time.Time{}, at(3)))
		x, wrote := g.wrote(1, ext(5, 100), at(2), at(5))
		require.NotNil(t, x)
		require.False(t, wrote)
		x, _ = g.wrote(1, ext(5, 100), at(4), at(6))
		require.Nil(t, x, "read before it was written")
	})
	t.Run("published after the reader's view began", func(t *testing.T) {
		var g guardLog
		g.wrote(1, ext(0, 100), at(1), at(5))
		require.NotNil(t, g.read(2, ext(50, 100), at(4), at(7)))
		require.Nil(t, g.read(2, ext(50, 100), at(6), at(7)), "it was opened after that")
		require.Nil(t, g.read(2, ext(50, 100), time.Time{}, at(7)), "it needs no open")
	})
	t.Run("over several parts", func(t *testing.T) {
		var g guardLog
		g.wrote(1, ext(3*guardPart-10, 20), at(1), at(5))
		x, _ := g.wrote(2, ext(3*guardPart+5, guardPart), at(2), at(6))
		require.NotNil(t, x)
	})
	t.Run("pieces that touch are one", func(t *testing.T) {
		var g guardLog
		for i := range int64(10 * guardEntries) {
			g.read(2, ext(i*10, 10), time.Time{}, at(3+float64(i)/1e5))
		}
		x, _ := g.wrote(1, ext(15, 1), at(2), at(5))
		require.Equal(t, ext(0, 10*10*guardEntries), x.ext)
	})
	t.Run("bounded", func(t *testing.T) {
		var g guardLog
		for i := range int64(3 * guardParts) {
			g.wrote(1, ext(i*guardPart, 1), at(1), at(2))
		}
		require.LessOrEqual(t, len(g.parts), guardParts)
		for i := range int64(100) {
			g.wrote(1, ext(i*20, 1), at(1), at(2))
		}
		x, _ := g.wrote(2, ext(99*20, 1), at(1), at(3))
		require.NotNil(t, x, "the latest are remembered")
	})
}

// BenchmarkGuardLog is what a guard costs the owner for one WRITE of 64 KiB and
// one READ of it by another mount.
func BenchmarkGuardLog(b *testing.B) {
	var g guardLog
	now := time.Now()
	for i := int64(0); b.Loop(); i++ {
		e := extent.Extent{Off: i % 1024 * 65536, Len: 65536}
		g.wrote(1, e, now, now)
		g.read(2, e, now, now)
	}
}
