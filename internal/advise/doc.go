// Package advise finds out from traces in which consistency modes a program
// would have run correctly: for each file the weakest one in which no two
// conflicting accesses are unsynchronised.
//
// It works on the frame of Wang, Mohror and Snir (IEEE TPDS 2024): two accesses
// of different processes conflict if they have bytes in common and one writes. A
// mode is a set of synchronising calls and the chain of them that must stand
// between a write and a later conflicting access:
//
//	strong    nothing
//	commit    a call by the writer that publishes
//	session   such a call, and after it an open or a lock by the other process
//
// Truncation, appending and synchronous writes publish by themselves, renaming
// for those who open by the new name after it; locks count for the bytes that they
// cover.
//
// What made one access come before the other (messages, barriers) a file system
// does not see. The order of time stands for it, as in package history: a call
// that had returned before another began came before. So what Analyse finds
// holds for runs in which the program sees to it that these accesses come in this
// order; it says of each pair whether anything but time says so. Accesses that
// overlap in time are a race in every mode. Whoever only asks for the size is not
// looked at: the kernel asks for it all the time.
//
// The package does no I/O. Nothing in it is safe for concurrent use.
package advise
