// Package holder is the cache of a lease holder: what a compute node keeps of
// the files that its programs use, and for how long it may. It decides, by the
// consistency mode of each open file, when bytes that were written become
// visible elsewhere and when bytes that were read must be asked for again.
//
// A Holder keeps all files of a mount in one cache.Store. A File is what it
// keeps of one inode; a Handle is one open of it. Of each file domain a File
// knows which leases its owner has given; of each chunk, a part of a domain
// that one WRITE can carry, what is unpublished. In every mode the Handles of
// a node see each other's writes at once.
//
// It does not know FUSE, keeps no attributes but what follows from unpublished
// bytes, and sends nothing itself: the ionclient.Client does, whose Keeper it
// is. Everything here is safe for concurrent use.
//
// Lock order: File.order (a range lock, held while an I/O node is asked; never
// taken by what an I/O node asks of this node), File.settling, domain.mu,
// Holder.mu, File.mu, cache.Store's own. Only domain.mu is held while the store
// is used, and nothing is waited for then.
//
// Sources: docs/consistency.md of this project for the modes; Howard et al.,
// "Scale and Performance in a Distributed File System", ACM TOCS 6(1), 1988, for
// callbacks; RFC 8881, sections 10.3 to 10.5, for what clients cache.
package holder
