/*
 * Requests: what a guest's kernel sends is checked here, once, before anything acts
 * on it: the length of the fixed part by the table below, strings that end within
 * the request, names without slashes. Whoever is root in the guest can send anything.
 *
 * The arguments are copied first, so they can't change after the check. The data of a
 * write stays where it is (it goes into a file, whatever it is).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"

#define MINOR	  38 /* of the protocol, as in the kernel's header that this was built with */
#define MINOR_MIN 31 /* 5.4: all that is relied on below */
#define INIT_V36  24 /* bytes of struct fuse_init_in without flags2 and what follows: before 7.36 */

/* ---- pieces of memory ---- */

size_t iov_bytes(const struct iovec *iov, int count)
{
	size_t n = 0;

	for (int i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
}

int iov_slice(const struct iovec *iov, int count, size_t at, size_t n, struct iovec *out, int max)
{
	int used = 0;

	for (int i = 0; i < count && n && used < max; i++) {
		size_t take;

		if (at >= iov[i].iov_len) {
			at -= iov[i].iov_len;
			continue;
		}
		take = iov[i].iov_len - at < n ? iov[i].iov_len - at : n;
		out[used++] = (struct iovec){(char *)iov[i].iov_base + at, take};
		n -= take;
		at = 0;
	}
	return used;
}

/* Copies between memory of ours and the pieces. */
static size_t iov_copy(const struct iovec *iov, int count, size_t at, void *ours, size_t n, bool in)
{
	size_t done = 0;

	for (int i = 0; i < count && done < n; i++) {
		size_t take;
		char *theirs;

		if (at >= iov[i].iov_len) {
			at -= iov[i].iov_len;
			continue;
		}
		take = iov[i].iov_len - at < n - done ? iov[i].iov_len - at : n - done;
		theirs = (char *)iov[i].iov_base + at;
		if (in)
			memcpy((char *)ours + done, theirs, take);
		else
			memcpy(theirs, (char *)ours + done, take);
		done += take;
		at = 0;
	}
	return done;
}

size_t iov_read(const struct iovec *iov, int count, size_t at, void *to, size_t n)
{
	return iov_copy(iov, count, at, to, n, true);
}

size_t iov_write(const struct iovec *iov, int count, size_t at, const void *from, size_t n)
{
	return iov_copy(iov, count, at, (void *)from, n, false);
}

int reply(struct request *rq, const void *data, size_t n)
{
	size_t header = sizeof(struct fuse_out_header);

	if (rq->in_bytes < header + n)
		return -EIO;
	iov_write(rq->io->in, rq->io->in_count, header, data, n);
	return (int)n;
}

/* ---- the start ---- */

#define WANTED                                                                                                  \
	(FUSE_ASYNC_READ | FUSE_EXPORT_SUPPORT | FUSE_NO_OPEN_SUPPORT | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | \
	 FUSE_DO_READDIRPLUS | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |                     \
	 FUSE_HANDLE_KILLPRIV_V2 | FUSE_DONT_MASK)

static int op_init(struct request *rq)
{
	const struct fuse_init_in *in = ARGS(rq, fuse_init_in);
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = MINOR};

	if (in->major < FUSE_KERNEL_VERSION || (in->major == FUSE_KERNEL_VERSION && in->minor < MINOR_MIN))
		return -EPROTO;
	if (in->major > FUSE_KERNEL_VERSION) /* it asks again, with ours */
		return reply(rq, &out, sizeof(out));
	nodes_reset(rq->fs);
	if (!rq->fs->root)
		return -ENOMEM;
	out.max_readahead = in->max_readahead;
	out.flags = in->flags & WANTED;
	/* Locks end when files are closed, so these have to be opened and closed here. */
	if (!rq->fs->tree && rq->fs->sources[0].share->shared_locks && in->flags & FUSE_POSIX_LOCKS)
		out.flags = (out.flags & ~FUSE_NO_OPEN_SUPPORT) | (in->flags & (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS));
	/* On this host's own mounts permissions are the host's: whoever may reach the folder sees all of it. */
	if (!rq->fs->tree)
		out.flags |= in->flags & FUSE_POSIX_ACL;
	rq->fs->no_open = out.flags & FUSE_NO_OPEN_SUPPORT;
	out.max_background = 64;
	out.congestion_threshold = 48;
	out.max_write = HOSTFS_IO_MAX;
	out.max_pages = HOSTFS_IO_MAX / 4096;
	out.time_gran = 1;
	rq->fs->ready = true;
	return reply(rq, &out, in->minor < 5 ? FUSE_COMPAT_INIT_OUT_SIZE : sizeof(out));
}

static int op_destroy(struct request *rq)
{
	hostfs_reset(rq->fs);
	return 0;
}

static int op_forget(struct request *rq)
{
	node_forget(rq->fs, rq->node, ARGS(rq, fuse_forget_in)->nlookup);
	return 0;
}

static int op_batch_forget(struct request *rq)
{
	const struct fuse_batch_forget_in *in = ARGS(rq, fuse_batch_forget_in);
	const struct fuse_forget_one *one = (const void *)(in + 1);
	size_t n = (rq->length - sizeof(*in)) / sizeof(*one);

	for (size_t i = 0; i < n && i < in->count; i++) {
		struct node *node = node_get(rq->fs, one[i].nodeid);

		if (node)
			node_forget(rq->fs, node, one[i].nlookup);
	}
	return 0;
}

/* ---- the table ---- */

enum {
	SILENT = 1,	 /* is not answered */
	ANYTIME = 2,	 /* also before INIT */
	NO_NODE = 4,	 /* nodeid means nothing */
	SECOND_FREE = 8, /* the second string, or the only one, is no name: a link's text */
	ATTRIBUTE = 16,	 /* the string is the name of an attribute */
};

static const struct rule {
	operation act;
	uint16_t size;	 /* bytes of the fixed part */
	uint8_t strings; /* that follow it */
	uint8_t flags;
} rules[] = {
	[FUSE_LOOKUP] = {op_lookup, 0, 1, 0},
	[FUSE_FORGET] = {op_forget, sizeof(struct fuse_forget_in), 0, SILENT},
	[FUSE_GETATTR] = {op_getattr, sizeof(struct fuse_getattr_in), 0, 0},
	[FUSE_SETATTR] = {op_setattr, sizeof(struct fuse_setattr_in), 0, 0},
	[FUSE_READLINK] = {op_readlink, 0, 0, 0},
	[FUSE_SYMLINK] = {op_symlink, 0, 2, SECOND_FREE},
	[FUSE_MKNOD] = {op_mknod, sizeof(struct fuse_mknod_in), 1, 0},
	[FUSE_MKDIR] = {op_mkdir, sizeof(struct fuse_mkdir_in), 1, 0},
	[FUSE_UNLINK] = {op_unlink, 0, 1, 0},
	[FUSE_RMDIR] = {op_rmdir, 0, 1, 0},
	[FUSE_RENAME] = {op_rename, sizeof(struct fuse_rename_in), 2, 0},
	[FUSE_RENAME2] = {op_rename2, sizeof(struct fuse_rename2_in), 2, 0},
	[FUSE_LINK] = {op_link, sizeof(struct fuse_link_in), 1, 0},
	[FUSE_OPEN] = {op_open, sizeof(struct fuse_open_in), 0, 0},
	[FUSE_READ] = {op_read, sizeof(struct fuse_read_in), 0, 0},
	[FUSE_WRITE] = {op_write, sizeof(struct fuse_write_in), 0, 0},
	[FUSE_STATFS] = {op_statfs, 0, 0, 0},
	[FUSE_RELEASE] = {op_release, sizeof(struct fuse_release_in), 0, 0},
	[FUSE_FSYNC] = {op_fsync, sizeof(struct fuse_fsync_in), 0, 0},
	[FUSE_GETLK] = {op_getlk, sizeof(struct fuse_lk_in), 0, 0},
	[FUSE_SETLK] = {op_setlk, sizeof(struct fuse_lk_in), 0, 0},
	[FUSE_SETLKW] = {op_setlkw, sizeof(struct fuse_lk_in), 0, 0},
	[FUSE_FLUSH] = {op_flush, sizeof(struct fuse_flush_in), 0, 0},
	[FUSE_INTERRUPT] = {op_interrupt, sizeof(struct fuse_interrupt_in), 0, SILENT | NO_NODE},
	[FUSE_SETXATTR] = {op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, 1, ATTRIBUTE},
	[FUSE_GETXATTR] = {op_getxattr, sizeof(struct fuse_getxattr_in), 1, ATTRIBUTE},
	[FUSE_LISTXATTR] = {op_listxattr, sizeof(struct fuse_getxattr_in), 0, 0},
	[FUSE_REMOVEXATTR] = {op_removexattr, 0, 1, ATTRIBUTE},
	[FUSE_INIT] = {op_init, INIT_V36 - 8, 0, ANYTIME | NO_NODE},
	[FUSE_DESTROY] = {op_destroy, 0, 0, ANYTIME | NO_NODE},
	[FUSE_OPENDIR] = {op_opendir, sizeof(struct fuse_open_in), 0, 0},
	[FUSE_READDIR] = {op_readdir, sizeof(struct fuse_read_in), 0, 0},
	[FUSE_READDIRPLUS] = {op_readdirplus, sizeof(struct fuse_read_in), 0, 0},
	[FUSE_RELEASEDIR] = {op_releasedir, sizeof(struct fuse_release_in), 0, 0},
	[FUSE_FSYNCDIR] = {op_fsyncdir, sizeof(struct fuse_fsync_in), 0, 0},
	[FUSE_CREATE] = {op_create, sizeof(struct fuse_create_in), 1, 0},
	[FUSE_BATCH_FORGET] = {op_batch_forget, sizeof(struct fuse_batch_forget_in), 0, SILENT | NO_NODE},
	[FUSE_FALLOCATE] = {op_fallocate, sizeof(struct fuse_fallocate_in), 0, 0},
	[FUSE_LSEEK] = {op_lseek, sizeof(struct fuse_lseek_in), 0, 0},
	[FUSE_COPY_FILE_RANGE] = {op_copy_file_range, sizeof(struct fuse_copy_file_range_in), 0, 0},
	[FUSE_SYNCFS] = {op_syncfs, 0, 0, 0},
	[FUSE_TMPFILE] = {op_tmpfile, sizeof(struct fuse_create_in), 1, SECOND_FREE},
};

static int check_name(const char *name)
{
	if (strlen(name) > HOSTFS_NAME_MAX)
		return -ENAMETOOLONG;
	return !*name || strchr(name, '/') || str_eq(name, ".") || str_eq(name, "..") ? -EINVAL : 0;
}

/* The strings behind the fixed part: each ends within the request. */
static int take_strings(struct request *rq, const struct rule *rule)
{
	const char *at = (const char *)rq->args + rule->size, *end = (const char *)rq->args + rq->length;
	const char **to[] = {&rq->name, &rq->name2};

	for (int i = 0; i < rule->strings; i++) {
		bool last = i + 1 == rule->strings;
		size_t n = strnlen(at, (size_t)(end - at));

		if (at + n == end)
			return -EINVAL;
		*to[i] = at;
		at += n + 1;
		if (rule->flags & ATTRIBUTE ? n == 0 || n > HOSTFS_NAME_MAX
					    : !(last && rule->flags & SECOND_FREE) && check_name(*to[i]) < 0)
			return rule->flags & ATTRIBUTE ? -ERANGE : check_name(*to[i]);
	}
	return 0;
}

static int act(struct request *rq)
{
	const struct rule *rule = rq->in.opcode < sizeof(rules) / sizeof(rules[0]) ? &rules[rq->in.opcode] : NULL;
	int result;

	if (!rule || !rule->act)
		return -ENOSYS;
	if (!rq->fs->ready && !(rule->flags & ANYTIME))
		return -EIO;
	if (rq->length < rule->size)
		return -EINVAL;
	result = take_strings(rq, rule);
	if (result < 0)
		return result;
	if (!(rule->flags & NO_NODE)) {
		rq->node = node_get(rq->fs, rq->in.nodeid);
		if (!rq->node)
			return -ESTALE;
	}
	return rule->act(rq);
}

static bool is_silent(const struct fuse_in_header *in)
{
	return in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET || in->opcode == FUSE_INTERRUPT;
}

static size_t answer(const struct hostfs_request *io, const struct fuse_in_header *in, int result)
{
	struct fuse_out_header out = {.len = sizeof(out), .unique = in->unique};

	if (is_silent(in))
		return 0;
	out.error = result < 0 ? result : 0;
	out.len += result > 0 ? (uint32_t)result : 0;
	return iov_write(io->in, io->in_count, 0, &out, sizeof(out)) == sizeof(out) ? out.len : 0;
}

size_t hostfs_handle(struct hostfs *fs, const struct hostfs_request *io)
{
	struct request rq = {.fs = fs, .io = io};
	size_t sent = iov_bytes(io->out, io->out_count);
	size_t want;
	int result;

	if (iov_read(io->out, io->out_count, 0, &rq.in, sizeof(rq.in)) < sizeof(rq.in))
		return 0;
	rq.in_bytes = iov_bytes(io->in, io->in_count);
	fs->now_ms = loop_now_ms();
	if (rq.in.len < sizeof(rq.in) || rq.in.len > sent)
		return answer(io, &rq.in, -EINVAL);
	want = rq.in.len - sizeof(rq.in);
	if (rq.in.opcode == FUSE_WRITE && want > sizeof(struct fuse_write_in)) {
		rq.data_at = sizeof(rq.in) + sizeof(struct fuse_write_in);
		rq.data_length = want - sizeof(struct fuse_write_in);
		want = sizeof(struct fuse_write_in);
	}
	if (want > HOSTFS_ARGS_MAX)
		return answer(io, &rq.in, -E2BIG);
	rq.length = iov_read(io->out, io->out_count, sizeof(rq.in), fs->args, want);
	fs->args[rq.length] = '\0';
	rq.args = fs->args;
	result = act(&rq);
	if (rq.in.opcode == FUSE_SETLKW && result == WAITS)
		return HOSTFS_LATER;
	return answer(io, &rq.in, result);
}

size_t hostfs_refuse(const struct hostfs_request *io, int error)
{
	struct fuse_in_header in;

	if (iov_read(io->out, io->out_count, 0, &in, sizeof(in)) < sizeof(in))
		return 0;
	return answer(io, &in, -error);
}

void hostfs_allow_waits(struct hostfs *fs)
{
	fs->may_wait = true;
}

int hostfs_wait_last(const struct hostfs *fs)
{
	return fs->waits_last;
}

size_t hostfs_answer(const struct hostfs_answer *a, const struct iovec *in, int in_count)
{
	const struct fuse_out_header out = {.len = sizeof(out), .unique = a->unique, .error = -a->error};

	return iov_write(in, in_count, 0, &out, sizeof(out)) == sizeof(out) ? sizeof(out) : 0;
}

/* ---- the whole ---- */

void nodes_reset(struct hostfs *fs)
{
	struct error err = ERROR_INIT;

	nodes_free(fs);
	memset(fs->waits, 0, sizeof(fs->waits));
	if (nodes_init(fs, &err) < 0)
		log_error(&err);
}

struct hostfs *hostfs_new(const struct hostfs_share *shares, size_t count, bool tree, bool missing_ok,
			  struct error *err)
{
	struct hostfs *fs = calloc(1, sizeof(*fs));

	if (fs)
		kept_begin();
	if (!fs || !(fs->args = malloc(HOSTFS_ARGS_MAX + 1)) || !(fs->sources = calloc(count, sizeof(*fs->sources)))) {
		error_oom(err);
		hostfs_free(fs);
		return NULL;
	}
	fs->tree = tree;
	for (; fs->source_count < count; fs->source_count++)
		if (source_open(&fs->sources[fs->source_count], &shares[fs->source_count], err) < 0 && !missing_ok)
			break;
	if (fs->source_count < count || nodes_init(fs, err) < 0) {
		hostfs_free(fs);
		return NULL;
	}
	return fs;
}

void hostfs_free(struct hostfs *fs)
{
	if (!fs)
		return;
	nodes_free(fs);
	for (size_t i = 0; i < fs->source_count; i++)
		source_close(&fs->sources[i]);
	free(fs->sources);
	free(fs->args);
	free(fs);
	kept_end();
}

void hostfs_reset(struct hostfs *fs)
{
	fs->ready = false;
	nodes_reset(fs);
}

void hostfs_resume(struct hostfs *fs)
{
	fs->ready = true;
}

void hostfs_on_note(struct hostfs *fs, hostfs_note_fn fn, void *arg)
{
	fs->note = fn;
	fs->note_arg = arg;
}
