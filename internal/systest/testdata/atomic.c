/*
 * atomic FILE ROUNDS LEN: in atomic mode all ranks write the same LEN bytes at
 * once while each also reads them: what is read, and what is left, is one
 * rank's write as a whole. Rank k writes the byte 1 + k. Then the ranks pass a
 * counter on with barriers alone: each adds one to what the rank before left.
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
	int rank, size, rounds, len, counter;
	MPI_File f;
	MPI_Status st;
	unsigned char *buf;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	rounds = atoi(argv[2]);
	len = atoi(argv[3]);
	buf = malloc(len);
	CHECK(MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f));
	CHECK(MPI_File_set_atomicity(f, 1));
	for (int r = 0; r < rounds; r++) {
		memset(buf, 1 + rank, len);
		CHECK(MPI_File_write_at(f, 0, buf, len, MPI_BYTE, &st));
		CHECK(MPI_File_read_at(f, 0, buf, len, MPI_BYTE, &st));
		for (int i = 1; i < len; i++) {
			if (buf[i] != buf[0] || buf[0] < 1 || buf[0] > size) {
				fprintf(stderr, "rank %d round %d: byte %d is %d, byte 0 is %d\n", rank, r, i, buf[i], buf[0]);
				MPI_Abort(MPI_COMM_WORLD, 2);
			}
		}
	}
	for (int turn = 0; turn < 2 * size; turn++) {
		MPI_Barrier(MPI_COMM_WORLD);
		if (turn % size != rank)
			continue;
		counter = 0;
		CHECK(MPI_File_read_at(f, len, &counter, 1, MPI_INT, &st));
		if (counter != turn) {
			fprintf(stderr, "rank %d turn %d: counter is %d\n", rank, turn, counter);
			MPI_Abort(MPI_COMM_WORLD, 3);
		}
		counter++;
		CHECK(MPI_File_write_at(f, len, &counter, 1, MPI_INT, &st));
	}
	CHECK(MPI_File_close(&f));
	MPI_Finalize();
	return 0;
}
