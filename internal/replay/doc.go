// Package replay makes the calls of traces again, in a directory of any file
// system: each process of the trace is a goroutine that makes its calls in
// their order, at the times of the trace or as fast as it goes. In both cases a
// call begins only after all calls have returned that had returned before it
// began in the trace, so that who opened what another had made finds it again.
//
// What was read and written is not in a trace: bytes are made up. All is done by
// one process, so locks are those of open files. Lookups and stat are left out,
// as the kernel makes them by itself.
package replay
