/*
 * Whether looking for the next piece of work is worth more than sleeping until one is told of it.
 *
 * Learned from what would have been, as KVM's halt polling does: some sleeps in a row that were short turn looking on, one look in
 * vain turns it off and makes that "some" twice as many, up to a limit, so that looks in vain stay rare beside sleeps; after a
 * number of looks with success it is halved again.
 */
#ifndef UML_LAB_BASE_PATIENCE_H
#define UML_LAB_BASE_PATIENCE_H

#include <stdbool.h>

struct patience {
	unsigned short_sleeps, wanted, max, found;
	bool looking;
};

/* max: looks in vain cost no more than one in so many sleeps. Not looking. */
void patience_init(struct patience *p, unsigned max);
/* A sleep is over: whether it was so short that a look would have lasted as long. */
void patience_slept(struct patience *p, bool shortly);
/* A look found something. */
void patience_found(struct patience *p);
/* A look was in vain: it is over. */
void patience_in_vain(struct patience *p);

#endif
