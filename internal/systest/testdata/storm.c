/* storm: what many processes of a job do to one file or directory at once.
 *
 *     storm BARRIER N PATH ACTION...
 *
 * N of these start each ACTION together: BARRIER is a file of the local machine
 * by which they wait for each other. An ACTION is one of
 *     open stat read close      the file PATH, as one process does it; read maps nothing
 *     map                       the file PATH, through a mapping
 *     list                      the directory PATH
 *     missing                   PATH/missing, which is not there
 *     create unlink             a file of its own in the directory PATH
 *     fill                      64 KiB into the file that it has created
 *     write                     its own byte of the file PATH
 *     sync                      what it has opened or created
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path;
static int rank, fd = -1;
static char own[4096];

/* The barrier is a counter of arrivals in a mapping that all share. */
static void barrier(const char *file, uint64_t n, uint64_t round)
{
	static uint64_t *arrived;
	if (!arrived) {
		int b = open(file, O_RDWR);
		if (b < 0)
			err(1, "%s", file);
		arrived = mmap(NULL, sizeof *arrived, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
		if (arrived == MAP_FAILED)
			err(1, "mmap %s", file);
		close(b);
	}
	__atomic_add_fetch(arrived, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < n * round)
		usleep(500);
}

static void reads(void)
{
	static char buf[1 << 20];
	off_t at = 0;
	for (ssize_t n; (n = pread(fd, buf, sizeof buf, at)) != 0; at += n)
		if (n < 0)
			err(1, "read %s", path);
}

static void maps(void)
{
	struct stat st;
	int f = open(path, O_RDONLY);
	if (f < 0 || fstat(f, &st) < 0)
		err(1, "%s", path);
	volatile char *m = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, f, 0);
	if (m == MAP_FAILED)
		err(1, "mmap %s", path);
	char sum = 0;
	for (off_t i = 0; i < st.st_size; i += 4096)
		sum ^= m[i];
	(void)sum;
	close(f);
}

static void lists(void)
{
	DIR *d = opendir(path);
	if (!d)
		err(1, "%s", path);
	while (readdir(d))
		;
	closedir(d);
}

static void fills(void)
{
	static char buf[64 << 10];
	memset(buf, 'a' + rank % 26, sizeof buf);
	if (write(fd, buf, sizeof buf) != sizeof buf)
		err(1, "write %s", own);
}

static void misses(void)
{
	char name[4096];
	struct stat st;
	snprintf(name, sizeof name, "%s/missing", path);
	if (stat(name, &st) == 0 || errno != ENOENT)
		err(1, "%s is there", name);
}

static void act(const char *what)
{
	struct stat st;
	if (!strcmp(what, "open") && (fd = open(path, O_RDONLY)) < 0)
		err(1, "open %s", path);
	else if (!strcmp(what, "stat") && stat(path, &st) < 0)
		err(1, "stat %s", path);
	else if (!strcmp(what, "read"))
		reads();
	else if (!strcmp(what, "close") && close(fd) < 0)
		err(1, "close");
	else if (!strcmp(what, "map"))
		maps();
	else if (!strcmp(what, "list"))
		lists();
	else if (!strcmp(what, "missing"))
		misses();
	else if (!strcmp(what, "create") && (fd = open(own, O_CREAT | O_EXCL | O_WRONLY, 0644)) < 0)
		err(1, "create %s", own);
	else if (!strcmp(what, "fill"))
		fills();
	else if (!strcmp(what, "unlink") && unlink(own) < 0)
		err(1, "unlink %s", own);
	else if (!strcmp(what, "openrw") && (fd = open(path, O_RDWR)) < 0)
		err(1, "open %s", path);
	else if (!strcmp(what, "write") && pwrite(fd, "x", 1, rank) != 1)
		err(1, "write %s", path);
	else if (!strcmp(what, "sync") && fsync(fd) < 0)
		err(1, "fsync");
}

int main(int argc, char **argv)
{
	if (argc < 5)
		errx(2, "usage: storm BARRIER N PATH ACTION...");
	path = argv[3];
	rank = atoi(getenv("ZOIDFS_RANK"));
	snprintf(own, sizeof own, "%s/rank.%d", path, rank);
	for (int i = 4; i < argc; i++) {
		barrier(argv[1], atoi(argv[2]), i - 3);
		act(argv[i]);
	}
	return 0;
}
