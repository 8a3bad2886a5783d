/*
 * uml-hostfs, as a guest's kernel could feed it: any requests, in any order, of any lengths, at a share whose files carry
 * attributes that somebody else made; the text of a share. What is answered is well-formed, and nothing outside is touched.
 * Input: opcode (1 byte), node (1: one of those told last), length (2, little-endian), arguments, and so on; or 0xff and a text.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "hostfs/hostfs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"

#define NODES 16
#define REQUESTS_MAX 64

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[] = "/dev/shm/fuzz-hostfs.XXXXXX"; /* in memory: requests may ask for fsync() */
static char inside[64];
static struct hostfs_share share = {.name = (char *)"s", .path = inside, .writable = true, .quota = 1 << 20};
static uint64_t nodes[NODES];
static unsigned int told;

static void clear(void)
{
	file_remove_tree(base, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_setup("fuzz", LOG_LEVEL_ERROR);
	if (!mkdtemp(base) || chdir("/proc/self/fd") < 0)
		abort();
	snprintf(inside, sizeof(inside), "%s/share", base);
	umask(0);
	atexit(clear);
	return 0;
}

/* Without the fsync() of file_write_atomic(): thousands of runs a second, not tens. */
static void write_file(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, data, size) < 0)
		abort();
	close(fd);
}

/* A fresh share: a file, a folder, a link to outside. */
static void fill(void)
{
	char path[128];

	file_remove_tree(inside, NULL);
	if (mkdir(inside, 0755) < 0)
		abort();
	snprintf(path, sizeof(path), "%s/d", inside);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/l", inside);
	if (symlink("../canary", path) < 0)
		abort();
	snprintf(path, sizeof(path), "%s/f", inside);
	write_file(path, "x", 1);
	snprintf(path, sizeof(path), "%s/canary", base);
	write_file(path, "x", 1);
}

/* Attributes and a sidecar, from the input. */
static void spoil(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"user.virtfs.mode",
					    "user.virtfs.uid",
					    "user.virtfs.rdev",
					    "user.virtfs.security.capability",
					    "user.virtfs.system.posix_acl_access",
					    "user.virtfs.system.posix_acl_default"};
	char path[128];

	if (!size)
		return;
	snprintf(path, sizeof(path), "%s/f", inside);
	setxattr(path, names[data[0] % 6], data, size > 64 ? 64 : size, 0);
	snprintf(path, sizeof(path), "%s/.virtfs_metadata", inside);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/.virtfs_metadata/l", inside);
	write_file(path, data, size);
}

static void note_entry(const uint8_t *answer, size_t n)
{
	struct fuse_entry_out entry;

	if (n < sizeof(struct fuse_out_header) + sizeof(entry))
		return;
	memcpy(&entry, answer + sizeof(struct fuse_out_header), sizeof(entry));
	if (entry.nodeid)
		nodes[told++ % NODES] = entry.nodeid;
}

static void send_request(struct hostfs *fs, uint8_t opcode, uint8_t node, const uint8_t *args, size_t length)
{
	static uint8_t answer[9000];
	struct fuse_in_header in = {.len = (uint32_t)(sizeof(in) + length),
				    .opcode = opcode,
				    .unique = 1,
				    .nodeid = nodes[node % NODES]};
	struct iovec out[3] = {{&in, 20}, {(char *)&in + 20, sizeof(in) - 20}, {(void *)args, length}};
	struct iovec room[2] = {{answer, 100}, {answer + 100, node & 0x80 ? 20 : sizeof(answer) - 100}};
	struct hostfs_request rq = {out, 3, room, 2};
	struct fuse_out_header header;
	struct hostfs_answer late;
	size_t n = hostfs_handle(fs, &rq);

	if (n == HOSTFS_LATER) { /* tried once more; then the guest is told it was too long */
		if (hostfs_wait_try(fs, hostfs_wait_last(fs), &late) && (late.error < 0 || late.error > 4095))
			abort();
		if (node & 0x40)
			hostfs_wait_end(fs, hostfs_wait_last(fs));
		return;
	}
	if (!n)
		return;
	memcpy(&header, answer, sizeof(header));
	if (header.len != n || n > room[0].iov_len + room[1].iov_len || header.error > 0 || header.error < -4095)
		abort();
	if (header.error == 0 && (opcode == FUSE_LOOKUP || opcode == FUSE_MKNOD || opcode == FUSE_MKDIR))
		note_entry(answer, n);
}

static void parse_share(const uint8_t *data, size_t size)
{
	struct hostfs_share parsed;
	char *text = strndup((const char *)data, size), *again;

	if (text && hostfs_share_parse(&parsed, text, NULL) == 0) {
		again = hostfs_share_format(&parsed, NULL);
		hostfs_share_free(&parsed);
		if (!again || hostfs_share_parse(&parsed, again, NULL) < 0)
			abort();
		hostfs_share_free(&parsed);
		free(again);
	}
	free(text);
}

static void check_canary(void)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/canary", base);
	if (stat(path, &st) < 0 || st.st_size != 1 || st.st_nlink != 1 || (st.st_mode & 07777) != 0644)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuse_init_in init = {.major = 7, .minor = 38};
	struct hostfs *fs;

	if (size && data[0] == 0xff) {
		parse_share(data + 1, size - 1);
		return 0;
	}
	fill();
	spoil(data, size);
	init.flags = (size && data[0] & 1 ? FUSE_NO_OPEN_SUPPORT : 0) |
		     (size && data[0] & 2 ? FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS : 0);
	fs = hostfs_new(&share, 1, false, false, NULL);
	if (!fs)
		return 0;
	for (int i = 0; i < NODES; i++)
		nodes[i] = FUSE_ROOT_ID;
	told = 0;
	hostfs_allow_waits(fs);
	send_request(fs, FUSE_INIT, 0, (const uint8_t *)&init, sizeof(init));
	send_request(fs, FUSE_LOOKUP, 0, (const uint8_t *)"f", 2);
	send_request(fs, FUSE_LOOKUP, 15, (const uint8_t *)"l", 2);
	send_request(fs, FUSE_LOOKUP, 15, (const uint8_t *)"d", 2);
	for (int i = 0; i < REQUESTS_MAX && size >= 4; i++) {
		size_t length = (size_t)data[2] | (size_t)data[3] << 8;

		if (length > size - 4)
			length = size - 4;
		/* SYNCFS would wait for this host's disks. */
		if (data[0] % 60 != FUSE_SYNCFS)
			send_request(fs, data[0] % 60, data[1], data + 4, length);
		data += 4 + length;
		size -= 4 + length;
	}
	hostfs_free(fs);
	check_canary();
	return 0;
}
