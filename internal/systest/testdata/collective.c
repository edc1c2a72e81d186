/*
 * collective FILE ROUNDS BLOCK: every rank writes its blocks of an interleaved
 * file with MPI_File_write_at_all and reads its neighbour's with
 * MPI_File_read_at_all. Block b of round r by rank k is at
 * (r*size + k) * BLOCK and repeats the byte 1 + (r*7 + k*31) % 255.
 */
#include "file.h"

int main(int argc, char **argv)
{
	int rounds = atoi(argv[2]), block = atoi(argv[3]), got;
	unsigned char *buf = malloc(block), *want = malloc(block);
	MPI_Offset length;

	begin(argc, argv);
	for (int r = 0; r < rounds; r++) {
		memset(buf, 1 + (r * 7 + rank * 31) % 255, block);
		CHECK(MPI_File_write_at_all(f, ((MPI_Offset)r * size + rank) * block, buf, block, MPI_BYTE, &st));
		MPI_Get_count(&st, MPI_BYTE, &got);
		if (got != block)
			FAIL("wrote %d of %d", got, block);
	}
	CHECK(MPI_File_sync(f));
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_sync(f));
	CHECK(MPI_File_get_size(f, &length));
	if (length != (MPI_Offset)rounds * size * block)
		FAIL("size %lld", (long long)length);
	int other = (rank + size / 2) % size; /* on the other node */
	for (int r = 0; r < rounds; r++) {
		memset(want, 1 + (r * 7 + other * 31) % 255, block);
		CHECK(MPI_File_read_at_all(f, ((MPI_Offset)r * size + other) * block, buf, block, MPI_BYTE, &st));
		if (memcmp(buf, want, block) != 0)
			FAIL("wrong bytes of rank %d in round %d", other, r);
	}
	return end();
}
