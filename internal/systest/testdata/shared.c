/*
 * shared FILE RECORDS LEN HINTS: every rank writes RECORDS records of various
 * lengths up to LEN through the shared file pointer, then all write one each
 * in the order of their ranks. Each record is there as a whole and once, which
 * every rank checks; then all read the file through the shared pointer, and
 * each byte comes to one of them.
 */
#include "pattern.h"

struct record {
	int rank, number, len;
};

static int records, maximum;
static unsigned char *buf;

/* write_record writes one record; ordered ones have the number `records`. */
static void write_record(int number)
{
	int body = (rank * 7907 + number * 131) % (maximum - (int)sizeof(struct record));
	struct record r = {rank, number, sizeof r + body};

	memcpy(buf, &r, sizeof r);
	fill(buf + sizeof r, body, 0, 1 + rank * (records + 1) + number);
	if (number < records)
		CHECK(MPI_File_write_shared(f, buf, r.len, MPI_BYTE, &st));
	else
		CHECK(MPI_File_write_ordered(f, buf, r.len, MPI_BYTE, &st));
}

/* check walks through the records of the whole file. */
static void check(const unsigned char *file, MPI_Offset n)
{
	char *seen = calloc(size, records + 1), what[80];
	MPI_Offset off = 0;
	struct record r;

	for (int i = 0; i < size * (records + 1); i++) {
		if (off + (MPI_Offset)sizeof r > n)
			FAIL("the file ends at %lld, in record %d", (long long)n, i);
		memcpy(&r, file + off, sizeof r);
		if (r.rank < 0 || r.rank >= size || r.number < 0 || r.number > records || r.len < (int)sizeof r || off + r.len > n)
			FAIL("no record at byte %lld, after %d of them", (long long)off, i);
		if (seen[r.rank * (records + 1) + r.number]++)
			FAIL("record %d of rank %d is there again at byte %lld", r.number, r.rank, (long long)off);
		if ((r.number == records) != (i >= size * records) || (r.number == records && r.rank != i - size * records))
			FAIL("record %d of rank %d at byte %lld is the one at place %d", r.number, r.rank, (long long)off, i);
		snprintf(what, sizeof what, "record %d of rank %d at %lld", r.number, r.rank, (long long)off);
		verify(what, file + off + sizeof r, r.len - sizeof r, 0, 1 + r.rank * (records + 1) + r.number);
		off += r.len;
	}
	if (off != n)
		FAIL("%lld bytes after the last record", (long long)(n - off));
	free(seen);
}

/* read_shared reads the file in parts: it must come to be read once. */
static void read_shared(const unsigned char *file, MPI_Offset n)
{
	long long got = 0, all;
	int part = 1000, len;

	CHECK(MPI_File_seek_shared(f, 0, MPI_SEEK_SET));
	do {
		CHECK(MPI_File_read_shared(f, buf, part, MPI_BYTE, &st));
		MPI_Get_count(&st, MPI_BYTE, &len);
		MPI_Offset off = 0;
		while (len > 0 && off + len <= n && memcmp(file + off, buf, len) != 0)
			off += part;
		if (off + len > n)
			FAIL("read %d bytes with the shared pointer that are no part of the file", len);
		got += len;
	} while (len == part);
	MPI_Allreduce(&got, &all, 1, MPI_LONG_LONG, MPI_SUM, MPI_COMM_WORLD);
	if (all != n)
		FAIL("read %lld bytes with the shared pointer, of %lld", all, (long long)n);
}

int main(int argc, char **argv)
{
	unsigned char *file;
	MPI_Offset n;
	int got;

	start(argc, argv);
	records = atoi(argv[2]);
	maximum = atoi(argv[3]);
	buf = malloc(maximum);
	open_with(&f, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, argv[4]);
	for (int i = 0; i < records; i++)
		write_record(i);
	MPI_Barrier(MPI_COMM_WORLD);
	write_record(records);
	sync_all(f);
	CHECK(MPI_File_get_size(f, &n));
	file = malloc(n);
	CHECK(MPI_File_read_at(f, 0, file, n, MPI_BYTE, &st));
	MPI_Get_count(&st, MPI_BYTE, &got);
	if (got != n)
		FAIL("read %d of %lld", got, (long long)n);
	check(file, n);
	read_shared(file, n);
	return end();
}
