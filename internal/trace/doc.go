// Package trace is the record of what the processes on a mount asked of the
// file system: which call, on which bytes of which file, by which process and
// rank, from when to when. It defines the records and their file format (see
// FORMAT.md), reads and writes it, and merges the traces of several mounts by
// time.
//
// It neither watches a mount nor judges what it reads; it does no I/O but
// through the readers and writers that it is given. Nothing in it is safe for
// concurrent use.
package trace
