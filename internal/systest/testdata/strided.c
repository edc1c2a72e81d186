/*
 * strided FILE COUNT BLOCK MODE: every rank writes COUNT blocks through a file
 * view with a hole of one block after the blocks of all ranks, so libraries
 * that sieve must read, modify and write back. MODE is "independent",
 * "collective" or "both"; the last writes the even blocks one way and the odd
 * blocks the other. Block b of rank k is at (b*(size+1) + k) * BLOCK and
 * repeats the byte 1 + (b*5 + k*17) % 255. The holes keep what was there.
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

static void set_view(MPI_File f, int rank, int size, int block, int first, int step)
{
	MPI_Datatype etype, one, view;

	MPI_Type_contiguous(block, MPI_BYTE, &etype);
	MPI_Type_commit(&etype);
	MPI_Type_contiguous(1, etype, &one);
	MPI_Type_create_resized(one, 0, (MPI_Aint)step * (size + 1) * block, &view);
	MPI_Type_commit(&view);
	CHECK(MPI_File_set_view(f, ((MPI_Offset)first * (size + 1) + rank) * block, etype, view, "native", MPI_INFO_NULL));
	MPI_Type_free(&one);
	MPI_Type_free(&view);
	MPI_Type_free(&etype);
}

int main(int argc, char **argv)
{
	int rank, size, count, block;
	MPI_File f;
	MPI_Status st;
	unsigned char *buf;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	count = atoi(argv[2]);
	block = atoi(argv[3]);
	buf = malloc((size_t)count * block);
	CHECK(MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f));
	int step = strcmp(argv[4], "both") == 0 ? 2 : 1;
	for (int first = 0; first < step; first++) {
		int n = 0;
		for (int b = first; b < count; b += step, n++)
			memset(buf + (size_t)n * block, 1 + (b * 5 + rank * 17) % 255, block);
		set_view(f, rank, size, block, first, step);
		if (strcmp(argv[4], "collective") == 0 || (step == 2 && first == 1))
			CHECK(MPI_File_write_all(f, buf, n * block, MPI_BYTE, &st));
		else
			CHECK(MPI_File_write(f, buf, n * block, MPI_BYTE, &st));
	}
	CHECK(MPI_File_close(&f));
	MPI_Finalize();
	return 0;
}
