/* Channels: programs that run for a client, and tar streams in and out, many at once. */
#ifndef UML_LAB_GUEST_CHANNEL_H
#define UML_LAB_GUEST_CHANNEL_H

#include "uml-lab/guest/agent.h"

/* Makes the table. 0, or -1 when there is no memory. */
int channel_init(struct agent *a);
/* A frame that came on a channel (number not 0). */
void channel_frame(struct agent *a, const struct frame_view *v);
/* Whether any channel is open. */
bool channel_any(const struct agent *a);
/* Does what is due, returns the milliseconds until the next is, -1 for nothing. */
int channel_tick(struct agent *a, int64_t now);

#endif
