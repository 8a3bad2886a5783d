/*
 * The FUSE view: a folder with one file, "disk", through libfuse's low-level
 * interface.
 *
 * The kernel caches pages, and gathers writes when the chain is writable: the
 * file changes by no other way, since the chain is locked. What is gathered
 * reaches us at fsync() and at the latest when it is unmounted; both end in
 * cow_chain_flush(). One thread: each request is a system call or two.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "cow/view.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define DISK_INODE         2
#define CACHE_SECONDS      86400.0
#define UNMOUNT_TIMEOUT_MS 60000
#define REQUEST_MAX        (1u << 20)

struct view {
	struct cow_chain *chain;
	bool writable;
	struct stat top; /* of the chain's top file: owner and time */
	char *buffer;
};

static struct view *view_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static void fill_stat(const struct view *v, fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_uid = v->top.st_uid;
	st->st_gid = v->top.st_gid;
	st->st_mtim = st->st_ctim = st->st_atim = v->top.st_mtim;
	st->st_blksize = 4096;
	if (ino == FUSE_ROOT_ID) {
		st->st_mode = S_IFDIR | 0555;
		st->st_nlink = 2;
		return;
	}
	st->st_mode = S_IFREG | (v->writable ? 0600 : 0400);
	st->st_nlink = 1;
	st->st_size = (off_t)cow_chain_size(v->chain);
	st->st_blocks = st->st_size / 512;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct view *v = userdata;

	if (v->writable)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	conn->max_readahead = REQUEST_MAX;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {
		.ino = DISK_INODE, .attr_timeout = CACHE_SECONDS, .entry_timeout = CACHE_SECONDS};

	if (parent != FUSE_ROOT_ID || strcmp(name, COW_VIEW_NAME) != 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill_stat(view_of(req), DISK_INODE, &e.attr);
	fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill_stat(view_of(req), ino, &st);
	fuse_reply_attr(req, &st, CACHE_SECONDS);
}

/* Times may be set (by the kernel too, when it gathers writes), to no effect. A disk keeps its size. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	bool resize = (to_set & FUSE_SET_ATTR_SIZE) &&
		      (uint64_t)attr->st_size != cow_chain_size(view_of(req)->chain);

	if (resize || (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		fuse_reply_err(req, EPERM);
	else
		op_getattr(req, ino, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	static const char *const names[] = {".", "..", COW_VIEW_NAME};
	char buffer[512];
	size_t used = 0;

	(void)fi;
	if (ino != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (size_t i = (size_t)offset; i < ARRAY_SIZE(names); i++) {
		struct stat st;
		size_t room = sizeof(buffer) < size ? sizeof(buffer) : size, n;

		fill_stat(view_of(req), i < 2 ? FUSE_ROOT_ID : DISK_INODE, &st);
		n = fuse_add_direntry(req, buffer + used, room - used, names[i], &st, (off_t)i + 1);
		if (n > room - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buffer, used);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino != DISK_INODE) {
		fuse_reply_err(req, EISDIR);
	} else if ((fi->flags & O_ACCMODE) != O_RDONLY && !view_of(req)->writable) {
		fuse_reply_err(req, EROFS);
	} else {
		fi->keep_cache = 1;
		fuse_reply_open(req, fi);
	}
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct view *v = view_of(req);
	uint64_t end = cow_chain_size(v->chain);
	int ret;

	(void)ino;
	(void)fi;
	if (size > REQUEST_MAX)
		size = REQUEST_MAX;
	if ((uint64_t)offset >= end)
		size = 0;
	else if (size > end - (uint64_t)offset)
		size = (size_t)(end - (uint64_t)offset);
	ret = cow_chain_read(v->chain, v->buffer, size, (uint64_t)offset);
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_buf(req, v->buffer, size);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct view *v = view_of(req);
	uint64_t end = cow_chain_size(v->chain);
	int ret;

	(void)ino;
	(void)fi;
	if ((uint64_t)offset >= end) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	if (size > end - (uint64_t)offset)
		size = (size_t)(end - (uint64_t)offset);
	ret = cow_chain_write(v->chain, data, size, (uint64_t)offset);
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_write(req, size);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct view *v = view_of(req);
	bool unmap = mode & FALLOC_FL_PUNCH_HOLE;
	int ret = -EOPNOTSUPP;

	(void)ino;
	(void)fi;
	if (unmap || (mode & FALLOC_FL_ZERO_RANGE))
		ret = cow_chain_zero(v->chain, (uint64_t)length, (uint64_t)offset, unmap);
	/* parts of sectors: the caller writes zeroes then */
	fuse_reply_err(req, ret == -EINVAL ? EOPNOTSUPP : -ret);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, -cow_chain_flush(view_of(req)->chain));
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char pid[16];
	size_t n = (size_t)snprintf(pid, sizeof(pid), "%d", (int)getpid());

	if (ino != FUSE_ROOT_ID || strcmp(name, COW_VIEW_PID) != 0)
		fuse_reply_err(req, ENODATA);
	else if (size == 0)
		fuse_reply_xattr(req, n);
	else if (size < n)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, pid, n);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readdir = op_readdir,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.fallocate = op_fallocate,
	.fsync = op_fsync,
	.getxattr = op_getxattr,
};

static struct fuse_session *new_session(struct view *v, struct error *err)
{
	char *argv[] = {(char *)"uml-cow", (char *)"-o",
			(char *)"fsname=uml-cow,subtype=uml-cow,default_permissions", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(ARRAY_SIZE(argv) - 1, argv);
	struct fuse_session *session = fuse_session_new(&args, &ops, sizeof(ops), v);

	if (!session)
		error_set(err, ERROR_FAILED, "cannot set up a FUSE session");
	fuse_opt_free_args(&args);
	return session;
}

static int serve_mounted(struct fuse_session *session, struct view *v, bool foreground, struct error *err)
{
	int ret;

	if (fuse_set_signal_handlers(session))
		return error_set(err, ERROR_FAILED, "cannot set up signals");
	if (fuse_daemonize(foreground))
		return error_errno(err, errno, "cannot go to the background");
	fuse_session_loop(session); /* ended by a signal or by unmounting: both are fine */
	fuse_remove_signal_handlers(session);
	ret = cow_chain_flush(v->chain);
	return ret ? error_errno(err, -ret, "what was written may be lost") : 0;
}

int cow_view_serve(struct cow_chain *chain, const char *folder, bool foreground, struct error *err)
{
	cleanup_free char *buffer = malloc(REQUEST_MAX), *real = file_absolute(folder, false, err);
	cleanup_free struct cow_file_info *info = malloc(sizeof(*info));
	struct view v = {.chain = chain, .buffer = buffer};
	struct fuse_session *session;
	int ret;

	if (!real)
		return -1;
	if (!buffer || !info)
		return error_oom(err);
	cow_chain_file(chain, 0, info);
	v.top = info->stat;
	v.writable = (fcntl(info->fd, F_GETFL) & O_ACCMODE) == O_RDWR;
	session = new_session(&v, err);
	if (!session)
		return -1;
	if (fuse_session_mount(session, real)) {
		fuse_session_destroy(session);
		error_set(err, ERROR_FAILED, "cannot mount on %s", folder);
		return error_hint(
			err,
			"FUSE needs /dev/fuse to be accessible and fusermount3 installed (package fuse3)");
	}
	ret = serve_mounted(session, &v, foreground, err);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return ret;
}

/* A descriptor that becomes readable when the process that serves the folder ends; -1 when that can't be
 * told. */
static int server_of(const char *folder)
{
	char text[16];
	ssize_t n = getxattr(folder, COW_VIEW_PID, text, sizeof(text) - 1);
	int64_t pid;

	if (n <= 0)
		return -1;
	text[n] = '\0';
	return str_to_i64(text, 1, INT32_MAX, &pid) ? -1 : (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

int cow_view_unmount(const char *folder, struct error *err)
{
	const char *const argv[] = {"fusermount3", "-u", "--", folder, NULL};
	const struct child_spec spec = {.argv = argv, .null_stdin = true};
	cleanup_close int server = server_of(folder);
	cleanup_free char *output = NULL;
	struct pollfd p = {.fd = server, .events = POLLIN};
	int status;

	if (server < 0)
		return error_set(err, ERROR_STATE, "no disk is mounted on %s", folder);
	if (child_capture(&spec, UNMOUNT_TIMEOUT_MS, 1024, true, &output, &status, err))
		return -1;
	if (status != 0)
		return error_set(err, ERROR_FAILED, "cannot unmount %s: %s", folder, output);
	if (poll(&p, 1, UNMOUNT_TIMEOUT_MS) == 0)
		return error_set(err, ERROR_TIMEOUT, "%s is unmounted, but its disk is still being written",
				 folder);
	return 0;
}
