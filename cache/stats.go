package cache

import "sync/atomic"

// counters only grow.
type counters struct {
	hits, misses, joins, uncached atomic.Int64
	bytesHit, bytesFetched        atomic.Int64
	evictions, waits, copies      atomic.Int64
	dirty                         atomic.Int64 // the exception: a level
}

// Stats are figures of a store. All but the last six only grow.
type Stats struct {
	Hits         int64 `json:"hits"`          // reads for which nothing had to be fetched
	Misses       int64 `json:"misses"`        // reads that waited for a fetch
	Joins        int64 `json:"joins"`         // fetches of another read that a read waited for
	BytesHit     int64 `json:"bytes_hit"`     // asked for and there
	BytesFetched int64 `json:"bytes_fetched"` // came from below
	Uncached     int64 `json:"uncached"`      // blocks fetched for which there was no room
	Evictions    int64 `json:"evictions"`     // clean blocks dropped for want of room
	Waits        int64 `json:"waits"`         // writes that waited for room
	Copies       int64 `json:"copies"`        // blocks copied because a view saw the bytes to be written

	BytesHeld  int64 `json:"bytes_held"`  // memory of blocks in use
	BytesFree  int64 `json:"bytes_free"`  // memory of blocks not in use
	BytesClean int64 `json:"bytes_clean"` // memory of clean blocks
	Unclean    int64 `json:"unclean"`     // memory of blocks with dirty or flying bytes
	BytesDirty int64 `json:"bytes_dirty"` // dirty and flying bytes
	Waiting    int64 `json:"waiting"`     // writers that wait for room now
}

// Snapshot reads the figures.
func (s *Store) Snapshot() Stats {
	c := &s.stats
	s.mu.Lock()
	free, unclean := int64(len(s.free)), int64(s.unclean)
	s.mu.Unlock()
	return Stats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Joins: c.joins.Load(),
		BytesHit: c.bytesHit.Load(), BytesFetched: c.bytesFetched.Load(), Uncached: c.uncached.Load(),
		Evictions: c.evictions.Load(), Waits: c.waits.Load(), Copies: c.copies.Load(),
		BytesHeld: (int64(len(s.blocks)) - free) * s.size, BytesFree: free * s.size,
		BytesClean: s.cleaned.Load() * s.size, Unclean: unclean * s.size,
		BytesDirty: c.dirty.Load(), Waiting: int64(s.waiting.Load()),
	}
}
