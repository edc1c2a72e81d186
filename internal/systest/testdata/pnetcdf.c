/*
 * pnetcdf FILE ROWS COLS RECORDS: all ranks write a NetCDF file with PnetCDF:
 * a fixed variable of ROWS*size x COLS numbers, collectively and on their own,
 * a record variable, and a third that is defined when there are data already,
 * for which these move. They read what others have written, before and after
 * the file was opened anew. The number at row r and column c of variable v is
 * value(v, r, c).
 */
#include <pnetcdf.h>

#include "program.h"

#define N(call) check_nc((call), #call)

static MPI_Offset rows, cols, records; /* rows are those of one rank */
static int nc, fixed, record, late;

static void check_nc(int err, const char *what)
{
	if (err != NC_NOERR)
		FAIL("%s: %s", what, ncmpi_strerror(err));
}

static int value(int v, MPI_Offset r, MPI_Offset c)
{
	return 1 + (int)(r * 1009 + c * 101 + v * 7);
}

/* transfer writes or reads [from, from+n) by [left, right) of a variable. */
static void transfer(int v, int writing, int collective, MPI_Offset from, MPI_Offset n, MPI_Offset left, MPI_Offset right)
{
	MPI_Offset start[2] = {from, left}, count[2] = {n, right - left}, width = right - left;
	int *buf = malloc(sizeof *buf * n * width);

	for (MPI_Offset i = 0; writing && i < n * width; i++)
		buf[i] = value(v, from + i / width, left + i % width);
	if (writing && collective)
		N(ncmpi_put_vara_int_all(nc, v, start, count, buf));
	else if (writing)
		N(ncmpi_put_vara_int(nc, v, start, count, buf));
	else if (collective)
		N(ncmpi_get_vara_int_all(nc, v, start, count, buf));
	else
		N(ncmpi_get_vara_int(nc, v, start, count, buf));
	for (MPI_Offset i = 0; i < n * width; i++) {
		int want = value(v, from + i / width, left + i % width);
		if (buf[i] != want)
			FAIL("variable %d, row %lld, column %lld: %d, want %d", v, (long long)(from + i / width),
			     (long long)(left + i % width), buf[i], want);
	}
	free(buf);
}

static void define(void)
{
	int dims[2], time, wide = 4711;

	N(ncmpi_def_dim(nc, "row", rows * size, &dims[0]));
	N(ncmpi_def_dim(nc, "column", cols, &dims[1]));
	N(ncmpi_def_dim(nc, "time", NC_UNLIMITED, &time));
	N(ncmpi_def_var(nc, "fixed", NC_INT, 2, dims, &fixed));
	dims[0] = time;
	N(ncmpi_def_var(nc, "record", NC_INT, 2, dims, &record));
	N(ncmpi_put_att_int(nc, fixed, "wide", NC_INT, 1, &wide));
	N(ncmpi_put_att_text(nc, NC_GLOBAL, "title", 5, "first"));
	N(ncmpi_enddef(nc));
}

/* redefine adds a variable and a long attribute in front of the data. */
static void redefine(void)
{
	char text[5000];
	int dims[2];

	memset(text, 'x', sizeof text);
	N(ncmpi_redef(nc));
	N(ncmpi_put_att_text(nc, NC_GLOBAL, "history", sizeof text, text));
	N(ncmpi_inq_dimid(nc, "row", &dims[0]));
	N(ncmpi_inq_dimid(nc, "column", &dims[1]));
	N(ncmpi_def_var(nc, "late", NC_INT, 2, dims, &late));
	N(ncmpi_enddef(nc));
}

/* post writes the columns of a rank of the late variable with requests. */
static void post(void)
{
	MPI_Offset left = cols * rank / size, right = cols * (rank + 1) / size, width = right - left;
	int *buf = malloc(sizeof *buf * rows * size * width), *requests = malloc(sizeof *requests * rows * size);
	int n = rows * size, *states = malloc(sizeof *states * n);

	for (int r = 0; r < n; r++) {
		MPI_Offset start[2] = {r, left}, count[2] = {1, width};
		for (MPI_Offset c = 0; c < width; c++)
			buf[r * width + c] = value(late, r, left + c);
		N(ncmpi_iput_vara_int(nc, late, start, count, buf + r * width, &requests[r]));
	}
	N(ncmpi_wait_all(nc, n, requests, states));
	for (int r = 0; r < n; r++)
		N(states[r]);
	free(buf);
	free(requests);
	free(states);
}

static void write_all(void)
{
	transfer(fixed, 1, 1, rows * rank, rows, 0, cols / 2);
	for (MPI_Offset t = 0; t < records; t++)
		transfer(record, 1, 1, t, 1, cols * rank / size, cols * (rank + 1) / size);
	N(ncmpi_begin_indep_data(nc));
	transfer(fixed, 1, 0, rows * rank, rows, cols / 2, cols);
	N(ncmpi_end_indep_data(nc));
	N(ncmpi_sync(nc));
	redefine();
	post();
	for (MPI_Offset t = records; t < 2 * records; t++)
		transfer(record, 1, 1, t, 1, cols * (size - 1 - rank) / size, cols * (size - rank) / size);
	N(ncmpi_sync(nc));
	MPI_Barrier(MPI_COMM_WORLD);
}

static void read_all(void)
{
	int far = (rank + size / 2) % size;
	MPI_Offset dim, n;

	for (int collective = 0; collective < 2; collective++) {
		if (!collective)
			N(ncmpi_begin_indep_data(nc));
		transfer(fixed, 0, collective, rows * far, rows, 0, cols);
		transfer(late, 0, collective, rows * far, rows, 0, cols);
		transfer(record, 0, collective, 0, 2 * records, 0, cols);
		if (!collective)
			N(ncmpi_end_indep_data(nc));
	}
	N(ncmpi_inq_dimlen(nc, 2, &dim));
	if (dim != 2 * records)
		FAIL("%lld records, want %lld", (long long)dim, (long long)(2 * records));
	N(ncmpi_inq_attlen(nc, NC_GLOBAL, "history", &n));
	if (n != 5000)
		FAIL("attribute of %lld bytes", (long long)n);
	MPI_Barrier(MPI_COMM_WORLD);
}

int main(int argc, char **argv)
{
	start(argc, argv);
	rows = atoi(argv[2]);
	cols = atoi(argv[3]);
	records = atoi(argv[4]);
	N(ncmpi_create(MPI_COMM_WORLD, argv[1], NC_CLOBBER | NC_64BIT_OFFSET, MPI_INFO_NULL, &nc));
	define();
	write_all();
	read_all();
	N(ncmpi_close(nc));
	MPI_Barrier(MPI_COMM_WORLD);
	N(ncmpi_open(MPI_COMM_WORLD, argv[1], NC_NOWRITE, MPI_INFO_NULL, &nc));
	read_all();
	N(ncmpi_close(nc));
	return MPI_Finalize();
}
