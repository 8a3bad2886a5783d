/* What vnet.c and vnet_join.c share: a virtio network device. */
#ifndef NETPLUG_VNET_INTERNAL_H
#define NETPLUG_VNET_INTERNAL_H

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "netplug/netplug_internal.h"
#include "netplug/offload.h"
#include "uml-lab/base/vhost_user.h"

#define VNET_RX 0	/* queues of the guest's, as in the standard */
#define VNET_TX 1
#define VNET_QUEUES 2
#define VNET_BIT(n) (UINT64_C(1) << (n))
#define VNET_HEADER sizeof(struct virtio_net_hdr_v1)

#define VNET_PACKETS_MAX 64	/* not yet made known */
#define VNET_PIECES_MAX 64	/* of one buffer; Linux' mergeable ones have one */

/* A packet that is being written into the guest's buffers. */
struct vnet_packet {
	uint8_t *start;			/* its first piece: the headers go there, … */
	size_t start_room;		/* … if it has so many bytes */
	unsigned first, last, buffers;	/* in used[]: its first, its latest, how many */
	struct iovec room[VNET_PIECES_MAX];	/* what is left of the buffer taken last */
	unsigned room_count;
	bool open;			/* may still grow */
	bool verified;
	unsigned segments;
	size_t mss;
	struct offload_tcp tcp;		/* of the first segment; length: of the whole */
	uint32_t sequence;		/* that would follow */
	uint8_t header[OFFLOAD_HEADER_MAX];
};

struct vnet_buffer {
	uint16_t head;
	uint32_t written;
	unsigned packet;
};

struct vnet {
	struct link link;		/* first */
	struct loop *loop;
	struct vhost_user_device device;
	struct vhost_user *u;		/* NULL: no connection */
	struct loop_fd *source, *kicks[VNET_QUEUES];
	struct virtio_net_config config;
	bool trusted;			/* checksums of what goes to the guest are right */
	bool held;
	bool waiting;			/* frames of the guest's may be there: kicks are not wanted meanwhile */
	bool looking;			/* as link.look when it was seen last */
	uint64_t recalled_at;		/* when it was last seen to that the guest had its interrupts: monotonic, ns */
	struct loop_timer *lazy;	/* to tell the guest of frames that were taken: … */
	unsigned untold;		/* … so many */
	size_t untold_bytes;		/* for it since it was last told of some */
	size_t unanswered;		/* bytes of the guest's taken since it was last told of frames for it */
	bool bad;			/* the guest's buffers can't be used: its connection is to be ended */

	struct vnet_packet packets[VNET_PACKETS_MAX];
	unsigned packet_count;
	struct vnet_buffer used[VRING_SIZE_MAX];
	unsigned used_count;
	struct frame_queue out;		/* frames that found no buffer */
	struct iovec iov[VRING_CHAIN_MAX];
	uint8_t frame[VNET_HEADER + OFFLOAD_FRAME_MAX];
};

/* Whether the guest wants that of what was offered. */
static inline bool vnet_agreed(const struct vnet *v, unsigned feature)
{
	return vhost_user_features(v->u) & VNET_BIT(feature);
}

/* vnet_join.c */

/* The queue to the guest, NULL while it can't be used. */
struct vring_queue *vnet_receive_queue(struct vnet *v);
/* Takes a request, its pieces in v->iov. false: there is none now, or the ring broke, which is logged. */
bool vnet_pop(struct vnet *v, struct vring_queue *q, struct vring_chain *chain);
/* Writes a frame into the guest's buffers, which the guest does not know before vnet_commit(). false: there are none for it now. */
bool vnet_deliver(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length);
/* Makes all packets known to the guest, which vhost_user_call() tells. */
void vnet_commit(struct vnet *v);
/* The queue is not what it was: what is not known to the guest is lost. */
void vnet_forget(struct vnet *v);

#endif
