/*
 * A lab made harmless: what is left of it touches nothing of the host but the session's own disks.
 *
 * Gone from every lab: shares, ways from the host into the guest (forwards), from the guest to the host's
 * loopback, VDE locators (the network is then one of the session's own, for its machines alone), restarts by
 * itself, disk: ubd (it can't stand on layers). SLIRP stays, since eth0 and DHCP belong to what is checked,
 * but lets nothing out unless that was asked for.
 *
 * Gone from one that came with the submission, besides: kernels by path and words for their command line,
 * folders to be copied, and memory beyond what a host can give to somebody unknown.
 *
 * Texts that run in the guest (setup, startup, checks) stay: there they may do what they like.
 */
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/submission/submission.h"

#define MACHINE_MEMORY (512ull << 20)
#define MACHINES       16
#define DISK           (1ull << 30) /* that it may write on top of what it came with */
#define CPU_PERCENT    100
#define TIME_MS        (2 * 3600 * 1000)

static void drop_text(char **text)
{
	free(*text);
	*text = NULL;
}

static int set_text(char **text, const char *to, struct error *err)
{
	char *copy = str_dup(to, err);

	if (!copy)
		return -1;
	free(*text);
	*text = copy;
	return 0;
}

static void drop_shares(struct lab *lab)
{
	for (size_t i = 0; i < lab->share_count; i++) {
		struct lab_share *share = &lab->shares[i];

		free(share->name);
		free(share->path);
		free(share->owner);
		free(share->mount);
		strv_free(&share->hide);
	}
	free(lab->shares);
	lab->shares = NULL;
	lab->share_count = 0;
}

static void tame_interface(struct lab_interface *iface, bool network)
{
	for (size_t i = 0; i < iface->forward_count; i++)
		lab_forward_free(&iface->forwards[i]);
	free(iface->forwards);
	iface->forwards = NULL;
	iface->forward_count = 0;
	iface->host = false;
	if (network)
		return;
	strv_free(&iface->allow);
	iface->restricted = iface->slirp;
}

static int tame_machine(struct lab_machine *m, const struct submission_trust *trust, struct error *err)
{
	strv_free(&m->shares);
	m->restart = LAB_RESTART_NO;
	for (size_t i = 0; i < m->interface_count; i++)
		tame_interface(&m->interfaces[i], trust->network);
	if (set_text(&m->disk_driver, "auto", err) < 0)
		return -1;
	if (trust->own)
		return 0;
	strv_free(&m->kernel_args);
	drop_text(&m->files);
	if (m->memory > MACHINE_MEMORY)
		m->memory = MACHINE_MEMORY;
	return strchr(m->kernel, '/') ? set_text(&m->kernel, "auto", err) : 0;
}

static void bound(uint64_t *limit, uint64_t most)
{
	if (!*limit || *limit > most)
		*limit = most;
}

static void bound_limits(struct lab_limits *limits, bool own)
{
	if (!limits->time_ms || limits->time_ms > TIME_MS)
		limits->time_ms = TIME_MS;
	if (!limits->cpu_percent || (!own && limits->cpu_percent > CPU_PERCENT))
		limits->cpu_percent = CPU_PERCENT;
	bound(&limits->disk, DISK);
	if (!own)
		bound(&limits->memory, MACHINES / 4 * MACHINE_MEMORY);
}

int submission_make_safe(struct lab *lab, const struct submission_trust *trust, struct error *err)
{
	if (!trust->own && lab->machine_count > MACHINES)
		return error_set(
			err, ERROR_FAILED,
			"its lab has %zu machines, and %d are the most that one from elsewhere may have",
			lab->machine_count, MACHINES);
	drop_shares(lab);
	for (size_t i = 0; i < lab->network_count; i++)
		drop_text(&lab->networks[i].vde);
	for (size_t i = 0; i < lab->machine_count; i++)
		if (tame_machine(&lab->machines[i], trust, err) < 0)
			return -1;
	bound_limits(&lab->limits, trust->own);
	return 0;
}
