/*
 * views FILE COUNT BLOCK HINTS: every rank writes what its view shows of the
 * file, independently and collectively, in three patterns of which each covers
 * the file with the pieces of all ranks. A rank on the other node reads each
 * piece through the same view, and each reads a part of the whole file.
 */
#include "pattern.h"

struct piece {
	MPI_Offset off, len;
};

static int count, block;
static MPI_Offset length; /* of the file under the pattern in use */

/* interleaved: blocks in turn, as the rows of a matrix. */
static int interleaved(struct piece *p, int k)
{
	for (int i = 0; i < count; i++)
		p[i] = (struct piece){((MPI_Offset)i * size + k) * block, block};
	length = (MPI_Offset)count * size * block;
	return count;
}

/* nested: of each group of 4 * size blocks a rank has a run of 3 whose blocks
 * lie size apart, and one in the end of the group, in the other order. */
static int nested(struct piece *p, int k)
{
	int n = 0;

	for (int group = 0; group < count / 4; group++) {
		MPI_Offset base = (MPI_Offset)group * 4 * size * block;
		for (int i = 0; i < 3; i++)
			p[n++] = (struct piece){base + ((MPI_Offset)i * size + k) * block, block};
		p[n++] = (struct piece){base + ((MPI_Offset)3 * size + size - 1 - k) * block, block};
	}
	length = (MPI_Offset)(count / 4) * 4 * size * block;
	return n;
}

/* ragged: pieces of all lengths from 1 to 2 * block. */
static int ragged(struct piece *p, int k)
{
	MPI_Offset off = 0;
	int n = 0;

	for (int i = 0; i < count * size; i++) {
		MPI_Offset len = 1 + (MPI_Offset)i * 7919 % (2 * block);
		if ((i + i / size) % size == k)
			p[n++] = (struct piece){off, len};
		off += len;
	}
	length = off;
	return n;
}

static MPI_Datatype vector_view(int k, MPI_Offset *disp)
{
	MPI_Datatype view;

	MPI_Type_vector(count, block, size * block, MPI_BYTE, &view);
	*disp = (MPI_Offset)k * block;
	return view;
}

static MPI_Datatype nested_view(int k, MPI_Offset *disp)
{
	MPI_Aint group = (MPI_Aint)4 * size * block;
	MPI_Datatype run, one, both, next, view;
	int lens[2] = {1, 1};
	MPI_Aint at[2] = {0, (MPI_Aint)(3 * size + size - 1 - 2 * k) * block};

	MPI_Type_vector(3, block, size * block, MPI_BYTE, &run);
	MPI_Type_contiguous(block, MPI_BYTE, &one);
	MPI_Type_create_struct(2, lens, at, (MPI_Datatype[]){run, one}, &both);
	MPI_Type_create_resized(both, 0, group, &next);
	MPI_Type_contiguous(count / 4, next, &view);
	MPI_Type_free(&run);
	MPI_Type_free(&one);
	MPI_Type_free(&both);
	MPI_Type_free(&next);
	*disp = (MPI_Offset)k * block;
	return view;
}

static MPI_Datatype ragged_view(int k, MPI_Offset *disp)
{
	struct piece *p = malloc(sizeof *p * count * size);
	int n = ragged(p, k), *lens = malloc(sizeof *lens * n);
	MPI_Aint *at = malloc(sizeof *at * n);
	MPI_Datatype view;

	for (int i = 0; i < n; i++)
		lens[i] = p[i].len, at[i] = p[i].off;
	MPI_Type_create_hindexed(n, lens, at, MPI_BYTE, &view);
	free(p);
	free(lens);
	free(at);
	*disp = 0;
	return view;
}

static const struct pattern {
	const char *name;
	int (*pieces)(struct piece *, int);
	MPI_Datatype (*view)(int, MPI_Offset *);
} patterns[] = {
	{"interleaved", interleaved, vector_view},
	{"nested", nested, nested_view},
	{"ragged", ragged, ragged_view},
};

static void set_view(const struct pattern *pat, int k)
{
	MPI_Offset disp;
	MPI_Datatype view = pat->view(k, &disp);

	MPI_Type_commit(&view);
	CHECK(MPI_File_set_view(f, disp, MPI_BYTE, view, "native", MPI_INFO_NULL));
	MPI_Type_free(&view);
}

static void whole_view(void)
{
	CHECK(MPI_File_set_view(f, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
}

/* transfer writes or reads what the view shows. In memory the bytes lie with
 * gaps if that is wanted: every other one is not the file's. */
static void transfer(int writing, int collective, int gaps, unsigned char *buf, MPI_Offset n)
{
	unsigned char *mem = gaps ? malloc(2 * n) : buf;
	MPI_Datatype type = MPI_BYTE;
	int many = n, got;

	if (gaps) {
		MPI_Type_vector(n, 1, 2, MPI_BYTE, &type);
		MPI_Type_commit(&type);
		many = 1;
		for (MPI_Offset i = 0; i < n; i++)
			mem[2 * i] = buf[i], mem[2 * i + 1] = 0xff;
	}
	if (writing)
		CHECK(collective ? MPI_File_write_at_all(f, 0, mem, many, type, &st) : MPI_File_write_at(f, 0, mem, many, type, &st));
	else
		CHECK(collective ? MPI_File_read_at_all(f, 0, mem, many, type, &st) : MPI_File_read_at(f, 0, mem, many, type, &st));
	MPI_Get_count(&st, MPI_BYTE, &got);
	if (got != n)
		FAIL("%s %d of %lld", writing ? "wrote" : "read", got, (long long)n);
	if (!gaps)
		return;
	MPI_Type_free(&type);
	for (MPI_Offset i = 0; i < n; i++) {
		buf[i] = mem[2 * i];
		if (mem[2 * i + 1] != 0xff)
			FAIL("a gap of the memory is %d at %lld", mem[2 * i + 1], (long long)i);
	}
	free(mem);
}

static void verify_pieces(const char *what, const unsigned char *buf, const struct piece *p, int n, int g)
{
	for (int i = 0; i < n; i++) {
		verify(what, buf, p[i].len, p[i].off, g);
		buf += p[i].len;
	}
}

static void round_trip(const struct pattern *pat, int collective, int g)
{
	struct piece *p = malloc(sizeof *p * count * size);
	unsigned char *buf = malloc((size_t)count * size * 2 * block);
	int gaps = collective == (pat->pieces == nested), n = pat->pieces(p, rank);
	MPI_Offset total = 0, part, from;
	char what[100];

	for (int i = 0; i < n; i++) {
		fill(buf + total, p[i].len, p[i].off, g);
		total += p[i].len;
	}
	snprintf(what, sizeof what, "%s, %s", pat->name, collective ? "collective" : "independent");
	set_view(pat, rank);
	transfer(1, collective, gaps, buf, total);
	sync_all(f);
	for (int c = 0; c < 2; c++) {
		n = pat->pieces(p, (far() + c) % size);
		total = 0;
		for (int i = 0; i < n; i++)
			total += p[i].len;
		set_view(pat, (far() + c) % size);
		transfer(0, c, gaps, buf, total);
		verify_pieces(what, buf, p, n, g);
	}
	whole_view();
	part = (length + size - 1) / size;
	from = part * far();
	part = from + part > length ? length - from : part;
	CHECK(MPI_File_read_at(f, from, buf, part, MPI_BYTE, &st));
	verify(what, buf, part, from, g);
	MPI_Barrier(MPI_COMM_WORLD); /* the next round writes what others may still read */
	free(p);
	free(buf);
}

int main(int argc, char **argv)
{
	int g = 0;

	start(argc, argv);
	count = atoi(argv[2]);
	block = atoi(argv[3]);
	open_with(&f, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, argv[4]);
	for (int i = 0; i < 3; i++) {
		for (int collective = 0; collective < 2; collective++)
			round_trip(&patterns[i], collective, ++g);
	}
	return end();
}
