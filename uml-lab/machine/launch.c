/*
 * One start of the kernel. Its descriptors: 0 is /dev/null, 1 and 2 a pipe of
 * ours (what UML says before its consoles work, and why it could not start), 3
 * and 4 the two consoles, 5 the agent's line; each a stream socketpair of its
 * own, since UML makes them non-blocking and raw (uml_args.c names the numbers).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define LINES          3 /* con0, con1, agent */
#define EARLY_LINE_MAX 1024
#define LOW_PRIORITY   10 /* nice, where limits.cpu cannot be enforced */

/* How UML says that the guest wants to reboot: see uml_args.c. */
#define REBOOT_MARK "Failed to exec kernel"

/* ---- what linux.uml prints on its stdout and stderr ---- */

static void early_lines(struct supervisor *sv)
{
	struct strbuf *line = &sv->early_line;
	char *end;

	while (line->length &&
	       ((end = memchr(line->data, '\n', line->length)) || line->length > EARLY_LINE_MAX)) {
		size_t length = end ? (size_t)(end - line->data) : line->length;

		while (end && length && line->data[length - 1] == '\r')
			length--;
		if (length)
			log_info("kernel: %.*s", (int)length, line->data);
		sv->rebooting |= str_starts(line->data, REBOOT_MARK);
		strbuf_consume(line, end ? (size_t)(end - line->data) + 1 : line->length);
	}
}

static void drop_early(struct supervisor *sv)
{
	loop_remove_fd(sv->early_source);
	sv->early_source = NULL;
	if (sv->early >= 0)
		close(steal_fd(&sv->early));
}

static void read_early(struct supervisor *sv, bool all)
{
	char chunk[4096];
	ssize_t got;

	do {
		got = read(sv->early, chunk, sizeof(chunk));
		if (got > 0) {
			tail_add(&sv->early_tail, chunk, (size_t)got);
			strbuf_add(&sv->early_line, chunk, (size_t)got);
			early_lines(sv);
		}
	} while ((got > 0 && all) || (got < 0 && errno == EINTR));
	if (got == 0 || (got < 0 && errno != EAGAIN))
		drop_early(sv);
}

static void on_early(void *arg, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	read_early(arg, false);
}

/* ---- the process tree ---- */

static void on_sandbox(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	int status;

	(void)fd;
	(void)events;
	loop_remove_fd(sv->sandbox_source);
	sv->sandbox_source = NULL;
	sandbox_reap(&sv->sandbox, &status);
	supervisor_kernel_ended(sv, status);
}

void launch_cleanup(struct supervisor *sv)
{
	cleanup_free char *uml = guest_path(sv->spec, SANDBOX_WRITABLE, NULL);
	cleanup_free char *note = file_join(NULL, sv->spec->runtime, GROUP_FILE);

	loop_remove_fd(sv->sandbox_source);
	sv->sandbox_source = NULL;
	placement_end(sv);
	sandbox_kill(&sv->sandbox);
	cgroup_remove(&sv->group);
	if (note)
		unlink(note); /* cgroup.h: nothing is left to be swept */
	boot_end(sv);
	still_end(sv);
	relay_detach(sv, "the machine ended");
	console_detach(sv);
	if (sv->early >= 0)
		read_early(sv, true);
	drop_early(sv);
	if (sv->early_line.length)
		strbuf_putc(&sv->early_line, '\n');
	early_lines(sv);
	strbuf_free(&sv->early_line);
	mconsole_drain(sv);
	if (uml)
		file_remove_tree(uml, NULL);
}

struct ends {
	int ours[LINES + 1], theirs[LINES + 1]; /* the last pair is the pipe */
};

static void close_ends(struct ends *ends)
{
	for (int i = 0; i <= LINES; i++) {
		if (ends->ours[i] >= 0)
			close(ends->ours[i]);
		if (ends->theirs[i] >= 0)
			close(ends->theirs[i]);
	}
}

static int open_ends(struct ends *ends, struct error *err)
{
	int pair[2];

	for (int i = 0; i <= LINES; i++) {
		int failed = i == LINES ? pipe2(pair, O_CLOEXEC)
					: socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
		if (failed)
			return error_errno(err, errno, "cannot make the machine's consoles");
		ends->ours[i] = pair[0];
		ends->theirs[i] = pair[1];
		if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
			return error_errno(err, errno, "cannot make the machine's consoles");
	}
	return 0;
}

/* Hands our ends to those who read them. */
static int attach(struct supervisor *sv, struct ends *ends, struct error *err)
{
	int consoles[CONSOLES] = {steal_fd(&ends->ours[0]), steal_fd(&ends->ours[1])};

	if (console_attach(sv, consoles, err) < 0 || relay_attach(sv, steal_fd(&ends->ours[2]), err) < 0)
		return -1;
	sv->early = steal_fd(&ends->ours[LINES]);
	sv->early_source = loop_add_fd(sv->loop, sv->early, EPOLLIN, on_early, sv, err);
	if (!sv->early_source)
		return -1;
	sv->sandbox_source = loop_add_fd(sv->loop, sv->sandbox.keeper.pidfd, EPOLLIN, on_sandbox, sv, err);
	return sv->sandbox_source ? 0 : -1;
}

/* Besides the program itself: what its command line and the agent's configuration name. */
static size_t list_paths(const struct supervisor *sv, struct sandbox_path paths[SANDBOX_PATHS_MAX])
{
	const struct machine_spec *spec = sv->spec;
	size_t n = 0;

	paths[n++] = (struct sandbox_path){sv->initramfs, CONFINE_READ};
	if (spec->kernel.modules)
		paths[n++] = (struct sandbox_path){spec->kernel.modules, CONFINE_READ};
	if (sv->spool.path)
		paths[n++] = (struct sandbox_path){sv->spool.path, CONFINE_READ | CONFINE_REMOVE};
	for (size_t i = 0; spec->ubd && i < spec->disk_count && n + 2 <= SANDBOX_PATHS_MAX; i++) {
		paths[n++] = (struct sandbox_path){spec->disks[i].path, CONFINE_READ | CONFINE_WRITE};
		if (spec->disks[i].backing)
			paths[n++] = (struct sandbox_path){spec->disks[i].backing, CONFINE_READ};
	}
	return n;
}

/* What the processes of the guest may use; said tells it. The priority that is to be added. */
static int limit(struct supervisor *sv, char *said, size_t size)
{
	const struct machine_spec *spec = sv->spec;
	const struct cgroup_limits limits = {.memory = sandbox_memory(spec->memory),
					     .processes = sandbox_processes(spec->memory),
					     .cpu_percent = spec->cpu_percent};
	cleanup_free char *note = file_join(NULL, spec->runtime, GROUP_FILE);
	char text[200];

	cgroup_make(&sv->group, spec->session, spec->name, &limits, text, sizeof(text));
	if (note)
		cgroup_note(&sv->group, note);
	if (!spec->cpu_percent || (sv->group.folder && strstr(text, ", cpu "))) {
		snprintf(said, size, "%s", text);
		return 0;
	}
	snprintf(said, size, "%s; cpu by low priority only", text);
	return LOW_PRIORITY;
}

static int start(struct supervisor *sv, const struct strv *argv, const struct ends *ends, struct error *err)
{
	const char *wanted = getenv("UML_LAB_SANDBOX");
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	cleanup_free char *folder = guest_path(sv->spec, "", err);
	struct sandbox_path paths[SANDBOX_PATHS_MAX];
	char limits[256];
	int fds[] = {
		null,           ends->theirs[LINES], ends->theirs[LINES], ends->theirs[0], ends->theirs[1],
		ends->theirs[2]};
	struct sandbox_spec spec = {
		.program = sv->spec->kernel.path,
		.argv = (const char *const *)argv->items,
		.folder = folder,
		.paths = paths,
		.path_count = list_paths(sv, paths),
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.memory = sv->spec->memory,
		.group = &sv->group,
		.nice = limit(sv, limits, sizeof(limits)),
		.no_namespaces = str_eq(wanted, "process-group"),
		.namespaces_only = sv->spec->namespaces_only,
	};

	if (!folder)
		return -1;
	if (null < 0)
		return error_errno(err, errno, "cannot open /dev/null");
	if (sandbox_start(&sv->sandbox, &spec, err) < 0)
		return -1;
	snprintf(sv->walls, sizeof(sv->walls), "%s; limits: %s", sv->sandbox.walls, limits);
	return 0;
}

/* The folder in which UML makes its management console. */
static int make_writable(const struct supervisor *sv, struct error *err)
{
	cleanup_free char *path = guest_path(sv->spec, SANDBOX_WRITABLE, err);

	if (!path || file_remove_tree(path, err) < 0)
		return -1;
	return mkdir(path, 0700) < 0 ? error_errno(err, errno, "cannot make the folder %s", path) : 0;
}

int launch_kernel(struct supervisor *sv, struct error *err)
{
	struct ends ends = {{-1, -1, -1, -1}, {-1, -1, -1, -1}};
	cleanup_strv struct strv argv = STRV_INIT;
	int result = -1;

	mconsole_reset(sv);
	spool_make(sv);
	sv->rebooting = false;
	sv->failure[0] = '\0';
	sv->early_tail.length = 0;
	sv->launched_ms = loop_now_ms();
	/* argv[0]: a name that cannot be executed, which people see in ps. */
	if (strv_addf(&argv, err, "uml: %s/%s", sv->spec->session, sv->spec->name) == 0 &&
	    make_writable(sv, err) == 0 && uml_args_build(sv->spec, &argv, err) == 0 &&
	    uml_args_link(sv->spec, sv->initramfs, err) == 0 && open_ends(&ends, err) == 0 &&
	    start(sv, &argv, &ends, err) == 0)
		result = attach(sv, &ends, err);
	close_ends(&ends);
	if (result < 0) {
		launch_cleanup(sv);
		return error_prefix(err, "cannot start the machine");
	}
	log_info("kernel %s runs as process %d, sandbox: %s", sv->spec->kernel.release,
		 sv->sandbox.kernel.pid, sv->walls);
	placement_begin(sv);
	boot_begin(sv);
	supervisor_set_state(sv, MACHINE_BOOTING, "");
	return 0;
}
