package holder

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// TestModes mirrors the table of modes in docs/consistency.md, read as what a
// node may do.
func TestModes(t *testing.T) {
	const none, data, write = 0, ionclient.LeaseData, ionclient.LeaseWrite | ionclient.LeaseData
	for _, c := range []struct {
		mode      consistency.Mode
		back      bool   // a write returns unpublished, without a lease
		tells     bool   // the home knows of unpublished bytes
		reads     right  // of a handle that only reads
		asks      uint32 // such a READ
		asksWrite uint32
		recalls   bool          // a read through a handle that may write
		reopen    bool          // an open looks anew
		age       time.Duration // of unpublished bytes, with a visibility of 4 s
	}{
		{consistency.Strong, false, false, byLease, data, write | ionclient.LeasePieces, false, false, 5 * time.Second},
		{consistency.Commit, true, true, byLease, data, data, true, false, 5 * time.Second},
		{consistency.Session, true, true, byAcquire, none, none, true, true, 5 * time.Second},
		{consistency.Eventual, true, true, byAge, none, none, true, true, 1500 * time.Millisecond},
		{consistency.Laminated, true, true, byLease, data, data, true, false, 5 * time.Second},
	} {
		t.Run(c.mode.String(), func(t *testing.T) {
			m := mode(c.mode)
			require.Equal(t, c.back, m.keepsBack(false))
			require.True(t, m.keepsBack(true), "under a lease nobody can tell")
			require.Equal(t, c.tells, m.holds())
			require.Equal(t, c.reads, m.right(false))
			require.Equal(t, c.asks, m.right(false).asks())
			require.Equal(t, byLease, m.right(true), "what is written back must not be old")
			require.Equal(t, c.asksWrite, m.asksToWrite())
			require.Equal(t, c.recalls, m.recalls(true))
			require.False(t, m.recalls(false), "what is read is not written back")
			require.Equal(t, c.reopen, m.revalidates(false))
			require.Equal(t, c.age, m.maxAge(4*time.Second))
		})
	}
	require.True(t, laminated.revalidates(true), "a sealed file is cached as one of a version")
}

// quiet is the Attrs of a mount that knows that no other one holds anything.
type quiet struct{ unknown }

func (quiet) Quiet(uint64) bool { return true }

// TestRecalls: where other nodes surely hold nothing there is nothing to recall.
func TestRecalls(t *testing.T) {
	for _, c := range []struct {
		attrs Attrs
		want  bool
	}{{unknown{}, true}, {quiet{}, false}} {
		h := Handle{file: &File{h: &Holder{attrs: c.attrs}}, mode: commit, mayWrite: true}
		require.Equal(t, c.want, h.recalls())
	}
}

func TestRights(t *testing.T) {
	for _, c := range []struct {
		right  right
		leased bool
		age    time.Duration
		want   bool
	}{
		{byLease, true, time.Hour, true},
		{byLease, false, 0, false},
		{byAcquire, false, time.Hour, true},
		{byAge, false, 1499 * time.Millisecond, true},
		{byAge, true, 1500 * time.Millisecond, false},
	} {
		require.Equal(t, c.want, c.right.usable(c.leased, c.age, 4*time.Second), "%+v", c)
	}
}

// TestChunks: chunks cover any extent, in order, and lie in one domain each.
func TestChunks(t *testing.T) {
	for _, size := range []int64{4096, 192 << 10, mib, 4 * mib, 5*mib + 4096} {
		for _, e := range []extent.Extent{{Off: 0, Len: 1}, {Off: 5, Len: 3 * mib}, {Off: size - 1, Len: 2}, {Off: 7*size + 3, Len: size}} {
			at := e.Off
			chunksOf(e, size, func(chunk, part extent.Extent) {
				require.Equal(t, at, part.Off)
				require.True(t, chunk.Contains(part))
				require.True(t, domainAt(part.Off, size).Contains(chunk))
				require.LessOrEqual(t, chunk.Len, int64(maxChunk))
				require.Equal(t, chunk, chunkAt(part.End()-1, size))
				at = part.End()
			})
			require.Equal(t, e.End(), at)
		}
	}
}
