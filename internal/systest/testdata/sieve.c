/*
 * sieve FILE COUNT BLOCK HINTS: every rank writes blocks with holes between
 * them, so that libraries that sieve read, change and write back what lies in
 * the holes. Others have filled these before or fill them afterwards, with and
 * without MPI_File_sync between, or in the same way at the same time: no byte
 * is written by two, so nothing may be lost.
 *
 * Of each 2 * size blocks the even ones are written through the views, one by
 * each rank, and the odd ones are the holes.
 */
#include "pattern.h"

static int count, block, g;
static unsigned char *buf;

static void sieve_view(int k)
{
	MPI_Datatype view;

	MPI_Type_vector(count, block, 2 * size * block, MPI_BYTE, &view);
	MPI_Type_commit(&view);
	CHECK(MPI_File_set_view(f, (MPI_Offset)k * block, MPI_BYTE, view, "native", MPI_INFO_NULL));
	MPI_Type_free(&view);
}

static void whole_view(void)
{
	CHECK(MPI_File_set_view(f, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
}

static MPI_Offset at(int i, int k)
{
	return ((MPI_Offset)i * 2 * size + k) * block;
}

/* write_blocks writes the blocks at place k of each group through a view. */
static void write_blocks(int k, int collective)
{
	for (int i = 0; i < count; i++)
		fill(buf + (size_t)i * block, block, at(i, k), g);
	sieve_view(k);
	if (collective)
		CHECK(MPI_File_write_all(f, buf, count * block, MPI_BYTE, &st));
	else
		CHECK(MPI_File_write(f, buf, count * block, MPI_BYTE, &st));
	whole_view();
}

/* fill_holes writes the hole after the blocks of the far rank, one by one. */
static void fill_holes(void)
{
	for (int i = 0; i < count; i++) {
		fill(buf, block, at(i, 2 * far() + 1), g);
		CHECK(MPI_File_write_at(f, at(i, 2 * far() + 1), buf, block, MPI_BYTE, &st));
	}
}

static void between(int sync)
{
	if (sync)
		sync_all(f);
	else
		MPI_Barrier(MPI_COMM_WORLD);
}

/* verify_all reads everything on every rank, at once or through a view. */
static void verify_all(const char *what)
{
	MPI_Offset n = at(count, 0);
	int k = 2 * far();

	between(1);
	CHECK(MPI_File_read_at(f, 0, buf, n, MPI_BYTE, &st));
	verify(what, buf, n, 0, g);
	sieve_view(k);
	memset(buf, 0, (size_t)count * block);
	CHECK(MPI_File_read_all(f, buf, count * block, MPI_BYTE, &st));
	for (int i = 0; i < count; i++)
		verify(what, buf + (size_t)i * block, block, at(i, k), g);
	whole_view();
	MPI_Barrier(MPI_COMM_WORLD);
}

static void rounds(int collective, int sync)
{
	char what[100];
	const char *how = collective ? "collective" : "independent", *with = sync ? "with" : "without";

	g++;
	snprintf(what, sizeof what, "holes filled before, %s, %s sync", how, with);
	fill_holes();
	between(sync);
	write_blocks(2 * rank, collective);
	verify_all(what);

	g++;
	snprintf(what, sizeof what, "holes filled after, %s, %s sync", how, with);
	write_blocks(2 * rank, collective);
	between(sync);
	fill_holes();
	verify_all(what);
}

/* at_once has all write through views independently at the same time. */
static void at_once(void)
{
	g++;
	write_blocks(2 * rank, 0);
	write_blocks(2 * far() + 1, 0);
	verify_all("all at once");
}

int main(int argc, char **argv)
{
	start(argc, argv);
	count = atoi(argv[2]);
	block = atoi(argv[3]);
	buf = malloc(at(count, 0));
	open_with(&f, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, argv[4]);
	for (int i = 0; i < 4; i++)
		rounds(i & 1, i & 2);
	at_once();
	return end();
}
