/*
 * shared FILE RECORDS LEN: every rank writes RECORDS records of LEN bytes
 * through the shared file pointer, then all write one each in the order of
 * their ranks. Record i of rank k repeats the byte 1 + k*RECORDS + i; an
 * ordered one of rank k repeats 200 + k.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                                   \
	do {                                                          \
		int e_ = (call);                                      \
		if (e_ != MPI_SUCCESS) {                              \
			char s_[MPI_MAX_ERROR_STRING];                \
			int n_;                                       \
			MPI_Error_string(e_, s_, &n_);                \
			fprintf(stderr, "%s: %s\n", #call, s_);       \
			MPI_Abort(MPI_COMM_WORLD, 1);                 \
		}                                                     \
	} while (0)

int main(int argc, char **argv)
{
	int rank, size, records, len;
	MPI_File f;
	MPI_Status st;
	unsigned char *buf;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	records = atoi(argv[2]);
	len = atoi(argv[3]);
	buf = malloc(len);
	CHECK(MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f));
	for (int i = 0; i < records; i++) {
		memset(buf, 1 + rank * records + i, len);
		CHECK(MPI_File_write_shared(f, buf, len, MPI_BYTE, &st));
	}
	MPI_Barrier(MPI_COMM_WORLD);
	memset(buf, 200 + rank, len);
	CHECK(MPI_File_write_ordered(f, buf, len, MPI_BYTE, &st));
	CHECK(MPI_File_close(&f));
	MPI_Finalize();
	return 0;
}
