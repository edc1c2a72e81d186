/*
 * Bytes that say where they belong: the byte at an offset of generation g is
 * told by both, and never 0, so whatever is misplaced, old or missing shows.
 */
#include "file.h"

static inline unsigned char byte_at(MPI_Offset off, int g)
{
	unsigned long long x = ((unsigned long long)off + 1) * 0x9e3779b97f4a7c15ull + (unsigned long long)g * 0xd1b54a32d192ed03ull;

	return 1 + (x ^ x >> 29) % 255;
}

static inline void fill(unsigned char *buf, MPI_Offset n, MPI_Offset off, int g)
{
	for (MPI_Offset i = 0; i < n; i++)
		buf[i] = byte_at(off + i, g);
}

/* verify ends the job at the first of n bytes from off on that is not of
 * generation g; 0 means zeros. */
static inline void verify(const char *what, const unsigned char *buf, MPI_Offset n, MPI_Offset off, int g)
{
	for (MPI_Offset i = 0; i < n; i++) {
		int want = g ? byte_at(off + i, g) : 0, was = g > 1 ? byte_at(off + i, g - 1) : 0;
		if (buf[i] != want)
			FAIL("%s: byte %lld is %d%s, want %d of generation %d", what, (long long)(off + i), buf[i],
			     buf[i] == 0 ? ", nothing" : buf[i] == was ? ", of the generation before" : "", want, g);
	}
}

/* sync_all is the sync-barrier-sync of the MPI standard. */
static inline void sync_all(MPI_File file)
{
	CHECK(MPI_File_sync(file));
	MPI_Barrier(MPI_COMM_WORLD);
	CHECK(MPI_File_sync(file));
}

/* far is a rank on the other node. */
static inline int far(void)
{
	return (rank + size / 2) % size;
}

/* new_info makes hints of "key=value;key=value". */
static inline MPI_Info new_info(const char *hints)
{
	char *copy = strdup(hints), *value;
	MPI_Info info;

	MPI_Info_create(&info);
	for (char *key = strtok(copy, ";"); key; key = strtok(NULL, ";")) {
		if (!(value = strchr(key, '=')))
			FAIL("hint %s", key);
		*value++ = 0;
		MPI_Info_set(info, key, value);
	}
	free(copy);
	return info;
}

/* open_with opens the file of that name on all ranks. */
static inline void open_with(MPI_File *file, const char *name, int how, const char *hints)
{
	MPI_Info info = new_info(hints);

	CHECK(MPI_File_open(MPI_COMM_WORLD, name, how, info, file));
	MPI_Info_free(&info);
}
