// Package pvfsd is an embedded PVFS2 server: it speaks protocol 7000 over TCP
// and keeps its part of a file system in one data directory.
//
// Several servers form one file system. Each owns the handle ranges that the
// configuration gives to its alias and talks to the others as their client.
// Metadata lives in one bbolt database, bytestreams in plain sparse files.
//
// A directory has a dirdata object beside it and, if DistrDirServersMax says so,
// others on other servers, over which its entries spread as they become more.
// Without them it is made when one of those servers cannot be reached. The root
// gets them once all servers have been there.
//
// What it does not do: certificates, and mirroring; MIRROR, IMM_COPIES, and
// CREATE_ROOT_DIR, which real servers send to themselves, are ENOSYS.
//
// # Durability
//
// A change of metadata is one bbolt transaction, so a server killed at any
// moment restarts with consistent metadata. With TroveSyncMeta yes the change
// is on disk before it is answered; one goroutine commits the changes of many
// requests together. With TroveSyncMeta no commits are not synced: they survive
// the death of the process, and are on disk after FLUSH or some seconds.
// A bytestream is on disk after FLUSH, or at once with TroveSyncData yes.
//
// # Concurrency
//
// A Server is safe for concurrent use. Every goroutine belongs to Run. Per
// connection one goroutine reads frames and one writes them; requests run on a
// bounded number of others, and a client that does not read its answers stops
// being read. One goroutine alone writes to the database.
//
// Lock order, outermost first: streams.unsynced, stream.mu, streams.mu.
// stream.mu is held during file I/O of one chunk and never during network I/O;
// the other mutexes protect a few words each and are never held together. A turn
// at a bucket or a directory, which a split and a removal take, is held during
// network I/O; nobody takes two, and what a split asks of others waits for none.
//
// Source: PROTOCOL.md; OrangeFS src/server and src/io/trove.
package pvfsd
