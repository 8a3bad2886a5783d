/*
 * One vde_switch: a child in the foreground, whose end is seen by its pidfd, and
 * which is started again then; its ports are joined again by whoever had them.
 *
 * It cannot outlive the keeper: PR_SET_PDEATHSIG. Its stdin would be its management
 * console, and its end that of the switch; but a switch that ends by itself removes its
 * sockets by name, which may be those of its successor by then. So stdin is a socket on
 * which nothing ever happens. It has no management socket, no tap, and reads
 * no configuration but ours (/etc/vde2 and ~/.vderc are for switches that people start).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/network/network_internal.h"

#define QUICK_MS     10000
#define DEATHS_MAX   8
#define DELAY_MS     250	/* doubled with each quick death */
#define END_GRACE_MS 1000	/* to remove its sockets */
#define FD_COMMANDS  3
#define STRINGIFY(x) #x
#define TEXT(x)      STRINGIFY(x)

static int spawn(struct running_switch *sw, struct error *err)
{
	cleanup_close int commands = -1, input = -1, null = -1;
	cleanup_free char *ports = str_printf(err, "%u", sw->spec.ports + 1);	/* the first is the management's */
	cleanup_free char *program = dirs_program("vde_switch", "vde2", err);

	commands = sw->spec.learning ? network_vlan_commands(sw->spec.ports, err) : open("/dev/null", O_RDONLY | O_CLOEXEC);
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	input = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!ports || !program || commands < 0 || null < 0 || input < 0)
		return error_prefix(err, "cannot prepare network %s", sw->spec.name);
	const char *argv[] = {program, "-n", ports, "-s", sw->path, "-m", "0600", "-f", "/dev/fd/" TEXT(FD_COMMANDS),
			      sw->spec.learning ? NULL : "-x", NULL};
	const struct child_fd fds[] = {{input, 0}, {null, 1}, {commands, FD_COMMANDS}};
	const struct child_spec spec = {
		.argv = argv,
		.cwd = "/",
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.new_session = true,
		.death_signal = SIGKILL,
		.no_new_privs = true,
	};

	/* What one that was killed left would be in the way. */
	if (file_remove_tree(sw->path, err) < 0 || child_spawn(&sw->child, &spec, err) < 0)
		return error_prefix(err, "cannot start network %s", sw->spec.name);
	return 0;
}

static void on_death(void *arg, int fd, uint32_t events);

static int start(struct running_switch *sw, struct error *err)
{
	sw->started_ms = loop_now_ms();
	if (spawn(sw, err) < 0)
		return -1;
	process_identify(sw->child.pid, &sw->id);
	sw->source = loop_add_fd(sw->keeper->loop, sw->child.pidfd, EPOLLIN, on_death, sw, err);
	return sw->source ? 0 : -1;
}

static void forget(struct running_switch *sw)
{
	loop_remove_fd(sw->source);
	sw->source = NULL;
	sw->id = (struct process_id){0};
}

static void start_later(struct running_switch *sw)
{
	sw->quick_deaths = loop_now_ms() - sw->started_ms < QUICK_MS ? sw->quick_deaths + 1 : 0;
	if (sw->quick_deaths > DEATHS_MAX) {
		log_warn("the switch of network %s keeps ending; it is not started again", sw->spec.name);
		return;
	}
	loop_arm_timer(sw->timer, sw->quick_deaths > 1 ? DELAY_MS << (sw->quick_deaths - 2) : 0);
}

static void on_timer(void *arg)
{
	struct running_switch *sw = arg;
	struct error err = ERROR_INIT;

	if (start(sw, &err) < 0) {
		log_error(&err);
		child_end(&sw->child, 0);
		forget(sw);
		start_later(sw);
	}
	keeper_tell(sw->keeper);
}

static void on_death(void *arg, int fd, uint32_t events)
{
	struct running_switch *sw = arg;
	int status = 0;
	char how[64];

	(void)fd;
	(void)events;
	loop_remove_fd(sw->source);
	sw->source = NULL;
	child_wait(&sw->child, -1, &status, NULL);
	log_warn("the switch of network %s %s; another one is started", sw->spec.name,
		 child_describe_status(status, how, sizeof(how)));
	forget(sw);
	start_later(sw);
	keeper_tell(sw->keeper);
}

int switch_open(struct running_switch *sw, struct keeper *keeper, const struct network_switch *spec,
		struct error *err)
{
	*sw = (struct running_switch){.keeper = keeper, .spec = *spec, .child = CHILD_INIT};
	sw->spec.name = str_dup(spec->name, err);
	sw->path = network_path(keeper->spec->folder, spec->name, err);
	if (!sw->spec.name || !sw->path)
		return -1;
	sw->timer = loop_add_timer(keeper->loop, -1, on_timer, sw, err);
	return sw->timer ? start(sw, err) : -1;
}

bool switch_is_up(const struct running_switch *sw)
{
	cleanup_free char *control = file_join(NULL, sw->path, "ctl");

	return control && file_exists(control);
}

void switch_close(struct running_switch *sw)
{
	loop_remove_timer(sw->timer);
	forget(sw);
	child_end(&sw->child, END_GRACE_MS);
	free(sw->path);
	free(sw->spec.name);
	*sw = (struct running_switch){.child = CHILD_INIT};
}
