/*
 * What the programs have in common: whatever goes wrong on one rank ends the
 * job.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size;

#define FAIL(...)                                                     \
	do {                                                          \
		fprintf(stderr, "rank %d: ", rank);                   \
		fprintf(stderr, __VA_ARGS__);                         \
		fputc('\n', stderr);                                  \
		MPI_Abort(MPI_COMM_WORLD, 1);                         \
	} while (0)

#define CHECK(call)                                                   \
	do {                                                          \
		int e_ = (call), n_;                                  \
		char s_[MPI_MAX_ERROR_STRING];                        \
		if (e_ != MPI_SUCCESS) {                              \
			MPI_Error_string(e_, s_, &n_);                \
			FAIL("%s: %s", #call, s_);                    \
		}                                                     \
	} while (0)

static void start(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
}
