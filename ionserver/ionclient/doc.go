// Package ionclient is a compute node's side of the conversation with the
// I/O nodes: one session with each of them, requests routed to the home of an
// inode or the owner of a file domain, and the waiting, reconnecting, sending
// again and reclaiming that make the death of an I/O node a pause and nothing
// else.
//
// It keeps no file data and no attributes; who does, under leases or to write
// it later, is its Keeper and its Watcher, which it tells of callbacks and of lost
// sessions. What leases hang on is a Tenure. A Client is safe for concurrent
// use. Every call blocks until it is answered, however long an I/O node is
// away; only the end of its context frees the caller, with EINTR. Errors are
// *errno.Error values with the errno that the I/O node chose.
//
// Lock order: Client.mu, session.mu, jobs.mu.
package ionclient
