/* Before any process starts: everything that can be known to fail is found, and told at once. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cow/cow.h"
#include "netplug/netplug.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/image.h"
#include "uml-lab/session/session_internal.h"

#define CHECK_MS  5000
#define CHECK_MAX 4096
#define DISK_FREE_MIN (64u << 20)	/* bytes: below this a guest's first boot already fails */

void findings_add(struct findings *findings, const char *fmt, ...)
{
	va_list ap;

	strbuf_puts(&findings->text, "\n  ");
	va_start(ap, fmt);
	strbuf_vprintf(&findings->text, fmt, ap);
	va_end(ap);
	findings->count++;
}

int findings_result(struct findings *findings, enum error_kind kind, const char *title, struct error *err)
{
	if (findings->count)
		error_set(err, kind, "%s:%s", title, findings->text.data ?: " (out of memory)");
	strbuf_free(&findings->text);
	return findings->count ? -1 : 0;
}

bool session_is_named(const struct strv *names, const char *machine)
{
	if (!names || !names->count)
		return true;
	for (size_t i = 0; i < names->count; i++)
		if (str_eq(names->items[i], machine))
			return true;
	return false;
}

int session_check_names(const struct session *session, const struct strv *names, struct error *err)
{
	for (size_t i = 0; names && i < names->count; i++) {
		cleanup_strbuf struct strbuf all = STRBUF_INIT;

		if (lab_find_machine(session->lab, names->items[i]))
			continue;
		for (size_t j = 0; j < session->machine_count; j++)
			strbuf_printf(&all, "%s%s", j ? ", " : "", session->machines[j].name);
		return error_set(err, ERROR_NOT_FOUND, "session %s has no machine %s; it has: %s", session->name,
				 names->items[i], all.data ?: "none");
	}
	return 0;
}

/* Things the lab language has and this version cannot do yet. */
static void check_supported(const struct lab *lab, const struct lab_machine *m, struct findings *findings)
{
	for (size_t i = 0; i < m->interface_count; i++) {
		const struct lab_interface *iface = &m->interfaces[i];

		if (iface->network && !lab_find_network(lab, iface->network)->vde && iface->mtu > NETPLUG_VDE_MTU)
			findings_add(findings, "%s: eth%zu: mtu: %d is more than the %d that a vde_switch passes; leave "
					       "it out", m->name, i, iface->mtu, NETPLUG_VDE_MTU);
	}
}

/* What uml-netplug said: its error and its hint, a line each. */
static void add_said(const struct lab_network *network, const char *text, struct findings *findings)
{
	static const char prefix[] = "uml-netplug: ";
	cleanup_strv struct strv lines = STRV_INIT;
	cleanup_strbuf struct strbuf said = STRBUF_INIT;

	strv_split(&lines, text, '\n', NULL);
	for (size_t i = 0; i < lines.count; i++)
		if (lines.items[i][0])
			strbuf_printf(&said, "%s%s", i ? "; " : "",
				      lines.items[i] + (str_starts(lines.items[i], prefix) ? strlen(prefix) : 0));
	findings_add(findings, "network %s: %s", network->name, said.data ?: "cannot be joined");
}

/* Whether libvdeplug can join it; only uml-netplug knows. */
static void check_locator(const struct lab_network *network, struct findings *findings)
{
	cleanup_free char *program = dirs_own("uml-netplug", NULL), *text = NULL;
	const char *argv[] = {program, "--check", "--vde", network->vde, NULL};
	const struct child_spec spec = {.argv = argv, .cwd = "/", .null_stdin = true};
	struct error err = ERROR_INIT;
	int status = 0;

	if (!program)
		return;
	if (child_capture(&spec, CHECK_MS, CHECK_MAX, true, &text, &status, &err) < 0)
		findings_add(findings, "network %s: %s", network->name, err.message);
	else if (status)
		add_said(network, text, findings);
}

/* A network of ours needs its switch's program, and room for its sockets' paths. */
static void check_switch(const struct session *s, const struct lab_network *network, struct findings *findings)
{
	cleanup_free char *folder = NULL, *path = NULL, *program = NULL;
	struct error err = ERROR_INIT;

	folder = session_networks_folder(s->name, &err);
	path = folder ? network_path(folder, network->name, &err) : NULL;
	if (!path)
		findings_add(findings, "%s%s%s", err.message, err.hint[0] ? "; " : "", err.hint);
	program = dirs_program("vde_switch", "vde2", &err);
	if (!program)
		findings_add(findings, "network %s: %s; %s", network->name, err.message, err.hint);
}

static void check_networks(const struct session *s, FILE *plan, struct findings *findings)
{
	for (size_t i = 0; i < s->lab->network_count; i++) {
		const struct lab_network *network = &s->lab->networks[i];

		if (network->vde)
			check_locator(network, findings);
		else
			check_switch(s, network, findings);
		if (plan)
			fprintf(plan, "  network %s: %s\n", network->name,
				network->vde ?: network->learning_switch ? "a switch" : "a hub");
	}
}

int session_check_driver(const struct lab *lab, const struct lab_machine *m, const struct image *image, struct error *err)
{
	if (!str_eq(m->disk_driver, "ubd"))
		return 0;
	if (lab->limits.disk) {
		error_set(err, ERROR_LAB, "disk: ubd cannot keep limits.disk");
		return error_hint(err, "leave out one of them");
	}
	for (size_t i = 0; i < m->disk_count; i++)
		if (m->disks[i].ejected)
			return error_set(err, ERROR_LAB, "disk: ubd has all disks in from the start: leave out ejected: true");
	if (!image || !image->is_layer)
		return 0;
	error_set(err, ERROR_LAB, "disk: ubd cannot stack layers, and the base %s is one", image->path);
	return error_hint(err, "leave out disk: ubd, or make one raw disk of it: uml-cow flatten %s OUT.img", image->path);
}

/* The driver can serve the base; a layer opens with all that is below it. */
static void check_disk(const struct lab *lab, const struct lab_machine *m, const struct image *image,
		       struct findings *findings)
{
	struct cow_chain *chain = NULL;
	struct error err = ERROR_INIT;

	if (session_check_driver(lab, m, image, &err) < 0 ||
	    (image->is_layer && !(chain = cow_chain_open(image->path, NULL, &err))))
		findings_add(findings, "%s: %s%s%s", m->name, err.message, err.hint[0] ? "; " : "", err.hint);
	cow_chain_close(chain);
}

/* The base is there, and is the one the overlay was made over. */
static void check_base(struct session *s, const struct lab_machine *m, FILE *plan, struct findings *findings)
{
	struct session_machine *state = session_find_machine(s, m->name);
	cleanup_free char *overlay = session_overlay(s, m->name, NULL);
	cleanup_image struct image image = IMAGE_INIT;
	struct error err = ERROR_INIT;

	if (image_find(m->base, &image, &err) < 0) {
		findings_add(findings, "%s: %s%s%s", m->name, err.message, err.hint[0] ? "; " : "", err.hint);
		return;
	}
	check_disk(s->lab, m, &image, findings);
	if (plan)
		fprintf(plan, "  %s: base %s", m->name, image.path);
	if (!state->base || !overlay || !file_exists(overlay))
		return;
	if (!str_eq(state->base, image.path))
		findings_add(findings, "%s: its base is now %s, but its overlay was made over %s; go back, or give it "
				       "a fresh overlay: uml-lab reset %s %s", m->name, image.path, state->base, s->name,
			     m->name);
	else if (state->base_size != image.size || state->base_mtime != image.mtime.tv_sec)
		findings_add(findings, "%s: the base image %s has changed since its overlay was made; put the old one "
				       "back, or give it a fresh overlay: uml-lab reset %s %s", m->name, image.path,
			     s->name, m->name);
}

static void check_virtiofs(const struct lab_machine *m, const struct kernel *kernel, struct findings *findings)
{
	if (kernel_has_module(kernel, "virtiofs") == 0)
		findings_add(findings, "%s: kernel %s has no module virtiofs, by which shares are mounted; choose another "
				       "with kernel:, Debian's have it", m->name, kernel->release);
}

/* A folder to be written that is missing is made, unless only the plan was asked for. */
static void check_share(const struct lab_machine *m, const struct lab_share *share, FILE *plan,
			struct findings *findings)
{
	struct error err = ERROR_INIT;

	if (!file_exists(share->path) && share->writable) {
		if (plan)
			fprintf(plan, "  %s: share %s: %s is to be made\n", m->name, share->name, share->path);
		else if (file_mkdir_p(share->path, 0755, &err) < 0)
			findings_add(findings, "%s: share %s: %s", m->name, share->name, err.message);
		return;
	}
	if (!file_is_dir(share->path))
		findings_add(findings, "%s: share %s: %s is not a folder", m->name, share->name, share->path);
	else if (access(share->path, R_OK | X_OK | (share->writable ? W_OK : 0)) < 0)
		findings_add(findings, "%s: share %s: you may not %s %s: %s", m->name, share->name,
			     share->writable ? "write" : "read", share->path, strerror(errno));
}

static void check_shares(const struct session *s, const struct lab_machine *m, FILE *plan, struct findings *findings)
{
	for (size_t i = 0; i < m->shares.count; i++)
		check_share(m, lab_find_share(s->lab, m->shares.items[i]), plan, findings);
}

static void check_kernel(const struct lab_machine *m, FILE *plan, struct findings *findings)
{
	struct kernel kernel = {0};
	struct error err = ERROR_INIT;

	if (kernel_find(m->kernel, &kernel, &err) < 0)
		findings_add(findings, "%s: %s%s%s", m->name, err.message, err.hint[0] ? "; " : "", err.hint);
	else if (plan)
		fprintf(plan, ", kernel %s (%s)", kernel.release, kernel.path);
	if (kernel.release && m->shares.count)
		check_virtiofs(m, &kernel, findings);
	kernel_free(&kernel);
}

static void check_room(const struct session *s, struct findings *findings)
{
	struct statvfs fs;
	char human[16];
	uint64_t left;

	if (statvfs(s->folder, &fs) < 0)
		return;
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (left < DISK_FREE_MIN)
		findings_add(findings, "only %s are free where overlays are kept, %s: free some space",
			     str_human_size(left, human, sizeof(human)), s->folder);
}

/* MemAvailable of /proc/meminfo in bytes; UINT64_MAX when it can't be told. */
static uint64_t memory_available(void)
{
	cleanup_file FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			return (uint64_t)kib * 1024;
	return UINT64_MAX;
}

static void check_memory(const struct session *s, uint64_t wanted, struct findings *findings)
{
	uint64_t available = memory_available();
	char a[16], b[16];

	if (s->lab->limits.memory && wanted > s->lab->limits.memory)
		findings_add(findings, "the machines together want %s of memory, and limits.memory is %s",
			     str_human_size(wanted, a, sizeof(a)),
			     str_human_size(s->lab->limits.memory, b, sizeof(b)));
	/* A guest touches its memory by and by; but a host that lacks even half of it will kill machines. */
	if (wanted / 2 > available)
		findings_add(findings, "the machines together want %s of memory, and this host has %s left",
			     str_human_size(wanted, a, sizeof(a)), str_human_size(available, b, sizeof(b)));
}

static void check_host(struct findings *findings)
{
	struct host_check checks[32];
	int n = machine_host_checks(checks, (int)ARRAY_SIZE(checks));

	for (int i = 0; i < n; i++)
		if (checks[i].level == 2)
			findings_add(findings, "this host: %s: %s%s%s", checks[i].name, checks[i].detail,
				     checks[i].remedy[0] ? "; " : "", checks[i].remedy);
}

int session_check_start(struct session *session, const struct session_start_options *options, FILE *plan,
			struct error *err)
{
	struct findings findings = {0};
	uint64_t memory = 0;

	if (session_check_names(session, options->only, err) < 0)
		return -1;
	if (plan)
		fprintf(plan, "session %s of lab %s (%s)\n", session->name, session->lab->name, session->lab_file);
	for (size_t i = 0; i < session->lab->machine_count; i++) {
		const struct lab_machine *m = &session->lab->machines[i];

		if (!session_is_named(options->only, m->name) ||
		    session_machine_runs(session_find_machine(session, m->name)))
			continue;
		memory += m->memory;
		check_supported(session->lab, m, &findings);
		check_shares(session, m, plan, &findings);
		check_base(session, m, plan, &findings);
		check_kernel(m, plan, &findings);
		if (plan)
			fprintf(plan, ", memory %lluM, %zu interface%s\n", (unsigned long long)(m->memory >> 20),
				m->interface_count, m->interface_count == 1 ? "" : "s");
	}
	check_networks(session, plan, &findings);
	check_memory(session, memory, &findings);
	check_room(session, &findings);
	check_host(&findings);
	return findings_result(&findings, ERROR_FAILED, "cannot start", err);
}
