/* The frame codec: what supervisor, clients and the agent's line rely on. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/machine/wire.h"

static void test_round_trip(void)
{
	struct wire a, b;
	struct wire_frame frame;

	wire_init(&a, 1 << 20, false);
	wire_init(&b, 1 << 20, false);
	CU_ASSERT_EQUAL(wire_queue(&a, FRAME_EXEC, 7, "hello", 5), 0);
	CU_ASSERT_EQUAL(wire_queue(&a, FRAME_DATA_IN, 8, NULL, 0), 0);
	/* Byte by byte: a frame comes out only when it is whole. */
	for (size_t i = 0; i < 12 + 4; i++) {
		wire_feed(&b, a.out.data + i, 1);
		CU_ASSERT_EQUAL(wire_next(&b, &frame, NULL), 0);
	}
	wire_feed(&b, a.out.data + 16, a.out.length - 16);
	CU_ASSERT_EQUAL_FATAL(wire_next(&b, &frame, NULL), 1);
	CU_ASSERT(frame.type == FRAME_EXEC && frame.channel == 7 && frame.length == 5);
	CU_ASSERT_EQUAL(memcmp(frame.payload, "hello", 5), 0);
	CU_ASSERT_EQUAL_FATAL(wire_next(&b, &frame, NULL), 1);
	CU_ASSERT(frame.type == FRAME_DATA_IN && frame.channel == 8 && frame.length == 0);
	CU_ASSERT_EQUAL(wire_next(&b, &frame, NULL), 0);
	wire_free(&a);
	wire_free(&b);
}

static void test_bounds(void)
{
	static const char large[FRAME_PAYLOAD_MAX + 1];
	struct wire wire;

	wire_init(&wire, 100, false);
	CU_ASSERT_EQUAL(wire_queue(&wire, FRAME_LOG, 0, large, sizeof(large)), -1);
	CU_ASSERT_EQUAL(wire_queue(&wire, FRAME_LOG, 0, large, 88), 0);
	CU_ASSERT_EQUAL(wire_queue(&wire, FRAME_LOG, 0, NULL, 0), -1);
	CU_ASSERT_EQUAL(wire.out.length, 100);
	wire_free(&wire);
}

/* Rubbish ends a client's connection, and is skipped on the agent's line. */
static void test_rubbish(void)
{
	struct error err = ERROR_INIT;
	struct wire good, strict, line;
	struct wire_frame frame;

	wire_init(&good, 1 << 20, false);
	wire_init(&strict, 1 << 20, false);
	wire_init(&line, 1 << 20, true);
	wire_queue(&good, FRAME_HELLO, 0, "x", 1);
	wire_feed(&strict, "login: root\r\n", 13);
	CU_ASSERT_EQUAL(wire_next(&strict, &frame, &err), -1);
	wire_feed(&line, "login: root\r\n", 13);
	wire_feed(&line, good.out.data, good.out.length);
	CU_ASSERT_EQUAL_FATAL(wire_next(&line, &frame, &err), 1);
	CU_ASSERT(frame.type == FRAME_HELLO && frame.length == 1);
	CU_ASSERT_EQUAL(line.skipped, 13);
	wire_free(&good);
	wire_free(&strict);
	wire_free(&line);
}

/* A length beyond the limit is no header, whatever the magic number says. */
static void test_lying_length(void)
{
	struct frame header = {FRAME_START, FRAME_DATA_OUT, FRAME_PAYLOAD_MAX + 1, 1};
	struct wire wire;
	struct wire_frame frame;

	wire_init(&wire, 1 << 20, false);
	wire_feed(&wire, &header, sizeof(header));
	CU_ASSERT_EQUAL(wire_next(&wire, &frame, NULL), -1);
	wire_free(&wire);
}

static void test_texts(void)
{
	struct wire a, b;
	struct wire_frame frame;
	uint32_t code = 0;
	char *text;

	wire_init(&a, 1 << 20, false);
	wire_init(&b, 1 << 20, false);
	wire_queue_failure(&a, FRAME_FAILED, 0, ERROR_STATE, "not\033[2J now");
	wire_feed(&b, a.out.data, a.out.length);
	CU_ASSERT_EQUAL_FATAL(wire_next(&b, &frame, NULL), 1);
	text = wire_failure(&frame, &code);
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	CU_ASSERT_EQUAL(code, ERROR_STATE);
	CU_ASSERT_STRING_EQUAL(text, "not?[2J now");
	free(text);
	frame.length = 3;
	CU_ASSERT_PTR_NULL(wire_failure(&frame, &code));
	wire_free(&a);
	wire_free(&b);
}

static void test_allowance(void)
{
	struct wire wire;
	char buf[64];
	int pair[2];

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	wire_init(&wire, 1 << 20, false);
	wire.allowance = 10;
	wire_queue(&wire, FRAME_PING, 0, NULL, 0);
	CU_ASSERT_EQUAL(wire_write(&wire, pair[0]), 1);
	CU_ASSERT_EQUAL(recv(pair[1], buf, sizeof(buf), MSG_DONTWAIT), 10);
	wire.allowance += 5;
	CU_ASSERT_EQUAL(wire_write(&wire, pair[0]), 0);
	CU_ASSERT_EQUAL(recv(pair[1], buf, sizeof(buf), MSG_DONTWAIT), 2);
	CU_ASSERT_EQUAL(wire.allowance, 3);
	wire_free(&wire);
	close(pair[0]);
	close(pair[1]);
}

UNIT_MAIN("machine wire", UNIT_CASE(test_round_trip), UNIT_CASE(test_bounds), UNIT_CASE(test_rubbish),
	  UNIT_CASE(test_lying_length), UNIT_CASE(test_texts), UNIT_CASE(test_allowance))
