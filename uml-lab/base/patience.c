#include "uml-lab/base/patience.h"

#define WANTED_MIN 4u  /* short sleeps in a row until looking begins */
#define FORGIVEN   64u /* looks with success until that is halved again */

void patience_init(struct patience *p, unsigned max)
{
	*p = (struct patience){.wanted = WANTED_MIN, .max = max};
}

void patience_slept(struct patience *p, bool shortly)
{
	if (!shortly)
		p->short_sleeps = 0;
	else if (++p->short_sleeps >= p->wanted)
		p->looking = true;
}

void patience_found(struct patience *p)
{
	if (++p->found % FORGIVEN == 0 && p->wanted > WANTED_MIN)
		p->wanted /= 2;
}

void patience_in_vain(struct patience *p)
{
	p->looking = false;
	p->short_sleeps = 0;
	if (p->wanted < p->max)
		p->wanted *= 2;
}
