/*
 * strided FILE COUNT BLOCK MODE: every rank writes COUNT blocks through a file
 * view with a hole of one block after the blocks of all ranks, so libraries
 * that sieve must read, modify and write back. MODE is "independent",
 * "collective" or "both"; the last writes the even blocks one way and the odd
 * blocks the other. Block b of rank k is at (b*(size+1) + k) * BLOCK and
 * repeats the byte 1 + (b*5 + k*17) % 255. The holes keep what was there.
 */
#include "file.h"

static void set_view(int block, int first, int step)
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
	int count = atoi(argv[2]), block = atoi(argv[3]);
	int step = strcmp(argv[4], "both") == 0 ? 2 : 1;
	unsigned char *buf = malloc((size_t)count * block);

	begin(argc, argv);
	for (int first = 0; first < step; first++) {
		int n = 0;
		for (int b = first; b < count; b += step, n++)
			memset(buf + (size_t)n * block, 1 + (b * 5 + rank * 17) % 255, block);
		set_view(block, first, step);
		if (strcmp(argv[4], "collective") == 0 || (step == 2 && first == 1))
			CHECK(MPI_File_write_all(f, buf, n * block, MPI_BYTE, &st));
		else
			CHECK(MPI_File_write(f, buf, n * block, MPI_BYTE, &st));
	}
	return end();
}
