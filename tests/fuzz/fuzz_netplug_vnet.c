/*
 * A guest's memory with both queues of its network device, as the plug meets it: whatever headers, chains and frames are there,
 * frames that reach the network are no longer than it carries, and nothing outside the memory is touched. What the guest sends
 * comes back to it, as on a network that echoes.
 * Input: first byte: switches (bit 0: SLIRP, bit 1: super-frames pass, bits 2 to 4: features left out); then the first bytes of the
 * memory: descriptors at 0, available ring at 0x400, used ring at 0x800; 0x1000 further those of what the guest sends; then data.
 */
#include "tests/unit/vnet_world.h"
#include "uml-lab/base/log.h"

#define MEMORY 0x8000u
#define TURNS  3

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vnet_world world;
static bool super;
static size_t echoes;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_setup("fuzz", LOG_LEVEL_ERROR);
	vnet_open(&world, MEMORY);
	return 0;
}

static void echo(void *arg, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;

	(void)arg;
	if (length < ETHERNET_HEADER || length > (super ? OFFLOAD_FRAME_MAX : world.link->frame_max))
		abort();
	if (echoes++ < 256) {
		link_send(world.link, frame, length);
		if (offload_parse(frame, length, &t))
			offload_verify(frame, &t);
	}
}

static void nothing(void *arg)
{
	(void)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct link_events events = {echo, nothing, NULL};
	uint64_t features = UINT64_C(1) << VIRTIO_F_VERSION_1 | 1u << VIRTIO_NET_F_CSUM | 1u << VIRTIO_NET_F_HOST_TSO4 |
			    1u << VIRTIO_NET_F_HOST_TSO6;
	uint8_t switches = size ? *data : 0;
	size_t n = size ? size - 1 : 0;

	features |= switches & 4 ? 0 : 1u << VIRTIO_NET_F_MRG_RXBUF;
	if (!(switches & 8))
		features |= 1u << VIRTIO_NET_F_GUEST_CSUM | 1u << VIRTIO_NET_F_GUEST_TSO4 | 1u << VIRTIO_NET_F_GUEST_TSO6;
	features |= switches & 16 ? 0 : 1u << VIRTIO_RING_F_EVENT_IDX;
	super = switches & 2;
	echoes = 0;
	memset(world.memory, 0, MEMORY);
	memcpy(world.memory, data + (size > 0), n < MEMORY ? n : MEMORY);
	vnet_attach(&world, &events, switches & 1 ? NETPLUG_KIND_SLIRP : NETPLUG_KIND_VDE, features);
	link_set_super(world.link, super);
	for (int i = 0; i < TURNS; i++) {
		vnet_kick(&world, i & 1);
		vnet_turn(&world);
	}
	vnet_detach(&world);
	return 0;
}
