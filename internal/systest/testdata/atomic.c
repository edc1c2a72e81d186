/*
 * atomic FILE ROUNDS LEN HINTS: in atomic mode all ranks write the same LEN
 * bytes at once while each also reads them: what is read, and what is left, is
 * one rank's write as a whole. First in one piece, then the even thirds of
 * BLOCKs through a view, between which others keep their bytes. Last the ranks
 * pass a counter on with barriers alone: each adds one to what the rank before
 * left.
 */
#include "pattern.h"

#define BLOCK 999

static unsigned char *buf;

/* whole requires that all bytes are of one rank. */
static void whole(const char *what, int round, int len)
{
	for (int i = 0; i < len; i++) {
		if (buf[i] != buf[0] || buf[0] < 1 || buf[0] > size)
			FAIL("%s, round %d: byte %d is %d, byte 0 is %d", what, round, i, buf[i], buf[0]);
	}
}

static void contend(const char *what, int rounds, int len)
{
	for (int r = 0; r < rounds; r++) {
		memset(buf, 1 + rank, len);
		CHECK(MPI_File_write_at(f, 0, buf, len, MPI_BYTE, &st));
		CHECK(MPI_File_read_at(f, 0, buf, len, MPI_BYTE, &st));
		whole(what, r, len);
	}
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_read_at(f, 0, buf, len, MPI_BYTE, &st));
	whole(what, rounds, len);
	MPI_Barrier(MPI_COMM_WORLD);
}

/* strided contends for the first third of each block; rank 0 has written the
 * rest, which the others sieve over. */
static void strided(int rounds, int len)
{
	int blocks = len / BLOCK;
	MPI_Datatype view;

	if (rank == 0) {
		fill(buf, len, 0, 1);
		CHECK(MPI_File_write_at(f, 0, buf, len, MPI_BYTE, &st));
	}
	MPI_Barrier(MPI_COMM_WORLD);
	MPI_Type_vector(blocks, BLOCK / 3, BLOCK, MPI_BYTE, &view);
	MPI_Type_commit(&view);
	CHECK(MPI_File_set_view(f, 0, MPI_BYTE, view, "native", MPI_INFO_NULL));
	contend("strided", rounds, blocks * (BLOCK / 3));
	CHECK(MPI_File_set_view(f, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
	MPI_Type_free(&view);
	CHECK(MPI_File_read_at(f, 0, buf, len, MPI_BYTE, &st));
	for (int i = 0; i < blocks; i++)
		verify("between", buf + i * BLOCK + BLOCK / 3, BLOCK - BLOCK / 3, i * BLOCK + BLOCK / 3, 1);
}

static void counter(MPI_Offset at)
{
	int n;

	for (int turn = 0; turn < 2 * size; turn++) {
		MPI_Barrier(MPI_COMM_WORLD);
		if (turn % size != rank)
			continue;
		n = 0;
		CHECK(MPI_File_read_at(f, at, &n, 1, MPI_INT, &st));
		if (n != turn)
			FAIL("turn %d: counter is %d", turn, n);
		n++;
		CHECK(MPI_File_write_at(f, at, &n, 1, MPI_INT, &st));
	}
}

int main(int argc, char **argv)
{
	int rounds = atoi(argv[2]), len = atoi(argv[3]);

	start(argc, argv);
	buf = malloc(len);
	open_with(&f, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, argv[4]);
	CHECK(MPI_File_set_atomicity(f, 1));
	contend("in one piece", rounds, len);
	strided(rounds, len);
	counter(len);
	return end();
}
