// Package experiment says what a consistency experiment consists of and what
// comes out of it.
//
// A [Spec], read from a YAML file, declares a matrix of consistency modes,
// workloads, sizes of the job and of the system, transfer sizes and faults.
// [Spec.Cells] are its combinations and [Spec.Plan] the order in which they are
// measured: a randomised complete block design, in which each repetition visits
// every cell once, in an order of its own. A [Run] is one measurement. [Summarize]
// makes medians with confidence intervals of the runs of each cell, and ratios
// to the same cell under another mode.
//
// Files are read and written in [Store] alone; all else is pure. Nothing here
// runs anything: package work has the workloads, the command the systems.
// Nothing is safe for concurrent use.
//
// Sources: T. Hoefler, R. Belli, Scientific Benchmarking of Parallel Computing
// Systems (SC 2015), for medians with nonparametric intervals.
package experiment
