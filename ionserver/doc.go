// Package ionserver is an I/O node: it carries out what mounts ask for, on a
// PVFS2 file system, so that every node sees every effect at once.
//
// Each inode has a home and each file domain has an owner among the I/O nodes
// of the view (package collective says which). The home orders what concerns
// the inode: names, if it is a directory; attributes, size, opens and locks.
// The owner orders reads and writes of the bytes. Nothing is cached beyond
// layouts; every write is at the PVFS2 servers before it is answered.
//
// # Life of a write
//
// A WRITE comes to the owner of its domain on a data connection. The session's
// reply table lets it pass once, however often it is sent. It waits for the
// view to be valid and for its turn in the schedule, and then
//
//  1. is counted in the file's writers and, if the home does not expect writes
//     from here, announced to the home, which clears setuid and setgid if asked;
//  2. takes the range lock of its bytes;
//  3. goes to the PVFS2 servers as the pieces in which it came, without a copy;
//  4. stamps the file with the time, gives the lock back and is answered.
//
// The home learns the time of the last write by collecting from the owners
// that have announced; they announce again before the next write. A write
// without a kill flag that follows others costs no message.
//
// # Looking at attributes
//
// The size lies on many servers and cannot be read in one step. If an owner is
// writing when the home collects, the home fences it while it reads the sizes:
// a fence is a range lock taken on behalf of a peer. If another owner announces
// meanwhile, it looks again; the third time it fences everybody. Truncation
// fences all owners from the smaller of both sizes on. Append fences the bytes
// where it will write, looks whether the size is still the same, and writes
// there through their owner.
//
// # Leases of homes
//
// A mount may keep attributes of an inode, and entries of a directory, there or
// not, while it has a lease on them; see grantTable. What changes them takes
// the leases of other mounts back with REVOKE before anything is done, at the
// home of what changes: before the entry's lock, before home.ops, and for a
// write when its owner announces it. So an announcement names the mount that
// writes. Where several mounts change one thing in turns no leases are given.
//
// # Unpublished bytes
//
// In the weak modes mounts hold bytes that nobody else can see. They tell the
// home with HOLD, and it tells others with Attr.quiet whether anybody does.
// RECALL and truncation, and chmod that seals a laminated file, have the other
// mounts publish first, with PUBLISH, before they take any lock. To seal a
// file, the home has owners refused that announce writes, then waits until none
// is at work that has announced before.
//
// # Life of an open
//
// OPEN counts at the inode's home for its session, before it looks at the
// inode, so that an inode is either gone or stays. UNLINK, at the home of the
// directory, takes the entry away and then tells the inode's home (ORPHAN),
// which destroys it, or, if it is open, gives it an entry in the hidden
// directory of orphans until the last close or the end of the last session.
// It then has all owners forget the object (FORGET): PVFS2 may give the handle
// to another one.
//
// # Life of a rename
//
// RENAME comes to the home of the new directory. It takes both names' locks,
// at the homes of their directories, in the order of directory handle and
// name; a directory that changes its parent takes, before both, the right to
// move directories, which is the lock of the root's empty name. Then it links
// the new name, takes the old one away and tells the home of what was replaced.
//
// # Waiting
//
// A request at work occupies a place of its class (control, data, peer). It
// waits in its place for PVFS2 and short mutexes alone; before any other wait
// (a peer, a range, name or fcntl lock) it gives the place back. Handlers of
// peers' requests never ask a peer. So requests wait for each other only as
// their locks do, and those are taken in one order, outermost first:
//
//	the right to move directories, names (by directory and name),
//	home.ops (by inode), home.modes, fences (in the order of the view),
//	range locks
//
// Announcements are made before range locks are taken and wait for home.modes,
// which is held over PVFS2 requests only, and for mounts.
//
// Mounts are waited for in two ways, without a place and until their session
// ends at most. A mount answers REVOKE of what homes give at once and without
// asking anybody; so any request may wait for that, with any locks held.
// To answer PUBLISH it writes to owners, which announce to the home; who
// waits for that holds none of the locks above.
//
// Mutexes, outermost first: lockService.mu, home.mu, sessionTable.mu,
// session.mu, stream.mu; owner.mu, ownedFile.mu; scheduler.mu, peerLink.mu,
// viewGuard.mu, keyLock.mu. None is held during I/O.
//
// # The view
//
// Epochs are claimed by making a directory entry, which PVFS2 lets succeed
// once. A node may serve for a while after it saw that no newer epoch is
// claimed; who claims one waits longer than that before serving, unless no node
// with another list has left its mark of service. See viewGuard, decideView
// and markServing.
//
// # Failures
//
// A mount that lost its connection sends its requests again; what changes
// something is answered from the reply table. Sessions outlive connections for
// the lease, then their locks and opens are dropped. A node that restarts
// after a crash finds the orphans and knows from the traces of sessions
// whether mounts may come to reclaim; if so, new locks wait and orphans stay
// for the length of a lease. What a crash of a node can lose: modification
// times of the last seconds, and space, if it happens between taking an entry
// away and destroying what it named. A reply lost in a crash makes a mount ask
// again for what was done already.
//
// All exported methods are safe for concurrent use.
//
// Sources: RFC 8881 §2.10.6 (sessions and exactly-once replies), §9.6 (grace);
// Gray and Cheriton, "Leases", SOSP '89; POSIX.1-2024 fcntl (locks), rename,
// unlink; Linux fs/locks.c for the order of flock conversion.
package ionserver
