/*
 * Makes many small operations with the C client library of OrangeFS in one
 * process, which none of its tools does, and prints how many seconds they took,
 * without the start of the library.
 *
 *   cclient create|stat|remove DIRECTORY COUNT
 *   cclient write|read FILE OPERATIONS BYTES-OF-ONE FILE-BYTES
 *   cclient strided FILE CALLS PIECES BYTES-OF-ONE STRIDE
 *
 * Paths are below a mount point of PVFS2TAB_FILE. Files for write, read and
 * strided exist already. One operation follows the other.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <pvfs2.h>

static PVFS_credential cred;

static void must(const char *what, int err)
{
	if (err < 0) {
		PVFS_perror(what, err);
		exit(1);
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static PVFS_object_ref lookup(const char *path)
{
	PVFS_fs_id fs;
	PVFS_sysresp_lookup resp;
	char inside[PVFS_NAME_MAX];

	must("resolve", PVFS_util_resolve(path, &fs, inside, sizeof inside));
	must("lookup", PVFS_sys_lookup(fs, inside, &cred, &resp, PVFS2_LOOKUP_LINK_NO_FOLLOW, NULL));
	return resp.ref;
}

static void create(PVFS_object_ref dir, char *name)
{
	PVFS_sysresp_create resp;
	PVFS_sys_layout layout = {.algorithm = PVFS_SYS_LAYOUT_ROUND_ROBIN};
	PVFS_sys_attr attr = {.perms = 0644, .mask = PVFS_ATTR_SYS_ALL_SETABLE};

	attr.owner = cred.userid;
	attr.group = cred.group_array[0];
	attr.atime = attr.mtime = attr.ctime = time(NULL);
	must("create", PVFS_sys_create(name, dir, attr, &cred, NULL, &resp, &layout, NULL));
}

static void stat_one(PVFS_object_ref dir, char *name)
{
	PVFS_sysresp_lookup found;
	PVFS_sysresp_getattr resp;

	must("lookup", PVFS_sys_ref_lookup(dir.fs_id, name, dir, &cred, &found, PVFS2_LOOKUP_LINK_NO_FOLLOW, NULL));
	memset(&resp, 0, sizeof resp);
	must("getattr", PVFS_sys_getattr(found.ref, PVFS_ATTR_SYS_ALL_NOHINT, &cred, &resp, NULL));
	PVFS_util_release_sys_attr(&resp.attr);
}

static double names(const char *what, const char *path, int count)
{
	PVFS_object_ref dir = lookup(path);
	double start = now();

	for (int i = 0; i < count; i++) {
		char name[32];

		snprintf(name, sizeof name, "f%d", i);
		if (!strcmp(what, "create"))
			create(dir, name);
		else if (!strcmp(what, "stat"))
			stat_one(dir, name);
		else
			must("remove", PVFS_sys_remove(name, dir, &cred, NULL));
	}
	return now() - start;
}

static void io(PVFS_object_ref file, PVFS_Request type, int64_t off, void *buf, int64_t len, enum PVFS_io_type dir)
{
	PVFS_sysresp_io resp;
	PVFS_Request mem;

	must("memory type", PVFS_Request_contiguous(len, PVFS_BYTE, &mem));
	must("io", PVFS_sys_io(file, type, off, buf, mem, &cred, &resp, dir, NULL));
	if (resp.total_completed != len) {
		fprintf(stderr, "%lld bytes of %lld\n", (long long)resp.total_completed, (long long)len);
		exit(1);
	}
	PVFS_Request_free(&mem);
}

static double small(const char *what, const char *path, int ops, int64_t len, int64_t size)
{
	PVFS_object_ref file = lookup(path);
	char *buf = calloc(1, len);
	double start = now();

	srandom(1);
	for (int i = 0; i < ops; i++)
		io(file, PVFS_BYTE, random() % (size / len) * len, buf, len, *what == 'w' ? PVFS_IO_WRITE : PVFS_IO_READ);
	return now() - start;
}

static double strided(const char *path, int calls, int pieces, int32_t len, int64_t stride)
{
	PVFS_object_ref file = lookup(path);
	char *buf = calloc(pieces, len);
	int32_t one = 1;
	double start = now();

	for (int i = 0; i < calls; i++) {
		PVFS_size at = (int64_t)i * pieces * stride;
		PVFS_Request vector, type;

		must("vector", PVFS_Request_hvector(pieces, len, stride, PVFS_BYTE, &vector));
		must("file type", PVFS_Request_hindexed(1, &one, &at, vector, &type));
		io(file, type, 0, buf, (int64_t)pieces * len, PVFS_IO_WRITE);
		PVFS_Request_free(&type);
		PVFS_Request_free(&vector);
	}
	return now() - start;
}

int main(int argc, char **argv)
{
	double took;

	if (argc < 4)
		return 2;
	must("start", PVFS_util_init_defaults());
	must("credential", PVFS_util_gen_credential_defaults(&cred));
	if (!strcmp(argv[1], "strided") && argc == 7)
		took = strided(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoll(argv[6]));
	else if ((!strcmp(argv[1], "write") || !strcmp(argv[1], "read")) && argc == 6)
		took = small(argv[1], argv[2], atoi(argv[3]), atoll(argv[4]), atoll(argv[5]));
	else if (argc == 4)
		took = names(argv[1], argv[2], atoi(argv[3]));
	else
		return 2;
	printf("%.9f\n", took);
	PVFS_sys_finalize();
	return 0;
}
