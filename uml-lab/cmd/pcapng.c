/*
 * pcapng blocks. Each is type, length, body, length again; everything is padded to four bytes and in the
 * host's byte order, which the section header's magic number tells.
 */
#include "uml-lab/cmd/pcapng.h"

#include <string.h>

#define SECTION_HEADER 0x0a0d0d0au
#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define INTERFACE_DESCRIPTION 1u
#define INTERFACE_STATISTICS 5u
#define ENHANCED_PACKET 6u
#define LINKTYPE_ETHERNET 1
#define SNAPLEN_ALL 65535u

/* Options, by block. */
#define SHB_USERAPPL 4
#define IF_NAME 2
#define IF_DESCRIPTION 3
#define IF_TSRESOL 9
#define EPB_FLAGS 2
#define EPB_DROPCOUNT 4
#define ISB_IFRECV 4
#define ISB_IFDROP 5

#define INBOUND 1u
#define OUTBOUND 2u

static void put(FILE *out, const void *data, size_t length)
{
	static const uint8_t zeros[4];

	fwrite(data, 1, length, out);
	fwrite(zeros, 1, -length & 3, out);
}

static void put16(FILE *out, uint16_t v)
{
	fwrite(&v, sizeof(v), 1, out);
}

static void put32(FILE *out, uint32_t v)
{
	fwrite(&v, sizeof(v), 1, out);
}

/* A time as two halves, the upper first. */
static void put_time(FILE *out, uint64_t ns)
{
	put32(out, (uint32_t)(ns >> 32));
	put32(out, (uint32_t)ns);
}

static uint32_t padded(size_t length)
{
	return (uint32_t)((length + 3) & ~(size_t)3);
}

static void put_option(FILE *out, uint16_t code, const void *data, size_t length)
{
	put16(out, code);
	put16(out, (uint16_t)length);
	put(out, data, length);
}

#define OPTION_SIZE(length) (4 + padded(length))
#define OPTIONS_END 4u

void pcapng_begin(FILE *out, const char *application)
{
	uint32_t size = 28 + OPTION_SIZE(strlen(application)) + OPTIONS_END;

	put32(out, SECTION_HEADER);
	put32(out, size);
	put32(out, BYTE_ORDER_MAGIC);
	put16(out, 1);
	put16(out, 0);
	put32(out, UINT32_MAX);	/* the section's length, unknown: -1 in 64 bits */
	put32(out, UINT32_MAX);
	put_option(out, SHB_USERAPPL, application, strlen(application));
	put32(out, 0);
	put32(out, size);
}

void pcapng_interface(FILE *out, const char *name, const char *description, uint32_t snaplen)
{
	static const uint8_t nanoseconds = 9;
	uint32_t size = 20 + OPTION_SIZE(strlen(name)) + OPTION_SIZE(strlen(description)) + OPTION_SIZE(1) + OPTIONS_END;

	put32(out, INTERFACE_DESCRIPTION);
	put32(out, size);
	put16(out, LINKTYPE_ETHERNET);
	put16(out, 0);
	put32(out, snaplen ? snaplen : SNAPLEN_ALL);
	put_option(out, IF_NAME, name, strlen(name));
	put_option(out, IF_DESCRIPTION, description, strlen(description));
	put_option(out, IF_TSRESOL, &nanoseconds, 1);
	put32(out, 0);
	put32(out, size);
}

void pcapng_frame(FILE *out, const struct pcapng_frame *f)
{
	uint32_t flags = f->sent ? OUTBOUND : INBOUND;
	uint32_t size = 32 + padded(f->captured) + OPTION_SIZE(4) + (f->dropped ? OPTION_SIZE(8) : 0) + OPTIONS_END;

	put32(out, ENHANCED_PACKET);
	put32(out, size);
	put32(out, f->interface);
	put_time(out, f->time_ns);
	put32(out, f->captured);
	put32(out, f->length);
	put(out, f->data, f->captured);
	put_option(out, EPB_FLAGS, &flags, sizeof(flags));
	if (f->dropped)
		put_option(out, EPB_DROPCOUNT, &f->dropped, sizeof(f->dropped));
	put32(out, 0);
	put32(out, size);
}

void pcapng_statistics(FILE *out, uint32_t interface, uint64_t time_ns, uint64_t seen, uint64_t dropped)
{
	uint32_t size = 24 + 2 * OPTION_SIZE(8) + OPTIONS_END;

	put32(out, INTERFACE_STATISTICS);
	put32(out, size);
	put32(out, interface);
	put_time(out, time_ns);
	put_option(out, ISB_IFRECV, &seen, sizeof(seen));
	put_option(out, ISB_IFDROP, &dropped, sizeof(dropped));
	put32(out, 0);
	put32(out, size);
}
