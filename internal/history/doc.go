// Package history records what the processes of a program asked of a file
// system and what they were told, and judges whether the answers keep the
// promise of a consistency mode.
//
// An [Event] is one call of one process. A [History] is all events of one run
// of one program on files of its own. Every write carries an id that no other
// write of the same bytes has, so a byte that was read names the write that it
// came from; package litmus has the code by which a byte says so.
//
// [Check] works on the formal frame of Wang, Mohror and Snir (IEEE TPDS 2024):
// happens-before is the transitive closure of the order of each process and
// of what its processes told each other; a mode is a set of synchronising calls
// and the chains of them that must stand between two conflicting accesses. For
// every byte that was read it works out which writes it may have come from:
//
//   - never one that was not yet begun, and never a byte that nobody wrote;
//   - never one that is superseded by a write that the reader must see;
//   - never one older than what the same open file returned before.
//
// If no two conflicting accesses race, one write is left for each byte, which
// is sequential consistency. `strong` is checked by porcupine for
// linearizability as well, and so are the names of the directory in every mode.
// Locks, sizes, appended records and sealed files have rules of their own.
//
// The order of real time counts as told if the times of all processes come
// from one clock: a file system that cannot see messages has no other means
// to keep its promise to those that were sent.
//
// The package does no I/O but through the readers and writers that it is given.
// Nothing in it is safe for concurrent use.
package history
