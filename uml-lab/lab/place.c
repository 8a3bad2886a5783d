/*
 * Paths of fields ("machines.r1.memory"), and the places that values of a struct
 * lab came from, found by the value's address. They are added while the tree is
 * walked, sorted once, and then looked up by bisection.
 *
 * The first field of an element has the element's own address, so a place also
 * knows whether it is the element's.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

char *lab_path_format(const struct path *path)
{
	cleanup_strbuf struct strbuf out = STRBUF_INIT;
	const struct path *stack[LAB_DEPTH_MAX];
	char quoted[LAB_QUOTE_MAX];
	int depth = 0;

	for (; path->parent && depth < LAB_DEPTH_MAX; path = path->parent)
		stack[depth++] = path;
	while (depth-- > 0) {
		const struct path *step = stack[depth];

		if (!step->key) {
			strbuf_printf(&out, "[%zu]", step->index);
			continue;
		}
		if (out.length)
			strbuf_putc(&out, '.');
		strbuf_puts(&out,
			    *step->key &&
					    strspn(step->key,
						   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
						   "0123456789_-") == strlen(step->key) &&
					    strlen(step->key) < LAB_QUOTE_MAX
				    ? step->key
				    : lab_quote(step->key, quoted));
	}
	return strbuf_steal(&out, NULL);
}

void lab_add_place(struct loader *loader, const void *value, bool is_object, bool bad, struct lab_mark mark,
		   const struct path *path)
{
	struct place *place;

	if (loader->place_count == loader->place_size) {
		size_t size = loader->place_size ? loader->place_size * 2 : 64;
		struct place *bigger = reallocarray(loader->places, size, sizeof(*bigger));

		if (!bigger) {
			loader->out_of_memory = true;
			return;
		}
		loader->places = bigger;
		loader->place_size = size;
	}
	place = &loader->places[loader->place_count];
	*place = (struct place){value, is_object, bad, mark, lab_path_format(path)};
	if (!place->path)
		loader->out_of_memory = true;
	else
		loader->place_count++;
}

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->value != y->value)
		return x->value < y->value ? -1 : 1;
	return (int)x->is_object - (int)y->is_object;
}

void lab_places_sort(struct loader *loader)
{
	if (loader->place_count)
		qsort(loader->places, loader->place_count, sizeof(*loader->places), compare_places);
}

static const struct place *find_place(const struct loader *loader, const void *value, bool is_object)
{
	struct place wanted = {.value = value, .is_object = is_object};

	if (!loader->place_count)
		return NULL;
	return bsearch(&wanted, loader->places, loader->place_count, sizeof(wanted), compare_places);
}

const struct place *lab_place(const struct loader *loader, const void *value)
{
	return find_place(loader, value, false);
}

const struct place *lab_place_of_object(const struct loader *loader, const void *value)
{
	return find_place(loader, value, true);
}

bool lab_given(const struct loader *loader, const void *value)
{
	return lab_place(loader, value);
}

bool lab_given_well(const struct loader *loader, const void *value)
{
	const struct place *place = lab_place(loader, value);

	return place && !place->bad;
}

void lab_blame(const struct loader *loader, const struct place *place, const char *fmt, ...)
{
	cleanup_free char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = str_vprintf(fmt, ap);
	va_end(ap);
	lab_problem_add(loader->problems, place ? place->mark : (struct lab_mark){1, 1},
			place ? place->path : "", "%s", text ? text : "out of memory");
}

void lab_places_free(struct loader *loader)
{
	for (size_t i = 0; i < loader->place_count; i++)
		free(loader->places[i].path);
	free(loader->places);
	loader->places = NULL;
	loader->place_count = loader->place_size = 0;
}
