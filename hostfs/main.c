/* uml-hostfs: the command line. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostfs/device.h"
#include "hostfs/hostfs.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/cli.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"

struct options {
	struct strv shares;
	const char *fd, *control_fd, *listen;
};

#define OPTION(field) offsetof(struct options, field)

static const struct cli_option option_table[] = {
	{"share", 0, CLI_LIST, OPTION(shares), "NAME=PATH[,ro|rw][,OPTION]…",
	 "offer a folder; uml-hostfs(1) tells the options"},
	{"fd", 0, CLI_STRING, OPTION(fd), "N", "serve the FUSE mount whose /dev/fuse is descriptor N"},
	{"listen", 0, CLI_STRING, OPTION(listen), "FOLDER",
	 "serve each share as a virtio file system, over vhost-user at FOLDER/NAME"},
	{"control-fd", 0, CLI_STRING, OPTION(control_fd), "N",
	 "serve guests whose connections come over the control socket that is descriptor N"},
	{0},
};

struct shares {
	struct hostfs_share *items;
	size_t count;
};

static void free_shares(struct shares *shares)
{
	for (size_t i = 0; i < shares->count; i++)
		hostfs_share_free(&shares->items[i]);
	free(shares->items);
}

static int parse_shares(const struct strv *texts, struct shares *shares, struct error *err)
{
	if (!texts->count)
		return error_set(err, ERROR_USAGE, "nothing to offer: give --share NAME=PATH");
	shares->items = calloc(texts->count, sizeof(*shares->items));
	if (!shares->items)
		return error_oom(err);
	for (; shares->count < texts->count; shares->count++)
		if (hostfs_share_parse(&shares->items[shares->count], texts->items[shares->count], err) < 0)
			return -1;
	for (size_t i = 0; i < shares->count; i++)
		for (size_t j = 0; j < i; j++)
			if (str_eq(shares->items[i].name, shares->items[j].name))
				return error_set(err, ERROR_USAGE, "two shares are called %s", shares->items[i].name);
	return 0;
}

/* Files get the modes asked for; many may be open; attributes are reached below /proc/self/fd. */
static int prepare(struct error *err)
{
	struct rlimit files;

	umask(0);
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (chdir("/proc/self/fd") < 0)
		return error_errno(err, errno, "cannot go to /proc/self/fd, by which files are reached");
	return 0;
}

static int signals_fd(struct error *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	return fd < 0 ? error_errno(err, errno, "cannot watch signals") : fd;
}

/* "--NAME N": the descriptor, -1 when it was not given, or -2 + err. */
static int take_fd(const char *text, const char *name, struct error *err)
{
	int64_t fd;

	if (!text)
		return -1;
	if (str_to_i64(text, 0, 1 << 20, &fd) == 0 && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0)
		return (int)fd;
	error_set(err, ERROR_USAGE, "--%s %s is not an open descriptor", name, text);
	return -2;
}

static int serve_mount(const struct shares *shares, const char *mountpoint, int fd, int stop, struct error *err)
{
	struct hostfs *fs = hostfs_new(shares->items, shares->count, true, false, err);
	int result = fs ? hostfs_mount_serve(fs, mountpoint, fd, stop, err) : -1;

	hostfs_free(fs);
	return result;
}

/* Absolute, since the working folder is another later. NULL + err, or when there is none. */
static char *absolute(const char *path, struct error *err)
{
	return path ? file_absolute(path, false, err) : NULL;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	__attribute__((cleanup(free_shares))) struct shares shares = {0};
	const char *where = o->listen ? o->listen : operands->count ? operands->items[0] : NULL;
	cleanup_free char *path = NULL;
	cleanup_close int stop = -1;
	int fd, control;

	log_setup("uml-hostfs", LOG_LEVEL_INFO);
	if (!!o->fd + !!o->control_fd + !!o->listen + (int)operands->count != 1)
		return error_set(err, ERROR_USAGE, "give one of: a mount point, --fd, --listen, --control-fd");
	fd = take_fd(o->fd, "fd", err);
	control = take_fd(o->control_fd, "control-fd", err);
	if (fd == -2 || control == -2 || parse_shares(&o->shares, &shares, err) < 0)
		return -1;
	if (where && !(path = absolute(where, err)))
		return -1;
	stop = signals_fd(err);
	if (stop < 0 || prepare(err) < 0)
		return -1;
	if (control >= 0) {
		/* A supervisor killed before this line is told by the end of the control socket. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return hostfs_control_serve(shares.items, shares.count, control, stop, err);
	}
	if (o->listen)
		return hostfs_listen_serve(shares.items, shares.count, path, stop, err);
	return serve_mount(&shares, path, fd, stop, err);
}

static const struct cli_command command = {
	.name = "",
	.operands = "[MOUNTPOINT]",
	.summary = "offers host folders to UML guests, and to this host through FUSE",
	.options = option_table,
	.options_size = sizeof(struct options),
	.max_operands = 1,
	.run = run,
};

static const struct cli_command *const commands[] = {&command, NULL};

int main(int argc, char **argv)
{
	static const struct cli_program program = {
		.name = "uml-hostfs",
		.summary = "host folders for guests, and nothing else",
		.version = UML_LAB_VERSION,
		.commands = commands,
	};

	return cli_main(&program, argc, argv);
}
