/*
 * collective FILE ROUNDS BLOCK: every rank writes its blocks of an interleaved
 * file with MPI_File_write_at_all and reads its neighbour's with
 * MPI_File_read_at_all. Block b of round r by rank k is at
 * (r*size + k) * BLOCK and repeats the byte 1 + (r*7 + k*31) % 255.
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
	int rank, size, rounds, block, got;
	MPI_File f;
	MPI_Status st;
	MPI_Offset end;
	unsigned char *buf, *want;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	rounds = atoi(argv[2]);
	block = atoi(argv[3]);
	buf = malloc(block);
	want = malloc(block);
	CHECK(MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f));
	for (int r = 0; r < rounds; r++) {
		memset(buf, 1 + (r * 7 + rank * 31) % 255, block);
		CHECK(MPI_File_write_at_all(f, ((MPI_Offset)r * size + rank) * block, buf, block, MPI_BYTE, &st));
		MPI_Get_count(&st, MPI_BYTE, &got);
		if (got != block) {
			fprintf(stderr, "rank %d: wrote %d of %d\n", rank, got, block);
			MPI_Abort(MPI_COMM_WORLD, 2);
		}
	}
	CHECK(MPI_File_sync(f));
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_sync(f));
	CHECK(MPI_File_get_size(f, &end));
	if (end != (MPI_Offset)rounds * size * block) {
		fprintf(stderr, "rank %d: size %lld\n", rank, (long long)end);
		MPI_Abort(MPI_COMM_WORLD, 3);
	}
	int other = (rank + size / 2) % size; /* on the other node */
	for (int r = 0; r < rounds; r++) {
		memset(want, 1 + (r * 7 + other * 31) % 255, block);
		CHECK(MPI_File_read_at_all(f, ((MPI_Offset)r * size + other) * block, buf, block, MPI_BYTE, &st));
		if (memcmp(buf, want, block) != 0) {
			fprintf(stderr, "rank %d: wrong bytes of rank %d in round %d\n", rank, other, r);
			MPI_Abort(MPI_COMM_WORLD, 4);
		}
	}
	CHECK(MPI_File_close(&f));
	MPI_Finalize();
	return 0;
}
