/*
 * The agent's line, and the channels on it.
 *
 * A channel belongs to whoever opened it (a client in control.c, a script in
 * boot.c); its number towards the agent is ours, so two clients may both call
 * theirs 1. Frames pass unread but for what bounds need: an agent that sends more
 * than FRAME_WINDOW bytes without credit has its channel closed.
 *
 * The line always is read, and written to by its window (protocol.h, FRAME_TAKEN):
 * a byte too many would make it deaf for good. Towards the agent frames queue up in the wire; when
 * more than CONGESTED bytes wait, relay_congested() has clients and scripts wait
 * too (control_resume(), boot_resume() when it is over), so the queue stays
 * below OUT_MAX.
 *
 * The line is a tty that any root process in the guest may write to. Rubbish
 * between frames is skipped.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define OUT_MAX   (2u << 20)
#define CONGESTED (512u << 10)

bool relay_congested(const struct supervisor *sv)
{
	return sv->relay.wire.out.length > CONGESTED;
}

static void watch(struct supervisor *sv)
{
	struct relay *relay = &sv->relay;
	bool writing = relay->wire.out.length > 0 && relay->wire.allowance > 0;

	if (writing != relay->writing &&
	    loop_set_events(relay->source, writing ? EPOLLIN | EPOLLOUT : EPOLLIN) == 0)
		relay->writing = writing;
}

static void flush(struct supervisor *sv)
{
	struct relay *relay = &sv->relay;
	bool was = relay_congested(sv);

	if (!relay->source)
		return;
	wire_write(&relay->wire, relay->fd); /* a broken line is seen by reading */
	watch(sv);
	if (was && !relay_congested(sv)) {
		control_resume(sv);
		boot_resume(sv);
	}
}

int relay_send(struct supervisor *sv, enum frame_type type, uint32_t channel, const void *payload,
	       size_t length)
{
	struct relay *relay = &sv->relay;

	if (relay->fd < 0 || !relay->hello || wire_queue(&relay->wire, type, channel, payload, length) < 0)
		return -1;
	if (!relay->writing)
		flush(sv);
	return 0;
}

int relay_send_text(struct supervisor *sv, enum frame_type type, const char *text)
{
	struct relay *relay = &sv->relay;

	if (relay->fd < 0 || !relay->hello || wire_queue_text(&relay->wire, type, 0, text) < 0)
		return -1;
	flush(sv);
	return 0;
}

/* ---- channels ---- */

struct channel *relay_open(struct supervisor *sv, channel_fn fn, void *arg, struct error *err)
{
	struct relay *relay = &sv->relay;
	struct channel *channel;

	if (relay->fd < 0 || !relay->hello) {
		error_set(err, ERROR_STATE, "the machine's agent does not answer (yet)");
		return NULL;
	}
	if (relay->channel_count >= FRAME_CHANNELS_MAX) {
		error_set(err, ERROR_STATE, "too many commands run in the machine at once (%u)",
			  FRAME_CHANNELS_MAX);
		return NULL;
	}
	channel = calloc(1, sizeof(*channel));
	if (!channel) {
		error_oom(err);
		return NULL;
	}
	*channel = (struct channel){.next = relay->channels, .fn = fn, .arg = arg};
	/* Numbers are not reused before all others were: frames of an old channel reach no new one. */
	do {
		channel->id = ++relay->last_id;
	} while (!channel->id);
	relay->channels = channel;
	relay->channel_count++;
	return channel;
}

static void free_channel(struct supervisor *sv, struct channel *channel)
{
	struct channel **p = &sv->relay.channels;

	while (*p != channel)
		p = &(*p)->next;
	*p = channel->next;
	sv->relay.channel_count--;
	free(channel);
}

void relay_abandon(struct supervisor *sv, struct channel *channel)
{
	channel->fn = NULL;
	relay_send(sv, FRAME_CLOSE, channel->id, NULL, 0);
}

void relay_credit(struct supervisor *sv, struct channel *channel, uint32_t bytes)
{
	struct frame_credit credit = {htole32(STREAM_OUT), htole32(bytes)};

	channel->pending = bytes < channel->pending ? channel->pending - bytes : 0;
	relay_send(sv, FRAME_CREDIT, channel->id, &credit, sizeof(credit));
}

/* Hands the owner a last frame made up here. */
static void end_channel(struct supervisor *sv, struct channel *channel, const char *why)
{
	struct wire wire;
	struct wire_frame frame;

	wire_init(&wire, FRAME_PAYLOAD_MAX, false);
	if (channel->fn && wire_queue_failure(&wire, FRAME_ERROR, channel->id, 0, why) == 0) {
		wire_feed(&wire, wire.out.data, wire.out.length);
		if (wire_next(&wire, &frame, NULL) == 1)
			channel->fn(channel->arg, &frame);
	}
	wire_free(&wire);
	free_channel(sv, channel);
}

static void channel_frame(struct supervisor *sv, const struct wire_frame *frame)
{
	struct channel *channel = sv->relay.channels;

	while (channel && channel->id != frame->channel)
		channel = channel->next;
	if (!channel || frame->type < FRAME_STARTED || frame->type > FRAME_CREDIT)
		return;
	if (frame->type == FRAME_DATA_OUT || frame->type == FRAME_DATA_ERR)
		channel->pending += frame->length;
	if (!channel->fn) { /* nobody waits for it: keep it going until its end */
		if (frame->length && (frame->type == FRAME_DATA_OUT || frame->type == FRAME_DATA_ERR))
			relay_credit(sv, channel, frame->length);
	} else if (channel->pending > FRAME_WINDOW) {
		log_warn("the agent sent more than its window on channel %u", channel->id);
		relay_send(sv, FRAME_CLOSE, channel->id, NULL, 0);
		end_channel(sv, channel, "the machine's agent broke the rules of its protocol");
		return;
	} else {
		channel->fn(channel->arg, frame);
	}
	if (frame->type == FRAME_EXIT || frame->type == FRAME_ERROR)
		free_channel(sv, channel);
}

/* ---- the line ---- */

/* The agent has read from the line: so much more may be written (protocol.h, "The line's own window"). */
static void taken(struct supervisor *sv, const struct wire_frame *frame)
{
	size_t *allowance = &sv->relay.wire.allowance;
	uint32_t bytes;

	if (frame->length != sizeof(bytes))
		return;
	memcpy(&bytes, frame->payload, sizeof(bytes));
	bytes = le32toh(bytes);
	*allowance = bytes < FRAME_LINE_WINDOW - *allowance ? *allowance + bytes : FRAME_LINE_WINDOW;
	flush(sv);
}

static void on_line(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	struct relay *relay = &sv->relay;
	struct wire_frame frame;
	ssize_t got;

	if (events & EPOLLOUT)
		flush(sv);
	if (!(events & ~EPOLLOUT))
		return;
	got = wire_read(&relay->wire, fd);
	while (wire_next(&relay->wire, &frame, NULL) == 1) {
		if (frame.channel == 0 && frame.type == FRAME_TAKEN) {
			taken(sv, &frame);
		} else if (frame.channel == 0) {
			relay->hello |= frame.type == FRAME_HELLO;
			boot_frame(sv, &frame);
		} else {
			channel_frame(sv, &frame);
		}
		if (!relay->source) /* what the frame led to ended the line */
			return;
	}
	if (relay->wire.skipped) {
		log_warn("%llu bytes on the agent's line were no frames",
			 (unsigned long long)relay->wire.skipped);
		relay->wire.skipped = 0;
	}
	if (got == 0 || (got < 0 && errno != EAGAIN))
		relay_detach(sv, "the machine ended");
}

int relay_attach(struct supervisor *sv, int fd, struct error *err)
{
	struct relay *relay = &sv->relay;

	relay->fd = fd;
	relay->hello = relay->writing = false;
	wire_init(&relay->wire, OUT_MAX, true);
	relay->wire.allowance = FRAME_LINE_WINDOW;
	relay->source = loop_add_fd(sv->loop, fd, EPOLLIN, on_line, sv, err);
	return relay->source ? 0 : -1;
}

void relay_detach(struct supervisor *sv, const char *why)
{
	struct relay *relay = &sv->relay;

	loop_remove_fd(relay->source);
	relay->source = NULL;
	if (relay->fd >= 0)
		close(steal_fd(&relay->fd));
	while (relay->channels)
		end_channel(sv, relay->channels, why);
	wire_free(&relay->wire);
}
