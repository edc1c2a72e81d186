/*
 * atomic FILE ROUNDS LEN: in atomic mode all ranks write the same LEN bytes at
 * once while each also reads them: what is read, and what is left, is one
 * rank's write as a whole. Rank k writes the byte 1 + k. Then the ranks pass a
 * counter on with barriers alone: each adds one to what the rank before left.
 */
#include "program.h"

int main(int argc, char **argv)
{
	int rounds = atoi(argv[2]), len = atoi(argv[3]), counter;
	unsigned char *buf = malloc(len);

	begin(argc, argv);
	CHECK(MPI_File_set_atomicity(f, 1));
	for (int r = 0; r < rounds; r++) {
		memset(buf, 1 + rank, len);
		CHECK(MPI_File_write_at(f, 0, buf, len, MPI_BYTE, &st));
		CHECK(MPI_File_read_at(f, 0, buf, len, MPI_BYTE, &st));
		for (int i = 1; i < len; i++) {
			if (buf[i] != buf[0] || buf[0] < 1 || buf[0] > size)
				FAIL("round %d: byte %d is %d, byte 0 is %d", r, i, buf[i], buf[0]);
		}
	}
	for (int turn = 0; turn < 2 * size; turn++) {
		MPI_Barrier(MPI_COMM_WORLD);
		if (turn % size != rank)
			continue;
		counter = 0;
		CHECK(MPI_File_read_at(f, len, &counter, 1, MPI_INT, &st));
		if (counter != turn)
			FAIL("turn %d: counter is %d", turn, counter);
		counter++;
		CHECK(MPI_File_write_at(f, len, &counter, 1, MPI_INT, &st));
	}
	return end();
}
