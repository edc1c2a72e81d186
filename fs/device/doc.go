// Package device serves the kernel's FUSE device: it mounts a file system, reads
// requests, has them carried out, and replies.
//
// What requests mean is go-fuse's affair: its ProtocolServer takes them apart and
// calls a RawFileSystem. Its Server, which does what this package does, starts a
// goroutine for almost every request, so that there always is one that reads.
// Here the goroutine that reads a request carries it out, replies and reads the
// next. Only when the file system says that a request waits (Waits) another
// takes its place. And READ and WRITE, which come by the ten thousand, go to the
// file system without a detour and without an allocation.
//
// If the kernel offers FUSE over io_uring, requests come through a queue of each
// processor instead (ring), which has loops of its own, bound to that processor. The
// device is left for interrupts and for forgotten inodes.
//
// Source: include/uapi/linux/fuse.h, fs/fuse/dev.c and dev_uring.c of Linux 6.18.
package device
