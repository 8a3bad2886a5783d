/*
 * How it works (Documentation/admin-guide/cgroup-v2.rst). A systemd user session runs each program in a group below one that is the
 * user's own (user@UID.service). A group with processes cannot give its controllers to groups below ("no internal
 * processes"), so the place is looked for from the own group upwards, as long as groups are writable:
 *
 *	PLACE			the nearest that can have controllers in its cgroup.subtree_control
 *	  uml-lab-SESSION	cpu.max
 *	    MACHINE		memory.max, pids.max, memory.oom.group
 *
 * memory.oom.group: a kernel killed alone would leave traced processes behind (uml-facts.md, trap 4).
 */
#include "uml-lab/machine/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"

#define CPU_PERIOD_US	 100000
#define LINE_MAX_LENGTH	 4096
#define SWEEP_TRIES	 20
#define SWEEP_US	 10000

static int write_value(const char *folder, const char *name, const char *value)
{
	cleanup_free char *path = file_join(NULL, folder, name);
	cleanup_close int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return -1;
	return write(fd, value, strlen(value)) == (ssize_t)strlen(value) ? 0 : -1;
}

static int write_number(const char *folder, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return write_value(folder, name, text);
}

/* Whether a word stands in the group's file. */
static bool has_word(const char *folder, const char *name, const char *word)
{
	cleanup_free char *path = file_join(NULL, folder, name), *text = NULL;
	cleanup_strv struct strv words = STRV_INIT;

	if (!path || file_read_all(path, LINE_MAX_LENGTH, &text, NULL, NULL) < 0)
		return false;
	text[strcspn(text, "\n")] = '\0';
	if (strv_split(&words, text, ' ', NULL) < 0)
		return false;
	for (size_t i = 0; i < words.count; i++)
		if (str_eq(words.items[i], word))
			return true;
	return false;
}

/* Where cgroup v2 is mounted (proc(5), mountinfo: the fifth field, and the type after " - "). NULL: nowhere. */
static char *mount_point(void)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[LINE_MAX_LENGTH], point[LINE_MAX_LENGTH];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1)
			return str_dup(point, NULL);
	return NULL;
}

/* The own group's folder; *root: how much of it is the mount point. NULL: none. */
static char *own_group(size_t *root)
{
	cleanup_free char *mount = mount_point(), *text = NULL;
	char *line;

	if (!mount || file_read_all("/proc/self/cgroup", LINE_MAX_LENGTH, &text, NULL, NULL) < 0)
		return NULL;
	for (line = text; line && !str_starts(line, "0::/"); line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		;
	if (!line)
		return NULL;
	line[strcspn(line, "\n")] = '\0';
	*root = strlen(mount);
	return str_printf(NULL, "%s%s", mount, str_eq(line, "0::/") ? "" : line + 3);
}

static bool is_ours(const char *folder)
{
	cleanup_free char *members = file_join(NULL, folder, "cgroup.procs");
	cleanup_free char *control = file_join(NULL, folder, "cgroup.subtree_control");

	return members && control && access(folder, W_OK) == 0 && access(members, W_OK) == 0 &&
	       access(control, W_OK) == 0;
}

/*
 * Whether processes are in the group itself. The kernel would refuse memory then, but take cpu and pids, which may be given to
 * single threads: groups below it could have no processes.
 */
static bool has_members(const char *folder)
{
	cleanup_free char *path = file_join(NULL, folder, "cgroup.procs");
	cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char byte;

	return fd < 0 || read(fd, &byte, 1) != 0;
}

/* Gives what is there of memory, cpu and pids to groups below. False: neither memory nor cpu. */
static bool give_controllers(const char *folder)
{
	static const char *const all[] = {"memory", "cpu", "pids"};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		char text[16];

		snprintf(text, sizeof(text), "+%s", all[i]);
		write_value(folder, "cgroup.subtree_control", text);
	}
	return has_word(folder, "cgroup.subtree_control", "memory") ||
	       has_word(folder, "cgroup.subtree_control", "cpu");
}

/* The place: see above. NULL + said. */
static char *find_place(char *said, size_t size)
{
	size_t root = 0;
	char *folder = own_group(&root), *slash;
	bool ours = false;

	while (folder && strlen(folder) > root && is_ours(folder)) {
		ours = true;
		if (!has_members(folder) && give_controllers(folder))
			return folder;
		slash = strrchr(folder, '/');
		*slash = '\0';
	}
	free(folder);
	snprintf(said, size, ours ? "the user's cgroup has no memory or cpu controller" : "no cgroup is delegated to the user");
	return NULL;
}

static int make_groups(struct cgroup *group, const char *place, const char *session, const char *machine)
{
	group->session = str_printf(NULL, "%s/uml-lab-%s", place, session);
	group->folder = group->session ? file_join(NULL, group->session, machine) : NULL;
	if (!group->folder || (mkdir(group->session, 0755) < 0 && errno != EEXIST))
		return -1;
	give_controllers(group->session);
	return mkdir(group->folder, 0755) < 0 && errno != EEXIST ? -1 : 0;
}

static void set_limits(const struct cgroup *group, const struct cgroup_limits *limits, char *said, size_t size)
{
	char text[48], human[16], memory[40] = "", cpu[40] = "", processes[40] = "";

	if (limits->cpu_percent) {
		snprintf(text, sizeof(text), "%d %d", limits->cpu_percent * (CPU_PERIOD_US / 100), CPU_PERIOD_US);
		if (write_value(group->session, "cpu.max", text) == 0)
			snprintf(cpu, sizeof(cpu), ", cpu %d%%", limits->cpu_percent);
	}
	write_value(group->folder, "memory.oom.group", "1");
	if (write_number(group->folder, "memory.max", limits->memory) == 0)
		snprintf(memory, sizeof(memory), ", memory %s", str_human_size(limits->memory, human, sizeof(human)));
	if (write_number(group->folder, "pids.max", limits->processes) == 0)
		snprintf(processes, sizeof(processes), ", %llu processes", (unsigned long long)limits->processes);
	snprintf(said, size, "by cgroup%s%s%s", memory, cpu, processes);
}

void cgroup_make(struct cgroup *group, const char *session, const char *machine, const struct cgroup_limits *limits, char *said,
		 size_t size)
{
	cleanup_free char *place = find_place(said, size);

	*group = (struct cgroup)CGROUP_INIT;
	if (!place)
		return;
	if (make_groups(group, place, session, machine) == 0) {
		set_limits(group, limits, said, size);
		return;
	}
	snprintf(said, size, "no cgroup can be made in %.100s: %s", place, strerror(errno));
	cgroup_remove(group);
}

int cgroup_join(const struct cgroup *group)
{
	return write_value(group->folder, "cgroup.procs", "0");
}

void cgroup_remove(struct cgroup *group)
{
	if (group->folder)
		rmdir(group->folder);
	if (group->session)
		rmdir(group->session); /* EBUSY: another machine of the session */
	free(steal_ptr(&group->folder));
	free(steal_ptr(&group->session));
}

void cgroup_note(const struct cgroup *group, const char *file)
{
	if (group->folder)
		file_replace(file, group->folder, strlen(group->folder), 0600, NULL);
}

void cgroup_sweep(const char *file)
{
	cleanup_free char *folder = NULL;
	char *slash;

	if (file_read_all(file, LINE_MAX_LENGTH, &folder, NULL, NULL) < 0)
		return;
	/* The last of its processes may be ending just now. */
	for (int i = 0; i < SWEEP_TRIES && rmdir(folder) < 0 && errno == EBUSY; i++)
		usleep(SWEEP_US);
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
	rmdir(folder); /* EBUSY: another machine of the session */
	unlink(file);
}
