package pvfsd

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// The modes that MGMT_SETPARAM sets.
const (
	modeNormal = 1
	modeAdmin  = 2
)

const (
	modeWait = 5 * time.Second      // for changes under way when admin mode begins
	modePoll = 5 * time.Millisecond // between looks at them
)

// mode is whether the server takes changes. In admin mode, in which repair tools
// look at everything, it refuses all but their own. It is forgotten when the
// server ends. Source: OrangeFS src/server/request-scheduler.
type mode struct {
	admin    atomic.Bool
	changing atomic.Int64 // requests under way that change something
}

var errAdmin = errno.Wrap("pvfsd.mode", syscall.EAGAIN, errors.New("the server is in admin mode"))

// begin is called before a request is carried out, and end after it if begin
// gives no error.
func (m *mode) begin(op wire.Op, body wire.Request) (end func(), err error) {
	if !changes(body) || isMgmt(op) {
		return func() {}, nil
	}
	m.changing.Add(1)
	if m.admin.Load() {
		m.changing.Add(-1)
		return nil, errAdmin
	}
	return func() { m.changing.Add(-1) }, nil
}

// set changes the mode. Admin mode has begun once the changes under way are done,
// which it waits for.
func (m *mode) set(ctx context.Context, to uint64) error {
	switch to {
	case modeNormal:
		m.admin.Store(false)
		return nil
	case modeAdmin:
	default:
		return errno.New("pvfsd.mode", syscall.EINVAL)
	}
	m.admin.Store(true)
	ctx, cancel := context.WithTimeout(ctx, modeWait)
	defer cancel()
	for m.changing.Load() > 0 && sleep(ctx, modePoll) {
	}
	return nil
}

// isMgmt reports whether op is one of the tools that admin mode is for, or of
// servers among each other.
func isMgmt(op wire.Op) bool {
	switch op {
	case wire.OpRemoveObject, wire.OpRemoveDirent, wire.OpSplitDirent:
		return true
	}
	return false
}
