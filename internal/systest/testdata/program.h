/*
 * What the programs have in common: all ranks open the file of the first
 * argument and end together. Whatever goes wrong on one ends the job.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size;
static MPI_File f;
static MPI_Status st;

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

static void begin(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	CHECK(MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f));
}

static int end(void)
{
	CHECK(MPI_File_close(&f));
	return MPI_Finalize();
}
