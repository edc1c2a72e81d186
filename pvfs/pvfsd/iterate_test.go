package pvfsd_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// iterate lists handles count at a time.
func (c *client) iterate(flags, count int32) []wire.Handle {
	c.t.Helper()
	var all []wire.Handle
	for pos := wire.TokenStart; pos != wire.TokenEnd; {
		var resp wire.IterateHandlesResp
		c.call(nil, 0, &wire.IterateHandlesReq{FSID: c.fsid, Count: count, Flags: flags, Position: pos}, &resp)
		all = append(all, resp.Handles...)
		pos = resp.Position
	}
	return all
}

// What pools hold is listed completely whatever the order of the servers'
// names: repair tools would remove what is missing.
func TestIterateReserved(t *testing.T) {
	swap := func(text string) string {
		at := strings.Index(text, "<DataHandleRanges>")
		return text[:at] + strings.NewReplacer("Range s1 ", "Range s2 ", "Range s2 ", "Range s1 ").Replace(text[at:])
	}
	cl := pvfsdtest.Start(t, 3, pvfsdtest.Options{Edit: swap, Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }})
	c := dial(t, cl.Addr(0), cl.Config())
	var all []wire.Handle
	require.Eventually(t, func() bool {
		all = c.iterate(1, 4096)
		o := owners(t, cl, all)
		return slices.Contains(o, 1) && slices.Contains(o, 2)
	}, 20*time.Second, 10*time.Millisecond)
	require.True(t, slices.IsSorted(all))
	require.Equal(t, all, c.iterate(1, 100), "in small steps")
	require.Len(t, slices.Compact(all), len(all))
}
