/*
 * Bulk input for the guest (protocol.h, "Bulk input"): a frame's payload goes as
 * a file of its own into RUNTIME/spool, which the agent reads by hostfs and
 * removes. UML reads its serial lines a byte per system call, about 1 MB/s; a
 * file of 16 KiB costs the guest a fraction of a millisecond.
 *
 * What lies there is bounded by the channels' windows. When anything fails (a
 * full file system), the payload goes over the line as before.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/supervisor.h"

#define SPOOL_NAME "spool"
#define SPOOL_MIN 1024	/* bytes: below this the line is as fast */

void spool_clear(int runtime)
{
	int fd = openat(runtime, SPOOL_NAME, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_dir DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(fd, entry->d_name, 0);
	unlinkat(runtime, SPOOL_NAME, AT_REMOVEDIR);
}

void spool_make(struct supervisor *sv)
{
	spool_end(sv);
	spool_clear(sv->runtime);
	/* hostfs takes its path as a mount option: a comma would end it (6.12, fs/hostfs/hostfs_kern.c). */
	if (strpbrk(sv->spec->runtime, ",\t\n\\") || mkdirat(sv->runtime, SPOOL_NAME, 0700) < 0)
		return;
	sv->spool.folder = openat(sv->runtime, SPOOL_NAME, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sv->spool.folder >= 0)
		sv->spool.path = file_join(NULL, sv->spec->runtime, SPOOL_NAME);
}

void spool_end(struct supervisor *sv)
{
	sv->spool.agent = false;
	free(steal_ptr(&sv->spool.path));
	if (sv->spool.folder >= 0)
		close(steal_fd(&sv->spool.folder));
}

/* Writes the file. Its number, or 0 when that can't be done. */
static uint32_t put(struct supervisor *sv, const void *data, size_t length)
{
	cleanup_close int fd = -1;
	char name[16];

	if (!++sv->spool.last)
		sv->spool.last = 1;
	snprintf(name, sizeof(name), "%u", sv->spool.last);
	fd = openat(sv->spool.folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return 0;
	if (file_write_full(fd, data, length) < 0) {
		unlinkat(sv->spool.folder, name, 0);
		return 0;
	}
	return sv->spool.last;
}

int spool_send(struct supervisor *sv, uint32_t channel, const void *data, size_t length)
{
	uint32_t number = sv->spool.agent && length >= SPOOL_MIN ? put(sv, data, length) : 0;
	struct frame_data_file file = {htole32(number), htole32((uint32_t)length)};

	if (!number)
		return relay_send(sv, FRAME_DATA_IN, channel, data, length);
	return relay_send(sv, FRAME_DATA_FILE, channel, &file, sizeof(file));
}
