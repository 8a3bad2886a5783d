/*
 * A guest's memory, queue and all, as the disk server meets it: any bytes there are answered or break the
 * queue; nothing outside the memory is touched, and the disk keeps its size.
 * Input: the first bytes of the guest's memory, where the queue is: 16 descriptors, the available ring, the used ring, data.
 */
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow/serve_internal.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/vhost_user_wire.h"

#define MEMORY	8192u
#define ENTRIES 16u
#define AVAIL	256u
#define USED	304u
#define DISK	(64u << 10)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cow_serve_options options;
static struct serve serve = {.options = &options};
static struct serve_disk disk = {.serve = &serve, .listener = -1, .wake = -1, .sync_folder = -1};
static int overlay, memory;

static void queue_changed(void *arg, unsigned index)
{
	(void)arg;
	(void)index;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char dir[] = "/dev/shm/fuzz-vhost.XXXXXX";
	const struct cow_open_options writable = {.writable = true};
	int fd;

	(void)argc;
	(void)argv;
	log_setup("fuzz", LOG_LEVEL_ERROR);
	if (!mkdtemp(dir) || chdir(dir))
		abort();
	fd = open("base", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, DISK) || close(fd) || cow_create("top", "base", NULL, NULL))
		abort();
	disk.chain = cow_chain_open("top", &writable, NULL);
	overlay = open("top", O_RDONLY | O_CLOEXEC);
	memory = memfd_create("guest", MFD_CLOEXEC);
	serve.quota = serve_quota_new(&options, NULL);
	disk.blk = serve_blk_new(&disk);
	if (!disk.chain || overlay < 0 || memory < 0 || ftruncate(memory, MEMORY) || !serve.quota || !disk.blk)
		abort();
	/* all is open: nothing is left behind however this ends */
	unlink("base");
	unlink("top");
	rmdir(dir);
	pthread_mutex_init(&disk.lock, NULL);
	pthread_mutex_init(&disk.note_lock, NULL);
	serve_blk_device(&disk, &disk.device);
	disk.device.queue_changed = queue_changed;
	serve_disk_set_chain(&disk, disk.chain);
	return 0;
}

static void message(int fd, uint32_t request, const void *payload, uint32_t size, int with)
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(int))];
	} ancillary = {0};
	struct vhost_user_message m = {.header = {request, VHOST_USER_VERSION, size}};
	struct iovec iov = {&m, sizeof(m.header) + size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	memcpy(&m.u, payload, size);
	if (with >= 0) {
		msg.msg_control = ancillary.data;
		msg.msg_controllen = sizeof(ancillary.data);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &with, sizeof(with));
	}
	if (sendmsg(fd, &msg, 0) < 0 || vhost_user_receive(disk.guest, NULL) != 1)
		abort();
}

/* A guest whose memory is what the input says. */
static int start_guest(void)
{
	const struct vhost_user_mem_table t = {1, 0, {{0x100000, MEMORY, 0x100000, 0}}};
	const struct vhost_user_vring_state num = {0, ENTRIES};
	const struct vhost_user_vring_addr a = {0, 0, 0x100000, 0x100000 + USED, 0x100000 + AVAIL, 0};
	const uint64_t features = 1ull << VIRTIO_RING_F_INDIRECT_DESC, index = 0;
	int pair[2], kick = eventfd(0, EFD_CLOEXEC);

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || kick < 0)
		abort();
	disk.guest = vhost_user_new(pair[1], &disk.device, NULL);
	disk.write_back = true;
	if (!disk.guest)
		abort();
	message(pair[0], VHOST_USER_SET_FEATURES, &features, 8, -1);
	message(pair[0], VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), memory);
	message(pair[0], VHOST_USER_SET_VRING_NUM, &num, sizeof(num), -1);
	message(pair[0], VHOST_USER_SET_VRING_ADDR, &a, sizeof(a), -1);
	message(pair[0], VHOST_USER_SET_VRING_KICK, &index, sizeof(index), kick);
	close(kick);
	return pair[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vring_queue *q;
	struct stat before, after;
	int front;

	if (ftruncate(memory, 0) || ftruncate(memory, MEMORY) || pwrite(memory, data, size < MEMORY ? size : MEMORY, 0) < 0 ||
	    fstat(overlay, &before))
		abort();
	front = start_guest();
	q = vhost_user_queue(disk.guest, 0);
	if (!q)
		abort();
	/* what it says of the used ring is not what a queue begins with */
	for (int i = 0; i < 4 && q->usable; i++)
		serve_blk_run(disk.blk, q, NULL);
	vhost_user_free(disk.guest);
	disk.guest = NULL;
	close(front);
	if (fstat(overlay, &after) || after.st_size != before.st_size)
		abort();
	return 0;
}
