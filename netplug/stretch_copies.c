/* Copies of segments, until somebody has them or has said so. */
#include <stdlib.h>
#include <string.h>

#include "netplug/stretch_internal.h"

static size_t cost_of(const struct offload_tcp *t)
{
	return sizeof(struct copy) + t->length;
}

bool copies_add(struct copies *c, size_t *taken, size_t max, const uint8_t *frame, const struct offload_tcp *t)
{
	struct copy *copy = *taken + cost_of(t) <= max ? malloc(cost_of(t)) : NULL;

	if (!copy)
		return false;
	*copy = (struct copy){.t = *t};
	memcpy(copy->frame, frame, t->length);
	if (c->first)
		c->last->next = copy;
	else
		c->first = copy;
	c->last = copy;
	*taken += cost_of(t);
	return true;
}

void copies_drop_first(struct copies *c, size_t *taken)
{
	struct copy *first = c->first;

	c->first = first->next;
	*taken -= cost_of(&first->t);
	free(first);
}

void copies_drop(struct copies *c, size_t *taken)
{
	while (c->first)
		copies_drop_first(c, taken);
}
