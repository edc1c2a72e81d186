// Package ionserver is an I/O node: it carries out what mounts ask for, on a
// PVFS2 file system, so that every node sees every effect at once.
//
// Each inode has a home and each file domain has an owner among the I/O nodes
// of the view (package collective says which). The home orders what concerns
// the inode: names, if it is a directory; attributes, size, opens and locks.
// The owner orders reads and writes of the bytes, and is the only I/O node that
// has any of them in memory: those that were read, and those that were written
// and are not at the PVFS2 servers yet (unstable).
//
// # Life of a write
//
// A WRITE comes to the owner of its domain on a data connection. The session's
// reply table lets it pass once, however often it is sent. It waits for the
// view to be valid and for its turn in the schedule, and then
//
//  1. has leases of other mounts on its domain revoked;
//  2. is counted in the file's writers and, if the home does not expect writes
//     of this mount from here, announced to the home, which clears setuid and
//     setgid if asked;
//  3. takes the range lock of its bytes;
//  4. goes into blocks of the owner's store, and waits there for room if it has
//     to; with SYNC, or where space is short, it goes to the PVFS2 servers,
//     behind what was written there before;
//  5. stamps the file with the time, gives the lock back and is answered with
//     the stamp, and with the leases that the mount has now.
//
// The home learns the time of the last write, and how far unstable bytes reach,
// by collecting from the owners that have announced; they announce again before
// the next write. A home that has started again asks the owners which files these
// are, OWED, before its grace ends. Owners also tell, TIMES, until the time is saved, see
// owner.tellTimes. A write without a kill flag that follows others costs no
// message.
//
// # Write-behind
//
// What is unstable is written back in rounds of a long flow to each server: when
// enough domains are whole, by age, when memory runs short, and when an FSYNC, a
// COMMIT or a fence asks; see writeBackAll and backlog. The mounts that wrote it
// keep it, too, until STABLE tells them that it is at the servers: in two steps
// where they are several, see unstable. After a crash they REPLAY it, see
// replayed. What is durable at once and must not be undone by that (an append, a
// write with SYNC) waits until no mount keeps bytes of the file any more, see
// stabilise; a truncation until none keeps what it cuts off, see cutOff. A write-back that fails leaves its bytes
// where they are; STABLE tells the mounts why, and it is tried again.
//
// # Leases of owners
//
// With the answer to a READ or WRITE an owner may give the mount the right to
// keep the bytes of the domain (LEASE_DATA), and to keep writes back while
// nobody else looks (LEASE_WRITE), or nobody else looks at these bytes
// (LEASE_PIECES); see leaseTable. An access begins when no
// lease of others is in its way, and ends with one only if nothing of others
// happened meanwhile. Domains for which mounts contend get none for a while.
//
// # Looking at attributes
//
// The size lies on many servers and cannot be read in one step, and the ends of
// unstable bytes count as well. If an owner is writing when the home collects,
// or a mount may be keeping writes back there, the home fences it while it reads
// the sizes: a fence is a range lock taken on behalf of a peer, with no leases of
// other mounts in its way. If another owner announces meanwhile, it looks again;
// the third time it fences everybody. Truncation fences all owners from the
// smaller of both sizes on, and what they have beyond the new one is forgotten;
// so is, after a REVOKE, what mounts that have the file open keep of it.
// Append fences the bytes where it will write, looks whether the size is still
// the same, tells the mount, and writes there through their owner to the servers.
//
// An owner that finds fewer bytes than a READ asks for looks whether the file
// goes on at other owners, with a hole in between; see call.hole.
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
// # What homes know of directories
//
// Every change of an entry passes the home of its directory. So where names are
// being changed, the home answers from what it knows: the times of the directory,
// and all its names, see dirTable. Who looks a name up or changes it holds the
// name's lock. A change begins by making the name unknown, and its holder says
// what it means once the servers have answered; if nothing is said, as by a peer
// that renames, it stays unknown. READDIR takes no locks while it reads, and then looks
// again at the names that were locked to change them meanwhile. A load of all names that is overtaken by changes
// gives way to them. Tools of PVFS2 may change the directory, too: what is known
// lives for dirLife, and only where zoidfs itself changes names.
//
// # Life of an open
//
// OPEN counts at the inode's home for its session, before it looks at the
// inode, so that an inode is either gone or stays. For a file that CREATE has made the
// home of the directory has it counted, with ADOPT; see call.adopt. If the mount asks for that and
// is given LEASE_ATTR, the count is taken back: until the lease ends the mount may
// have the file open as often as it likes, for reading. With its answer to the
// REVOKE it says whether it has (TOLD_OPEN), and that counts until a CLOSE says
// that it has ended. UNLINK and RENAME take this lease from their own mount as
// well, unless it says that it has not. UNLINK, at the home of the
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
// the new name, takes the old one away and tells the home of what was replaced. Of a
// directory that is replaced, moved to another, or removed by RMDIR, its home ends all
// leases before, and gives none until that is done: the lock of its own empty name.
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
//	range locks, the right to write a file back
//
// Room in the store is waited for with a range lock held: write-back, which
// makes room, takes none. Announcements are made before range locks are taken
// and wait for home.modes, which is held over PVFS2 requests only, and for
// mounts.
//
// Mounts are waited for in three ways, without a place and until their session
// ends at most. A mount answers REVOKE of what homes give, STABLE and PLACE at once
// and without asking anybody; so any request may wait for that, with any locks
// held. To answer REVOKE of what owners give it first writes what it kept back,
// with RECALLED; who waits for that holds no range lock that such a WRITE needs,
// and not home.modes. To answer PUBLISH it writes to owners as any request does;
// who waits for that holds none of the locks above.
//
// Mutexes, outermost first: lockService.mu, home.mu, grantTable.mu, owner.mu,
// ownedFile.mu, sessionTable.mu, session.mu, stream.mu. Innermost are those of
// package cache, and scheduler.mu, peerLink.mu, viewGuard.mu, keyLock.mu,
// versionTable.mu, modeCache.mu, dirTable.mu, recent.mu, grace.mu, news.mu. None is held
// during I/O.
//
// # The view
//
// Epochs are claimed by making a directory entry, which PVFS2 lets succeed
// once. A node may serve for a while after it saw that no newer epoch is
// claimed; who claims one waits longer than that before serving, unless no node
// with another list has left its mark of service. While one of those answers none is
// claimed, unless that is wished. See viewGuard, decideView, markServing and awaitOthers.
//
// # Failures
//
// A mount that lost its connection sends its requests again; what changes
// something is answered from the reply table. Sessions outlive connections for
// the lease, then what they held is dropped: locks, opens, leases, holds. A node
// that restarts finds the orphans, and knows from the traces of sessions, which
// are there before a session holds anything, which mounts may come to reclaim.
// Under a new epoch those are the mounts of every node of the view before, see marks.
// Until all have, for the length of a lease at most, it is in its grace: what
// mounts may be about to reclaim is neither told nor changed, and orphans stay.
// What a crash of a node can lose: what was unstable there and written by a
// mount that is gone as well; the time of a truncation or an append of the last
// seconds; and space, if it happens between taking an entry away and destroying what it
// named. A reply lost in a crash makes a mount ask again for what was done
// already: it says so, IN_DOUBT, and a name that is taken may be its own work, see
// ownWork. What it appends it was told the place of, see record.
//
// All exported methods are safe for concurrent use.
//
// Sources: RFC 8881 §2.10.6 (sessions and exactly-once replies), §9.6 (grace),
// §10.4 (delegations); RFC 1813 §4.8 (unstable writes); Gray and Cheriton,
// "Leases", SOSP '89; POSIX.1-2024 fcntl (locks), rename, unlink; Linux
// fs/locks.c for the order of flock conversion.
package ionserver
