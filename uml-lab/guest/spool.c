#include "uml-lab/guest/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/guest/mount.h"

#define SPOOL "/spool" /* in the initramfs, for the moment between mount and detach */

int spool_open(const char *path, struct fault *f)
{
	int fd;

	mkdir(SPOOL, 0700);
	if (mount_hostfs(path, SPOOL, true, f) < 0)
		return -1;
	fd = open(SPOOL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fault_errno(f, errno, "cannot open the host's %s", path);
	umount2(SPOOL, MNT_DETACH);
	return fd;
}

static const char *name_of(uint32_t number, char name[16])
{
	snprintf(name, 16, "%u", number);
	return name;
}

int spool_take(int folder, uint32_t number, uint8_t *data, uint32_t length)
{
	char name[16];
	uint32_t done = 0;
	ssize_t got = 0;
	int fd = openat(folder, name_of(number, name), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -1;
	while (done < length) {
		got = read(fd, data + done, length - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		done += (uint32_t)got;
	}
	close(fd);
	spool_drop(folder, number);
	return done == length ? 0 : -1;
}

void spool_drop(int folder, uint32_t number)
{
	char name[16];

	unlinkat(folder, name_of(number, name), 0);
}
