/* Shared by the tests of the disk server: a server in a thread of this process, and its control socket. */
#ifndef TESTS_SERVE_WORLD_H
#define TESTS_SERVE_WORLD_H

#include <pthread.h>

#include "cow/serve.h"
#include "tests/unit/cow_world.h"
#include "tests/unit/vhost_front.h"
#include "uml-lab/base/log.h"

struct server {
	pthread_t thread;
	struct cow_serve_options options;
	struct cow_serve_disk disks[4];
	int control;
	int result;
	struct error err; /* the server's; its thread's until server_stop() */
	uint32_t sequence;
};

static inline void *server_main(void *arg)
{
	struct server *s = arg;

	s->result = cow_serve(&s->options, &s->err);
	close(s->options.control_fd);
	return NULL;
}

/* Waits for one message from the server. false: it is gone, or silent. */
static inline bool server_receive(struct server *s, struct cow_serve_message *m)
{
	struct pollfd p = {.fd = s->control, .events = POLLIN};

	return poll(&p, 1, FRONT_WAIT_MS) > 0 && cow_serve_receive(s->control, m, NULL) == 1;
}

/* Fill s->disks and s->options (count, quota) first. Waits until it is ready. */
static inline bool server_start(struct server *s)
{
	struct cow_serve_message m;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	s->control = pair[0];
	s->options.control_fd = pair[1];
	s->options.disks = s->disks;
	s->result = 1;
	if (pthread_create(&s->thread, NULL, server_main, s))
		abort();
	return server_receive(s, &m) && m.header.type == COW_SERVE_READY;
}

static inline int server_stop(struct server *s)
{
	close(s->control);
	pthread_join(s->thread, NULL);
	return s->result;
}

/* One request, and its answer. -1: none came. Otherwise its status. */
static inline int server_ask(struct server *s, enum cow_serve_type type, uint32_t disk, const char *path,
			     struct cow_serve_message *m)
{
	uint32_t sequence = ++s->sequence;
	int ret = path ? cow_serve_send_path(s->control, sequence, type, disk, path, NULL)
		       : cow_serve_send_ref(s->control, sequence, type, disk, NULL);

	if (ret || !server_receive(s, m) || m->header.sequence != sequence)
		return -1;
	return m->header.type == COW_SERVE_STATS ? 0 : m->u.reply.status;
}

#endif
