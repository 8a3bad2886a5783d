/*
 * The back-end side of vhost-user: what each message does.
 *
 * Handlers are a table: the least size of the payload, how many descriptors may
 * come along, and a function that checks the rest. It returns 0 and is
 * acknowledged if the front-end wanted that (REPLY_ACK), or has sent its own
 * reply, or fails.
 *
 * Memory comes first, rings after it: a queue is started when it has memory,
 * size, addresses and a kick, and is enabled. The features known by then hold for
 * it. New memory restarts all queues, since their addresses moved here.
 *
 * UML (arch/um/drivers/virtio_uml.c): sends SET_VRING_CALL before anything else
 * of a queue; its call descriptor is a stream socket, on which a write of 8 bytes is
 * one interrupt.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/vhost_user_internal.h"

/* The message's one descriptor, handed over. */
static int take_fd(struct vhost_user *u)
{
	int fd = u->fds[0];

	u->fds[0] = -1;
	u->fd_count = 0;
	return fd;
}

/* ---- Queues ---- */

static void stop(struct vhost_user *u, struct vring_queue *q)
{
	if (!q->usable)
		return;
	q->usable = false;
	u->device->queue_changed(u->device->arg, q->index);
}

/* Starts the queue if all it needs is there. */
static int try_start(struct vhost_user *u, struct vring_queue *q, struct error *err)
{
	bool enabled = q->enabled || !(u->acked & BIT(VHOST_USER_F_PROTOCOL_FEATURES));
	/* UML, whose kicks are messages then, sends no SET_VRING_KICK */
	bool has_kick = q->has_kick || vhost_user_has(u, VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);

	if (q->usable || q->broken || !enabled || !has_kick || !q->has_addresses || q->size == 0 ||
	    u->memory.count == 0)
		return 0;
	q->event_idx = u->acked & BIT(VIRTIO_RING_F_EVENT_IDX);
	if (vring_start(q, err))
		return -1;
	u->device->queue_changed(u->device->arg, q->index);
	return 0;
}

static struct vring_queue *find_queue(struct vhost_user *u, uint64_t index, struct error *err)
{
	if (index < u->device->queues)
		return &u->queues[index];
	error_set(err, ERROR_FAILED, "there is no queue %llu", (unsigned long long)index);
	return NULL;
}

/* ---- Handlers ---- */

static int on_get_features(struct vhost_user *u, struct error *err)
{
	return vhost_user_reply_u64(u, u->offered, err);
}

static int on_set_features(struct vhost_user *u, struct error *err)
{
	if (u->in.u.u64 & ~u->offered)
		return error_set(err, ERROR_FAILED, "features %#llx were not offered",
				 (unsigned long long)(u->in.u.u64 & ~u->offered));
	u->acked = u->in.u.u64;
	return 0;
}

static uint64_t protocol_features(const struct vhost_user *u)
{
	return BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
	       BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
	       (u->device->queues > 1 ? BIT(VHOST_USER_PROTOCOL_F_MQ) : 0) |
	       (u->device->in_band ? BIT(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS) : 0);
}

static int on_get_protocol_features(struct vhost_user *u, struct error *err)
{
	return vhost_user_reply_u64(u, protocol_features(u), err);
}

static int on_set_protocol_features(struct vhost_user *u, struct error *err)
{
	if (u->in.u.u64 & ~protocol_features(u))
		return error_set(err, ERROR_FAILED, "protocol features %#llx were not offered",
				 (unsigned long long)(u->in.u.u64 & ~protocol_features(u)));
	u->protocol = u->in.u.u64;
	return 0;
}

static int on_get_queue_num(struct vhost_user *u, struct error *err)
{
	return vhost_user_reply_u64(u, u->device->queues, err);
}

static int on_set_owner(struct vhost_user *u, struct error *err)
{
	(void)u;
	(void)err;
	return 0;
}

static int on_reset_owner(struct vhost_user *u, struct error *err)
{
	(void)err;
	for (unsigned i = 0; i < u->device->queues; i++) {
		stop(u, &u->queues[i]);
		u->queues[i].enabled = u->queues[i].has_kick = u->queues[i].broken = false;
	}
	return 0;
}

static bool overflows(uint64_t start, uint64_t length)
{
	return start + length < start;
}

/* Maps one region; *out is filled only on success. */
static int map_region(const struct vhost_user_region *r, int fd, struct vring_region *out, struct error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), skew = r->mmap_offset % page;
	struct stat st;
	void *map;

	if (r->size == 0 || overflows(r->guest, r->size) || overflows(r->user, r->size) ||
	    overflows(r->mmap_offset, r->size) || r->size > SIZE_MAX - page)
		return error_set(err, ERROR_FAILED, "a memory region that can't be");
	/* what lies behind a file's end would kill us at the first touch */
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < r->mmap_offset + r->size)
		return error_set(err, ERROR_FAILED, "a memory region that its file does not hold");
	map = mmap(NULL, r->size + skew, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		   (off_t)(r->mmap_offset - skew));
	if (map == MAP_FAILED)
		return error_errno(err, errno, "map %llu bytes of the guest's memory",
				   (unsigned long long)r->size);
	*out = (struct vring_region){
		.guest = r->guest,
		.user = r->user,
		.length = r->size,
		.host = (uint8_t *)map + skew,
		.map = map,
		.map_length = r->size + skew,
	};
	return 0;
}

static bool overlap(const struct vring_memory *m, const struct vhost_user_region *r)
{
	for (unsigned i = 0; i < m->count; i++) {
		const struct vring_region *o = &m->regions[i];

		if ((r->guest < o->guest + o->length && o->guest < r->guest + r->size) ||
		    (r->user < o->user + o->length && o->user < r->user + r->size))
			return true;
	}
	return false;
}

static int on_set_mem_table(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_mem_table *t = &u->in.u.memory;
	struct vring_memory m = {.count = 0};

	/* UML's message always has room for two regions (arch/um/drivers/vhost_user.h) */
	if (t->count == 0 || t->count > VRING_REGIONS_MAX || t->count != u->fd_count ||
	    u->in.header.size < offsetof(struct vhost_user_mem_table, regions[t->count]))
		return error_set(err, ERROR_FAILED, "a memory table of %u regions with %u descriptors",
				 t->count, u->fd_count);
	for (unsigned i = 0; i < t->count; i++) {
		const struct vhost_user_region r = t->regions[i];

		if (overlap(&m, &r))
			error_set(err, ERROR_FAILED, "memory regions that overlap");
		else if (map_region(&r, u->fds[i], &m.regions[i], err) == 0) {
			m.count++;
			continue;
		}
		vhost_user_unmap(&m);
		return -1;
	}
	for (unsigned i = 0; i < u->device->queues; i++)
		stop(u, &u->queues[i]);
	vhost_user_unmap(&u->memory);
	u->memory = m;
	for (unsigned i = 0; i < u->device->queues; i++)
		if (try_start(u, &u->queues[i], err))
			return -1;
	return 0;
}

static int on_set_vring_num(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_vring_state s = u->in.u.state;
	struct vring_queue *q = find_queue(u, s.index, err);

	if (!q)
		return -1;
	if (q->usable)
		return error_set(err, ERROR_FAILED, "the size of queue %u, which runs", s.index);
	if (s.num == 0 || s.num > VRING_SIZE_MAX || (s.num & (s.num - 1)))
		return error_set(err, ERROR_FAILED, "queue %u of %u entries", s.index, s.num);
	q->size = s.num;
	return 0;
}

static int on_set_vring_addr(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_vring_addr a = u->in.u.addr;
	struct vring_queue *q = find_queue(u, a.index, err);

	if (!q)
		return -1;
	stop(u, q);
	q->desc_at = a.desc;
	q->avail_at = a.avail;
	q->used_at = a.used;
	q->has_addresses = true;
	return try_start(u, q, err);
}

static int on_set_vring_base(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_vring_state s = u->in.u.state;
	struct vring_queue *q = find_queue(u, s.index, err);

	if (!q)
		return -1;
	if (q->usable || s.num > UINT16_MAX)
		return error_set(err, ERROR_FAILED, "the base of queue %u is %u, or it runs", s.index, s.num);
	q->next_avail = (uint16_t)s.num;
	q->broken = false;
	return 0;
}

/* Also stops the queue, and forgets its kick: the front-end sends both anew. */
static int on_get_vring_base(struct vhost_user *u, struct error *err)
{
	struct vring_queue *q = find_queue(u, u->in.u.state.index, err);

	if (!q)
		return -1;
	stop(u, q);
	q->has_kick = q->broken = false;
	vhost_user_replace_fd(&q->kick, -1);
	vhost_user_replace_fd(&q->call, -1);
	u->in.u.state.num = q->next_avail;
	return vhost_user_reply(u, sizeof(u->in.u.state), err);
}

/* The descriptor of SET_VRING_KICK, CALL and ERR: *fd, -1 for none, made not to block. */
static struct vring_queue *vring_fd(struct vhost_user *u, int *fd, struct error *err)
{
	uint64_t value = u->in.u.u64;
	struct vring_queue *q = find_queue(u, value & VHOST_USER_INDEX_MASK, err);
	bool none = value & VHOST_USER_NO_FD;

	if (!q)
		return NULL;
	if ((value & ~(uint64_t)(VHOST_USER_INDEX_MASK | VHOST_USER_NO_FD)) ||
	    u->fd_count != (none ? 0 : 1)) {
		error_set(err, ERROR_FAILED, "queue %u with %u descriptors", q->index, u->fd_count);
		return NULL;
	}
	*fd = -1;
	if (none)
		return q;
	if (fcntl(u->fds[0], F_SETFL, fcntl(u->fds[0], F_GETFL) | O_NONBLOCK)) {
		error_errno(err, errno, "a descriptor of queue %u", q->index);
		return NULL;
	}
	*fd = take_fd(u);
	return q;
}

static int on_set_vring_kick(struct vhost_user *u, struct error *err)
{
	int fd;
	struct vring_queue *q = vring_fd(u, &fd, err);

	if (!q)
		return -1;
	if (fd < 0 && !vhost_user_has(u, VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS))
		return error_set(err, ERROR_FAILED, "queue %u without a kick descriptor: we do not poll",
				 q->index);
	stop(u, q);
	vhost_user_replace_fd(&q->kick, fd);
	q->has_kick = true;
	return try_start(u, q, err);
}

static int on_set_vring_call(struct vhost_user *u, struct error *err)
{
	struct stat st;
	int fd;
	struct vring_queue *q = vring_fd(u, &fd, err);

	if (!q)
		return -1;
	vhost_user_replace_fd(&q->call, fd);
	q->call_is_socket = fd >= 0 && !fstat(fd, &st) && S_ISSOCK(st.st_mode);
	return 0;
}

static int on_set_vring_err(struct vhost_user *u, struct error *err)
{
	int fd;
	struct vring_queue *q = vring_fd(u, &fd, err);

	if (!q)
		return -1;
	vhost_user_replace_fd(&q->error, fd);
	return 0;
}

static int on_set_vring_enable(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_vring_state s = u->in.u.state;
	struct vring_queue *q = find_queue(u, s.index, err);

	if (!q)
		return -1;
	if (s.num > 1)
		return error_set(err, ERROR_FAILED, "queue %u neither on nor off", s.index);
	q->enabled = s.num;
	if (!q->enabled)
		stop(u, q);
	return try_start(u, q, err);
}

static int on_vring_kick(struct vhost_user *u, struct error *err)
{
	struct vring_queue *q = find_queue(u, u->in.u.state.index, err);

	if (!q)
		return -1;
	if (!vhost_user_has(u, VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS))
		return error_set(err, ERROR_FAILED, "an in-band kick, which was not agreed on");
	if (q->usable)
		u->device->kicked(u->device->arg, q->index);
	return 0;
}

static int on_set_backend_req_fd(struct vhost_user *u, struct error *err)
{
	if (u->fd_count != 1 || !vhost_user_has(u, VHOST_USER_PROTOCOL_F_BACKEND_REQ))
		return error_set(err, ERROR_FAILED, "a channel for requests that was not agreed on");
	vhost_user_replace_fd(&u->requests, take_fd(u));
	return 0;
}

/* Whether a GET_CONFIG or SET_CONFIG is whole and stays in the space that messages have. */
static bool config_fits(const struct vhost_user *u)
{
	const struct vhost_user_config *c = &u->in.u.config;

	return c->offset <= sizeof(c->data) && c->size <= sizeof(c->data) - c->offset &&
	       u->in.header.size >= offsetof(struct vhost_user_config, data) + c->size;
}

static int on_get_config(struct vhost_user *u, struct error *err)
{
	struct vhost_user_config *c = &u->in.u.config;
	uint8_t all[VHOST_USER_CONFIG_MAX] = {0};

	if (!config_fits(u))
		return error_set(err, ERROR_FAILED, "%u bytes of configuration at %u", c->size, c->offset);
	u->device->get_config(u->device->arg, all);
	memcpy(c->data, all + c->offset, c->size);
	return vhost_user_reply(u, offsetof(struct vhost_user_config, data) + c->size, err);
}

static int on_set_config(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_config *c = &u->in.u.config;
	const struct vhost_user_device *d = u->device;

	if (!config_fits(u) || c->offset + c->size > d->config_length || !d->set_config ||
	    d->set_config(d->arg, c->offset, c->data, c->size))
		return error_set(err, ERROR_FAILED, "%u bytes of configuration at %u can't be set", c->size,
				 c->offset);
	return 0;
}

struct handler {
	int (*fn)(struct vhost_user *u, struct error *err);
	size_t size;  /* least payload */
	unsigned fds; /* at most */
	bool replies; /* by itself */
};

#define U64   sizeof(uint64_t)
#define STATE sizeof(struct vhost_user_vring_state)

static const struct handler handlers[] = {
	[VHOST_USER_GET_FEATURES] = {on_get_features, 0, 0, true},
	[VHOST_USER_SET_FEATURES] = {on_set_features, U64, 0, false},
	[VHOST_USER_SET_OWNER] = {on_set_owner, 0, 0, false},
	[VHOST_USER_RESET_OWNER] = {on_reset_owner, 0, 0, false},
	[VHOST_USER_SET_MEM_TABLE] = {on_set_mem_table, 8, VRING_REGIONS_MAX, false},
	[VHOST_USER_SET_VRING_NUM] = {on_set_vring_num, STATE, 0, false},
	[VHOST_USER_SET_VRING_ADDR] = {on_set_vring_addr, sizeof(struct vhost_user_vring_addr), 0, false},
	[VHOST_USER_SET_VRING_BASE] = {on_set_vring_base, STATE, 0, false},
	[VHOST_USER_GET_VRING_BASE] = {on_get_vring_base, STATE, 0, true},
	[VHOST_USER_SET_VRING_KICK] = {on_set_vring_kick, U64, 1, false},
	[VHOST_USER_SET_VRING_CALL] = {on_set_vring_call, U64, 1, false},
	[VHOST_USER_SET_VRING_ERR] = {on_set_vring_err, U64, 1, false},
	[VHOST_USER_GET_PROTOCOL_FEATURES] = {on_get_protocol_features, 0, 0, true},
	[VHOST_USER_SET_PROTOCOL_FEATURES] = {on_set_protocol_features, U64, 0, false},
	[VHOST_USER_GET_QUEUE_NUM] = {on_get_queue_num, 0, 0, true},
	[VHOST_USER_SET_VRING_ENABLE] = {on_set_vring_enable, STATE, 0, false},
	[VHOST_USER_SET_BACKEND_REQ_FD] = {on_set_backend_req_fd, 0, 1, false},
	[VHOST_USER_GET_CONFIG] = {on_get_config, offsetof(struct vhost_user_config, data), 0, true},
	[VHOST_USER_SET_CONFIG] = {on_set_config, offsetof(struct vhost_user_config, data), 0, false},
	[VHOST_USER_VRING_KICK] = {on_vring_kick, STATE, 0, false},
};

int vhost_user_handle(struct vhost_user *u, struct error *err)
{
	const struct vhost_user_header h = u->in.header;
	const struct handler *handler = h.request < ARRAY_SIZE(handlers) ? &handlers[h.request] : NULL;
	struct error why = ERROR_INIT;
	int ret;

	if (!handler || !handler->fn)
		ret = error_set(&why, ERROR_FAILED, "it is not known here");
	else if (h.size < handler->size || u->fd_count > handler->fds)
		ret = error_set(&why, ERROR_FAILED, "it has %u bytes and %u descriptors", h.size,
				u->fd_count);
	else
		ret = handler->fn(u, &why);
	vhost_user_close_fds(u);
	if (handler && handler->replies && ret == 0)
		return 0;
	/* as agreed by now: UML wants SET_PROTOCOL_FEATURES itself acknowledged.
	 * A front-end that asked for a reply learns of the failure; one that waits for data, or for nothing,
	 * can't */
	if ((h.flags & VHOST_USER_NEED_REPLY) && vhost_user_has(u, VHOST_USER_PROTOCOL_F_REPLY_ACK) &&
	    !(handler && handler->replies))
		return vhost_user_reply_u64(u, ret ? 1 : 0, err);
	if (ret == 0)
		return 0;
	error_copy(err, &why);
	return error_prefix(err, "vhost-user message %u", h.request);
}
