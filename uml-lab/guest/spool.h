/* Bulk input by files of the host instead of the slow serial line (protocol.h, "Bulk input"). */
#ifndef UML_LAB_GUEST_SPOOL_H
#define UML_LAB_GUEST_SPOOL_H

#include <stdint.h>

#include "uml-lab/guest/guest.h"

/* Opens the host's folder. The mount is seen by nobody else, and lives as long as the descriptor. -1 + f on
 * failure. */
int spool_open(const char *path, struct fault *f);

/* Reads file `number` of just `length` bytes into data, and removes it. 0 or -1. */
int spool_take(int folder, uint32_t number, uint8_t *data, uint32_t length);

/* Removes a file that nobody wants any more. */
void spool_drop(int folder, uint32_t number);

#endif
