/*
 * What tells the plug what to do: the supervisor's control socket (control.h),
 * or for people and tests one interface on a listening socket of its own.
 */
#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/join.h"
#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/str.h"

#define REQUESTS_PER_TURN 64	/* then the guests get their turn */

static void on_signal(void *arg, int signo)
{
	struct server *s = arg;

	(void)signo;
	s->plug.stopped = true;
}

static void answer(struct server *s, uint16_t type, uint32_t sequence, const void *payload)
{
	struct error err = ERROR_INIT;

	/* A supervisor that does not read its answers loses them; that must not stop the guest's network. */
	if (netplug_control_send(s->control, type, sequence, payload, -1, &err))
		log_error(&err);
}

static void answer_failed(struct server *s, uint32_t sequence, const struct error *err)
{
	struct netplug_reply reply = { .status = err->kind };

	snprintf(reply.text, sizeof(reply.text), "%.600s%s%.400s", err->message,
		 err->hint[0] ? "; " : "", err->hint);
	answer(s, NETPLUG_REPLY, sequence, &reply);
}

/* CONNECT and JOIN: a descriptor for a port. */
static int do_descriptor(struct server *s, const struct netplug_message *m, int fd,
			 int (*take)(struct port *port, int fd, struct error *err), struct error *err)
{
	struct port *port = plug_port(&s->plug, m->u.ref.port, err);

	if (port)
		return take(port, fd, err);
	close(fd);
	return -1;
}

/* On success text holds the forward in full. */
static int do_forward(struct server *s, const struct netplug_message *m, char *text, struct error *err)
{
	struct port *port = plug_port(&s->plug, m->u.forward.port, err);
	struct netplug_forward forward;

	if (!port || netplug_forward_parse(m->u.forward.spec, &forward, err))
		return -1;
	if (m->header.type == NETPLUG_FORWARD_REMOVE)
		return port_remove_forward(port, &forward, err);
	if (port_add_forward(port, &forward, err))
		return -1;
	netplug_forward_format(&forward, text);
	return 0;
}

static int do_allow(struct server *s, const struct netplug_message *m, struct error *err)
{
	struct port *port = plug_port(&s->plug, m->u.forward.port, err);
	struct netplug_allow rule;

	if (!port || netplug_allow_parse(m->u.forward.spec, &rule, err))
		return -1;
	return port_allow(port, &rule, err);
}

static int do_impair(struct server *s, const struct netplug_message *m, struct error *err)
{
	struct port *port = plug_port(&s->plug, m->u.impair.port, err);
	struct netplug_impair settings = m->u.impair.impair;	/* out of the packed message */

	return port ? port_impair(port, &settings, err) : -1;
}

static int do_capture(struct server *s, const struct netplug_message *m, int fd, struct error *err)
{
	struct port *port = plug_port(&s->plug, m->u.capture.port, err);

	if (port)
		return port_capture(port, &m->u.capture, fd, err);
	close(fd);
	return -1;
}

static int do_stats(struct server *s, const struct netplug_message *m, struct error *err)
{
	struct port *port = plug_port(&s->plug, m->u.ref.port, err);
	struct netplug_stats stats;

	if (!port)
		return -1;
	port_stats(port, &stats);
	answer(s, NETPLUG_STATS, m->header.sequence, &stats);
	return 0;
}

/* Acts on one request and answers it. fd is taken over. */
static void handle(struct server *s, const struct netplug_message *m, int fd)
{
	struct netplug_reply reply = { 0 };
	struct error err = ERROR_INIT;
	int rc;

	switch (m->header.type) {
	case NETPLUG_ADD_PORT:
		rc = plug_add_port(&s->plug, &m->u.config, &err);
		break;
	case NETPLUG_CONNECT:
		rc = do_descriptor(s, m, fd, port_connect, &err);
		break;
	case NETPLUG_JOIN:
		rc = do_descriptor(s, m, fd, port_join, &err);
		break;
	case NETPLUG_FORWARD_ADD:
	case NETPLUG_FORWARD_REMOVE:
		rc = do_forward(s, m, reply.text, &err);
		break;
	case NETPLUG_ALLOW:
		rc = do_allow(s, m, &err);
		break;
	case NETPLUG_IMPAIR:
		rc = do_impair(s, m, &err);
		break;
	case NETPLUG_CAPTURE:
		rc = do_capture(s, m, fd, &err);
		break;
	case NETPLUG_GET_STATS:
		rc = do_stats(s, m, &err);
		if (rc == 0)
			return;
		break;
	default:
		rc = error_set(&err, ERROR_FAILED, "control message %u is an answer, not a request", m->header.type);
	}
	if (rc)
		answer_failed(s, m->header.sequence, &err);
	else
		answer(s, NETPLUG_REPLY, m->header.sequence, &reply);
}

void serve_pending(struct server *s)
{
	for (int i = 0; i < REQUESTS_PER_TURN; i++) {
		struct error err = ERROR_INIT;
		struct netplug_message m;
		bool answerable;
		int passed = -1;
		int rc = netplug_control_receive_fd(s->control, &m, &passed, &answerable, &err);

		if (rc == 0)
			return;
		if (rc > 0) {
			handle(s, &m, passed);
		} else if (err.kind == ERROR_STATE) {
			s->plug.stopped = true;
			return;
		} else {
			log_error(&err);
			if (answerable)
				answer_failed(s, m.header.sequence, &err);
		}
	}
}

static void on_control(void *arg, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	serve_pending(arg);
}

static int want_join(void *arg, uint32_t port, struct error *err)
{
	struct server *s = arg;
	struct netplug_port_ref ref = { .port = port };

	return netplug_control_send(s->control, NETPLUG_WANT_JOIN, 0, &ref, -1, err);
}

int server_init(struct server *s, int control, struct error *err)
{
	*s = (struct server){ .control = control, .listener = -1 };
	if (plug_init(&s->plug, err))
		return -1;
	s->plug.want_join = want_join;
	s->plug.want_join_arg = s;
	return 0;
}

/* Prepares the process: no privilege to be gained, orderly end on the usual signals. */
static int begin(struct server *s, int control, struct error *err)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, 0 };

	if (server_init(s, control, err))
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_errno(err, errno, "give up gaining privileges");
	signal(SIGPIPE, SIG_IGN);
	if (loop_add_signals(s->plug.loop, signals, on_signal, s, err))
		return -1;
	if (control < 0)
		return 0;
	s->source = loop_add_fd(s->plug.loop, control, EPOLLIN, on_control, s, err);
	return s->source ? 0 : -1;
}

static void end(struct server *s)
{
	loop_remove_fd(s->source);
	loop_remove_fd(s->listener_source);
	plug_free(&s->plug);
	if (s->listener >= 0)
		close(s->listener);
	if (s->control >= 0)
		close(s->control);
}

int serve_control(int control, enum walls walls, struct error *err)
{
	struct server s = { .control = control, .listener = -1 };
	int rc = -1;

	/* A supervisor killed before this line is told by the end of the control socket. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		error_errno(err, errno, "tie this process to its parent");
	else if (!begin(&s, control, err) && !walls_raise(walls, NULL, err)) {
		answer(&s, NETPLUG_READY, 0, NULL);
		rc = plug_run(&s.plug, err);
	}
	end(&s);
	return rc;
}

/* ---- alone ---- */

/* Starts joiners for a plug behind walls, until it ends: what a supervisor does for its plug. */
static void provide_joiners(int control, const struct netplug_port_config *config)
{
	struct error err = ERROR_INIT;
	cleanup_free char *program = dirs_own("uml-netplug", &err);
	struct pollfd p = { .fd = control, .events = POLLIN };
	struct child joiner = CHILD_INIT;
	struct netplug_message m;
	int got = program ? 0 : -1;

	while (got >= 0 && (poll(&p, 1, -1) > 0 || errno == EINTR)) {
		cleanup_close int fd = -1;

		got = netplug_control_receive(control, &m, &err);
		if (got <= 0 || m.header.type != NETPLUG_WANT_JOIN)
			continue;
		netplug_join_end(&joiner);
		fd = netplug_join(&joiner, program, config->locator, config->label[0] ? config->label : "uml-netplug", &err);
		if (fd < 0 || netplug_control_send_join(control, 1, config->port, fd, &err))
			log_error(&err);	/* the plug asks again */
	}
	if (err.kind != ERROR_STATE)	/* it has ended */
		log_error(&err);
	netplug_join_end(&joiner);
}

/* The control socket of a plug that nobody supervises: a process of ours without walls holds the other end. -1 + err. */
static int start_provider(const struct netplug_port_config *config, struct error *err)
{
	pid_t parent = getpid();
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return error_errno(err, errno, "make a socket pair");
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		if (!prctl(PR_SET_PDEATHSIG, SIGKILL) && getppid() == parent)
			provide_joiners(pair[1], config);
		_exit(0);
	}
	close(pair[1]);
	if (pid > 0)
		return pair[0];
	close(pair[0]);
	return error_errno(err, errno, "start a process");
}

static void on_connection(void *arg, int fd, uint32_t events)
{
	struct server *s = arg;
	struct error err = ERROR_INIT;
	int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (connection >= 0 && port_connect(s->plug.ports[0], connection, &err))
		log_error(&err);
}

static int add_forwards(struct port *port, const char *const *forwards, struct error *err)
{
	for (; *forwards; forwards++) {
		struct netplug_forward forward;
		char text[NETPLUG_FORWARD_TEXT_MAX];

		if (netplug_forward_parse(*forwards, &forward, err) || port_add_forward(port, &forward, err))
			return -1;
		printf("forward %s\n", netplug_forward_format(&forward, text));
	}
	return 0;
}

static int add_allowed(struct port *port, const char *const *allow, struct error *err)
{
	for (; *allow; allow++) {
		struct netplug_allow rule;

		if (netplug_allow_parse(*allow, &rule, err) || port_allow(port, &rule, err))
			return -1;
	}
	return 0;
}

static int open_alone(struct server *s, const struct serve_alone *o, struct error *err)
{
	int control = -1;

	if (o->config.kind == NETPLUG_KIND_VDE && (control = start_provider(&o->config, err)) < 0)
		return -1;
	if (begin(s, control, err) || plug_add_port(&s->plug, &o->config, err) ||
	    add_forwards(s->plug.ports[o->config.port], o->forwards, err) ||
	    add_allowed(s->plug.ports[o->config.port], o->allow, err))
		return -1;
	s->listener = netplug_listen(o->socket, o->config.transport, err);
	if (s->listener < 0)
		return -1;
	s->listener_source = loop_add_fd(s->plug.loop, s->listener, EPOLLIN, on_connection, s, err);
	return s->listener_source ? 0 : -1;
}

int serve_alone(const struct serve_alone *options, struct error *err)
{
	struct server s = { .control = -1, .listener = -1 };
	cleanup_free char *copy = str_dup(options->socket, err);
	int rc = copy ? open_alone(&s, options, err) : -1;

	if (s.listener >= 0) {
		/* Our own socket is removed at the end. */
		if (rc == 0 && !walls_raise(WALLS_SOCKETS, dirname(copy), err)) {
			printf("listening on %s\n", options->socket);
			fflush(stdout);
			rc = plug_run(&s.plug, err);
		}
		unlink(options->socket);
	}
	end(&s);
	return rc;
}
