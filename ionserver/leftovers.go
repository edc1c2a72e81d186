package ionserver

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

// orphanDirName is the directory, in the root, of what I/O nodes must find
// again after a crash. Mounts do not see it. Its entries:
//
//	HANDLE      16 hex digits: an inode without a name that was open
//	session.*   a symbolic link: an I/O node has had a session, see sessionMark
//	passed.*    a symbolic link: an I/O node has ended its first grace under a view
//	view.EPOCH  a symbolic link to the claim of an epoch
//	serving.SELF  a symbolic link to the list with which SELF serves
const orphanDirName = ".zoidfs-orphans"

const readDirMax = 512

func orphanName(handle uint64) string { return fmt.Sprintf("%016x", handle) }

// findOrphanDir finds or makes the directory of orphans. Several I/O nodes may
// be doing that at the same time, and PVFS2 may tell that an entry exists a
// moment before it can be looked up.
func (s *Server) findOrphanDir(ctx context.Context) (err error) {
	const tries = 20
	for range tries {
		var h pvfs.Handle
		if h, err = s.pvfs.Lookup(ctx, s.pvfs.Root(), orphanDirName); errno.Of(err) == syscall.ENOENT {
			var a pvfs.Attr
			a, err = s.pvfs.Mkdir(ctx, s.pvfs.Root(), orphanDirName, pvfs.CreateOptions{Mode: 0o700})
			h = a.Handle
		}
		if errno.Of(err) != syscall.EEXIST {
			s.orphanDir = uint64(h)
			return err
		}
	}
	return err
}

// loadLeftovers finds the orphans of this home, and which mounts were connected
// when this node last ended, or when the view before did. If none were, nobody
// will reclaim anything and there is nothing to wait for.
func (s *Server) loadLeftovers(ctx context.Context) error {
	s.home.mu.Lock()
	defer s.home.mu.Unlock()
	var m marks
	err := s.eachLeftover(ctx, func(e pvfs.Dirent) {
		handle := uint64(e.Handle)
		if e.Name == orphanName(handle) && s.placement.Home(handle) == s.self {
			i := s.home.inodeLocked(handle)
			i.orphan, i.linked = true, true
		}
		m.read(e.Name)
	})
	for _, x := range m.expected(s.epoch, s.opt.Self) {
		s.grace.expect(x.id, trace{mount: x.mount, before: x.epoch < s.epoch})
		s.unclean = true
		s.firstGrace = s.firstGrace || x.epoch < s.epoch
		if x.epoch == s.epoch {
			s.oldSessions = append(s.oldSessions, x.String())
		}
	}
	return err
}

func (s *Server) eachLeftover(ctx context.Context, fn func(pvfs.Dirent)) error {
	var token pvfs.DirToken
	for eof := false; !eof; {
		var ents []pvfs.Dirent
		var err error
		if ents, token, eof, err = s.pvfs.ReadDir(ctx, pvfs.Handle(s.orphanDir), token, readDirMax); err != nil {
			return err
		}
		for _, e := range ents {
			fn(e)
		}
	}
	return nil
}

// endGrace forgets the sessions of the earlier life once their time is over;
// those of the view before when it is over for all I/O nodes.
func (s *Server) endGrace(ctx context.Context, now time.Time) {
	if s.inGrace(now) {
		return
	}
	for _, name := range s.oldSessions {
		s.removeLeftover(ctx, name)
	}
	s.oldSessions = nil
	if s.firstGrace {
		s.firstGrace = s.endFirstGrace(ctx) != nil
	}
}

// endFirstGrace leaves a mark that this node has ended its first grace under its
// view. The last one to do so removes what is left of the view before.
func (s *Server) endFirstGrace(ctx context.Context) error {
	mark := passedMark{s.epoch, s.opt.Self}
	_, err := s.pvfs.Symlink(ctx, pvfs.Handle(s.orphanDir), mark.String(), "passed", 0, 0)
	if err != nil && errno.Of(err) != syscall.EEXIST {
		s.log.Warn("end of the first grace not noted", "err", err)
		return err
	}
	var m marks
	if err := s.eachLeftover(ctx, func(e pvfs.Dirent) { m.read(e.Name) }); err != nil {
		return err
	}
	for _, name := range m.past(s.epoch, s.opt.Peers) {
		s.removeLeftover(ctx, name)
	}
	return nil
}

// recordSession leaves a trace of a session, for the case that this node ends
// without ending it. Without the trace what it holds could not be reclaimed, so
// that is logged but not fatal. It is there when recordSession returns.
func (s *Server) recordSession(ctx context.Context, sess *session) {
	sess.trace.Do(func() {
		sess.traced = true
		_, err := s.pvfs.Symlink(ctx, pvfs.Handle(s.orphanDir), s.mark(sess).String(), "session", 0, 0)
		if err != nil && errno.Of(err) != syscall.EEXIST {
			s.log.Warn("session not recorded", "session", sess.id, "err", err)
		}
	})
}

// forgetSession removes the trace, if there is one, for good. Where other I/O
// nodes may have taken over it is theirs.
func (s *Server) forgetSession(ctx context.Context, sess *session) {
	sess.trace.Do(func() {})
	if sess.traced && s.servingEpoch() != 0 {
		s.removeLeftover(ctx, s.mark(sess).String())
	}
}

func (s *Server) mark(sess *session) sessionMark {
	return sessionMark{epoch: s.epoch, node: s.opt.Self, id: sess.id, mount: sess.mount}
}

// mustReclaim reports whether the call may give its mount what it would have to
// reclaim, or what must not be given to others before its time is over. Who
// only looks leaves nothing that a successor of this node has to wait for.
func (c *call) mustReclaim() bool {
	switch c.Op {
	case ionpb.Op_OPEN, ionpb.Op_CREATE, ionpb.Op_HOLD, ionpb.Op_LOCK, ionpb.Op_WRITE, ionpb.Op_APPEND, ionpb.Op_REPLAY:
		return true
	}
	return c.Flags&(dataLeases|homeLeases) != 0
}

func (s *Server) removeLeftover(ctx context.Context, name string) {
	if err := s.pvfs.Remove(ctx, pvfs.Handle(s.orphanDir), name); err != nil && errno.Of(err) != syscall.ENOENT {
		s.log.Warn("leftover not removed", "name", name, "err", err)
	}
}
