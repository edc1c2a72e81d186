// Package systest holds the end-to-end tests of zoidfs. They know the system
// only from outside: they build the zoidfs binary, start a whole system with
// `zoidfs up`, and use its mounts as any program would. Nothing of the product
// is imported but package pvfs, to look at what came to lie on the servers.
//
// The calls under test are made by worker processes, which are the test binary
// executed again; each works on the mount of one node. The driver tells them
// what to do and records when every call began and ended. What they saw is
// compared with a model: call by call where one call is made at a time
// (model_test.go), as a history checked for linearizability where they overlap
// (history_test.go).
//
// As systems often wait, tests that have one of their own run beside each other;
// those that count requests, TestSharedFile and TestStorms, run alone.
//
// All tests take two directories that must show the same files, so they also
// run on any other file system:
//
//	ZOIDFS_SYSTEST_DIRS=/tmp/a:/tmp/a go test ./internal/systest
//
// and TestExternal is for a system on PVFS2 servers of others, which PVFS2_TEST
// names: make test-orangefs.
//
// ZOIDFS_SYSTEST_MPI=1 has the MPI programs run with more data and more hints.
//
// ZOIDFS_SYSTEST_BIN names a binary to use instead of a fresh build, and
// ZOIDFS_SYSTEST_RACE=1 builds it with the race detector. Failures of
// randomised tests print a seed; ZOIDFS_SYSTEST_SEED repeats it.
package systest
