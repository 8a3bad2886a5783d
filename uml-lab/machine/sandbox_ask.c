/*
 * What the keeper does in the program's place where there is no root of its own: the program's filter hands these calls to it
 * (seccomp_unotify(2)).
 *
 * connect(): the program must not reach any AF_UNIX socket it can name. The keeper copies the address, decides about that copy, and
 * connects the socket itself; nothing the program does to its memory in the meantime changes what was decided. Allowed are sockets
 * that lie directly in the guest's folder, where the program can make nothing.
 *
 * open() of a temporary file (O_TMPFILE), which UML makes for the guest's memory (arch/um/os-Linux/mem.c): each is the same file in
 * memory, as large as the guest's memory may be and sealed at that. So nothing of the host's /dev/shm can be filled, and there is
 * nothing in it to be left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/sandbox_internal.h"

/* The address in the program's memory. 0, or an errno. */
static int copy_address(const struct seccomp_notif *request, struct sockaddr_un *address)
{
	uint64_t size = request->data.args[2];
	struct iovec from = {(void *)(uintptr_t)request->data.args[1], (size_t)size}, to = {address, (size_t)size};

	if (size <= sizeof(sa_family_t) || size > sizeof(*address))
		return EINVAL;
	memset(address, 0, sizeof(*address));
	if (process_vm_readv((pid_t)request->pid, &to, 1, &from, 1, 0) != (ssize_t)size)
		return EFAULT;
	return 0;
}

/* The name of a socket of the guest's folder, NULL when it is something else. */
static const char *own_name(struct sockaddr_un *address, int folder)
{
	const char *name = address->sun_path;
	struct stat st;

	address->sun_path[sizeof(address->sun_path) - 1] = '\0';
	if (address->sun_family != AF_UNIX || !*name || strchr(name, '/'))
		return NULL;
	return fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode) ? name : NULL;
}

/* Does it. 0, or an errno for the program. */
static int connect_for(int listener, const struct seccomp_notif *request, int folder)
{
	cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, request->pid, 0), fd = -1;
	struct sockaddr_un address;
	int failed = copy_address(request, &address);

	if (failed)
		return failed;
	if (!own_name(&address, folder))
		return EACCES;
	fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, (int)request->data.args[0], 0);
	/* Only now it is certain that what was read is of the process that asked, not of one that got its number. */
	if (fd < 0 || ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &request->id) < 0)
		return EBADF;
	if (fchdir(folder) < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return errno;
	return 0;
}

int memory_file(uint64_t size)
{
	cleanup_close int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -1;
	return steal_fd(&fd);
}

/* Gives the program a descriptor of the memory file. Its number there, or -1 with errno. */
static int open_for(int listener, const struct seccomp_notif *request, int memory)
{
	cleanup_close int fd = -1;
	struct seccomp_notif_addfd add = {.id = request->id, .newfd_flags = O_CLOEXEC};
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	add.srcfd = (uint32_t)fd;
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
}

void ask_answer(int listener, int folder, int memory)
{
	/* Room for what a newer kernel adds to its structures. */
	union {
		struct seccomp_notif request;
		char room[512];
	} in = {.room = {0}};
	union {
		struct seccomp_notif_resp answer;
		char room[512];
	} out = {.room = {0}};

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &in.request) < 0)
		return;
	out.answer.id = in.request.id;
	if (in.request.data.nr == SYS_connect) {
		out.answer.error = -connect_for(listener, &in.request, folder);
	} else {
		int fd = open_for(listener, &in.request, memory);

		out.answer.val = fd;
		out.answer.error = fd < 0 ? -errno : 0;
	}
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &out.answer);
}
