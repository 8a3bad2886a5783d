/*
 * Whether libvdeplug can join what a locator names: MODULE://REST needs the
 * plugin libvdeplug_MODULE.so, which lies in the folder vdeplug/ beside libvdeplug
 * itself. libvdeplug tells of a missing one only EPROTONOSUPPORT.
 */
#include <libvdeplug.h>

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

#define MODULE_MAX 32

/* Debian's packages of plugins that are not in libvdeplug2. */
static const struct {
	const char *module, *package;
} packages[] = {
	{ "agno", "libvdeplug-agno" },
	{ "pcap", "libvdeplug-pcap" },
	{ "slirp", "libvdeplug-slirp" },
	{ "vdesl", "libvdeplug-vdesl" },
};

static const char *package_of(const char *module)
{
	for (size_t i = 0; i < ARRAY_SIZE(packages); i++) {
		if (str_eq(packages[i].module, module))
			return packages[i].package;
	}
	return NULL;
}

/* The module's name; "vde" for a plain path. */
static int parse_module(const char *locator, char module[static MODULE_MAX], struct error *err)
{
	const char *end = strstr(locator, "://");
	size_t length = end ? (size_t)(end - locator) : 0;

	if (!end && locator[0] != '/')
		return error_set(err, ERROR_USAGE, "VDE locator '%s' is neither MODULE://… nor an absolute path", locator);
	if (!end) {
		strcpy(module, "vde");
		return 0;
	}
	if (!length || length >= MODULE_MAX || strspn(locator, "abcdefghijklmnopqrstuvwxyz0123456789_") < length)
		return error_set(err, ERROR_USAGE, "VDE locator '%s' does not begin with the name of a module", locator);
	memcpy(module, locator, length);
	module[length] = '\0';
	return 0;
}

static bool have_module(const char *module, struct error *err)
{
	cleanup_free char *path = NULL;
	const char *slash;
	Dl_info library;

	if (!dladdr((void *)vde_open_real, &library) || !(slash = strrchr(library.dli_fname, '/')))
		return true;	/* it will tell itself */
	path = str_printf(err, "%.*s/vdeplug/libvdeplug_%s.so", (int)(slash - library.dli_fname), library.dli_fname,
			  module);
	return path && !access(path, R_OK);
}

int vde_locator_check(const char *locator, struct error *err)
{
	char module[MODULE_MAX];
	const char *package;

	if (parse_module(locator, module, err))
		return -1;
	if (have_module(module, err))
		return 0;
	package = package_of(module);
	error_set(err, ERROR_FAILED, "'%s': libvdeplug has no plugin for %s://", locator, module);
	if (package)
		error_hint(err, "it is in Debian's package %s", package);
	else
		error_hint(err, "Debian's libvdeplug2 has vde, vxvde, vxlan, udp, cmd, tap and more; others are packages "
				"named libvdeplug-…");
	return -1;
}
