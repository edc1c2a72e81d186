package ionserver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/collective"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// TestStopWhileWaitedFor: a read that waits for what is being fetched ahead does not
// keep an I/O node from ending.
func TestStopWhileWaitedFor(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	m := s.mount(t)
	h := m.file(m.root, "f")
	require.NoError(t, m.write(h, 0, make([]byte, s.domain), 0))
	require.NoError(t, m.commit(h))
	o := s.nodes[0].owner
	o.forget(h) // its bytes, too
	f := o.get(h)
	defer o.put(f)
	var fetch *collective.Ahead
	f.mu.Lock()
	for off := int64(0); fetch == nil && off < s.domain; off += 16 << 10 { // two nodes read in turns
		e := extent.Extent{Off: off, Len: 16 << 10}
		f.ahead.Note(1+uint64(off>>14)%2, 0, e, e.Len, 1)
		fetch, _ = f.ahead.Miss(e, s.domain, s.domain)
	}
	f.flights[fetch] = make(chan struct{}) // which nobody carries out
	f.mu.Unlock()
	require.NotNil(t, fetch)
	go m.read(h, fetch.Extents[0].Off, 16<<10)
	until(t, "it waits", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return f.refs == 2
	})
	time.Sleep(10 * time.Millisecond) // it is as good as there
	n := s.nodes[0]
	s.nodes[0] = nil
	n.stop()
	select {
	case err := <-n.done:
		require.NoError(t, err)
		require.NoError(t, n.client.Close())
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}
