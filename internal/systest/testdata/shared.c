/*
 * shared FILE RECORDS LEN: every rank writes RECORDS records of LEN bytes
 * through the shared file pointer, then all write one each in the order of
 * their ranks. Record i of rank k repeats the byte 1 + k*RECORDS + i; an
 * ordered one of rank k repeats 200 + k.
 */
#include "program.h"

int main(int argc, char **argv)
{
	int records = atoi(argv[2]), len = atoi(argv[3]);
	unsigned char *buf = malloc(len);

	begin(argc, argv);
	for (int i = 0; i < records; i++) {
		memset(buf, 1 + rank * records + i, len);
		CHECK(MPI_File_write_shared(f, buf, len, MPI_BYTE, &st));
	}
	MPI_Barrier(MPI_COMM_WORLD);
	memset(buf, 200 + rank, len);
	CHECK(MPI_File_write_ordered(f, buf, len, MPI_BYTE, &st));
	return end();
}
