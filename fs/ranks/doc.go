// Package ranks finds out which process of which parallel job calls.
//
// From the thread id that a FUSE request carries it comes to the process, and
// from what launchers leave in its environment to a job that is the same on
// every node, and a rank. What it finds is a hint for merging and for accounts:
// data, permissions and correctness never depend on it, and a user, whose the
// environment is, can only affect what belongs to the same user. Where it
// finds nothing (no job, a process that hides, another pid namespace) a process
// is a group of its own.
//
// A process is looked at once when it is first seen, and again whenever the
// time since then has doubled, because it may have been about to execute the
// program that it was launched for. It is remembered until it exits, which a
// pidfd tells. To read an environment takes a lock of the process's memory,
// which a thread of it may hold that waits for this mount; and while a process
// executes another program, its files that are closed by that are flushed with
// a lock held that keeps readers of most of /proc waiting. So a few goroutines
// read, and who asks waits only a moment for them. It must not be asked for
// reads, writes and flushes; these go by the handle that a process opened.
//
// Everything here is safe for concurrent use. The only lock is Table.mu, a
// leaf.
//
// Sources: environ of MPICH 4.0 (Hydra), Open MPI 4.1 and Slurm 22.05 as they
// are; Open MPI's documentation (environment variables of processes);
// flux-environment(7); src/plugins/mpi of Slurm (pmi2, cray_shasta: the names
// of PALS); proc(5), pidfd_open(2), tgkill(2).
package ranks
