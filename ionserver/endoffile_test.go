package ionserver

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// TestEndBesideATruncation: a fetch of bytes before the new end, which begins while a
// file is being cut, may find PVFS2 without what was to be cut off and without the new end.
// Who reads afterwards does not rely on that.
func TestEndBesideATruncation(t *testing.T) {
	s := newScene(t)
	file, _ := s.a.fileHomedAt(s.a.root, "f", 0)
	o := s.nodes[0].owner
	f := o.get(file)
	defer o.put(f)
	c := &call{Request: &rpc.Request{Frame: &rpc.Frame{Handle: file}}, srv: s.nodes[0].Server, ctx: t.Context()}
	release, err := o.fence(c, t.Context(), fencing{handle: file, ext: extent.ToEnd(1000), flags: uint32(ionpb.Flag_CUT)})
	require.NoError(t, err)

	answer := make(chan struct{})
	ends := make(chan int64, 2) // what the fetches find, one after the other
	ends <- 0
	ends <- 100
	began := make(chan struct{}, 2)
	read := func() int {
		v, err := f.data.Read(t.Context(), []extent.Extent{{Len: 100}}, func(context.Context, []extent.Extent, [][]byte) (int64, error) {
			end := <-ends
			began <- struct{}{}
			<-answer
			return end, nil
		})
		require.NoError(t, err)
		defer v.Release()
		return v.Len()
	}
	var readers sync.WaitGroup
	readers.Go(func() { require.Equal(t, 0, read()) })
	<-began
	release()
	joins := o.store.Snapshot().Joins
	readers.Go(func() { require.Equal(t, 100, read()) })
	require.Eventually(t, func() bool { return o.store.Snapshot().Joins > joins }, 20*time.Second, time.Millisecond)
	close(answer)
	readers.Wait()
}
