/*
 * uml-hostfs without a guest: requests as a guest's kernel (or whoever is root there) sends them. Names and lengths that are
 * none, numbers that were never given, attributes and sidecars that others made, limits, and an attacker who
 * moves folders and links about while they are read.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "hostfs/hostfs.h"
#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"

#define RACE_MS 1500
#define SECRET	"SECRET"

static char *base, *inside; /* a folder of ours, and the share in it */
static struct hostfs_share share;
static struct hostfs *fs;
static uint8_t answer[65536];

/* ---- a client ---- */

/* Sends opcode with arguments; answers 0 or the error (negative), with the data behind the header in answer. */
static int ask(uint32_t opcode, uint64_t nodeid, const void *args, size_t length, size_t *got)
{
	struct fuse_in_header in = {
		.len = (uint32_t)(sizeof(in) + length), .opcode = opcode, .unique = 7, .nodeid = nodeid};
	struct iovec out[2] = {{&in, sizeof(in)}, {(void *)args, length}};
	struct iovec room = {answer, sizeof(answer)};
	struct hostfs_request rq = {out, length ? 2 : 1, &room, 1};
	struct fuse_out_header header;
	size_t n = hostfs_handle(fs, &rq);

	if (n == 0)
		return 1; /* not answered */
	memcpy(&header, answer, sizeof(header));
	CU_ASSERT_EQUAL(header.len, n);
	CU_ASSERT_EQUAL(header.unique, 7);
	memmove(answer, answer + sizeof(header), n - sizeof(header));
	if (got)
		*got = n - sizeof(header);
	return header.error;
}

static void start(void)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = FUSE_NO_OPEN_SUPPORT};
	struct error err = ERROR_INIT;

	fs = hostfs_new(&share, 1, false, false, &err);
	CU_ASSERT_PTR_NOT_NULL_FATAL(fs);
	CU_ASSERT_EQUAL(ask(FUSE_INIT, 0, &in, sizeof(in), NULL), 0);
}

static void stop(void)
{
	hostfs_free(fs);
	fs = NULL;
}

static int lookup(uint64_t folder, const char *name, struct fuse_entry_out *entry)
{
	int result = ask(FUSE_LOOKUP, folder, name, strlen(name) + 1, NULL);

	if (result == 0)
		memcpy(entry, answer, sizeof(*entry));
	return result == 0 && !entry->nodeid ? -ENOENT : result;
}

static int read_node(uint64_t nodeid, char *text, size_t size)
{
	struct fuse_read_in in = {.size = (uint32_t)size};
	size_t got = 0;
	int result = ask(FUSE_READ, nodeid, &in, sizeof(in), &got);

	if (result == 0)
		memcpy(text, answer, got);
	return result < 0 ? result : (int)got;
}

static int make(uint64_t folder, const char *name, mode_t mode, uint32_t rdev, struct fuse_entry_out *entry)
{
	char args[sizeof(struct fuse_mknod_in) + 300];
	struct fuse_mknod_in in = {.mode = mode, .rdev = rdev};
	int result;

	memcpy(args, &in, sizeof(in));
	strcpy(args + sizeof(in), name);
	result = ask(FUSE_MKNOD, folder, args, sizeof(in) + strlen(name) + 1, NULL);
	if (result == 0)
		memcpy(entry, answer, sizeof(*entry));
	return result;
}

static int write_node(uint64_t nodeid, const void *data, size_t length, uint64_t offset)
{
	cleanup_free char *args = malloc(sizeof(struct fuse_write_in) + length);
	struct fuse_write_in in = {.size = (uint32_t)length, .offset = offset};

	memcpy(args, &in, sizeof(in));
	memcpy(args + sizeof(in), data, length);
	return ask(FUSE_WRITE, nodeid, args, sizeof(in) + length, NULL);
}

/* ---- the folder ---- */

static void put(const char *name, const char *text)
{
	cleanup_free char *path = str_printf(NULL, "%s/%s", base, name);

	if (file_write_atomic(path, text, strlen(text), 0644, NULL) < 0)
		abort();
}

static char *at(const char *name)
{
	static char path[2][600];
	static int which;

	which = !which;
	snprintf(path[which], sizeof(path[which]), "%s/%s", base, name);
	return path[which];
}

static int set_up(void)
{
	char template[] = "/tmp/hostfs.XXXXXX";

	base = strdup(mkdtemp(template));
	inside = strdup(at("share"));
	if (!base || !inside || mkdir(inside, 0755) < 0 || mkdir(at("outside"), 0755) < 0)
		return -1;
	put("outside/file", SECRET);
	put("share/file", "plain");
	share = (struct hostfs_share){.name = (char *)"s", .path = inside, .writable = true};
	umask(0);
	signal(SIGPIPE, SIG_IGN);
	return chdir("/proc/self/fd");
}

static int tear_down(void)
{
	file_remove_tree(base, NULL);
	free(base);
	free(inside);
	return 0;
}

/* ---- tests ---- */

static void names_that_are_none(void)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "/", "../outside/file", "file/"};
	char long_name[300];
	struct fuse_entry_out e;

	start();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, bad[i], &e), -EINVAL);
		CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, bad[i], S_IFREG | 0644, 0, &e), -EINVAL);
		CU_ASSERT_EQUAL(ask(FUSE_UNLINK, FUSE_ROOT_ID, bad[i], strlen(bad[i]) + 1, NULL), -EINVAL);
	}
	memset(long_name, 'x', sizeof(long_name));
	long_name[256] = '\0';
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, long_name, &e), -ENAMETOOLONG);
	/* Without an end. */
	CU_ASSERT_EQUAL(ask(FUSE_LOOKUP, FUSE_ROOT_ID, "file", 4, NULL), -EINVAL);
	CU_ASSERT_EQUAL(ask(FUSE_RENAME, FUSE_ROOT_ID, "\1\0\0\0\0\0\0\0file\0x", 14, NULL), -EINVAL);
	/* Too short for what it says it is; unknown. */
	CU_ASSERT_EQUAL(ask(FUSE_READ, FUSE_ROOT_ID, "x", 1, NULL), -EINVAL);
	CU_ASSERT_EQUAL(ask(9999, FUSE_ROOT_ID, NULL, 0, NULL), -ENOSYS);
	CU_ASSERT_EQUAL(ask(FUSE_GETATTR, 12345, answer, sizeof(struct fuse_getattr_in), NULL), -ESTALE);
	CU_ASSERT_EQUAL(ask(FUSE_FORGET, FUSE_ROOT_ID, "\377\377\377\377\377\377\377\377", 8, NULL), 1);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "file", &e), 0);
	stop();
}

static void links_are_text(void)
{
	struct fuse_entry_out e, f;
	char text[64];
	size_t got;

	CU_ASSERT_EQUAL(symlink("../outside", at("share/link")), 0);
	CU_ASSERT_EQUAL(symlink("../outside/file", at("share/flink")), 0);
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "link", &e), 0);
	CU_ASSERT(S_ISLNK(e.attr.mode));
	CU_ASSERT(lookup(e.nodeid, "file", &f) < 0);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "flink", &e), 0);
	CU_ASSERT(read_node(e.nodeid, text, sizeof(text)) < 0);
	CU_ASSERT(write_node(e.nodeid, "x", 1, 0) < 0);
	CU_ASSERT_EQUAL(ask(FUSE_READLINK, e.nodeid, NULL, 0, &got), 0);
	CU_ASSERT_EQUAL(got, strlen("../outside/file"));
	stop();
	unlink(at("share/link"));
	unlink(at("share/flink"));
}

/* A file that the guest knows becomes a link on the host. */
static void file_becomes_link(void)
{
	struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 0777}, size = {.valid = FATTR_SIZE};
	struct fuse_entry_out e;
	struct stat before, after;
	char text[64];

	put("share/victim", "v");
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "victim", &e), 0);
	unlink(at("share/victim"));
	CU_ASSERT_EQUAL(symlink("../outside/file", at("share/victim")), 0);
	CU_ASSERT_EQUAL(stat(at("outside/file"), &before), 0);
	CU_ASSERT(read_node(e.nodeid, text, sizeof(text)) < 0);
	CU_ASSERT(write_node(e.nodeid, "x", 1, 0) < 0);
	CU_ASSERT(ask(FUSE_SETATTR, e.nodeid, &mode, sizeof(mode), NULL) < 0);
	CU_ASSERT(ask(FUSE_SETATTR, e.nodeid, &size, sizeof(size), NULL) < 0);
	CU_ASSERT_EQUAL(stat(at("outside/file"), &after), 0);
	CU_ASSERT_EQUAL(before.st_mode, after.st_mode);
	CU_ASSERT_EQUAL(before.st_size, after.st_size);
	stop();
	unlink(at("share/victim"));
}

/* Swaps a folder with a link to outside, and with a folder of outside, for ever. */
static _Noreturn void attack(void)
{
	for (;;) {
		syscall(SYS_renameat2, AT_FDCWD, at("share/d"), AT_FDCWD, at("share/evil"), 2);
		syscall(SYS_renameat2, AT_FDCWD, at("share/d/file"), AT_FDCWD, at("share/d/flink"), 2);
		rename(at("share/d"), at("moved"));
		rename(at("moved"), at("share/d"));
	}
}

static void race(void)
{
	int64_t until = loop_now_ms() + RACE_MS;
	unsigned long tries = 0, reads = 0, secrets = 0;
	struct stat st;
	pid_t pid;

	mkdir(at("share/d"), 0755);
	put("share/d/file", "plain");
	CU_ASSERT_EQUAL(symlink("../outside", at("share/evil")), 0);
	CU_ASSERT_EQUAL(symlink("../../outside/file", at("share/d/flink")), 0);
	start();
	pid = fork();
	if (pid == 0)
		attack();
	while (loop_now_ms() < until) {
		struct fuse_entry_out d, f;
		char text[64] = "";
		int n;

		tries++;
		if (lookup(FUSE_ROOT_ID, "d", &d) < 0 || lookup(d.nodeid, "file", &f) < 0)
			continue;
		n = read_node(f.nodeid, text, sizeof(text));
		reads += n > 0;
		secrets += n > 0 && memmem(text, (size_t)n, SECRET, strlen(SECRET));
		write_node(f.nodeid, "plain", 5, 0);
		make(d.nodeid, "made", S_IFREG | 0644, 0, &f);
		ask(FUSE_UNLINK, d.nodeid, "made", 5, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CU_ASSERT_EQUAL(secrets, 0);
	CU_ASSERT(reads > 50);
	printf("(%lu tries, %lu read) ", tries, reads);
	/* Nothing was made or changed outside. */
	CU_ASSERT_EQUAL(stat(at("outside/made"), &st), -1);
	CU_ASSERT_EQUAL(stat(at("outside/file"), &st), 0);
	CU_ASSERT_EQUAL(st.st_size, strlen(SECRET));
	stop();
}

static void foreign_attributes(void)
{
	uint32_t folder_mode = htole32(S_IFDIR | 0777), device = htole32(S_IFCHR | 0666), huge = 0xffffffff;
	struct fuse_entry_out e;

	put("share/x", "x");
	if (setxattr(at("share/x"), "user.virtfs.mode", &folder_mode, 4, 0) < 0) {
		CU_ASSERT_EQUAL(errno, EOPNOTSUPP); /* /tmp without attributes: sidecars() has the rest */
		return;
	}
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "x", &e), 0);
	CU_ASSERT(S_ISREG(e.attr.mode));
	setxattr(at("share/x"), "user.virtfs.mode", &device, 4, 0);
	setxattr(at("share/x"), "user.virtfs.rdev", "12345", 5, 0); /* five bytes are none */
	setxattr(at("share/x"), "user.virtfs.uid", "x", 1, 0);
	setxattr(at("share/x"), "user.virtfs.gid", &huge, 4, 0);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "x", &e), 0);
	CU_ASSERT(S_ISCHR(e.attr.mode));
	CU_ASSERT_EQUAL(e.attr.rdev, 0);
	CU_ASSERT_EQUAL(e.attr.uid, 0);
	CU_ASSERT_EQUAL(e.attr.gid, 0);
	setxattr(inside, "user.virtfs.mode", &device, 4, 0);
	CU_ASSERT_EQUAL(ask(FUSE_GETATTR, FUSE_ROOT_ID, answer, sizeof(struct fuse_getattr_in), NULL), 0);
	CU_ASSERT(S_ISDIR(((struct fuse_attr_out *)answer)->attr.mode));
	removexattr(inside, "user.virtfs.mode");
	/* A chmod on the host wins over what the guest had said before. */
	struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 04777};
	put("share/y", "y");
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "y", &e), 0);
	CU_ASSERT_EQUAL(ask(FUSE_SETATTR, e.nodeid, &mode, sizeof(mode), NULL), 0);
	CU_ASSERT_EQUAL(((struct fuse_attr_out *)answer)->attr.mode, S_IFREG | 04777);
	chmod(at("share/y"), 0600 | 0040);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "y", &e), 0);
	CU_ASSERT_EQUAL(e.attr.mode, S_IFREG | 0640);
	stop();
}

/* Symbolic links carry no user.* attributes: their owners lie beside them, in QEMU's format, read with care. */
static void sidecars(void)
{
	struct fuse_setattr_in owner = {.valid = FATTR_UID | FATTR_GID, .uid = 5, .gid = 6};
	char args[64], *text = NULL;
	struct fuse_entry_out e;
	size_t length;

	CU_ASSERT_EQUAL(symlink("to", at("share/l")), 0);
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "l", &e), 0);
	CU_ASSERT_EQUAL(ask(FUSE_SETATTR, e.nodeid, &owner, sizeof(owner), NULL), 0);
	CU_ASSERT_EQUAL(((struct fuse_attr_out *)answer)->attr.uid, 5);
	CU_ASSERT_EQUAL(file_read_all(at("share/.virtfs_metadata/l"), 1000, &text, &length, NULL), 0);
	CU_ASSERT_STRING_EQUAL(text, "virtfs.uid=5\nvirtfs.gid=6\n");
	free(text);
	/* It goes along, and goes. */
	memcpy(args, "\1\0\0\0\0\0\0\0l\0m", 12);
	CU_ASSERT_EQUAL(ask(FUSE_RENAME, FUSE_ROOT_ID, args, 12, NULL), 0);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "m", &e), 0);
	CU_ASSERT_EQUAL(e.attr.gid, 6);
	put("share/.virtfs_metadata/m", "virtfs.uid=-1\nvirtfs.gid=99999999999\nvirtfs.mode=16895\nnonsense\n=\nvirtfs.uid");
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "m", &e), 0);
	CU_ASSERT_EQUAL(e.attr.uid, 0);
	CU_ASSERT_EQUAL(e.attr.gid, 0);
	CU_ASSERT(S_ISLNK(e.attr.mode));
	unlink(at("share/.virtfs_metadata/m"));
	CU_ASSERT_EQUAL(symlink("../../outside/file", at("share/.virtfs_metadata/m")), 0);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "m", &e), 0);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, ".virtfs_metadata", &e), -ENOENT);
	CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, ".virtfs_metadata_root", S_IFREG | 0644, 0, &e), -EPERM);
	CU_ASSERT_EQUAL(ask(FUSE_UNLINK, FUSE_ROOT_ID, "m", 2, NULL), 0);
	CU_ASSERT_EQUAL(access(at("share/.virtfs_metadata"), F_OK), -1);
	CU_ASSERT_EQUAL(access(at("outside/file"), F_OK), 0);
	stop();
}

static void read_only(void)
{
	struct fuse_setattr_in set = {.valid = FATTR_SIZE | FATTR_MODE, .mode = 0777};
	struct fuse_open_in open_in = {.flags = O_RDWR};
	struct fuse_entry_out e;
	char text[16];

	share.writable = false;
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "file", &e), 0);
	CU_ASSERT_EQUAL(write_node(e.nodeid, "x", 1, 0), -EROFS);
	CU_ASSERT_EQUAL(ask(FUSE_SETATTR, e.nodeid, &set, sizeof(set), NULL), -EROFS);
	CU_ASSERT_EQUAL(ask(FUSE_UNLINK, FUSE_ROOT_ID, "file", 5, NULL), -EROFS);
	CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, "new", S_IFREG | 0644, 0, &e), -EROFS);
	CU_ASSERT_EQUAL(ask(FUSE_MKDIR, FUSE_ROOT_ID, "\0\0\0\0\0\0\0\0d", 10, NULL), -EROFS);
	CU_ASSERT_EQUAL(ask(FUSE_SYMLINK, FUSE_ROOT_ID, "a\0b", 4, NULL), -EROFS);
	CU_ASSERT_EQUAL(ask(FUSE_RENAME, FUSE_ROOT_ID, "\1\0\0\0\0\0\0\0file\0x", 15, NULL), -EROFS);
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "file", &e), 0);
	CU_ASSERT_EQUAL(ask(FUSE_OPEN, e.nodeid, &open_in, sizeof(open_in), NULL), -ENOSYS);
	CU_ASSERT_EQUAL(read_node(e.nodeid, text, sizeof(text)), 5);
	stop();
	share.writable = true;
}

static void limits(void)
{
	static char block[32768];
	struct fuse_entry_out e;
	int result = 0, written = 0;

	share.quota = 1 << 20;
	share.max_file_size = 512 << 10;
	start();
	CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, "big", S_IFREG | 0644, 0, &e), 0);
	CU_ASSERT_EQUAL(write_node(e.nodeid, block, sizeof(block), 512 << 10), -EFBIG);
	memset(block, 'x', sizeof(block));
	for (int file = 0; file < 4 && result == 0; file++) {
		char name[16];

		snprintf(name, sizeof(name), "q%d", file);
		CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, name, S_IFREG | 0644, 0, &e), 0);
		for (uint64_t o = 0; o < 512 << 10 && result == 0; o += sizeof(block), written += result == 0)
			result = write_node(e.nodeid, block, sizeof(block), o);
	}
	CU_ASSERT_EQUAL(result, -EDQUOT);
	CU_ASSERT(written > 16 && written <= 32);
	CU_ASSERT_EQUAL(ask(FUSE_UNLINK, FUSE_ROOT_ID, "q0", 3, NULL), 0);
	/* The guest may have it open: its space is free when it is forgotten, or counted anew. */
	stop();
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "q1", &e), 0);
	CU_ASSERT_EQUAL(write_node(e.nodeid, block, sizeof(block), 0), 0);
	CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, "again", S_IFREG | 0644, 0, &e), 0);
	CU_ASSERT_EQUAL(write_node(e.nodeid, block, sizeof(block), 0), 0);
	stop();
	share.quota = share.max_file_size = 0;
}

static void hidden(void)
{
	struct fuse_entry_out e;
	struct error err = ERROR_INIT;

	put("share/exam.key", "k");
	CU_ASSERT_EQUAL(strv_add(&share.hide, "*.key", &err), 0);
	start();
	CU_ASSERT_EQUAL(lookup(FUSE_ROOT_ID, "exam.key", &e), -ENOENT);
	CU_ASSERT_EQUAL(make(FUSE_ROOT_ID, "new.key", S_IFREG | 0644, 0, &e), -EPERM);
	CU_ASSERT(ask(FUSE_RENAME, FUSE_ROOT_ID, "\1\0\0\0\0\0\0\0exam.key\0x", 19, NULL) < 0);
	CU_ASSERT_EQUAL(ask(FUSE_RENAME, FUSE_ROOT_ID, "\1\0\0\0\0\0\0\0file\0f.key", 19, NULL), -EPERM);
	CU_ASSERT_EQUAL(access(at("share/exam.key"), F_OK), 0);
	stop();
	strv_free(&share.hide);
}

static void texts(void)
{
	struct hostfs_share s = {0};
	struct error err = ERROR_INIT;
	cleanup_free char *text = NULL;

	CU_ASSERT_EQUAL(hostfs_share_parse(&s, "w=/a\\,b\\\\c,rw,locks=shared,owner=7:8,quota=2M,max-file-size=1M,"
					       "hide=*.k\\,x,hide=.ssh", &err), 0);
	CU_ASSERT_STRING_EQUAL(s.path, "/a,b\\c");
	CU_ASSERT(s.writable && s.uid == 7 && s.gid == 8 && s.quota == 2 << 20 && s.hide.count == 2);
	text = hostfs_share_format(&s, &err);
	CU_ASSERT_STRING_EQUAL(text, "w=/a\\,b\\\\c,rw,locks=shared,owner=7:8,quota=2097152,max-file-size=1048576,"
				     "hide=*.k\\,x,hide=.ssh");
	hostfs_share_free(&s);
	CU_ASSERT_EQUAL(hostfs_share_parse(&s, "nothing", &err), -1);
	CU_ASSERT_EQUAL(hostfs_share_parse(&s, "a=relative", &err), -1);
	CU_ASSERT_EQUAL(hostfs_share_parse(&s, "a/b=/x", &err), -1);
	CU_ASSERT_EQUAL(hostfs_share_parse(&s, "a=/x,owner=root:root", &err), -1);
	CU_ASSERT_EQUAL(hostfs_share_parse(&s, "a=/x,rx", &err), -1);
}

int main(void)
{
	static const struct unit_case cases[] = {
		UNIT_CASE(names_that_are_none), UNIT_CASE(links_are_text), UNIT_CASE(file_becomes_link),
		UNIT_CASE(foreign_attributes),	UNIT_CASE(sidecars),	   UNIT_CASE(read_only),
		UNIT_CASE(limits),		UNIT_CASE(hidden),	   UNIT_CASE(texts),
		UNIT_CASE(race),
	};
	int result;

	if (set_up() < 0)
		return 2;
	result = unit_run("hostfs", cases, sizeof(cases) / sizeof(cases[0]));
	tear_down();
	return result;
}
