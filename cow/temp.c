/*
 * Files that appear whole or not at all: written under a temporary name in the
 * same folder and renamed; with `durable`, file and folder are made so. A process
 * that is killed leaves at most a file ".NAME.uml-cow-XXXXXX", which nothing
 * reads and `uml-cow check --repair` removes.
 */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

/* Splits a path: *folder and the name within it, both malloc'ed. */
static int split(const char *path, char **folder, char **name, struct error *err)
{
	cleanup_free char *a = str_dup(path, err), *b = str_dup(path, err);

	if (!a || !b)
		return -1;
	*folder = str_dup(dirname(a), err);
	*name = str_dup(basename(b), err);
	return *folder && *name ? 0 : -1;
}

int cow_temp_open(struct cow_temp *t, const char *path, struct error *err)
{
	cleanup_free char *folder = NULL, *name = NULL, *final = NULL, *temp = NULL;
	int fd;

	if (split(path, &folder, &name, err))
		return -1;
	final = str_dup(path, err);
	/* 200: the name of a file has at most 255 bytes, suffix included */
	temp = str_printf(err, "%s/.%.200s.uml-cow-XXXXXX", folder, name);
	if (!final || !temp)
		return -1;
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, errno, "cannot create a file in %s", folder);
	t->fd = fd;
	t->path = steal_ptr(&final);
	t->temp = steal_ptr(&temp);
	/* tells files being made from files left behind; no harm where locks are not to be had */
	cow_lock(fd, t->temp, COW_LOCK_WRITE, NULL);
	return 0;
}

int cow_temp_guard(struct cow_temp *t, const struct cow_chain *from, struct error *err)
{
	struct stat st;

	if (stat(t->path, &st))
		return 0;
	if (from && cow_chain_contains(from, &st))
		return error_set(err, ERROR_FAILED, "%s would be replaced, but %s stands on it", t->path,
				 from->files[0]->path);
	if (t->guard >= 0)
		return 0;
	t->guard = open(t->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->guard < 0)
		return error_errno(err, errno, "cannot replace %s", t->path);
	return cow_lock(t->guard, t->path, COW_LOCK_WRITE, err);
}

int cow_sync_folder(const char *path, struct error *err)
{
	cleanup_free char *folder = NULL, *name = NULL;
	cleanup_close int fd = -1;

	if (split(path, &folder, &name, err))
		return -1;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* EINVAL: a file system that has nothing to sync there */
	if (fd < 0 || (fsync(fd) && errno != EINVAL))
		return error_errno(err, errno, "cannot make %s durable", path);
	return 0;
}

static int rename_new(const char *from, const char *to)
{
	if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* a file system without RENAME_NOREPLACE: link() does not replace either */
	return link(from, to) || unlink(from) ? -1 : 0;
}

int cow_temp_publish(struct cow_temp *t, bool replace, bool durable, struct error *err)
{
	if (durable && fsync(t->fd))
		return error_errno(err, errno, "cannot write %s", t->path);
	if (replace ? rename(t->temp, t->path) : rename_new(t->temp, t->path)) {
		int saved = errno;

		error_errno(err, saved, "cannot create %s", t->path);
		return saved == EEXIST ? error_hint(err, "remove it first, or use --force") : -1;
	}
	free(steal_ptr(&t->temp));
	return durable ? cow_sync_folder(t->path, err) : 0;
}

void cow_temp_drop(struct cow_temp *t)
{
	int saved = errno;

	if (t->temp)
		unlink(t->temp);
	if (t->fd >= 0)
		close(t->fd);
	if (t->guard >= 0)
		file_close_behind(t->guard);
	free(t->temp);
	free(t->path);
	*t = (struct cow_temp)COW_TEMP_INIT;
	errno = saved;
}

int cow_temp_inherit(struct cow_temp *t, const struct stat *old, struct error *err)
{
	struct stat new;

	/*
	 * root alone can give files away; for others the new file is theirs, which the old folder allowed. Not asked for
	 * needlessly: the disk server may not.
	 */
	if (geteuid() == 0 && (fstat(t->fd, &new) || new.st_uid != old->st_uid || new.st_gid != old->st_gid) &&
	    fchown(t->fd, old->st_uid, old->st_gid))
		return error_errno(err, errno, "cannot give %s its owner", t->path);
	if (fchmod(t->fd, old->st_mode & 07777))
		return error_errno(err, errno, "cannot set the mode of %s", t->path);
	return 0;
}
