/* uml-cow serve: disks for a UML kernel over vhost-user-blk. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cow/cmd.h"
#include "cow/serve.h"
#include "uml-lab/base/log.h"

struct options {
	struct cow_cmd_chain chain;
	struct strv sockets, serials, quota_with;
	const char *control_fd;
	uint64_t quota;
};

static int parse_control_fd(const char *text, int *fd, struct error *err)
{
	int64_t n;

	*fd = -1;
	if (!text)
		return 0;
	if (str_to_i64(text, 0, 1 << 20, &n) || fcntl((int)n, F_SETFD, FD_CLOEXEC))
		return error_set(err, ERROR_USAGE, "--control-fd %s is not an open descriptor", text);
	*fd = (int)n;
	return 0;
}

static int fill_disks(const struct options *o, const struct strv *files, struct cow_serve_disk *disks,
		      struct error *err)
{
	if (o->sockets.count != files->count)
		return error_set(err, ERROR_USAGE,
				 "%zu sockets for %zu files: give --socket S before each FILE",
				 o->sockets.count, files->count);
	if (o->serials.count > files->count)
		return error_set(err, ERROR_USAGE, "%zu serial numbers for %zu files", o->serials.count,
				 files->count);
	for (size_t i = 0; i < files->count; i++)
		disks[i] = (struct cow_serve_disk){
			.socket = o->sockets.items[i],
			.file = files->items[i],
			.serial = i < o->serials.count ? o->serials.items[i] : NULL,
		};
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_serve_disk disks[COW_SERVE_DISKS_MAX];
	struct cow_serve_options serve = {
		.disks = disks,
		.count = operands->count,
		.quota = o->quota,
		.quota_with = o->quota_with,
		.folders = &o->chain.allow,
		.any_backing = o->chain.allow_any,
		.walls = true,
	};
	pid_t parent = getppid();

	log_setup("uml-cow serve", LOG_LEVEL_INFO);
	if (parse_control_fd(o->control_fd, &serve.control_fd, err) || fill_disks(o, operands, disks, err))
		return -1;
	if (o->quota_with.count && !o->quota)
		return error_set(err, ERROR_USAGE, "--quota-with without --quota");
	/* the parent may have died before the signal was asked for */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) || getppid() != parent)
		return error_set(err, ERROR_STATE, "the program that started this one is gone");
	return cow_serve(&serve, err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"socket", 0, CLI_LIST, offsetof(struct options, sockets), "S",
	 "the socket to listen on for the FILE that follows; once for each"},
	{"serial", 0, CLI_LIST, offsetof(struct options, serials), "NAME",
	 "the serial number the guest sees, in the order of the files (disk0, disk1, ...)"},
	{"quota", 0, CLI_SIZE, offsetof(struct options, quota), "BYTES",
	 "what all FILEs may take on the host's disk together"},
	{"quota-with", 0, CLI_LIST, offsetof(struct options, quota_with), "FILE",
	 "a file that others write, or a folder of disks (*.cow, *.img), which counts too"},
	{"control-fd", 0, CLI_STRING, offsetof(struct options, control_fd), "N",
	 "a SOCK_SEQPACKET descriptor to be told what to do through (cow/serve.h)"},
	{NULL},
};

const struct cli_command cow_cmd_serve = {
	.name = "serve",
	.operands = "FILE...",
	.summary = "Offer disks to a UML kernel over vhost-user-blk",
	.help = "    uml-cow serve --socket S FILE [--socket S FILE]...\n"
		"Start the kernel with virtio_uml.device=S:2 for each socket; it needs the module "
		"virtio_blk.\n"
		"Each FILE is locked, and written. A FILE of - is an empty place. Ends on SIGTERM, with its\n"
		"parent, or when the other end of --control-fd is closed; what guests wrote is durable then.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = COW_SERVE_DISKS_MAX,
	.run = run,
};
