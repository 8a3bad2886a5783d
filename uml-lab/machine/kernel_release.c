/*
 * The release of a kernel. What it is called on disk says nothing: `linux.uml
 * --version` does (uname.c of arch/um prints the release and exits). That takes
 * some milliseconds, one file is met several times (/bin is /usr/bin), and each
 * verb and each supervisor looks for its kernel anew: answers are kept in the
 * cache folder, a line each, with what tells the file from every other and from
 * itself after a change: device, inode and the time of its last change. A cache
 * that can't be read or written costs time only.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/kernel_internal.h"
#include "uml-lab/machine/sandbox.h"

#define VERSION_TIMEOUT_MS 5000
#define VERSION_MEMORY	   (16u << 20) /* bytes that it may take of a tmpfs meanwhile */
#define ANSWERS_MAX 16
#define CACHE_MAX 65536		/* bytes of the file; ANSWERS_MAX lines are far less */

/* What a file answered. */
struct answer {
	uint64_t device, inode;
	int64_t seconds, nanoseconds;	/* st_ctim */
	char release[KERNEL_RELEASE_MAX + 1];
};

/* The latest answers, a new one in place of the oldest. */
static struct {
	bool loaded;
	struct answer items[ANSWERS_MAX];
	size_t count;	/* ever added */
} answers;

/* "6.12.101", "7.2.7-foo": the numbers before it, or -1 when it is no release. */
static int parse_release(const char *text, int *major, int *minor)
{
	int n = 0;

	if (sscanf(text, "%4d.%4d%n", major, minor, &n) != 2 || *major < 0 || *minor < 0)
		return -1;
	return strspn(text + n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-+_~") ==
			       strlen(text + n) ? 0 : -1;
}

static char *cache_path(void)
{
	cleanup_free char *folder = dirs_cache(NULL);

	return folder ? file_join(NULL, folder, "kernel-releases") : NULL;
}

static void load(void)
{
	cleanup_free char *path = cache_path(), *text = NULL;
	char *rest, *line;

	answers.loaded = true;
	if (!path || file_read_all(path, CACHE_MAX, &text, NULL, NULL) < 0)
		return;
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct answer a;

		_Static_assert(KERNEL_RELEASE_MAX == 64, "width of %64s below");
		if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNd64 " %64s", &a.device, &a.inode, &a.seconds,
			   &a.nanoseconds, a.release) == 5)
			answers.items[answers.count++ % ANSWERS_MAX] = a;
	}
}

static void save(void)
{
	cleanup_free char *path = cache_path();
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	for (size_t i = 0; i < answers.count && i < ANSWERS_MAX; i++) {
		const struct answer *a = &answers.items[i];

		strbuf_printf(&text, "%" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 " %s\n", a->device, a->inode,
			      a->seconds, a->nanoseconds, a->release);
	}
	if (path && !text.failed)
		file_replace(path, text.data, text.length, 0600, NULL);
}

static struct answer key_of(const struct stat *st)
{
	return (struct answer){
		.device = st->st_dev,
		.inode = st->st_ino,
		.seconds = st->st_ctim.tv_sec,
		.nanoseconds = st->st_ctim.tv_nsec,
	};
}

/* The release that the file with this key told; NULL when it was not asked. */
static const char *recall(const struct answer *key)
{
	if (!answers.loaded)
		load();
	for (size_t i = 0; i < answers.count && i < ANSWERS_MAX; i++) {
		const struct answer *a = &answers.items[i];

		if (a->device == key->device && a->inode == key->inode && a->seconds == key->seconds &&
		    a->nanoseconds == key->nanoseconds)
			return a->release;
	}
	return NULL;
}

/* Waits for its end and takes what it printed. */
static int listen_to(struct sandbox *sandbox, int output, const char *path, char *text, int *major, int *minor, struct error *err)
{
	struct pollfd p = {.fd = sandbox->keeper.pidfd, .events = POLLIN};
	int64_t end = loop_now_ms() + VERSION_TIMEOUT_MS, left;
	char said[KERNEL_RELEASE_MAX + 2];
	ssize_t got;
	int status;

	while ((left = end - loop_now_ms()) > 0 && poll(&p, 1, (int)left) <= 0)
		;
	if (left <= 0) {
		sandbox_kill(sandbox);
		return error_set(err, ERROR_TIMEOUT, "kernel %s did not tell its version within %d s", path,
				 VERSION_TIMEOUT_MS / 1000);
	}
	sandbox_reap(sandbox, &status);
	got = read(output, said, sizeof(said) - 1);
	said[got > 0 ? got : 0] = '\0';
	said[strcspn(said, "\n")] = '\0';
	if (status || strlen(said) > KERNEL_RELEASE_MAX || parse_release(said, major, minor) < 0)
		return error_set(err, ERROR_FAILED, "%s is no user-mode Linux kernel", path);
	strcpy(text, said);
	return 0;
}

/*
 * Asks the program itself, in a sandbox as a machine's: a lab may name any program of its author's as its kernel. One that
 * is no UML kernel is an error.
 */
static int ask(const char *path, char *text, int *major, int *minor, struct error *err)
{
	const char *const argv[] = { path, "--version", NULL };
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), output = -1, theirs = -1;
	struct sandbox_spec spec = {
		.program = path,
		.argv = argv,
		.fd_count = 3,
		.memory = VERSION_MEMORY,
		.no_namespaces = str_eq(getenv("UML_LAB_SANDBOX"), "process-group"),
	};
	struct sandbox sandbox;
	int ends[2];

	if (null < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_errno(err, errno, "cannot ask %s for its version", path);
	output = ends[0];
	theirs = ends[1];
	spec.fds = (const int[]){ null, theirs, null };
	if (sandbox_start(&sandbox, &spec, err) < 0)
		return error_prefix(err, "kernel %s", path);
	return listen_to(&sandbox, output, path, text, major, minor, err);
}

int kernel_release(const char *path, char *text, int *major, int *minor, struct error *err)
{
	const char *known;
	struct answer key;
	struct stat st;

	if (stat(path, &st) < 0)
		return ask(path, text, major, minor, err);
	key = key_of(&st);
	known = recall(&key);
	if (known && parse_release(known, major, minor) == 0) {
		strcpy(text, known);
		return 0;
	}
	if (ask(path, text, major, minor, err) < 0)
		return -1;
	strcpy(key.release, text);
	answers.items[answers.count++ % ANSWERS_MAX] = key;
	save();
	return 0;
}
