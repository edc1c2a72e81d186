package ionserver

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
)

// orphanDirName is the directory, in the root, of what I/O nodes must find
// again after a crash. Mounts do not see it. Its entries:
//
//	HANDLE                 16 hex digits: an inode without a name that was open
//	session.SELF.ID.MOUNT  a symbolic link: the I/O node SELF has had this session of a mount
//	view.EPOCH             a symbolic link to the claim of an epoch
//	serving.SELF           a symbolic link to the list with which SELF serves
const orphanDirName = ".zoidfs-orphans"

const readDirMax = 512

func orphanName(handle uint64) string { return fmt.Sprintf("%016x", handle) }

func (s *Server) sessionPrefix() string { return "session." + s.opt.Self + "." }

func (s *Server) sessionName(sess *session) string {
	return fmt.Sprintf("%s%x.%x", s.sessionPrefix(), sess.id, sess.mount)
}

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

// loadLeftovers finds the orphans of this home, and whether mounts were
// connected when this node last ended. If none were, nobody will reclaim
// anything and there is nothing to wait for.
func (s *Server) loadLeftovers(ctx context.Context) error {
	s.home.mu.Lock()
	defer s.home.mu.Unlock()
	return s.eachLeftover(ctx, func(e pvfs.Dirent) {
		handle := uint64(e.Handle)
		switch {
		case e.Name == orphanName(handle) && s.placement.Home(handle) == s.self:
			i := s.home.inodeLocked(handle)
			i.orphan, i.linked = true, true
		case strings.HasPrefix(e.Name, s.sessionPrefix()):
			s.unclean = true
			s.oldSessions = append(s.oldSessions, e.Name)
			var id, mount uint64
			if _, err := fmt.Sscanf(strings.TrimPrefix(e.Name, s.sessionPrefix()), "%x.%x", &id, &mount); err == nil {
				s.grace.expect(id, mount)
			}
		}
	})
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

// endGrace forgets the sessions of the earlier life once their time is over.
func (s *Server) endGrace(ctx context.Context, now time.Time) {
	if s.inGrace(now) || len(s.oldSessions) == 0 {
		return
	}
	for _, name := range s.oldSessions {
		s.removeLeftover(ctx, name)
	}
	s.oldSessions = nil
}

// recordSession leaves a trace of a session, for the case that this node ends
// without ending it. Without the trace what it holds could not be reclaimed, so
// that is logged but not fatal. It is there when recordSession returns.
func (s *Server) recordSession(ctx context.Context, sess *session) {
	sess.trace.Do(func() {
		sess.traced = true
		_, err := s.pvfs.Symlink(ctx, pvfs.Handle(s.orphanDir), s.sessionName(sess), "session", 0, 0)
		if err != nil && errno.Of(err) != syscall.EEXIST {
			s.log.Warn("session not recorded", "session", sess.id, "err", err)
		}
	})
}

// forgetSession removes the trace, if there is one, for good.
func (s *Server) forgetSession(ctx context.Context, sess *session) {
	sess.trace.Do(func() {})
	if sess.traced {
		s.removeLeftover(ctx, s.sessionName(sess))
	}
}

// mustReclaim reports whether the call may give its mount what it would have to
// reclaim, or what must not be given to others before its time is over. Who
// only looks leaves nothing that a successor of this node has to wait for.
func (c *call) mustReclaim() bool {
	switch c.Op {
	case ionpb.Op_OPEN, ionpb.Op_CREATE, ionpb.Op_HOLD, ionpb.Op_LOCK, ionpb.Op_WRITE, ionpb.Op_REPLAY:
		return true
	}
	return c.Flags&(leaseRead|leaseWrite|homeLeases) != 0
}

func (s *Server) removeLeftover(ctx context.Context, name string) {
	if err := s.pvfs.Remove(ctx, pvfs.Handle(s.orphanDir), name); err != nil && errno.Of(err) != syscall.ENOENT {
		s.log.Warn("leftover not removed", "name", name, "err", err)
	}
}
