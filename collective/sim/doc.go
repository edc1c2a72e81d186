// Package sim plays what zoidfs does with the calls of very many ranks, in
// simulated time: compute nodes that merge the calls of their ranks, I/O nodes
// that merge the requests of nodes, and PVFS2 servers. What is merged with what,
// what is waited for and what is fetched or written is decided by package
// collective, by the same code as in the running system; only time and the
// machines are models. It says how many requests there are at each level, and
// about how long they take.
//
// The package is pure: the same Config gives the same Result, byte for byte.
package sim
