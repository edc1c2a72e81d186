/*
 * sizes FILE ROUNDS LEN HINTS APPENDS MODE RESERVES: what synchronises besides
 * the data itself. Sizes that are set and, if RESERVES is 1, reserved; APPENDS
 * opens at the end of the file; then sync-barrier-sync, with one rank after the other as the writer
 * and readers that have the file open for reading alone, too. If MODE is
 * strong a barrier is enough.
 */
#include "pattern.h"

static unsigned char *buf;
static int len;
static const char *name, *hints;

static void require_size(const char *what, MPI_Offset want)
{
	MPI_Offset got;

	CHECK(MPI_File_get_size(f, &got));
	if (got != want)
		FAIL("%s: the size is %lld, want %lld", what, (long long)got, (long long)want);
}

static void put(MPI_File file, MPI_Offset off, int g)
{
	fill(buf, len, off, g);
	CHECK(MPI_File_write_at(file, off, buf, len, MPI_BYTE, &st));
}

static void require_read(const char *what, MPI_File file, MPI_Offset off, MPI_Offset n, int g)
{
	int got;

	memset(buf, 0xff, n);
	CHECK(MPI_File_read_at(file, off, buf, n, MPI_BYTE, &st));
	MPI_Get_count(&st, MPI_BYTE, &got);
	if (got != n)
		FAIL("%s: read %d of %lld at %lld", what, got, (long long)n, (long long)off);
	verify(what, buf, n, off, g);
}

/* set_sizes cuts the file and lets it grow: what was cut comes back as zeros. */
static void set_sizes(int reserves)
{
	MPI_Offset all = (MPI_Offset)size * len, cut = all / 2 + 1;

	put(f, (MPI_Offset)rank * len, 1);
	sync_all(f);
	require_size("written", all);
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_set_size(f, cut));
	require_size("cut", cut);
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_set_size(f, 2 * all));
	require_size("grown", 2 * all);
	require_read("before the cut", f, 0, cut, 1);
	require_read("after the cut", f, cut, all - cut, 0);
	require_read("grown", f, all + (MPI_Offset)rank * len, len, 0);
	MPI_Barrier(MPI_COMM_WORLD);
	put(f, all + (MPI_Offset)rank * len, 2);
	sync_all(f);
	if (reserves) {
		CHECK(MPI_File_preallocate(f, all));
		CHECK(MPI_File_preallocate(f, 3 * all));
	} else {
		CHECK(MPI_File_set_size(f, 3 * all));
	}
	sync_all(f);
	require_size("grown again", 3 * all);
	require_read("before the cut, grown again", f, 0, cut, 1);
	require_read("the grown part, grown again", f, all, all, 2);
	MPI_Barrier(MPI_COMM_WORLD);
	put(f, 2 * all + (MPI_Offset)far() * len, 3);
	sync_all(f);
	require_read("what had grown again", f, 2 * all, all, 3);
	require_size("grown again and written", 3 * all);
	MPI_Barrier(MPI_COMM_WORLD);
}

/* append opens the file at its end and writes there, by rank. */
static void append(int times)
{
	MPI_Offset end, base, pos;
	MPI_File a;

	CHECK(MPI_File_get_size(f, &base));
	CHECK(MPI_File_close(&f));
	for (int i = 0; i < times; i++) {
		open_with(&a, name, MPI_MODE_RDWR | MPI_MODE_APPEND, hints);
		CHECK(MPI_File_get_position(a, &pos));
		MPI_Barrier(MPI_COMM_WORLD);
		end = base + (MPI_Offset)i * size * len;
		if (pos != end)
			FAIL("append %d: opened at %lld, want %lld", i, (long long)pos, (long long)end);
		fill(buf, len, end + (MPI_Offset)rank * len, 4 + i);
		CHECK(MPI_File_seek(a, (MPI_Offset)rank * len, MPI_SEEK_CUR));
		CHECK(MPI_File_write(a, buf, len, MPI_BYTE, &st));
		CHECK(MPI_File_close(&a));
		MPI_Barrier(MPI_COMM_WORLD);
	}
	open_with(&f, name, MPI_MODE_RDWR, hints);
	for (int i = 0; i < times; i++)
		require_read("appended", f, base + ((MPI_Offset)i * size + far()) * len, len, 4 + i);
	require_size("appended", base + (MPI_Offset)times * size * len);
	MPI_Barrier(MPI_COMM_WORLD);
}

/* synchronise has the ranks overwrite the same bytes in turn and all read. */
static void synchronise(int rounds, int strong)
{
	MPI_Offset off = 12345, end;
	MPI_File ro;

	CHECK(MPI_File_get_size(f, &end));
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_open(MPI_COMM_SELF, (char *)name, MPI_MODE_RDONLY, MPI_INFO_NULL, &ro));
	for (int i = 0; i < rounds; i++) {
		if (rank == i % size) {
			put(f, off, 100 + i);
			put(f, end, 200 + i);
		}
		if (strong)
			MPI_Barrier(MPI_COMM_WORLD);
		else
			sync_all(f);
		require_read("open for reading", ro, off, len, 100 + i);
		require_read("open for both", f, off, len, 100 + i);
		require_read("a part", ro, off + len / 3, len / 3, 100 + i);
		require_read("the new end", ro, end, len, 200 + i);
		end += len;
		require_size("a new end", end);
		MPI_Barrier(MPI_COMM_WORLD);
	}
	CHECK(MPI_File_close(&ro));
}

int main(int argc, char **argv)
{
	start(argc, argv);
	name = argv[1];
	len = atoi(argv[3]);
	hints = argv[4];
	buf = malloc((size_t)4 * size * len);
	open_with(&f, name, MPI_MODE_CREATE | MPI_MODE_RDWR, hints);
	set_sizes(atoi(argv[7]));
	if (atoi(argv[5]) > 0)
		append(atoi(argv[5]));
	synchronise(atoi(argv[2]), strcmp(argv[6], "strong") == 0);
	return end();
}
