/*
 * What must hold before a kernel may start. On 6.12 and 7.2 a ubd file that
 * cannot be opened panics the guest (uml-facts.md, trap 3), and a /dev/shm that
 * is too small ends it with SIGBUS whenever it gets there: both are found here
 * and told by their real cause. Disks that our server offers are checked by it,
 * when it opens them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "cow/cow.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/supervisor.h"

#define SPACE_MIN (16u << 20) /* bytes free where an overlay lies, below which it isn't worth starting */

/* Locks as the kernel takes them: F_SETLK over the whole file (ubd_kern.c, os_lock_file()). */
static int check_lock(int fd, const char *path, short type, struct error *err)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (fcntl(fd, F_GETLK, &lock) < 0)
		return error_errno(err, errno, "cannot look for locks on %s", path);
	if (lock.l_type == F_UNLCK)
		return 0;
	error_set(err, ERROR_STATE, "%s is in use by %s%d", path,
		  lock.l_pid > 0 ? "process " : "another program: lock ", (int)lock.l_pid);
	return error_hint(err, "a machine's disk can be used by one machine at a time");
}

static int mismatch(const char *path, const struct cow_header *header, const char *backing,
		    const struct stat *st, struct error *err)
{
	if (header->size != (uint64_t)st->st_size)
		error_set(err, ERROR_FAILED, "%s was made over a base of %llu bytes, but %s has %lld", path,
			  (unsigned long long)header->size, backing, (long long)st->st_size);
	else
		error_set(err, ERROR_FAILED,
			  "%s was changed after %s was made over it (modification times differ by %lld s)",
			  backing, path, (long long)st->st_mtime - (long long)header->mtime);
	return error_hint(
		err, "what the machine wrote fits the old base only: put that back, or reset the machine");
}

static int check_backing(const struct machine_disk *disk, const struct cow_header *header, struct error *err)
{
	cleanup_close int fd = open(disk->backing, O_RDONLY | O_CLOEXEC);
	struct cow_header below;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot open the base image %s", disk->backing);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "the base image %s is no regular file", disk->backing);
	if (cow_header_read(fd, &below, NULL) != 0)
		return error_set(err, ERROR_FAILED,
				 "%s is a layer, and the kernel's ubd driver cannot stack them: leave out disk: ubd",
				 disk->backing);
	if (!cow_header_matches(header, (uint64_t)st.st_size, &st))
		return mismatch(disk->path, header, disk->backing, &st, err);
	return check_lock(fd, disk->backing, F_RDLCK, err);
}

int disk_check_ubd(const struct machine_disk *disk, struct error *err)
{
	cleanup_close int fd = open(disk->path, O_RDWR | O_CLOEXEC);
	struct cow_header header;
	struct stat st;
	int cow;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot open the disk %s", disk->path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "the disk %s is no regular file", disk->path);
	cow = cow_header_read(fd, &header, err);
	if (cow < 0)
		return error_prefix(err, "the disk %s", disk->path);
	if (!disk->backing && (cow || st.st_size < COW_SECTOR_SIZE))
		return error_set(err, ERROR_FAILED, "the disk %s is %s", disk->path,
				 cow ? "an overlay, but its base is not known" : "empty");
	if (disk->backing && !cow)
		return error_set(err, ERROR_FAILED,
				 "%s is no overlay (COW file): its header is missing or damaged", disk->path);
	if (disk->backing && header.format != COW_V3)
		return error_set(err, ERROR_FAILED, "%s is an overlay of format %s; the kernel needs V3",
				 disk->path, cow_format_name(header.format));
	if (check_lock(fd, disk->path, F_WRLCK, err) < 0)
		return -1;
	return disk->backing ? check_backing(disk, &header, err) : 0;
}

int disk_check_space(const struct machine_spec *spec, struct error *err)
{
	for (size_t i = 0; i < spec->disk_count; i++) {
		struct statvfs fs;
		char human[16];

		if (statvfs(spec->disks[i].path, &fs) < 0)
			return error_errno(err, errno, "cannot look for free space at %s",
					   spec->disks[i].path);
		uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;

		if (left >= SPACE_MIN)
			continue;
		error_set(err, ERROR_FAILED, "no space left on the file system of %s: %s free",
			  spec->disks[i].path, str_human_size(left, human, sizeof(human)));
		return error_hint(err, "free some space there (uml-lab gc, uml-lab reset) and try again");
	}
	return 0;
}
