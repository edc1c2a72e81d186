/*
 * ranks FILE HOW WHAT BYTES: the ranks of a job write a file of BYTES together,
 * or read and compare what the rank half a job away wrote, in interleaved pieces
 * of 4 KiB. HOW is "posix", each piece with a call of its own, or "mpiio", all
 * pieces of a rank with one collective call; "blind" is "posix" on a file system
 * that forgets, where nothing is compared. Rank 0 prints the seconds from
 * before the first open to after the last close. Ranks that wait for the others
 * sleep: there are more of them than processors, which those that work need.
 */
#include <fcntl.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE 4096

#define CHECK(ok, what)                                                        \
	do {                                                                   \
		if (!(ok)) {                                                   \
			perror(what);                                          \
			MPI_Abort(MPI_COMM_WORLD, 1);                          \
		}                                                              \
	} while (0)

static int rank, size;

static void meet(void)
{
	MPI_Request all;

	MPI_Ibarrier(MPI_COMM_WORLD, &all);
	for (int done = 0; !done; usleep(100))
		MPI_Test(&all, &done, MPI_STATUS_IGNORE);
}

static void fill(char *buf, long pieces, int who)
{
	uint64_t *word = (uint64_t *)buf;

	for (long i = 0; i < pieces; i++)
		for (int k = 0; k < PIECE / 8; k++)
			*word++ = ((uint64_t)i * size + who) * PIECE + k * 8;
}

static void posix(const char *path, int writes, int who, char *buf, long pieces)
{
	int fd = open(path, writes ? O_WRONLY | O_CREAT : O_RDONLY, 0644);

	CHECK(fd >= 0, path);
	for (long i = 0; i < pieces; i++, buf += PIECE) {
		off_t at = ((off_t)i * size + who) * PIECE;
		ssize_t n = writes ? pwrite(fd, buf, PIECE, at) : pread(fd, buf, PIECE, at);
		CHECK(n == PIECE, path);
	}
	CHECK(close(fd) == 0, path);
}

static void mpiio(const char *path, int writes, int who, char *buf, long pieces)
{
	int mode = writes ? MPI_MODE_WRONLY | MPI_MODE_CREATE : MPI_MODE_RDONLY, rc;
	MPI_Datatype every;
	MPI_File f;
	MPI_Info info;

	MPI_Info_create(&info); /* an aggregator a node, which share a host name here */
	MPI_Info_set(info, "cb_nodes", "2");
	MPI_Info_set(info, "cb_config_list", "*:2");
	CHECK(MPI_File_open(MPI_COMM_WORLD, path, mode, info, &f) == MPI_SUCCESS, path);
	MPI_Type_vector(pieces, PIECE, size * PIECE, MPI_BYTE, &every);
	MPI_Type_commit(&every);
	CHECK(MPI_File_set_view(f, (MPI_Offset)who * PIECE, MPI_BYTE, every, "native", info) == MPI_SUCCESS, path);
	if (writes)
		rc = MPI_File_write_all(f, buf, pieces * PIECE, MPI_BYTE, MPI_STATUS_IGNORE);
	else
		rc = MPI_File_read_all(f, buf, pieces * PIECE, MPI_BYTE, MPI_STATUS_IGNORE);
	CHECK(rc == MPI_SUCCESS, path);
	CHECK(MPI_File_close(&f) == MPI_SUCCESS, path);
	MPI_Type_free(&every);
	MPI_Info_free(&info);
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	if (argc != 5)
		MPI_Abort(MPI_COMM_WORLD, 2);
	int writes = strcmp(argv[3], "write") == 0, who = writes ? rank : (rank + size / 2) % size;
	long pieces = atol(argv[4]) / PIECE / size;
	char *buf = calloc(pieces, PIECE), *want = malloc(pieces * PIECE);

	CHECK(buf && want, "memory");
	fill(want, pieces, who);
	if (writes)
		memcpy(buf, want, pieces * PIECE);
	meet();
	double begin = MPI_Wtime();
	(strcmp(argv[2], "mpiio") == 0 ? mpiio : posix)(argv[1], writes, who, buf, pieces);
	meet();
	double took = MPI_Wtime() - begin;
	if (strcmp(argv[2], "blind") != 0 && memcmp(buf, want, pieces * PIECE) != 0) {
		fprintf(stderr, "rank %d read other bytes than were written\n", rank);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	if (rank == 0)
		printf("seconds %f\n", took);
	return MPI_Finalize();
}
