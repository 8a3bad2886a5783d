/*
 * The dialogue with the guest's agent, from its first word until the machine is
 * ready (phases: protocol.h):
 *
 *	BOOT_AGENT	the kernel starts; HELLO → configuration, MOUNT
 *	BOOT_MOUNT	"mounted first|again" → on a first start the lab's files; BOOT
 *	BOOT_FILES	the files go over as one tar stream (PUT /)
 *	BOOT_INIT	"init": the image's own init runs
 *	BOOT_SYSTEM	"ready": the system is up
 *	BOOT_SETUP	first start only: the lab's setup script
 *	BOOT_SET_UP	SET_UP: the overlay remembers that the first start is complete
 *	BOOT_STARTUP	the lab's startup script, at every start
 *	BOOT_DONE
 *
 * The time-out covers everything until "ready", not the scripts: installing
 * packages takes as long as it takes, and shows in state setting-up. A script that fails leaves the machine up, for
 * looking into it: state ready, with a cause. After a failed setup the overlay is not marked, so
 * the next start tries again.
 *
 * A script goes over stdin, since a frame holds less than a script may; the
 * little program that takes it there starts /bin/sh -e with it and /dev/null as
 * stdin.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"
#include "uml-lab/machine/transfer.h"

/* SLIRP's plan, as netplug_port_config_init() has it (netplug/control.h). */
#define SLIRP_ADDRESS    "10.0.2.15/24"
#define SLIRP_GATEWAY    "10.0.2.2"
#define SLIRP_NAMESERVER "10.0.2.3"

static const char *const waited_for[] = {
	[BOOT_AGENT] = "the kernel to start",          [BOOT_MOUNT] = "the root disk to be mounted",
	[BOOT_FILES] = "the lab's files to be copied", [BOOT_INIT] = "the image's init to start",
	[BOOT_SYSTEM] = "the system to be up",
};

static void go_on(struct supervisor *sv);

/* ---- configuration ---- */

static void add_interface(const struct machine_interface *iface, size_t i, struct strbuf *out)
{
	const uint8_t *m = iface->mac;

	strbuf_printf(out, "interface\teth%zu\t%02x:%02x:%02x:%02x:%02x:%02x\n", i, m[0], m[1], m[2], m[3],
		      m[4], m[5]);
	for (size_t a = 0; a < iface->addresses.count; a++)
		strbuf_printf(out, "address\teth%zu\t%s\n", i, iface->addresses.items[a]);
	if (!iface->slirp)
		return;
	if (!iface->addresses.count) {
		strbuf_printf(out, "dhcp\teth%zu\n", i);
		strbuf_printf(out, "slirp\teth%zu\t%s\t%s\n", i, SLIRP_ADDRESS, SLIRP_GATEWAY);
	} else {
		strbuf_printf(out, "gateway\t%s\n", SLIRP_GATEWAY);
	}
	strbuf_printf(out, "nameserver\t%s\n", SLIRP_NAMESERVER);
}

/* "ADDRESS NAME…" becomes tab-separated fields. */
static void add_host(const char *line, struct strbuf *out)
{
	strbuf_puts(out, "host");
	while (*(line += strspn(line, " \t"))) {
		size_t length = strcspn(line, " \t");

		strbuf_putc(out, '\t');
		strbuf_add(out, line, length);
		line += length;
	}
	strbuf_putc(out, '\n');
}

/* What is left of limits.disk now; the disk server was asked when the kernel was started. */
static void add_room(const struct supervisor *sv, struct strbuf *out)
{
	uint64_t quota = sv->spec->disk_quota, used = sv->status.disks[0].quota_used;

	if (quota)
		strbuf_printf(out, "room\t%llu\n", (unsigned long long)(quota > used ? quota - used : 0));
}

static void write_config(const struct supervisor *sv, const char *spool, struct strbuf *out)
{
	const struct machine_spec *spec = sv->spec;

	strbuf_printf(out, "hostname\t%s\nroot\t%s\n", spec->name, spec->ubd ? "/dev/ubda" : "/dev/vda");
	add_room(sv, out);
	for (size_t i = 0; i < spec->interface_count; i++)
		add_interface(&spec->interfaces[i], i, out);
	for (size_t i = 0; i < spec->hosts.count; i++)
		add_host(spec->hosts.items[i], out);
	if (spec->kernel.modules)
		strbuf_printf(out, "modules\t%s\t%s\n", spec->kernel.modules, spec->kernel.release);
	for (size_t i = 0; i < spec->share_count; i++)
		strbuf_printf(out, "share\t%s\t%s\t%s\n", spec->shares[i].name, spec->shares[i].mount,
			      spec->shares[i].writable ? "rw" : "ro");
	if (spool)
		strbuf_printf(out, "spool\t%s\n", spool);
	strbuf_puts(out, "console\ttty0\nconsole\ttty1\n");
}

static void hello(struct supervisor *sv, const struct wire_frame *frame)
{
	cleanup_strbuf struct strbuf config = STRBUF_INIT;
	struct frame_hello text;

	if (sv->boot.step != BOOT_AGENT || frame->length != sizeof(text)) {
		log_warn("the agent said hello in a way or at a time it should not");
		return;
	}
	memcpy(&text, frame->payload, sizeof(text));
	if (le32toh(text.version) != FRAME_VERSION) {
		supervisor_fail(sv, "the agent speaks version %u of the protocol, not %u",
				le32toh(text.version), FRAME_VERSION);
		return;
	}
	write_config(sv, sv->spool.path, &config);
	if (config.failed || relay_send_text(sv, FRAME_CONFIG, config.data) < 0 ||
	    relay_send(sv, FRAME_MOUNT, 0, NULL, 0) < 0)
		supervisor_fail(sv, "cannot send the configuration to the agent");
	else
		sv->boot.step = BOOT_MOUNT;
}

/* ---- what goes into a channel ---- */

/* Sends as much of the input as the window and the line allow, then its end. */
static void pump(struct supervisor *sv)
{
	struct boot *boot = &sv->boot;
	char chunk[FRAME_PAYLOAD_MAX];

	while (boot->channel && boot->input >= 0 && boot->window && !relay_congested(sv)) {
		size_t want = boot->window < sizeof(chunk) ? boot->window : sizeof(chunk);
		ssize_t got = read(boot->input, chunk, want);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			close(steal_fd(&boot->input));
		if (spool_send(sv, boot->channel->id, chunk, got > 0 ? (size_t)got : 0) < 0)
			return;
		boot->window -= got > 0 ? (uint32_t)got : 0;
	}
}

void boot_resume(struct supervisor *sv)
{
	pump(sv);
}

static void take_credit(struct supervisor *sv, const struct wire_frame *frame)
{
	struct frame_credit credit;
	uint32_t bytes;

	if (frame->length != sizeof(credit))
		return;
	memcpy(&credit, frame->payload, sizeof(credit));
	bytes = le32toh(credit.bytes);
	if (le32toh(credit.stream) != STREAM_IN || bytes > FRAME_WINDOW - sv->boot.window)
		return;
	sv->boot.window += bytes;
	pump(sv);
}

static void take_output(struct supervisor *sv, const struct wire_frame *frame)
{
	struct boot *boot = &sv->boot;

	if (!frame->length)
		return;
	if (boot->log >= 0 && file_write_full(boot->log, frame->payload, frame->length) < 0)
		close(steal_fd(&boot->log));
	tail_add(&boot->output, frame->payload, frame->length);
	console_output(sv, frame->payload, frame->length);
	relay_credit(sv, boot->channel, frame->length);
}

static const char *step_name(const struct boot *boot)
{
	return boot->step == BOOT_FILES   ? "copying the lab's files"
	       : boot->step == BOOT_SETUP ? "setup"
					  : "startup";
}

/* The channel has ended, with a problem or "". Files that can't be copied end the machine, scripts don't. */
static void channel_ended(struct supervisor *sv, const char *problem)
{
	struct boot *boot = &sv->boot;

	boot->channel = NULL;
	if (boot->input >= 0)
		close(steal_fd(&boot->input));
	if (boot->log >= 0)
		close(steal_fd(&boot->log));
	if (sv->stopping || sv->failure[0])
		return;
	if (!*problem) {
		go_on(sv);
	} else if (boot->step == BOOT_FILES) {
		supervisor_fail(sv, "%s failed: %s", step_name(boot), problem);
	} else {
		snprintf(boot->problem, sizeof(boot->problem), "%s %s", step_name(boot), problem);
		console_note(sv, "%s", boot->problem);
		boot->step = BOOT_DONE;
		supervisor_set_state(sv, MACHINE_READY, boot->problem);
	}
}

static void take_exit(struct supervisor *sv, const struct wire_frame *frame)
{
	char problem[400] = "", how[64], last[256];
	uint32_t status = 0;

	if (frame->length == sizeof(status))
		memcpy(&status, frame->payload, sizeof(status));
	status = le32toh(status);
	if (status || frame->length != sizeof(status)) {
		tail_last_lines(&sv->boot.output, 1, last, sizeof(last));
		child_describe_status((int)status, how, sizeof(how));
		snprintf(problem, sizeof(problem), "%s%s%s", how, last[0] ? ": " : "", last);
	}
	channel_ended(sv, problem);
}

static void on_channel(void *arg, const struct wire_frame *frame)
{
	struct supervisor *sv = arg;
	cleanup_free char *text = NULL;
	uint32_t code;

	if (!sv->boot.channel) /* boot_end(): the kernel is gone, and with it the channel */
		return;
	switch (frame->type) {
	case FRAME_CREDIT:
		take_credit(sv, frame);
		break;
	case FRAME_DATA_OUT:
	case FRAME_DATA_ERR:
		take_output(sv, frame);
		break;
	case FRAME_EXIT:
		take_exit(sv, frame);
		break;
	case FRAME_ERROR:
		text = wire_failure(frame, &code);
		channel_ended(sv, text ? text : "the agent could not say why");
		break;
	default:
		break;
	}
}

/* Opens the channel with a first frame; takes over input. 0, or -1 + err. */
static int start_channel(struct supervisor *sv, enum frame_type type, const struct strbuf *payload, int input,
			 struct error *err)
{
	struct boot *boot = &sv->boot;

	boot->input = input;
	boot->window = FRAME_WINDOW;
	boot->output.length = 0;
	if (strbuf_check(payload, err) < 0)
		return -1;
	boot->channel = relay_open(sv, on_channel, sv, err);
	if (!boot->channel)
		return -1;
	if (relay_send(sv, type, boot->channel->id, payload->data, payload->length) < 0) {
		relay_abandon(sv, boot->channel);
		boot->channel = NULL;
		return error_set(err, ERROR_FAILED, "cannot send to the agent");
	}
	pump(sv);
	return 0;
}

/* ---- files ---- */

static ssize_t write_archive(void *arg, const void *data, size_t n, struct error *err)
{
	if (file_write_full(*(int *)arg, data, n) < 0)
		return error_errno(err, errno, "cannot write the archive of the lab's files");
	return (ssize_t)n;
}

/* Packs the files into a file without a name: nothing is left when we die. Its descriptor, or -1 + err. */
static int pack_files(const struct machine_spec *spec, struct error *err)
{
	cleanup_close int fd = open(spec->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0) /* a file system without O_TMPFILE */
		fd = memfd_create("files", MFD_CLOEXEC);
	if (fd < 0)
		return error_errno(err, errno, "cannot make a temporary file in %s", spec->folder);
	if (transfer_pack(spec->files, ".", write_archive, &fd, err) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return -1;
	return steal_fd(&fd);
}

static void send_files(struct supervisor *sv)
{
	cleanup_strbuf struct strbuf root = STRBUF_INIT;
	struct error err = ERROR_INIT;
	int fd = pack_files(sv->spec, &err);

	strbuf_puts(&root, "/");
	if (fd < 0 || start_channel(sv, FRAME_PUT, &root, fd, &err) < 0)
		supervisor_fail(sv, "copying the lab's files failed: %s", err.message);
}

/* ---- scripts ---- */

static int open_script_log(struct supervisor *sv)
{
	cleanup_free char *path = file_join(NULL, sv->spec->folder, "startup.log");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	time_t now = time(NULL);
	char stamp[32];
	struct tm tm;

	if (fd >= 0 && localtime_r(&now, &tm) && strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm))
		dprintf(fd, "== %s: %s\n", stamp, step_name(&sv->boot));
	return fd;
}

static void run_script(struct supervisor *sv, const char *script)
{
	static const char *const argv[] = {"/bin/sh", "-c",
					   "s=$(cat) && exec /bin/sh -e -c \"$s\" \"$0\" </dev/null"};
	cleanup_strbuf struct strbuf payload = STRBUF_INIT;
	struct frame_exec exec = {.argc = htole16(ARRAY_SIZE(argv) + 1)};
	cleanup_close int input = memfd_create("script", MFD_CLOEXEC);
	struct error err = ERROR_INIT;

	strbuf_add(&payload, &exec, sizeof(exec));
	strbuf_add(&payload, "", 1); /* cwd: root's home */
	for (size_t i = 0; i < ARRAY_SIZE(argv); i++)
		strbuf_add(&payload, argv[i], strlen(argv[i]) + 1);
	strbuf_add(&payload, step_name(&sv->boot), strlen(step_name(&sv->boot)) + 1);
	sv->boot.log = open_script_log(sv);
	if (input < 0 || file_write_full(input, script, strlen(script)) < 0 || lseek(input, 0, SEEK_SET) < 0)
		error_errno(&err, errno, "cannot hold the script");
	else if (start_channel(sv, FRAME_EXEC, &payload, steal_fd(&input), &err) == 0)
		return;
	channel_ended(sv, err.message);
}

/* ---- step by step ---- */

static void boot_system(struct supervisor *sv)
{
	sv->boot.step = BOOT_INIT;
	if (relay_send(sv, FRAME_BOOT, 0, NULL, 0) < 0)
		supervisor_fail(sv, "cannot tell the agent to boot");
}

static void mark_set_up(struct supervisor *sv)
{
	sv->boot.step = BOOT_SET_UP;
	if (relay_send(sv, FRAME_SET_UP, 0, NULL, 0) < 0)
		supervisor_fail(sv, "cannot tell the agent that the machine is set up");
}

static void start_up(struct supervisor *sv)
{
	sv->set_up = true;
	if (sv->spec->startup) {
		sv->boot.step = BOOT_STARTUP;
		supervisor_set_state(sv, MACHINE_SETTING_UP, "");
		run_script(sv, sv->spec->startup);
		return;
	}
	sv->boot.step = BOOT_DONE;
	supervisor_set_state(sv, MACHINE_READY, "");
}

static void system_up(struct supervisor *sv)
{
	loop_arm_timer(sv->boot.timer, -1);
	if (!sv->boot.first) {
		start_up(sv);
	} else if (sv->spec->setup) {
		sv->boot.step = BOOT_SETUP;
		supervisor_set_state(sv, MACHINE_SETTING_UP, "");
		run_script(sv, sv->spec->setup);
	} else {
		mark_set_up(sv);
	}
}

/* The channel's work succeeded: the next step. */
static void go_on(struct supervisor *sv)
{
	switch (sv->boot.step) {
	case BOOT_FILES:
		boot_system(sv);
		break;
	case BOOT_SETUP:
		mark_set_up(sv);
		break;
	case BOOT_STARTUP:
		sv->boot.step = BOOT_DONE;
		supervisor_set_state(sv, MACHINE_READY, "");
		break;
	default:
		break;
	}
}

static void mounted(struct supervisor *sv, bool first)
{
	sv->boot.first = first;
	sv->set_up = !first;
	if (first && sv->spec->files) {
		sv->boot.step = BOOT_FILES;
		send_files(sv);
	} else {
		boot_system(sv);
	}
}

static void take_login(struct supervisor *sv)
{
	if (sv->boot.login)
		return;
	sv->boot.login = true;
	if (sv->state == MACHINE_READY)
		supervisor_tell(sv);
}

/* Phases that come when they are not awaited change nothing: the agent may be hostile. */
static void phase(struct supervisor *sv, const char *text)
{
	enum boot_step step = sv->boot.step;

	if (still_phase(sv, text) || share_waits_phase(sv, text))
		return;
	if (str_starts(text, "failed") && step < BOOT_DONE)
		supervisor_fail(sv, "waiting for %s: %s",
				step <= BOOT_SYSTEM ? waited_for[step] : "the set-up to be recorded",
				text + strlen("failed") + strspn(text + strlen("failed"), " "));
	else if (step == BOOT_MOUNT && str_eq(text, "spool"))
		sv->spool.agent = true;
	else if (step == BOOT_MOUNT && str_starts(text, "mounted"))
		mounted(sv, str_starts(text, "mounted first"));
	else if (step == BOOT_INIT && str_starts(text, "init"))
		sv->boot.step = BOOT_SYSTEM;
	else if ((step == BOOT_SYSTEM || step == BOOT_INIT) && str_starts(text, "ready"))
		system_up(sv);
	else if (step == BOOT_SET_UP && str_starts(text, "set-up"))
		start_up(sv);
	else if (str_starts(text, "login"))
		take_login(sv);
	else if (str_starts(text, "stopping") && sv->state == MACHINE_READY)
		supervisor_set_state(sv, MACHINE_STOPPING, "the guest is going down");
}

void boot_frame(struct supervisor *sv, const struct wire_frame *frame)
{
	cleanup_free char *text = NULL;

	if (sv->failure[0] || sv->stopping)
		return;
	switch (frame->type) {
	case FRAME_HELLO:
		hello(sv, frame);
		break;
	case FRAME_PHASE:
		text = wire_text(frame);
		if (text)
			phase(sv, text);
		break;
	case FRAME_LOG:
		text = wire_text(frame);
		if (text)
			log_info("agent: %.*s", (int)strcspn(text, "\n"), text);
		break;
	default:
		break;
	}
}

static int64_t timeout_of(const struct machine_spec *spec)
{
	return spec->boot_timeout_ms > 0 ? spec->boot_timeout_ms : BOOT_TIMEOUT_MS;
}

static void on_timeout(void *arg)
{
	struct supervisor *sv = arg;
	char last[512];

	if (sv->boot.step > BOOT_SYSTEM)
		return;
	tail_last_lines(&sv->console.tail, 3, last, sizeof(last));
	supervisor_fail(sv, "gave up after %lld s of waiting for %s%s%s",
			(long long)timeout_of(sv->spec) / 1000, waited_for[sv->boot.step],
			last[0] ? "; the console ends with: " : "", last);
}

int boot_init(struct supervisor *sv, struct error *err)
{
	sv->boot.input = sv->boot.log = -1;
	sv->boot.timer = loop_add_timer(sv->loop, -1, on_timeout, sv, err);
	return sv->boot.timer ? 0 : -1;
}

void boot_begin(struct supervisor *sv)
{
	struct boot *boot = &sv->boot;

	boot->step = BOOT_AGENT;
	boot->first = boot->login = false;
	boot->problem[0] = '\0';
	loop_arm_timer(boot->timer, timeout_of(sv->spec));
}

/* The channel itself ends with the relay, silently then. */
void boot_end(struct supervisor *sv)
{
	struct boot *boot = &sv->boot;

	loop_arm_timer(boot->timer, -1);
	boot->channel = NULL;
	boot->login = false;
	if (boot->input >= 0)
		close(steal_fd(&boot->input));
	if (boot->log >= 0)
		close(steal_fd(&boot->log));
}
