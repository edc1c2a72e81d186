package ionserver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// TestAppendBehindWhatIsKeptBack: a write that has returned makes the file longer for
// everybody, also if it is kept back under a lease of a piece further on.
func TestAppendBehindWhatIsKeptBack(t *testing.T) {
	s := startSystem(t, 1, 1, lazy)
	a, b := s.mount(t), s.mount(t)
	h := a.file(a.root, "f")
	b.put(h, 0, "b", 0)
	f := rpc.Frame{Op: ionpb.Op_WRITE, Handle: h, Off: 10, Flags: leasePieces, Data: rpc.Static([]byte("a"))}
	wish := &ionpb.Pieces{Wish: ionpb.AllPiecesOf([]extent.Extent{{Off: 10, Len: 1}, {Off: 100, Len: 4}})}
	mine := ionpb.AllPiecesOf([]extent.Extent{{Off: 10, Len: 1}})
	wish.Off, wish.Len = mine.Off, mine.Len
	f.Len = 1
	r, err := a.call(t.Context(), 0, f, wish, nil)
	require.NoError(t, err)
	require.Equal(t, leasePieces, r.Flags&dataLeases)
	a.mu.Lock()
	a.answer = func(f *rpc.Frame) *rpc.Frame {
		r := new(rpc.Frame)
		if f.Op == ionpb.Op_REVOKE && f.Flags&leasePieces != 0 {
			if err := a.write(h, 100, []byte("kept"), uint32(ionpb.Flag_RECALLED)); err != nil {
				r.Failure(err)
			}
		}
		return r
	}
	a.mu.Unlock()
	at, err := b.append(h, []byte("end"))
	require.NoError(t, err)
	require.EqualValues(t, 104, at)
	b.reads(h, 100, "keptend")
}
