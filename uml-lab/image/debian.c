/*
 * A Debian image: mmdebstrap's archive goes through the same importer as any
 * other, and while the file system is still in our hands, files are added and
 * removed (debian_files.c). So nothing but Debian's own package scripts ever
 * runs for it, and no step needs a privilege.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/image/apt.h"
#include "uml-lab/image/files.h"
#include "uml-lab/image/image_internal.h"
#include "uml-lab/image/mmdebstrap.h"

#define DEBIAN_SIZE (2 * IMAGE_GIB)

struct recipe {
	const char *suite;
	struct strbuf packages; /* comma-separated */
	struct apt_sources sources;
	struct strbuf lines;  /* the sources, for mmdebstrap */
	struct strbuf shared; /* the sources, for the image */
};

static void recipe_release(struct recipe *r)
{
	strbuf_free(&r->packages);
	strbuf_free(&r->lines);
	strbuf_free(&r->shared);
	apt_sources_free(&r->sources);
}

static const char *choose_suite(const char *name, const char *suite, struct error *err)
{
	static const char *const releases[][2] = {
		{"debian-11", "bullseye"},
		{"debian-12", "bookworm"},
		{"debian-13", "trixie"},
		{"debian-sid", "sid"},
	};

	if (suite) {
		if (str_is_name(suite, IMAGE_NAME_MAX))
			return suite;
		error_set(err, ERROR_USAGE, "'%s' is no Debian suite", suite);
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(releases); i++)
		if (str_eq(name, releases[i][0]))
			return releases[i][1];
	error_set(err, ERROR_USAGE, "which Debian release shall %s be?", name);
	error_hint(err, "name it with --suite, or build one of: tiny, debian-12, debian-13, debian-sid");
	return NULL;
}

/* Package names only: mmdebstrap and apt also take patterns, paths and options there. */
static int check_package(const char *package, size_t length, struct error *err)
{
	for (size_t i = 0; i < length; i++)
		if (!islower((unsigned char)package[i]) && !isdigit((unsigned char)package[i]) &&
		    (!i || !strchr("+-.:", package[i])))
			return error_set(err, ERROR_USAGE, "'%.*s' cannot be the name of a package",
					 (int)length, package);
	return 0;
}

static int add_included(struct strbuf *packages, const char *list, struct error *err)
{
	size_t length;

	for (; *list; list += length) {
		list += strspn(list, ", ");
		length = strcspn(list, ", ");
		if (!length)
			break;
		if (check_package(list, length, err))
			return -1;
		strbuf_putc(packages, ',');
		strbuf_add(packages, list, length);
	}
	return 0;
}

static int choose_packages(struct strbuf *packages, const struct strv *include, struct error *err)
{
	for (size_t i = 0; i < debian_package_count; i++)
		strbuf_printf(packages, "%s%s", i ? "," : "", debian_packages[i]);
	for (size_t i = 0; include && i < include->count; i++)
		if (add_included(packages, include->items[i], err))
			return -1;
	return strbuf_check(packages, err);
}

static int choose_sources(struct recipe *r, const char *mirror, struct error *err)
{
	cleanup_free char *host = apt_host_suite();
	int result = mirror ? apt_sources_of_mirror(&r->sources, mirror, r->suite, err)
			    : apt_sources_find(&r->sources, "/etc/apt", host, r->suite, err);

	if (result || apt_sources_print(&r->sources, false, &r->lines, err))
		return -1;
	return apt_sources_print(&r->sources, true, &r->shared, err);
}

static json_t *describe_recipe(const struct recipe *r, struct error *err)
{
	cleanup_strv struct strv packages = STRV_INIT;
	json_t *meta = json_pack("{s:s, s:s, s:s, s:[]}", "kind", "debian", "source", "mmdebstrap", "suite",
				 r->suite, "packages");
	json_t *list = json_object_get(meta, "packages");

	if (!meta || strv_split(&packages, r->packages.data, ',', err)) {
		json_decref(meta);
		error_oom(err);
		return NULL;
	}
	for (size_t i = 0; i < packages.count; i++)
		json_array_append_new(list, json_string(packages.items[i]));
	return meta;
}

/* Turns what the packages made into an image. */
static int adapt(struct image_fs *fs, const struct recipe *r, struct error *err)
{
	const struct image_file sources = IMAGE_FILE("etc/apt/sources.list", 0644, r->shared.data);
	time_t now = time(NULL);

	for (size_t i = 0; i < debian_unwanted_count; i++)
		if (image_fs_remove(fs, debian_unwanted[i], err))
			return -1;
	for (size_t i = 0; i < debian_file_count; i++)
		if (image_file_add(fs, &debian_files[i], now, err))
			return -1;
	return image_file_add(fs, &sources, now, err);
}

static int fill(struct image_fs *fs, struct mmdebstrap *m, const struct recipe *r, struct error *err)
{
	if (mmdebstrap_wait(m, err))
		return -1;
	if (image_archive_extract_fd(m->output, "mmdebstrap", fs, m->options, err)) {
		/* When it failed, what it says explains the archive that broke off. */
		if (mmdebstrap_broke_off(m))
			mmdebstrap_finish(m, err);
		return -1;
	}
	if (mmdebstrap_finish(m, err) || adapt(fs, r, err))
		return -1;
	return image_fs_finish(fs, err);
}

static int build(struct image_draft *draft, const struct recipe *r, bool verbose, json_t *meta,
		 struct error *err)
{
	cleanup_mmdebstrap struct mmdebstrap m = MMDEBSTRAP_INIT;
	cleanup_free char *work = image_draft_work_folder(draft, err);
	struct image_fs *fs = work ? image_fs_open(draft->path, 0, err) : NULL;
	int result = -1;

	if (fs &&
	    !mmdebstrap_start(&m, r->suite, r->packages.data, r->lines.data, work, verbose, draft->options,
			      err) &&
	    !fill(fs, &m, r, err))
		result = image_describe(fs, meta, err);
	image_fs_close(fs);
	return result;
}

int image_build_debian(const char *name, const struct image_debian *debian,
		       const struct image_options *options, struct error *err)
{
	cleanup_draft struct image_draft draft = IMAGE_DRAFT_INIT;
	cleanup_with(recipe_release) struct recipe r = {0};
	cleanup_json json_t *meta = NULL;

	r.suite = choose_suite(name, debian->suite, err);
	if (!r.suite || choose_packages(&r.packages, debian->include, err) ||
	    choose_sources(&r, debian->mirror, err))
		return -1;
	meta = describe_recipe(&r, err);
	if (!meta || image_draft_begin(&draft, name, DEBIAN_SIZE, 0, options, err) ||
	    build(&draft, &r, debian->verbose, meta, err))
		return -1;
	return image_draft_publish(&draft, meta, err);
}
