package ionpb

import (
	"fmt"
	"math"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
)

// MaxPieces is how many extents a Pieces may have.
const MaxPieces = 1 << 16

// PiecesOf is the message for exts: sorted, none empty, none touching another.
// It is nil for a single one, which needs no message.
func PiecesOf(exts []extent.Extent) *Pieces {
	if len(exts) <= 1 {
		return nil
	}
	return AllPiecesOf(exts)
}

// AllPiecesOf is PiecesOf where a single one needs a message, too.
func AllPiecesOf(exts []extent.Extent) *Pieces {
	p := &Pieces{Off: make([]int64, len(exts)), Len: make([]int64, len(exts))}
	for i, e := range exts {
		p.Off[i], p.Len[i] = e.Off, e.Len
	}
	return p
}

// Extents is the extents of p, checked: at least one, at most MaxPieces, and
// else as PiecesOf takes them. Anything else is EINVAL.
func (p *Pieces) Extents() ([]extent.Extent, error) {
	n := len(p.GetOff())
	if n != len(p.GetLen()) || n == 0 || n > MaxPieces {
		return nil, badPieces("%d offsets and %d lengths", n, len(p.GetLen()))
	}
	out := make([]extent.Extent, n)
	end := int64(-1)
	for i := range out {
		e := extent.Extent{Off: p.Off[i], Len: p.Len[i]}
		if e.Off <= end || e.Len <= 0 || e.Len > math.MaxInt64-e.Off {
			return nil, badPieces("%d bytes at offset %d, behind an end at %d", e.Len, e.Off, end)
		}
		out[i], end = e, e.End()
	}
	return out, nil
}

func badPieces(format string, args ...any) error {
	return errno.Wrap("ionpb.Pieces", syscall.EINVAL, fmt.Errorf(format, args...))
}
