/* Writing a capture: pcapng (draft-ietf-opsawg-pcapng), Ethernet, nanoseconds; and filters in tcpdump's language. */
#ifndef UML_LAB_CMD_PCAPNG_H
#define UML_LAB_CMD_PCAPNG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "uml-lab/base/error.h"

/* A frame that was captured. */
struct pcapng_frame {
	uint32_t interface;	/* from 0, in the order of pcapng_interface() */
	uint64_t time_ns;	/* since 1970 */
	const uint8_t *data;
	uint32_t captured, length;	/* bytes in data; bytes the frame had */
	bool sent;		/* by the interface, rather than received */
	uint64_t dropped;	/* frames of this interface left out just before */
};

/* Each writes a block to a buffered stream, whose error state tells of failures. */
void pcapng_begin(FILE *out, const char *application);
void pcapng_interface(FILE *out, const char *name, const char *description, uint32_t snaplen);
void pcapng_frame(FILE *out, const struct pcapng_frame *frame);
/* What was seen in all and what was left out; at the end. */
void pcapng_statistics(FILE *out, uint32_t interface, uint64_t time_ns, uint64_t seen, uint64_t dropped);

/* A compiled filter. libpcap is loaded only for this. */
struct pcap_filter;
/* NULL + err: what is wrong with the expression (ERROR_USAGE), or libpcap is missing. */
struct pcap_filter *pcap_filter_new(const char *expression, struct error *err);
bool pcap_filter_passes(const struct pcap_filter *filter, const uint8_t *data, uint32_t captured, uint32_t length);
/* NULL is fine. */
void pcap_filter_free(struct pcap_filter *filter);

#endif
