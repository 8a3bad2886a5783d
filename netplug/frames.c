/*
 * Frames in batches, on sockets where one message is one frame: what the guest's
 * connection (link.c) and a VDE network (vde.c) have in common.
 *
 * How it works: a batch is FRAME_BATCH buffers that one recvmmsg() fills. A
 * queue is one buffer used from front to back: sent frames leave a gap at its
 * start, closed when room is needed. Neither grows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "netplug/netplug_internal.h"

int frame_batch_init(struct frame_batch *batch, size_t frame_max, struct error *err)
{
	size_t size = frame_max + 1;	/* one more, so that a longer frame is seen to be longer */

	*batch = (struct frame_batch){ .data = malloc(FRAME_BATCH * size) };
	if (!batch->data)
		return error_oom(err);
	for (size_t i = 0; i < FRAME_BATCH; i++) {
		batch->iov[i] = (struct iovec){ batch->data + i * size, size };
		batch->msg[i].msg_hdr.msg_iov = &batch->iov[i];
		batch->msg[i].msg_hdr.msg_iovlen = 1;
	}
	return 0;
}

void frame_batch_free(struct frame_batch *batch)
{
	free(batch->data);
	batch->data = NULL;
}

int frame_batch_receive(struct frame_batch *batch, int fd)
{
	int n = recvmmsg(fd, batch->msg, FRAME_BATCH, MSG_DONTWAIT, NULL);

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	return n;
}

int frame_queue_init(struct frame_queue *queue, size_t bytes, struct error *err)
{
	*queue = (struct frame_queue){ .data = malloc(bytes), .size = bytes };
	return queue->data ? 0 : error_oom(err);
}

void frame_queue_free(struct frame_queue *queue)
{
	free(queue->data);
	queue->data = NULL;
}

size_t frame_queue_bytes(const struct frame_queue *queue)
{
	return queue->first < queue->last ? queue->end - queue->frames[queue->first].offset : 0;
}

size_t frame_queue_count(const struct frame_queue *queue)
{
	return queue->last - queue->first;
}

size_t frame_queue_clear(struct frame_queue *queue)
{
	size_t count = frame_queue_count(queue);

	queue->first = queue->last = queue->end = 0;
	return count;
}

/* Makes room for length bytes by closing the gap at the start. Whether there is room now. */
static bool make_room(struct frame_queue *q, size_t length)
{
	size_t gap = q->first < q->last ? q->frames[q->first].offset : q->end;
	size_t count = frame_queue_count(q);

	if (q->end - gap + length > q->size || count == FRAME_QUEUE_MAX)
		return false;
	memmove(q->data, q->data + gap, q->end - gap);
	memmove(q->frames, q->frames + q->first, count * sizeof(q->frames[0]));
	for (size_t i = 0; i < count; i++)
		q->frames[i].offset -= gap;
	q->end -= gap;
	q->first = 0;
	q->last = count;
	return true;
}

uint8_t *frame_queue_add(struct frame_queue *q, size_t length)
{
	uint8_t *room;

	if ((q->last == FRAME_QUEUE_MAX || q->end + length > q->size) && !make_room(q, length))
		return NULL;
	room = q->data + q->end;
	q->frames[q->last++] = (struct queued_frame){ q->end, length };
	q->end += length;
	return room;
}

/* Sends up to FRAME_BATCH queued frames. Returns how many, or -1 with errno. */
static int send_batch(struct frame_queue *q, int fd, struct frame_count *total)
{
	struct iovec iov[FRAME_BATCH];
	struct mmsghdr msg[FRAME_BATCH];
	size_t count = frame_queue_count(q);
	int sent;

	if (count > FRAME_BATCH)
		count = FRAME_BATCH;
	memset(msg, 0, count * sizeof(msg[0]));
	for (size_t i = 0; i < count; i++) {
		const struct queued_frame *f = &q->frames[q->first + i];

		iov[i] = (struct iovec){ q->data + f->offset, f->length };
		msg[i].msg_hdr.msg_iov = &iov[i];
		msg[i].msg_hdr.msg_iovlen = 1;
	}
	sent = sendmmsg(fd, msg, (unsigned)count, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (int i = 0; i < sent; i++) {
		total->frames++;
		total->bytes += q->frames[q->first++].length;
	}
	return sent;
}

int frame_queue_send(struct frame_queue *q, int fd, struct frame_count *sent)
{
	int rc = 0;

	while (q->first < q->last && send_batch(q, fd, sent) > 0)
		;
	if (q->first < q->last)
		rc = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 1 : -1;
	else
		frame_queue_clear(q);
	return rc;
}
