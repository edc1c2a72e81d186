// Package fs is the FUSE front end of a compute node: it mounts the file
// system of a set of I/O nodes and turns what the kernel asks into calls of an
// ionclient.Client.
//
// What it keeps it has from others: file data from package cache/holder, by the
// consistency mode of each open file; attributes, entries and what else is read
// of an inode from cache/names, while leases of their homes last (see known). The
// kernel is told to cache nothing, for it cannot be told of a revocation in
// time: all timeouts are 0, and data go by direct I/O. Only sealed files, what is
// mapped and what is executed are in its page cache. Permissions are checked by the kernel
// (default_permissions), on attributes that it asks for anew for each check.
//
// An inode is a node: one type for files, directories and symbolic links,
// whose identity is the PVFS2 handle. The tree of nodes, forget counts and
// open-file numbers are go-fuse's node API; raw.go wraps the few requests
// whose fields that API does not hand on. Package device reads requests from the
// kernel; it is told by a call when that begins to wait (call.Done).
//
// # What differs from a local file system
//
// PVFS2 stores no hard links, device nodes, FIFOs, sockets and no sticky bit:
// link(2) and mknod(2) of anything but a regular file fail with EPERM, and so
// do chmod and mkdir of a directory with the sticky bit, because a directory
// that only looks like /tmp is worse than an error. On a regular file, where
// the bit means nothing, it is dropped. Times are whole seconds. Space cannot
// be reserved: fallocate(2) fails with EOPNOTSUPP, upon which
// posix_fallocate(3) writes zeros. Directories have a link count of 1.
//
// The kernel, not this package, holds pages of files that are mapped or read
// by sendfile(2) and splice(2). They are dropped when a file is opened and
// when it is mapped, and soon after the right to keep them has ended (pages.go).
// Mapped pages are written back whole, before they are dropped and at msync(2),
// munmap(2), fsync(2) or close(2): two nodes that store into one page of a
// mapping must agree on turns. Two more things follow from the kernel's own
// copy of the file size: an asynchronous read (io_uring, libaio), sendfile(2),
// splice(2), copy_file_range(2) and a mapping end at the size that this node saw
// last, and RWF_APPEND on a descriptor without O_APPEND appends there; lseek(2),
// fstat(2), read(2) and O_APPEND are exact.
//
// A file can vanish between the lookup of its name and the open that follows.
// The kernel is told ESTALE then and begins again, but once only. So what it
// finds then stays until it is opened, and O_CREAT opens what others have made
// meanwhile: see again.go. What is left is a user whose right to a file comes of
// a supplementary group or a capability, and who loses both races: ESTALE.
//
// # Concurrency
//
// Everything here is safe for concurrent use. The only locks are leaves:
// calls.mu, under which the device is told who waits, lockOwners.mu, openModes.mu, mount.mu, known.mu, opens.mu,
// secondTries.mu, tracer.mu, recording.mu, people.mu, pages.mu, under which openModes.mu may
// be taken, and dirHandle.mu; none is held during a call to an
// I/O node except dirHandle.mu, under which a directory is read.
package fs
