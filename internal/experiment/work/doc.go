// Package work has the workloads of consistency experiments.
//
// Each rank of a job is a process that calls [Serve]: it makes the calls of its
// workload on a real mount and measures them. Who runs the job calls
// [Coordinate], to which all ranks are connected beside the file system: it
// tells them what to do, is their barrier, passes the messages on by which one
// tells another of what it wrote, and collects what they report.
//
// Every byte that is written says which write it is of and where it belongs
// (see [Code]), so that all data can be verified by content, and a sample of
// the calls becomes a history that package history can judge.
//
// A rank is one goroutine. Coordinate is one goroutine that owns all state, and
// one for each rank that reads.
package work
