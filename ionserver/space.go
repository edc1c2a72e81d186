package ionserver

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
)

// spaceInterval is how often the free space is looked at while bytes are
// unstable, and spaceReserve what must be free beyond them.
const (
	spaceInterval = 5 * time.Second
	spaceReserve  = 64 << 20
)

// space is whether what is acknowledged may be expected to fit. When it may
// not, writes go through to the servers, which say so at once.
type space struct {
	scarce atomic.Bool
	stuck  atomic.Bool // a write-back has met ENOSPC, and none succeeded since
}

func (s *space) low() bool { return s.scarce.Load() || s.stuck.Load() }

// look asks how much is free.
func (o *owner) look(ctx context.Context) {
	st, err := o.srv.pvfs.StatFS(ctx)
	if err == nil {
		o.space.scarce.Store(st.Free < o.store.Snapshot().BytesDirty+spaceReserve)
	}
}

func noSpace(err error) bool {
	e := errno.Of(err)
	return e == syscall.ENOSPC || e == syscall.EDQUOT
}
