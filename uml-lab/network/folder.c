/* The folder of a session's networks: its lock, its control socket, and what is left when a keeper was killed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/network/network_internal.h"

#define ASK_MS 5000		/* for the keeper to read */
#define PORT_NAME_MAX 16	/* vde_switch's and libvdeplug's sockets in NAME/: "/.12345678-00000", "/012.34" */

void network_spec_free(struct network_spec *spec)
{
	for (size_t i = 0; i < spec->count; i++)
		free(spec->switches[i].name);
	free(spec->switches);
	free(spec->folder);
	*spec = (struct network_spec){0};
}

char *network_path(const char *folder, const char *name, struct error *err)
{
	char *path = file_join(err, folder, name);

	if (!path || strlen(path) + PORT_NAME_MAX < sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return path;
	error_set(err, ERROR_FAILED, "the sockets of network %s would have paths longer than %zu bytes: %s", name,
		  sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, path);
	error_hint(err, "set XDG_RUNTIME_DIR to a shorter path, or unset it");
	free(path);
	return NULL;
}

int network_control_address(const char *folder, struct sockaddr_un *address, struct error *err)
{
	cleanup_free char *path = network_path(folder, ".control", err);

	if (!path)
		return -1;
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

int network_lock(const char *folder, struct error *err)
{
	cleanup_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct stat ours, there;

	if (fd < 0)
		return error_errno(err, errno, "cannot open the folder %s", folder);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno != EWOULDBLOCK)
		return error_errno(err, errno, "cannot lock %s", folder);
	/* One that ended between our open() and flock() took its folder away: whoever makes the next one is the keeper. */
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &ours) < 0 || stat(folder, &there) < 0 ||
	    ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
		return error_set(err, ERROR_STATE, "the networks in %s are kept already", folder);
	return steal_fd(&fd);
}

void network_clear(const char *folder)
{
	cleanup_dir DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		cleanup_free char *path = NULL;

		if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
			continue;
		path = file_join(NULL, folder, entry->d_name);
		if (path)
			file_remove_tree(path, NULL);
	}
}

int network_sweep(const char *folder, struct error *err)
{
	cleanup_close int lock = -1;

	if (!file_exists(folder))
		return 0;
	lock = network_lock(folder, err);
	if (lock < 0)
		return -1;
	network_clear(folder);
	rmdir(folder);
	return 0;
}

int network_connect(const char *folder, struct error *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;

	if (fd < 0)
		return error_errno(err, errno, "cannot make a socket");
	if (network_control_address(folder, &address, err) < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return steal_fd(&fd);
	if (errno == ENOENT || errno == ECONNREFUSED)
		return error_set(err, ERROR_STATE, "nobody keeps the networks in %s", folder);
	return error_errno(err, errno, "cannot connect to %s", address.sun_path);
}

int network_add(int connection, const struct network_switch *network, struct error *err)
{
	struct add_message message = {.magic = ADD_MAGIC, .learning = network->learning, .ports = network->ports};

	if (strlen(network->name) >= sizeof(message.name))
		return error_set(err, ERROR_USAGE, "network %s has too long a name", network->name);
	strcpy(message.name, network->name);
	while (send(connection, &message, sizeof(message), MSG_NOSIGNAL) < 0) {
		struct pollfd p = {.fd = connection, .events = POLLOUT};

		if (errno != EAGAIN || poll(&p, 1, ASK_MS) <= 0)
			return error_errno(err, errno, "cannot ask the keeper of the networks for network %s", network->name);
	}
	return 0;
}
