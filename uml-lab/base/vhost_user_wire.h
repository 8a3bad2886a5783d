/* The messages of vhost-user as they are on the wire: host byte order, packed. Shared with the tests'
 * front-end. */
#ifndef UML_LAB_BASE_VHOST_USER_WIRE_H
#define UML_LAB_BASE_VHOST_USER_WIRE_H

#include <stdint.h>

/* Front-end to back-end. */
enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_VRING_KICK = 35,
};

/* Back-end to front-end. */
enum vhost_user_backend_request {
	VHOST_USER_BACKEND_CONFIG_CHANGE = 2,
	VHOST_USER_BACKEND_VRING_CALL = 4,
};

#define VHOST_USER_VERSION      0x1u
#define VHOST_USER_VERSION_MASK 0x3u
#define VHOST_USER_REPLY        0x4u
#define VHOST_USER_NEED_REPLY   0x8u

#define VHOST_USER_F_PROTOCOL_FEATURES 30 /* a bit of GET_FEATURES */

enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14,
};

#define VHOST_USER_INDEX_MASK 0xffu
#define VHOST_USER_NO_FD      0x100u /* in SET_VRING_KICK, CALL and ERR: no descriptor comes along */

struct vhost_user_header {
	uint32_t request, flags, size;
} __attribute__((packed));

struct vhost_user_vring_state {
	uint32_t index, num;
} __attribute__((packed));

struct vhost_user_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
} __attribute__((packed));

struct vhost_user_region {
	uint64_t guest, size, user, mmap_offset;
} __attribute__((packed));

struct vhost_user_mem_table {
	uint32_t count, padding;
	struct vhost_user_region regions[8];
} __attribute__((packed));

struct vhost_user_config {
	uint32_t offset, size, flags;
	uint8_t data[256];
} __attribute__((packed));

struct vhost_user_message {
	struct vhost_user_header header;
	union {
		uint64_t u64;
		struct vhost_user_vring_state state;
		struct vhost_user_vring_addr addr;
		struct vhost_user_mem_table memory;
		struct vhost_user_config config;
	} u;
} __attribute__((packed));

_Static_assert(sizeof(struct vhost_user_header) == 12, "vhost-user header");
_Static_assert(sizeof(struct vhost_user_vring_addr) == 40, "vhost-user vring address");
_Static_assert(sizeof(struct vhost_user_mem_table) == 8 + 8 * 32, "vhost-user memory table");

#endif
