package ionclient

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// TestBufferOfLastOpen: the hint that came with the last open of a file goes along
// with what is read and written of it, also after the last close.
func TestBufferOfLastOpen(t *testing.T) {
	c := new(Client)
	sent := func(h uint64) uint64 {
		e := extent.Extent{Len: 10}
		return c.dataFrame(ionpb.Op_WRITE, h, []extent.Extent{e}, e, 0).Buffer
	}
	require.Zero(t, sent(7))
	c.OpenedBy(7, 0, 0)
	require.Zero(t, sent(7))
	c.OpenedBy(7, 0, 1<<20)
	require.EqualValues(t, 1<<20, sent(7))
	require.Zero(t, sent(8))
	c.OpenedBy(7, 3, 2<<20)
	require.EqualValues(t, 2<<20, sent(7))
	c.ClosedBy(7, 0)
	c.ClosedBy(7, 3)
	require.EqualValues(t, 2<<20, sent(7), "what is written behind")
	c.OpenedBy(7, 0, 0)
	require.Zero(t, sent(7), "it was taken back")
}
