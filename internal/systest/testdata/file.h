/*
 * What the programs that use MPI-IO have in common: all ranks open the file of
 * the first argument and close it together.
 */
#include "program.h"

static MPI_File f;
static MPI_Status st;

static inline void begin(int argc, char **argv)
{
	start(argc, argv);
	CHECK(MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f));
}

static int end(void)
{
	CHECK(MPI_File_close(&f));
	return MPI_Finalize();
}
