/*
 * hdf5 FILE ROWS COLS: all ranks write datasets of ROWS*size x COLS numbers to
 * one HDF5 file, contiguous and in chunks, at once and on their own, with
 * attributes, groups and a growing dataset in between, flush it, and read what
 * others have written, before and after it was opened anew. The number at row
 * r and column c of dataset d is value(d, r, c).
 */
#include <hdf5.h>

#include "program.h"

#define H(call) check_id((long long)(call), #call)

enum { contiguous, chunked, growing, datasets };

static const char *const names[] = {"contiguous", "chunked", "group/growing"};
static hsize_t rows, cols; /* of one rank */
static hid_t file;

static hid_t check_id(long long id, const char *what)
{
	if (id < 0)
		FAIL("%s", what);
	return id;
}

static int value(int d, hsize_t r, hsize_t c)
{
	return 1 + (int)(r * 1000003 + c * 101 + d * 7);
}

static hid_t open_file(const char *name, int create)
{
	hid_t access = H(H5Pcreate(H5P_FILE_ACCESS));
	hid_t id;

	H(H5Pset_fapl_mpio(access, MPI_COMM_WORLD, MPI_INFO_NULL));
	if (create)
		id = H(H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access));
	else
		id = H(H5Fopen(name, H5F_ACC_RDONLY, access));
	H(H5Pclose(access));
	return id;
}

static void create_dataset(int d)
{
	hsize_t dims[2] = {rows * size, cols}, most[2] = {H5S_UNLIMITED, cols}, chunk[2] = {rows / 2 + 1, cols / 3 + 1};
	hid_t props = H(H5Pcreate(H5P_DATASET_CREATE)), space, set;

	if (d != contiguous)
		H(H5Pset_chunk(props, 2, chunk));
	space = H(H5Screate_simple(2, dims, d == growing ? most : NULL));
	set = H(H5Dcreate(file, names[d], H5T_NATIVE_INT, space, H5P_DEFAULT, props, H5P_DEFAULT));
	H(H5Dclose(set));
	H(H5Sclose(space));
	H(H5Pclose(props));
}

/* transfer writes or reads `many` rows of a dataset in columns [from, to). */
static void transfer(int d, int writing, int collective, hsize_t first, hsize_t many, hsize_t from, hsize_t to)
{
	hsize_t start[2] = {first, from}, n[2] = {many, to - from};
	int *buf = malloc(sizeof *buf * n[0] * n[1]);
	hid_t set = H(H5Dopen(file, names[d], H5P_DEFAULT)), space = H(H5Dget_space(set));
	hid_t mem = H(H5Screate_simple(2, n, NULL)), how = H(H5Pcreate(H5P_DATASET_XFER));

	H(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, n, NULL));
	H(H5Pset_dxpl_mpio(how, collective ? H5FD_MPIO_COLLECTIVE : H5FD_MPIO_INDEPENDENT));
	for (hsize_t i = 0; writing && i < n[0] * n[1]; i++)
		buf[i] = value(d, first + i / n[1], from + i % n[1]);
	if (writing)
		H(H5Dwrite(set, H5T_NATIVE_INT, mem, space, how, buf));
	else
		H(H5Dread(set, H5T_NATIVE_INT, mem, space, how, buf));
	for (hsize_t i = 0; i < n[0] * n[1]; i++) {
		int want = value(d, first + i / n[1], from + i % n[1]);
		if (buf[i] != want)
			FAIL("dataset %s, row %llu, column %llu: %d, want %d", names[d], (unsigned long long)(first + i / n[1]),
			     (unsigned long long)(from + i % n[1]), buf[i], want);
	}
	H(H5Pclose(how));
	H(H5Sclose(mem));
	H(H5Sclose(space));
	H(H5Dclose(set));
	free(buf);
}

/* attribute sets an attribute of the file to n, or requires it to be n. */
static void attribute(const char *name, int writing, int n)
{
	hid_t space = H(H5Screate(H5S_SCALAR)), a;
	int got = n;

	if (writing) {
		a = H(H5Acreate(file, name, H5T_NATIVE_INT, space, H5P_DEFAULT, H5P_DEFAULT));
		H(H5Awrite(a, H5T_NATIVE_INT, &got));
	} else {
		a = H(H5Aopen(file, name, H5P_DEFAULT));
		H(H5Aread(a, H5T_NATIVE_INT, &got));
	}
	if (got != n)
		FAIL("attribute %s: %d, want %d", name, got, n);
	H(H5Aclose(a));
	H(H5Sclose(space));
}

/*
 * flush makes what all have written seen by all. It also stands between the fill
 * values of chunks, which HDF5 has some ranks write when it makes them, and the
 * data, which others write: two writes of the same bytes without a sync
 * between them have no order (MPI 4.0, section 14.6.1).
 */
static void flush(void)
{
	H(H5Fflush(file, H5F_SCOPE_GLOBAL));
	MPI_Barrier(MPI_COMM_WORLD);
}

/* grow makes the last dataset three times as long, in two steps. */
static void grow(void)
{
	for (int step = 1; step < 3; step++) {
		hsize_t dims[2] = {rows * size * (1 + step), cols};
		hid_t set = H(H5Dopen(file, names[growing], H5P_DEFAULT));
		H(H5Dset_extent(set, dims));
		H(H5Dclose(set));
		flush();
		attribute(step == 1 ? "first step" : "second step", 1, 100 + step);
		/* From the end, so that the rows of a rank lie elsewhere each time. */
		transfer(growing, 1, 1, (rows * size) * step + rows * (size - 1 - rank), rows, 0, cols);
		flush();
	}
}

static void write_all(void)
{
	create_dataset(contiguous);
	attribute("before", 1, 17);
	/* The right half on their own, the left half together. */
	transfer(contiguous, 1, 0, rows * rank, rows, cols / 2, cols);
	create_dataset(chunked);
	flush();
	transfer(contiguous, 1, 1, rows * rank, rows, 0, cols / 2);
	/* Columns, so that all ranks share all chunks. */
	transfer(chunked, 1, 1, 0, rows * size, cols * rank / size, cols * (rank + 1) / size);
	H(H5Gclose(H(H5Gcreate(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT))));
	create_dataset(growing);
	flush();
	transfer(growing, 1, 0, rows * rank, rows, 0, cols);
	attribute("between", 1, 18);
	flush();
	grow();
}

static void read_all(void)
{
	int far = (rank + size / 2) % size;

	for (int collective = 0; collective < 2; collective++) {
		transfer(contiguous, 0, collective, rows * far, rows, 0, cols);
		transfer(chunked, 0, collective, rows * far, rows, 0, cols);
		for (int step = 0; step < 3; step++)
			transfer(growing, 0, collective, (rows * size) * step + rows * far, rows, 0, cols);
	}
	transfer(chunked, 0, 0, 0, rows * size, 0, cols);
	attribute("before", 0, 17);
	attribute("between", 0, 18);
	attribute("first step", 0, 101);
	attribute("second step", 0, 102);
}

int main(int argc, char **argv)
{
	start(argc, argv);
	rows = atoi(argv[2]);
	cols = atoi(argv[3]);
	file = open_file(argv[1], 1);
	write_all();
	read_all();
	H(H5Fclose(file));
	MPI_Barrier(MPI_COMM_WORLD);
	file = open_file(argv[1], 0);
	read_all();
	H(H5Fclose(file));
	return MPI_Finalize();
}
