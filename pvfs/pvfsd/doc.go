// Package pvfsd is an embedded PVFS2 server: it speaks protocol 7000 over TCP
// and keeps its part of a file system in one data directory.
//
// Several servers form one file system. Each owns the handle ranges that the
// configuration gives to its alias and talks to the others as their client.
// Metadata lives in one bbolt database, bytestreams in plain sparse files.
//
// What it does not do: certificates, mirroring, and directories that are split
// over several servers; every directory has one dirdata object beside it.
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
// the other mutexes protect a few words each and are never held together.
//
// Source: PROTOCOL.md; OrangeFS src/server and src/io/trove.
package pvfsd
