/*
 * Merge, convert, rebase, express: new V3 files whose sectors come from the
 * layers of a chain, or from what differs between two chains. All of them build
 * the new file beside its place and rename it there; nothing else is written.
 */
#include <string.h>

#include "cow/compare.h"

/* Stores all sectors that the first n files of the chain own. */
static int gather(struct cow_build *b, const struct cow_chain *chain, size_t n, struct error *err)
{
	for (uint64_t s = 0; s < chain->sectors;) {
		struct cow_extent e;

		cow_chain_run(chain, s, chain->sectors - s, &e);
		if (e.owner < n && cow_build_store(b, chain, s, e.length, err))
			return -1;
		s += e.length;
	}
	return 0;
}

static int squash(const struct cow_chain *chain, size_t n, const char *out, bool replace, struct error *err)
{
	const struct cow_file *top = chain->files[0];
	cleanup_build struct cow_build b = COW_BUILD_INIT;
	bool in_place = str_eq(out, top->path);

	if (cow_build_begin(&b, out, chain->files[n]->path, err) ||
	    (!in_place && replace && cow_temp_guard(&b.temp, chain, err)) || gather(&b, chain, n, err))
		return -1;
	return cow_build_finish(&b, in_place ? top : NULL, in_place || replace, err);
}

/* The index of a layer of the chain by any name of its file; 0 when it is none. */
static size_t find_layer(const struct cow_chain *chain, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return 0;
	for (size_t i = 1; i < chain->count; i++)
		if (chain->files[i]->stat.st_dev == st.st_dev && chain->files[i]->stat.st_ino == st.st_ino)
			return i;
	return 0;
}

int cow_merge(const char *upper, const char *lower, const char *out, const struct cow_open_options *options,
	      struct error *err)
{
	cleanup_chain struct cow_chain *chain = cow_chain_open_writable(upper, options, out ? 0 : 1, err);
	size_t index;

	if (!chain)
		return -1;
	index = find_layer(chain, lower);
	if (index == 0)
		return error_set(err, ERROR_FAILED, "%s is no layer below %s", lower, upper);
	if (!chain->files[index]->bitmap) {
		error_set(err, ERROR_FAILED, "%s is a raw image, not a layer", lower);
		return error_hint(err, "uml-cow commit writes into a raw image, uml-cow flatten makes one");
	}
	return squash(chain, index + 1, out ? out : chain->files[0]->path, false, err);
}

int cow_convert(const char *file, const char *out, bool replace, const struct cow_open_options *options,
		struct error *err)
{
	cleanup_chain struct cow_chain *chain = cow_chain_open(file, options, err);

	if (!chain)
		return -1;
	if (!chain->files[0]->bitmap)
		return error_set(err, ERROR_FAILED, "%s is not a COW file", file);
	return squash(chain, 1, out, replace, err);
}

/* ---- Rebase ---- */

struct difference {
	struct cow_build *build;
	const struct cow_chain *content;
};

static int store_difference(void *arg, uint64_t start, uint64_t length, struct error *err)
{
	struct difference *d = arg;

	return cow_build_store(d->build, d->content, start, length, err);
}

static int check_sizes(const struct cow_chain *content, const struct cow_chain *base, struct error *err)
{
	const struct cow_file *c = content->files[0], *b = base->files[0];

	if (content->sectors != base->sectors)
		return error_set(err, ERROR_FAILED,
				 "%s and %s hold disks of different sizes (%llu and %llu bytes)", c->path,
				 b->path, (unsigned long long)c->header.size,
				 (unsigned long long)b->header.size);
	return 0;
}

/* An overlay over base that shows what content holds. */
static int express(const struct cow_chain *content, const struct cow_chain *base, const char *out,
		   const struct cow_file *old, bool replace, struct error *err)
{
	cleanup_build struct cow_build b = COW_BUILD_INIT;
	struct difference d = {.build = &b, .content = content};

	if (check_sizes(content, base, err) || cow_build_begin(&b, out, base->files[0]->path, err))
		return -1;
	if (!old && replace && (cow_temp_guard(&b.temp, content, err) || cow_temp_guard(&b.temp, base, err)))
		return -1;
	if (cow_compare(content, base, 0, content->sectors, true, store_difference, &d, err))
		return -1;
	return cow_build_finish(&b, old, replace, err);
}

static int rebase_header(const char *file, const char *backing, const struct cow_open_options *options,
			 struct error *err)
{
	struct cow_open_options partial = options ? *options : (struct cow_open_options){0};
	cleanup_chain struct cow_chain *chain = NULL;
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	char digest[COW_DIGEST_MAX];

	partial.partial = true;
	chain = cow_chain_open_writable(file, &partial, 1, err);
	if (!h)
		return error_oom(err);
	if (!chain || cow_header_for(h, backing, false, digest, err))
		return -1;
	if (!chain->files[0]->bitmap)
		return error_set(err, ERROR_FAILED, "%s is not a COW file", file);
	if (h->size != chain->files[0]->header.size)
		return error_set(err, ERROR_FAILED, "%s has %llu bytes, the backing file of %s had %llu",
				 backing, (unsigned long long)h->size, file,
				 (unsigned long long)chain->files[0]->header.size);
	return cow_header_rewrite(chain->files[0], h, digest, err);
}

int cow_rebase(const char *file, const char *backing, bool header_only,
	       const struct cow_open_options *options, struct error *err)
{
	cleanup_chain struct cow_chain *chain = NULL, *base = NULL;

	if (header_only)
		return rebase_header(file, backing, options, err);
	chain = cow_chain_open_writable(file, options, 1, err);
	if (!chain)
		return -1;
	if (!chain->files[0]->bitmap)
		return error_set(err, ERROR_FAILED, "%s is not a COW file", file);
	base = cow_chain_open(backing, options, err);
	if (!base)
		return error_prefix(err, "the new backing file");
	if (cow_chain_contains(base, &chain->files[0]->stat))
		return error_set(err, ERROR_FAILED, "%s stands on %s itself", backing, file);
	return express(chain, base, chain->files[0]->path, chain->files[0], true, err);
}

int cow_express(const char *content, const char *backing, const char *out, bool replace,
		const struct cow_open_options *options, struct error *err)
{
	cleanup_chain struct cow_chain *chain = cow_chain_open(content, options, err), *base = NULL;

	if (!chain)
		return -1;
	base = cow_chain_open(backing, options, err);
	return base ? express(chain, base, out, NULL, replace, err) : -1;
}
