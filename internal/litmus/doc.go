// Package litmus holds a file system to the promise of a consistency mode.
//
// A [Program] is a handful of calls made by a few processes on two or more
// mounts of one file system. The litmus tests are programs with an outcome that
// some modes promise and others leave open; random programs are made so that
// they do not race in a mode, or so that they do. A [Team] of worker processes
// carries them out, the history of what they saw is judged by package history,
// and a program that shows a broken promise is shrunk to its core.
//
// A worker is this binary executed again. It makes one call for each line that
// it reads, so that a round costs no fork. An arrow between two calls is kept by
// the driver: the second is sent when the first has returned.
package litmus
