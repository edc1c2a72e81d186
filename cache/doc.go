// Package cache keeps bytes of files in memory, on I/O nodes and on compute
// nodes alike, and gives overlapping accesses of one file an order.
//
// A Store is the memory of a process: one slab outside of the Go heap, cut into
// blocks of one size, each counted by its holders. A File keeps the bytes of
// one file in blocks of the store, and knows of every byte whether its content
// is known (valid), has yet to be written below (dirty) or is just being
// written (flying). A View is an immutable snapshot of such bytes. RangeLock
// orders accesses, Stream recognises what to read ahead. The package neither
// reads nor writes files itself and knows nothing of leases: what is missing
// comes from the caller's Fetch, what is dirty goes where the caller takes it.
//
// # Tiers
//
// Every block that a file has is in that file's own table, which is exact, in rows
// of neighbours. Blocks with dirty or flying bytes stay there until they are clean or
// discarded; when there are too many of them, or no memory, writers wait. What is
// clean of a row stays or goes together: a row of which a block was just fetched, or
// just became clean, passes through a first-in first-out list of fixed length
// (recent), so that all ranks that follow one stream find it, also where memory is
// full of what was used more often. Then ristretto decides which rows remain: it is
// given each once and says when to forget it; if one changes it is taken from it, and
// passes through recent again. It is never asked what it holds, for it may drop a row
// at once, and answers late; a ticket with the row's generation makes its late words
// harmless. If a writer needs memory and none is free, or what is fetched does as
// views hold it all, a hand that goes round the slab takes clean blocks without asking
// it. Fetched bytes that find no block even so are returned, not kept.
//
// # Concurrency
//
// Everything but Stream is safe for concurrent use. Lock order: File.mu, then
// Store.mu; never two files at once. RangeLock.mu is innermost. Ristretto calls
// back into File.mu, so that nothing but its Get is called with a File.mu held.
// Fetch and waiting happen without any lock. Bytes of a block are written
// either by its only holder or with its file's mu held, and never where a view
// sees them.
package cache
