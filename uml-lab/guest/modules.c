/*
 * Kernel modules, before and without the image's modprobe. modules.dep has a
 * line per module, "PATH: DEP DEP…" with every dependency, the ones to load
 * first last (depmod(8)).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/guest/modules.h"

#define ORDER "/modules/order"
#define DEP_MAX (4u << 20)	/* bytes of modules.dep; Debian's has some hundred kilobytes */

static int load(const char *path, struct fault *f)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = strlen(path);
	int flags = n > 3 && !strcmp(path + n - 3, ".ko") ? 0 : MODULE_INIT_COMPRESSED_FILE;
	int saved;

	if (fd < 0)
		return fault_errno(f, errno, "cannot open the module %s", path);
	if (syscall(SYS_finit_module, fd, "", flags) < 0 && errno != EEXIST) {
		saved = errno;
		close(fd);
		return fault_errno(f, saved, "cannot load the module %s", path);
	}
	close(fd);
	return 0;
}

int modules_load_all(struct fault *f)
{
	char *text = guest_read_file(ORDER, 65536, NULL), *rest = text, *line;
	char path[PATH_MAX];
	int result = 0;

	while (result == 0 && text && (line = strsep(&rest, "\n"))) {
		if (!*line)
			continue;
		snprintf(path, sizeof(path), "/modules/%s", line);
		result = load(path, f);
	}
	free(text);
	return result;
}

/* Whether "kernel/net/ipv6/ipv6.ko.xz" is the module "ipv6". */
static bool is_module(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	size_t n = strlen(name);

	return !strncmp(base, name, n) && !strncmp(base + n, ".ko", 3);
}

/* Loads the space-separated list from its end, then the module itself. */
static int load_line(const char *folder, const char *module, char *deps, struct fault *f)
{
	char path[PATH_MAX];
	char *space;

	while ((space = strrchr(deps, ' '))) {
		*space = '\0';
		if (!space[1])
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, space + 1);
		if (load(path, f) < 0)
			return -1;
	}
	snprintf(path, sizeof(path), "%s/%s", folder, module);
	return load(path, f);
}

int modules_load(const char *folder, const char *name, struct fault *f)
{
	char path[PATH_MAX];
	char *text, *rest, *line, *colon;
	int result = 1;

	snprintf(path, sizeof(path), "%s/modules.dep", folder);
	text = rest = guest_read_file(path, DEP_MAX, NULL);
	if (!text)
		return fault_errno(f, errno, "cannot read %s", path);
	while (result > 0 && (line = strsep(&rest, "\n"))) {
		colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = '\0';
		if (is_module(line, name))
			result = load_line(folder, line, colon + 1, f);
	}
	free(text);
	return result > 0 ? fault_set(f, "no module '%s' in %s", name, folder) : result;
}
