/*
 * What stays open between requests, to save the work of opening it for each.
 *
 * Files: a guest's kernel that can do without OPEN and RELEASE (one round trip less for each file) is told so; then the files
 * it reads and writes stay open here for a while, the FILES_MAX opened last.
 *
 * Folders: the last few that requests named are kept for FOLDER_MS, so that work on many files of one folder does not walk its path
 * for each. That long what was moved out of the share may still be reached by who was in it; each descriptor was opened
 * beneath the share and stays what it is, whatever names and links become, so nothing else can be. FOLDER_MS and
 * the guest's own CACHE_MS together are less than a second.
 *
 * Descriptors that may be a removed file's last: closing one is when the host frees its blocks, which can take longer than all
 * else that removing a file is (a disk that is told of each free block). A thread of its own, the process's, closes them;
 * it ends when there is nothing to close.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define FILES_MAX   256	 /* that stay open for requests without a handle */
#define FOLDER_MS   100
#define CLOSE_MAX   1024 /* descriptors that wait for being closed; more are closed by who comes with them */
#define CLOSE_NS    4000000 /* between two looks at what waits: nobody is woken for each */
#define CLOSE_LOOKS 250	    /* in vain, until the thread ends */
#define STACK_SIZE  (64 << 10)

/* ---- files ---- */

static void unlink_file(struct hostfs *fs, struct node *node)
{
	*(node->older ? &node->older->newer : &fs->oldest) = node->newer;
	*(node->newer ? &node->newer->older : &fs->newest) = node->older;
	node->older = node->newer = NULL;
	fs->file_count--;
}

static void drop_file(struct hostfs *fs, struct node *node)
{
	int fd = steal_fd(&node->file);

	if (fd < 0)
		return;
	if (node->unlinked)
		kept_close_later(fd);
	else
		close(fd);
	unlink_file(fs, node);
}

static void link_newest(struct hostfs *fs, struct node *node)
{
	node->older = fs->newest;
	node->newer = NULL;
	*(fs->newest ? &fs->newest->newer : &fs->oldest) = node;
	fs->newest = node;
	fs->file_count++;
}

void node_keep_file(struct hostfs *fs, struct node *node, int fd, bool writes)
{
	drop_file(fs, node);
	while (fs->file_count >= FILES_MAX)
		drop_file(fs, fs->oldest);
	node->file = fd;
	node->file_writes = writes;
	link_newest(fs, node);
}

int node_file(struct hostfs *fs, struct node *node, bool writes)
{
	int fd;

	if (!node->source || !S_ISREG(node->mode))
		return -EBADF;
	if (writes && may_write(node) < 0)
		return -EROFS;
	if (node->file >= 0 && (node->file_writes || !writes)) {
		unlink_file(fs, node);
		link_newest(fs, node);
		return node->file;
	}
	fd = open_with_force(fs, node, writes ? O_RDWR : O_RDONLY);
	if (fd >= 0)
		node_keep_file(fs, node, fd, writes);
	return fd;
}

/* ---- folders ---- */

static struct kept_folder *find_folder(struct hostfs *fs, const struct node *node)
{
	for (size_t i = 0; i < FOLDERS_KEPT; i++)
		if (fs->folders[i].node == node)
			return &fs->folders[i];
	return NULL;
}

static void close_folder(struct kept_folder *f)
{
	if (f->node)
		close(f->fd);
	*f = (struct kept_folder){0};
}

/* Within one request nothing becomes too old: what it was given stays open. */
int node_folder(struct hostfs *fs, struct node *node)
{
	struct kept_folder *f = find_folder(fs, node);
	int fd;

	if (f && fs->now_ms - f->opened_ms < FOLDER_MS)
		return f->fd;
	fd = node_open(fs, node, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return fd;
	if (!f)
		f = &fs->folders[fs->next_folder++ % FOLDERS_KEPT];
	close_folder(f);
	*f = (struct kept_folder){.node = node, .fd = fd, .opened_ms = fs->now_ms};
	return fd;
}

bool *node_folder_plain(struct hostfs *fs, const struct node *node)
{
	struct kept_folder *f = find_folder(fs, node);

	return f ? &f->plain : NULL;
}

void kept_drop_folder(struct hostfs *fs, const struct node *node)
{
	struct kept_folder *f = find_folder(fs, node);

	if (f)
		close_folder(f);
}

void kept_drop(struct hostfs *fs, struct node *node)
{
	drop_file(fs, node);
	kept_drop_folder(fs, node);
}

/* ---- closing ---- */

static struct {
	pthread_mutex_t lock;
	pthread_t thread;
	bool started; /* to be joined, even if it has ended */
	bool runs;    /* it closes what waits */
	unsigned users;
	unsigned count;
	int fds[CLOSE_MAX];
} closing = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Closes what waits. False: it has waited for nothing long enough, or nobody is left to come with more; the thread is to end. */
static bool close_some(unsigned *idle)
{
	static int fds[CLOSE_MAX]; /* the one thread's */
	unsigned n;
	bool on;

	pthread_mutex_lock(&closing.lock);
	n = closing.count;
	memcpy(fds, closing.fds, n * sizeof(*fds));
	closing.count = 0;
	*idle = n ? 0 : *idle + 1;
	on = closing.runs = *idle < CLOSE_LOOKS && closing.users;
	pthread_mutex_unlock(&closing.lock);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
	return on;
}

static void *closing_main(void *arg)
{
	const struct timespec pause = {.tv_nsec = CLOSE_NS};
	unsigned idle = 0;

	while (close_some(&idle))
		nanosleep(&pause, NULL);
	return arg;
}

/* The lock is held. One that has said that it does not run any more does not want it again. */
static bool start_closing(void)
{
	pthread_attr_t attr;

	if (closing.started)
		pthread_join(closing.thread, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	closing.started = closing.users && pthread_create(&closing.thread, &attr, closing_main, NULL) == 0;
	pthread_attr_destroy(&attr);
	return closing.started;
}

void kept_begin(void)
{
	pthread_mutex_lock(&closing.lock);
	closing.users++;
	pthread_mutex_unlock(&closing.lock);
}

void kept_end(void)
{
	bool last;

	pthread_mutex_lock(&closing.lock);
	last = --closing.users == 0 && closing.started;
	if (last)
		closing.started = false;
	pthread_mutex_unlock(&closing.lock);
	if (last)
		pthread_join(closing.thread, NULL);
}

void kept_close_later(int fd)
{
	bool taken = false;

	pthread_mutex_lock(&closing.lock);
	if (closing.count < CLOSE_MAX && (closing.runs || (closing.runs = start_closing()))) {
		closing.fds[closing.count++] = fd;
		taken = true;
	}
	pthread_mutex_unlock(&closing.lock);
	if (!taken)
		close(fd);
}
