/*
 * Listing folders. A position is what getdents64() told for the entry before; a
 * reader that goes back makes the folder's descriptor seek. In a tree's root the
 * position is a number of shares.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define ENTRIES_SIZE 32768 /* bytes that getdents64() may fill at once */

/* As getdents64(2) has it. */
struct host_entry {
	uint64_t ino;
	int64_t next;
	uint16_t size;
	uint8_t type;
	char name[];
};

int op_opendir(struct request *rq)
{
	struct fuse_open_out out = {.open_flags = 0};
	struct handle *h;
	int fd;

	if (rq->node->source)
		fd = node_open(rq->fs, rq->node, O_RDONLY | O_DIRECTORY);
	else
		fd = dup(rq->fs->sources[0].root); /* any will do: its list is ours */
	if (fd < 0)
		return rq->node->source ? fd : -errno;
	h = handle_new(rq->fs, rq->node, fd, true);
	if (!h)
		return -ENOMEM;
	out.fh = table_id(&rq->fs->handles, h->index);
	return reply(rq, &out, sizeof(out));
}

static struct handle *folder_of(struct request *rq, uint64_t fh)
{
	struct handle *h = handle_get(rq->fs, fh);

	return h && h->folder ? h : NULL;
}

/* What goes into the answer, piece by piece. */
struct listing {
	struct request *rq;
	struct handle *h;
	size_t limit, used; /* bytes of the answer's data */
	bool plus;
};

/* Adds an entry. False: there is no more room. */
static bool add(struct listing *l, const char *name, uint64_t ino, uint64_t next, uint32_t type,
		const struct fuse_entry_out *entry)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_dirent dirent;
		char rest[HOSTFS_NAME_MAX + 9];
	} record = {0};
	size_t length = strlen(name);
	size_t before = l->plus ? 0 : sizeof(record.entry);
	size_t size = FUSE_DIRENT_ALIGN(sizeof(record.entry) + FUSE_NAME_OFFSET + length) - before;

	if (length > HOSTFS_NAME_MAX)
		return true;
	if (l->used + size > l->limit)
		return false;
	if (entry)
		record.entry = *entry;
	record.dirent = (struct fuse_dirent){.ino = ino, .off = next, .namelen = (uint32_t)length, .type = type};
	memcpy((char *)&record + offsetof(__typeof__(record), dirent) + FUSE_NAME_OFFSET, name, length);
	iov_write(l->rq->io->in, l->rq->io->in_count, sizeof(struct fuse_out_header) + l->used,
		  (char *)&record + before, size);
	l->used += size;
	return true;
}

static bool is_dot(const char *name)
{
	return str_eq(name, ".") || str_eq(name, "..");
}

/* One entry of a share's folder. False: there is no more room. */
static bool add_host_entry(struct listing *l, const struct host_entry *e)
{
	struct fuse_entry_out entry;
	struct node *node = NULL;
	bool known;

	if (is_dot(e->name))
		return add(l, e->name, e->ino, (uint64_t)e->next, e->type, NULL);
	if (source_hides(l->h->node->source, e->name))
		return true;
	/* Without attributes the type is not known: what is a device for the guest is a file here. */
	if (!l->plus)
		return add(l, e->name, e->ino, (uint64_t)e->next, e->type == DT_REG ? DT_UNKNOWN : e->type, NULL);
	if (l->used + sizeof(entry) + FUSE_NAME_OFFSET + HOSTFS_NAME_MAX + 8 > l->limit)
		return false;
	known = entry_fill(l->rq->fs, l->h->node, l->h->fd, e->name, NULL, &entry, &node) == 0;
	return add(l, e->name, e->ino, (uint64_t)e->next, known ? (entry.attr.mode & S_IFMT) >> 12 : e->type,
		   known ? &entry : NULL);
}

/* Refills the handle's buffer. Bytes; 0 at the end; -errno. */
static int refill(struct handle *h)
{
	long n;

	if (!h->entries && !(h->entries = malloc(ENTRIES_SIZE)))
		return -ENOMEM;
	n = syscall(SYS_getdents64, h->fd, h->entries, ENTRIES_SIZE);
	h->at = 0;
	h->length = n > 0 ? (size_t)n : 0;
	return n < 0 ? -errno : (int)n;
}

static int list_host(struct listing *l, uint64_t offset)
{
	struct handle *h = l->h;
	int n = 0;

	if (offset != h->position || !offset) {
		if (lseek(h->fd, (off_t)offset, SEEK_SET) < 0)
			return -errno;
		h->at = h->length = 0;
		h->position = offset;
	}
	for (;;) {
		const struct host_entry *e;

		if (h->at == h->length && (n = refill(h)) <= 0)
			return n;
		e = (const void *)(h->entries + h->at);
		if (!add_host_entry(l, e))
			return 0;
		h->at += e->size;
		h->position = (uint64_t)e->next;
	}
}

static void list_shares(struct listing *l, uint64_t offset)
{
	for (; offset < l->rq->fs->source_count; offset++)
		if (!add(l, l->rq->fs->sources[offset].share->name, 2 + offset, offset + 1, DT_DIR, NULL))
			return;
}

static int list(struct request *rq, bool plus)
{
	const struct fuse_read_in *in = ARGS(rq, fuse_read_in);
	size_t header = sizeof(struct fuse_out_header);
	size_t room = rq->in_bytes > header ? rq->in_bytes - header : 0;
	struct listing l = {
		.rq = rq, .h = folder_of(rq, in->fh), .limit = in->size < room ? in->size : room, .plus = plus};
	int result = 0;

	if (!l.h)
		return -EBADF;
	if (l.limit > HOSTFS_IO_MAX)
		l.limit = HOSTFS_IO_MAX;
	if (l.h->node->source)
		result = list_host(&l, in->offset);
	else
		list_shares(&l, in->offset);
	return l.used ? (int)l.used : result;
}

int op_readdir(struct request *rq)
{
	return list(rq, false);
}

int op_readdirplus(struct request *rq)
{
	return list(rq, true);
}

int op_releasedir(struct request *rq)
{
	struct handle *h = folder_of(rq, ARGS(rq, fuse_release_in)->fh);

	if (!h)
		return -EBADF;
	handle_close(rq->fs, h);
	return 0;
}

int op_fsyncdir(struct request *rq)
{
	struct handle *h = folder_of(rq, ARGS(rq, fuse_fsync_in)->fh);

	if (!h)
		return -EBADF;
	return h->node->source && fsync(h->fd) < 0 ? -errno : 0;
}
