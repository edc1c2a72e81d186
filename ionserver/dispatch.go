package ionserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// Reasons of ESTALE that a mount can mend by itself; they become Flag bits.
var (
	errStaleView    = errno.New("ionserver: request under another view", syscall.ESTALE)
	errStaleSession = errno.New("ionserver: no such session", syscall.ESTALE)
)

// maxPending bounds the unanswered requests of one stream.
const maxPending = 1 << 16

// operation is how one Op of a mount is carried out.
type operation struct {
	class class
	do    func(*call) (*rpc.Frame, error)
}

// operations are the requests of mounts, apart from those of the session itself.
func operations() map[ionpb.Op]operation {
	return map[ionpb.Op]operation{
		ionpb.Op_LOOKUP:  {classControl, (*call).lookup},
		ionpb.Op_CREATE:  {classControl, (*call).create},
		ionpb.Op_MKDIR:   {classControl, (*call).mkdir},
		ionpb.Op_SYMLINK: {classControl, (*call).symlink},
		ionpb.Op_UNLINK:  {classControl, (*call).unlink},
		ionpb.Op_RMDIR:   {classControl, (*call).rmdir},
		ionpb.Op_RENAME:  {classControl, (*call).rename},
		ionpb.Op_READDIR: {classControl, (*call).readDir},

		ionpb.Op_GETATTR:     {classControl, (*call).getAttr},
		ionpb.Op_SETATTR:     {classControl, (*call).setAttr},
		ionpb.Op_READLINK:    {classControl, (*call).readlink},
		ionpb.Op_GETXATTR:    {classControl, (*call).getXattr},
		ionpb.Op_SETXATTR:    {classControl, (*call).setXattr},
		ionpb.Op_LISTXATTR:   {classControl, (*call).listXattr},
		ionpb.Op_REMOVEXATTR: {classControl, (*call).removeXattr},
		ionpb.Op_STATFS:      {classControl, (*call).statFS},

		ionpb.Op_OPEN:    {classControl, (*call).open},
		ionpb.Op_CLOSE:   {classControl, (*call).close},
		ionpb.Op_HOLD:    {classControl, (*call).hold},
		ionpb.Op_RECALL:  {classControl, (*call).recall},
		ionpb.Op_FSYNC:   {classControl, (*call).fsync},
		ionpb.Op_LOCK:    {classControl, (*call).setLock},
		ionpb.Op_GETLOCK: {classControl, (*call).getLock},

		ionpb.Op_READ:   {classData, (*call).read},
		ionpb.Op_WRITE:  {classData, (*call).write},
		ionpb.Op_APPEND: {classData, (*call).append},
		ionpb.Op_COMMIT: {classControl, (*call).commit},
		ionpb.Op_REPLAY: {classData, (*call).replay},
	}
}

// peerOperations are the requests of other I/O nodes. None of them asks a
// peer, so a chain of requests is never longer than one.
func peerOperations() map[ionpb.Op]operation {
	return map[ionpb.Op]operation{
		ionpb.Op_ANNOUNCE:     {classPeer, (*call).peerAnnounce},
		ionpb.Op_COLLECT:      {classPeer, (*call).peerCollect},
		ionpb.Op_FENCE:        {classPeer, (*call).peerFence},
		ionpb.Op_UNFENCE:      {classPeer, (*call).peerRelease},
		ionpb.Op_FENCED_WRITE: {classPeer, (*call).peerFencedWrite},
		ionpb.Op_FENCED_CUT:   {classPeer, (*call).peerFencedCut},
		ionpb.Op_ORPHAN:       {classPeer, (*call).peerOrphan},
		ionpb.Op_NAME_LOCK:    {classPeer, (*call).peerNameLock},
		ionpb.Op_NAME_UNLOCK:  {classPeer, (*call).peerRelease},
		ionpb.Op_FORGET:       {classPeer, (*call).peerForget},
		ionpb.Op_WRITE_BACK:   {classPeer, (*call).peerWriteBack},
		ionpb.Op_REACH:        {classPeer, (*call).peerReach},
		ionpb.Op_DISTURB:      {classPeer, (*call).peerDisturb},
		ionpb.Op_ADOPT:        {classPeer, (*call).peerAdopt},
		ionpb.Op_OWED:         {classPeer, (*call).peerOwed},
		ionpb.Op_TIMES:        {classPeer, (*call).peerTimes},
	}
}

// call is one request at work.
type call struct {
	*rpc.Request
	srv    *Server
	ctx    context.Context // of the work: outlives the stream, ends with the server
	stream *stream
	sess   *session // nil for a peer's
	came   time.Time
	job    *job
}

// wait runs fn, which may block for long, without a worker.
func (c *call) wait(fn func() error) error { return c.srv.sched.away(c.job, fn) }

// serve carries out one admitted request of a class and returns its outcome.
func (c *call) serve(o operation) (*rpc.Frame, error) {
	if err := c.checkFrame(); err != nil {
		return nil, err
	}
	c.job = &job{class: o.class, flow: c.stream.flow(), cost: baseCost + int64(c.Data.Len())}
	if c.Op == ionpb.Op_READ {
		c.job.cost += c.Len
	}
	if err := c.srv.awaitView(c.ctx); err != nil {
		return nil, err
	}
	if c.srv.inGrace(time.Now()) && c.waitsForGrace() {
		if err := c.srv.awaitGrace(c.ctx); err != nil {
			return nil, err
		}
	}
	if c.sess != nil && c.mustReclaim() {
		c.srv.recordSession(c.srv.work, c.sess)
	}
	c.srv.sched.enter(c.job)
	defer c.srv.sched.leave(c.job)
	// What is not recorded was sent again if its connection is gone; a late
	// execution could undo what was done in between.
	if !c.Op.Recorded() && c.stream.ctx.Err() != nil {
		return nil, errno.New("ionserver", syscall.ECONNRESET)
	}
	if fewer, ok := tells[c.Op]; ok && c.sess != nil {
		return c.noted(o, fewer)
	}
	return o.do(c)
}

// checkFrame refuses what no operation can make sense of.
func (c *call) checkFrame() error {
	if c.Epoch != c.srv.epoch {
		return errStaleView
	}
	if c.Off < 0 || c.Len < 0 || c.Len > rpc.MaxData && !wholeFile(c.Op) {
		return errno.New("ionserver: offset or length", syscall.EINVAL)
	}
	if c.Handle == 0 && !handleless(c.Op) || c.Handle == c.srv.orphanDir {
		return errno.New("ionserver: handle", syscall.ESTALE)
	}
	return nil
}

// wholeFile reports whether the extent of op may be longer than what a frame
// carries.
func wholeFile(op ionpb.Op) bool {
	switch op {
	case ionpb.Op_FENCE, ionpb.Op_REACH, ionpb.Op_RECALL:
		return true
	}
	return false
}

// handleless reports whether op is about no inode, or about several.
func handleless(op ionpb.Op) bool {
	switch op {
	case ionpb.Op_STATFS, ionpb.Op_UNFENCE, ionpb.Op_NAME_UNLOCK, ionpb.Op_FORGET, ionpb.Op_OWED, ionpb.Op_TIMES:
		return true
	}
	return false
}

// dataExtent is the extent that a frame of n bytes of payload concerns.
func (c *call) dataExtent(n int64) (extent.Extent, error) {
	if n > math.MaxInt64-c.Off {
		return extent.Extent{}, errno.New("ionserver: end beyond the largest offset", syscall.EFBIG)
	}
	return extent.Extent{Off: c.Off, Len: n}, nil
}

// okay is the reply with body m, or without one.
func okay(m proto.Message) (*rpc.Frame, error) {
	f := &rpc.Frame{}
	if m != nil {
		f.Encode(m)
	}
	return f, nil
}

// outcome is the frame that carries the result of an operation.
func outcome(f *rpc.Frame, err error) *rpc.Frame {
	if err == nil {
		return f
	}
	f = &rpc.Frame{}
	f.Failure(err)
	switch {
	case errors.Is(err, errStaleView):
		f.Flags = uint32(ionpb.Flag_STALE_VIEW)
	case errors.Is(err, errStaleSession):
		f.Flags = uint32(ionpb.Flag_STALE_SESSION)
	}
	return f
}

// checkName refuses what cannot be the name of a directory entry.
func checkName(name string) error {
	switch {
	case len(name) > 255:
		return errno.New("ionserver: name", syscall.ENAMETOOLONG)
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return errno.New("ionserver: name", syscall.EINVAL)
	}
	return nil
}

// awaitView waits until this I/O node may serve, or says why it will not.
func (s *Server) awaitView(ctx context.Context) error {
	for {
		ok, changed, err := s.guard.May(time.Now())
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errStaleView, err)
		case ok:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
