// Package collective decides how the calls of many ranks are carried out
// together: where the bytes of a file meet (Placement: file domains and their
// owners), which calls become one (Rounds), what the accesses of all ranks
// together look like (Pattern), what a node fetches for them (Readers, Stream) and
// what an owner (Lookahead, by Costs), and what an owner writes back (Backlog, Flows).
//
// The package is pure: no I/O, no goroutine, no lock, no clock. Every decision
// is a function of the events so far and of the times given with them, so that a
// test can replay it. A Placement never changes after it was made and may be
// shared freely; everything else is used by one goroutine at a time.
// internal/round is the shell that carries out what Rounds decides.
//
// Merging never weakens a consistency mode, because of one rule: the members of
// a round are fixed before it is carried out. A call that comes while one like
// it is on its way is answered by the next round, never by a result that may be
// older than the call.
//
// Sources: Thakur, Gropp and Lusk, "Data Sieving and Collective I/O in ROMIO",
// Frontiers '99, section 4 (file domains); Thaler and Ravishankar, "Using
// Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998
// (rendezvous hashing).
package collective
