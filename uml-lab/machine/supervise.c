/*
 * The life of a machine.
 *
 *	starting → booting → setting-up → ready → stopping → stopped | failed
 *
 * One kernel after the other may run in one life: a guest that reboots and the
 * restart policy start it again on the same overlay, with the same sockets and
 * clients. What ends a kernel is decided in supervisor_kernel_ended(), after
 * its whole process tree is gone and all it said was read:
 *
 *	failure set	we killed it for a reason (a boot time-out, a bad agent)
 *	stopping	somebody asked for the end
 *	rebooting	the guest asked for a reboot (launch.c: REBOOT_MARK)
 *	a panic		its text is the cause
 *	status 0	the guest powered itself off
 *
 * A stop goes from polite to certain: the agent asks the guest's init, half of the
 * time later UML's management console sends Ctrl-Alt-Del, at the end of the
 * time the tree is killed. All ways out of machine_supervise() pass
 * tear_down(), so nothing outlives it; what outlives a supervisor that was
 * killed is nothing where there are namespaces (sandbox.c), and machine_sweep()'s
 * otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define BACKOFF_FIRST_MS 1000
#define BACKOFF_MAX_MS   60000
#define FAILURES_MAX     5         /* in a row without READY: then it is given up */
#define QUICK_MS         5000      /* a guest that reboots sooner has to wait a little */
#define LOG_MAX          (4 << 20) /* supervisor.log, before it becomes supervisor.log.1 */
#define SWEEP_MS         5000
#define LINGER_AGE_MS    5000 /* a machine that ended sooner waits LINGER_MS for somebody to hear why */
#define LINGER_MS        1000

static const char *const state_names[] = {
	[MACHINE_STARTING] = "starting", [MACHINE_BOOTING] = "booting",   [MACHINE_SETTING_UP] = "setting-up",
	[MACHINE_READY] = "ready",       [MACHINE_STOPPING] = "stopping", [MACHINE_STOPPED] = "stopped",
	[MACHINE_FAILED] = "failed",
};

const char *machine_state_name(enum machine_state state)
{
	return state_names[state];
}

int machine_state_parse(const char *name, enum machine_state *state)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_names); i++) {
		if (!str_eq(name, state_names[i]))
			continue;
		*state = (enum machine_state)i;
		return 0;
	}
	return -1;
}

void machine_spec_free(struct machine_spec *spec)
{
	free(spec->session);
	free(spec->name);
	free(spec->folder);
	free(spec->runtime);
	kernel_free(&spec->kernel);
	for (size_t i = 0; i < spec->disk_count; i++) {
		free(spec->disks[i].path);
		free(spec->disks[i].backing);
	}
	free(spec->disks);
	for (size_t i = 0; i < spec->interface_count; i++) {
		strv_free(&spec->interfaces[i].addresses);
		strv_free(&spec->interfaces[i].forwards);
		strv_free(&spec->interfaces[i].allow);
		free(spec->interfaces[i].network);
		free(spec->interfaces[i].locator);
	}
	free(spec->interfaces);
	strv_free(&spec->quota_with);
	free(spec->networks);
	strv_free(&spec->keeper_argv);
	for (size_t i = 0; i < spec->share_count; i++) {
		free(spec->shares[i].name);
		free(spec->shares[i].text);
		free(spec->shares[i].mount);
	}
	free(spec->shares);
	strv_free(&spec->hosts);
	strv_free(&spec->kernel_args);
	free(spec->files);
	free(spec->setup);
	free(spec->startup);
	*spec = (struct machine_spec){0};
}

/* ---- states ---- */

void supervisor_tell(struct supervisor *sv)
{
	struct machine_report report = {
		.state = sv->state,
		.cause = sv->cause,
		.supervisor = sv->self,
		.kernel = sv->sandbox.kernel,
		.plug = sv->plug.daemon.id,
		.disk = sv->disk.id,
		.hostfs = sv->shares.daemon.id,
		.sandbox = sv->walls,
		.forwards = &sv->plug.forwards,
		.set_up = sv->set_up,
		.ready_ms = sv->ready_ms,
		.restarts = sv->restarts,
	};

	if (sv->report)
		sv->report(sv->report_arg, &report);
	control_tell_state(sv);
}

/* Causes quote guests, who may say anything, and may be cut within a character: session.yml and terminals get text. */
static void set_cause(struct supervisor *sv, const char *cause)
{
	snprintf(sv->cause, sizeof(sv->cause), "%s", cause);
	str_clean_chars(sv->cause);
}

void supervisor_set_state(struct supervisor *sv, enum machine_state state, const char *cause)
{
	/* A machine is ready without a forward that could not be made, but that is said. */
	if (state == MACHINE_READY && !*cause)
		cause = sv->plug.problem;
	sv->state = state;
	set_cause(sv, cause);
	if (state == MACHINE_READY) {
		sv->ready_ms = loop_now_ms() - sv->launched_ms;
		sv->failures = 0;
	} else {
		sv->ready_ms = 0;
	}
	log_info("%s%s%s", machine_state_name(state), *cause ? ": " : "", cause);
	supervisor_tell(sv);
}

/* Kills the tree; its end is seen by the loop. */
static void kill_kernel(struct supervisor *sv)
{
	if (sv->sandbox.link >= 0)
		close(steal_fd(&sv->sandbox.link));
	if (sv->sandbox.namespaces)
		child_kill(&sv->sandbox.keeper, SIGKILL);
}

void supervisor_fail(struct supervisor *sv, const char *fmt, ...)
{
	va_list ap;

	if (sv->failure[0])
		return;
	va_start(ap, fmt);
	vsnprintf(sv->failure, sizeof(sv->failure), fmt, ap);
	va_end(ap);
	log_at(LOG_LEVEL_ERROR, "%s", sv->failure);
	kill_kernel(sv);
}

static void end(struct supervisor *sv, enum machine_state state, const char *cause)
{
	sv->state = state;
	set_cause(sv, cause);
	sv->done = true; /* told by tear_down(), when all else is gone */
}

void supervisor_cannot_start(struct supervisor *sv, const struct error *err)
{
	console_note(sv, "failed: %s", err->message);
	end(sv, MACHINE_FAILED, err->message);
}

/* ---- stop ---- */

static void on_stop_timer(void *arg)
{
	struct supervisor *sv = arg;
	struct error err = ERROR_INIT;

	if (sv->stop_left_ms <= 0) {
		log_warn("the guest did not stop in time: killing it");
		kill_kernel(sv);
		return;
	}
	if (mconsole_send(sv, "cad", &err) < 0)
		log_error(&err);
	loop_arm_timer(sv->stop_timer, sv->stop_left_ms);
	sv->stop_left_ms = 0;
}

void supervisor_stop(struct supervisor *sv, bool force, int timeout_ms)
{
	bool again = sv->stopping;

	if (sv->done)
		return;
	sv->stopping = true;
	still_end(sv); /* a frozen guest cannot go down */
	if (!sv->sandbox.keeper.pid) { /* between two kernels */
		end(sv, MACHINE_STOPPED, sv->stop_cause ?: "");
		return;
	}
	if (sv->state != MACHINE_STOPPING)
		supervisor_set_state(sv, MACHINE_STOPPING, "");
	if (force || timeout_ms <= 0) {
		kill_kernel(sv);
		return;
	}
	if (again) /* the first request's time goes on */
		return;
	sv->stop_left_ms = timeout_ms - timeout_ms / 2;
	if (sv->boot.step >= BOOT_SYSTEM &&
	    relay_send(sv, FRAME_SHUTDOWN, 0, "poweroff", strlen("poweroff")) == 0)
		loop_arm_timer(sv->stop_timer, timeout_ms / 2);
	else if (sv->boot.step < BOOT_INIT) /* nothing of the image runs yet: there is nobody to ask */
		kill_kernel(sv);
	else
		on_stop_timer(sv);
}

void supervisor_stop_because(struct supervisor *sv, const char *cause)
{
	if (sv->stopping)
		return;
	sv->stop_cause = cause;
	log_info("%s", cause);
	supervisor_stop(sv, false, STOP_TIMEOUT_MS);
}

static void on_signal(void *arg, int signo)
{
	struct supervisor *sv = arg;

	if (signo == PLACEMENT_SIGNAL) {
		placement_signal(sv);
		return;
	}
	log_info("got SIG%s", sigabbrev_np(signo) ?: "?");
	supervisor_stop(sv, sv->stopping, STOP_TIMEOUT_MS);
}

/* ---- the end of a kernel, and what comes after ---- */

static void start_again(struct supervisor *sv)
{
	struct error err = ERROR_INIT;

	if (disk_start(sv, &err) < 0)
		supervisor_cannot_start(sv, &err);
}

static void on_restart_timer(void *arg)
{
	start_again(arg);
}

static void describe_panic(const struct supervisor *sv, const char *text, char *out, size_t size)
{
	const char *known = kernel_explain_panic(&sv->spec->kernel, text);

	if (known)
		snprintf(out, size,
			 "kernel panic, %s (kernel: 6.1 or 7.2 has it not, restart: on-failure starts the machine again): %s",
			 known, text);
	else
		snprintf(out, size, "kernel panic: %s", text);
}

/* Why a kernel that nobody stopped ended; "" when the guest powered itself off. */
static void cause_of_end(struct supervisor *sv, int status, char *out, size_t size)
{
	char text[512], how[64];

	if (sv->failure[0]) {
		snprintf(out, size, "%s", sv->failure);
	} else if (sv->mconsole.panic[0] ||
		   tail_find(&sv->console.tail, "Kernel panic - not syncing: ", text, sizeof(text)) ||
		   tail_find(&sv->early_tail, "Kernel panic - not syncing: ", text, sizeof(text))) {
		describe_panic(sv, sv->mconsole.panic[0] ? sv->mconsole.panic : text, out, size);
	} else if (status == 0) {
		out[0] = '\0';
	} else {
		tail_last_lines(sv->console.tail.length ? &sv->console.tail : &sv->early_tail, 3, text,
				sizeof(text));
		snprintf(out, size, "the kernel %s%s%s", child_describe_status(status, how, sizeof(how)),
			 text[0] ? "; it said last: " : "", text);
	}
}

/* Whether the policy wants another start; fills its delay. */
static bool wants_restart(struct supervisor *sv, bool failed, int *delay_ms)
{
	if (sv->spec->restart == 0 || (sv->spec->restart == 1 && !failed))
		return false;
	if (failed && ++sv->failures > FAILURES_MAX)
		return false;
	*delay_ms = BACKOFF_FIRST_MS;
	for (int i = 1; i < sv->failures && *delay_ms < BACKOFF_MAX_MS; i++)
		*delay_ms *= 2;
	sv->restarts++;
	return true;
}

void supervisor_kernel_ended(struct supervisor *sv, int status)
{
	char cause[ERROR_MESSAGE_MAX], how[64];
	int delay_ms = 0;

	launch_cleanup(sv);
	disk_look(sv);
	loop_arm_timer(sv->stop_timer, -1);
	log_info("the kernel %s", child_describe_status(status, how, sizeof(how)));
	cause_of_end(sv, status, cause, sizeof(cause));
	if (sv->stopping) {
		end(sv, MACHINE_STOPPED, sv->stop_cause ?: "");
	} else if (sv->rebooting && !cause[0]) {
		console_note(sv, "the guest reboots");
		delay_ms = loop_now_ms() - sv->launched_ms < QUICK_MS ? BACKOFF_FIRST_MS : 0;
		supervisor_set_state(sv, MACHINE_STARTING, "the guest reboots");
		loop_arm_timer(sv->restart_timer, delay_ms);
	} else if (wants_restart(sv, cause[0], &delay_ms)) {
		console_note(sv, "restarting, since %s", cause[0] ? cause : "it powered itself off");
		supervisor_set_state(sv, MACHINE_STARTING, cause[0] ? cause : "it powered itself off");
		loop_arm_timer(sv->restart_timer, delay_ms);
	} else if (cause[0]) {
		console_note(sv, "failed: %s", cause);
		end(sv, MACHINE_FAILED, cause);
	} else {
		end(sv, MACHINE_STOPPED, "the guest powered itself off");
	}
}

/* ---- the whole ---- */

/* Locks the runtime folder itself: no lock file that could be left. -1 + err, ERROR_STATE when it is taken. */
static int lock_runtime(const char *runtime, struct error *err)
{
	cleanup_close int fd = open(runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return error_errno(err, errno, "cannot open the folder %s", runtime);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return error_set(err, ERROR_STATE, "the machine is running already (%s is in use)", runtime);
	else if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_errno(err, errno, "cannot lock %s", runtime);
	return steal_fd(&fd);
}

/* All that a supervisor ever makes in a runtime folder. */
static void sweep_runtime(int runtime, const char *path)
{
	cleanup_free char *guest = file_join(NULL, path, GUEST_FOLDER), *group = file_join(NULL, path, GROUP_FILE);

	if (guest)
		file_remove_tree(guest, NULL);
	if (group)
		cgroup_sweep(group);
	spool_clear(runtime);
	unlinkat(runtime, "control", 0);
}

/* What is logged from now on, here and by the plug, goes to supervisor.log. */
static int log_to_file(const struct machine_spec *spec, struct error *err)
{
	cleanup_free char *path = file_join(err, spec->folder, "supervisor.log");
	cleanup_free char *old = file_join(err, spec->folder, "supervisor.log.1");
	cleanup_close int fd = -1;
	struct stat st;

	if (!path || !old)
		return -1;
	if (stat(path, &st) == 0 && st.st_size > LOG_MAX)
		rename(path, old);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || dup2(fd, 2) < 0)
		return error_errno(err, errno, "cannot open %s", path);
	return 0;
}

static int check(struct supervisor *sv, struct error *err)
{
	const struct machine_spec *spec = sv->spec;

	if (access(spec->kernel.path, X_OK) < 0)
		return error_errno(err, errno, "cannot run the kernel %s", spec->kernel.path);
	if (!spec->disk_count)
		return error_set(err, ERROR_FAILED, "the machine has no disk");
	for (size_t i = 0; i < spec->disk_count; i++)
		if (spec->ubd && disk_check_ubd(&spec->disks[i], err) < 0)
			return -1;
	if (disk_check_space(spec, err) < 0)
		return -1;
	if (initramfs_get(&spec->kernel, &sv->initramfs, err) < 0)
		return -1;
	malloc_trim(0); /* a megabyte, which the keeper, our copy, would keep too */
	return 0;
}

/* What needs the loop, and the control socket: that first, so that nobody else starts, and all can watch. */
static int open_all(struct supervisor *sv, struct error *err)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, PLACEMENT_SIGNAL, 0};

	sv->loop = loop_new(err);
	if (!sv->loop || loop_add_signals(sv->loop, signals, on_signal, sv, err) < 0)
		return -1;
	sv->stop_timer = loop_add_timer(sv->loop, -1, on_stop_timer, sv, err);
	sv->restart_timer = loop_add_timer(sv->loop, -1, on_restart_timer, sv, err);
	if (!sv->stop_timer || !sv->restart_timer || boot_init(sv, err) < 0 || placement_open(sv, err) < 0 ||
	    console_open(sv, err) < 0)
		return -1;
	return control_open(sv, err) < 0 || status_open(sv, err) < 0 || mconsole_open(sv, err) < 0 ? -1 : deadline_open(sv, err);
}

static int run(struct supervisor *sv, int ready_fd, struct error *err)
{
	if (log_to_file(sv->spec, err) < 0 || open_all(sv, err) < 0)
		return -1;
	supervisor_set_state(sv, MACHINE_STARTING, "");
	if (ready_fd >= 0)
		close(ready_fd);
	if (check(sv, err) < 0 || networks_open(sv, err) < 0 || plug_open(sv, err) < 0 ||
	    disk_open(sv, err) < 0 || shares_open(sv, err) < 0 || disk_start(sv, err) < 0)
		return -1;
	while (!sv->done) {
		if (loop_turn(sv->loop, -1, err) < 0)
			return -1;
		control_reap(sv);
	}
	return 0;
}

/* Whoever has just connected to hear how the start goes hears how it went. */
static void linger(struct supervisor *sv)
{
	int64_t until = loop_now_ms() + LINGER_MS;

	if (!sv->loop || sv->control.fd < 0 || loop_now_ms() - sv->begun_ms > LINGER_AGE_MS)
		return;
	while (loop_now_ms() < until && !control_is_watched(sv)) {
		if (loop_turn(sv->loop, (int)(until - loop_now_ms()), NULL) < 0)
			return;
		control_reap(sv);
	}
}

/* Ends everything; the last state is told when nothing runs any more. */
static void tear_down(struct supervisor *sv)
{
	char cause[ERROR_MESSAGE_MAX];

	sv->done = sv->stopping = true;
	launch_cleanup(sv);
	plug_close(sv);
	networks_close(sv);
	disk_close(sv);
	shares_close(sv);
	mconsole_close(sv);
	snprintf(cause, sizeof(cause), "%s", sv->cause);
	supervisor_set_state(sv, sv->state, cause);
	linger(sv);
	control_close(sv);
	status_close(sv); /* clients may ask until then */
	console_close(sv);
	spool_end(sv);
	sweep_runtime(sv->runtime, sv->spec->runtime);
	loop_free(sv->loop);
	free(sv->initramfs);
	close(sv->runtime);
}

int machine_supervise(const struct machine_spec *spec, int ready_fd, machine_report_fn report, void *arg,
		      struct error *err)
{
	cleanup_free struct supervisor *sv = calloc(1, sizeof(*sv));
	struct error failure = ERROR_INIT;
	int runtime;

	if (!sv)
		return error_oom(err);
	runtime = lock_runtime(spec->runtime, err);
	if (runtime < 0)
		return -1;
	*sv = (struct supervisor){.spec = spec,
				  .report = report,
				  .report_arg = arg,
				  .runtime = runtime,
				  .early = -1,
				  .sandbox = SANDBOX_INIT,
				  .relay.fd = -1,
				  .spool.folder = -1,
				  .console.log = -1,
				  .control.fd = -1,
				  .mconsole.notify = -1,
				  .plug.daemon = DAEMON_INIT,
				  .disk = DISK_SERVER_INIT,
				  .networks.fd = -1,
				  .networks.starter = CHILD_INIT,
				  .shares.daemon = DAEMON_INIT,
				  .begun_ms = loop_now_ms()};
	sv->boot.input = sv->boot.log = -1;
	for (int i = 0; i < CONSOLES; i++)
		sv->console.fds[i] = -1;
	process_identify(getpid(), &sv->self);
	sweep_runtime(runtime, spec->runtime);
	if (mkdirat(runtime, GUEST_FOLDER, 0700) < 0)
		error_errno(&failure, errno, "cannot make the folder %s/" GUEST_FOLDER, spec->runtime);
	if (failure.kind || run(sv, ready_fd, &failure) < 0)
		end(sv, MACHINE_FAILED, failure.message);
	else if (sv->state == MACHINE_FAILED)
		error_set(&failure, ERROR_FAILED, "%s", sv->cause);
	tear_down(sv);
	if (sv->state != MACHINE_FAILED)
		return 0;
	error_copy(err, &failure);
	return -1;
}

/* ---- after a supervisor that was killed ---- */

/* Kills a left process with its group when it leads one (UML does), and waits until it is gone. */
static int end_left(const struct process_id *left, struct error *err)
{
	cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, left->pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (pidfd < 0 || !process_alive(left))
		return 0;
	if (getpgid(left->pid) == left->pid)
		kill(-left->pid, SIGKILL);
	else
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	if (poll(&p, 1, SWEEP_MS) == 0)
		return error_set(err, ERROR_TIMEOUT, "process %d was killed but does not end", left->pid);
	return 0;
}

int machine_sweep(const char *runtime, const struct process_id *left, size_t count, struct error *err)
{
	cleanup_close int fd = -1;
	int result = 0;

	if (!file_exists(runtime))
		fd = -1;
	else if ((fd = lock_runtime(runtime, err)) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (end_left(&left[i], err) < 0)
			result = -1;
	if (fd >= 0)
		sweep_runtime(fd, runtime);
	return result;
}
