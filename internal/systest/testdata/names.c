/*
 * names FILE: with the file open and its shared file pointer in use, rank 0
 * prints "name NAME" for everything in the directory of FILE.
 */
#include <dirent.h>

#include "file.h"

static void list(char *path)
{
	struct dirent *e;
	DIR *d;

	*strrchr(path, '/') = 0;
	if (!(d = opendir(path)))
		FAIL("opendir %s", path);
	while ((e = readdir(d)))
		printf("name %s\n", e->d_name);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	begin(argc, argv);
	CHECK(MPI_File_write_shared(f, "x", 1, MPI_BYTE, &st));
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0)
		list(argv[1]);
	MPI_Barrier(MPI_COMM_WORLD);
	return end();
}
