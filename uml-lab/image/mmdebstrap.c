/*
 * mmdebstrap makes a root file system of packages and writes it as a tar
 * archive. How it acts as root without being it depends on what is there:
 * root calls it plainly; with newuidmap and sub-ids it uses a user namespace;
 * else fakechroot and fakeroot, which need no right at all but can only make
 * the host's own release.
 *
 * It runs in a session of its own under a small shell, which at SIGTERM
 * interrupts every process of the build and waits until they have cleaned up.
 * The shell gets SIGTERM when we die, however that happens. SIGINT, not
 * SIGTERM, is what the build gets: only then fakeroot's script (Debian's
 * /usr/bin/fakeroot) ends its daemon.
 */
#include "uml-lab/image/mmdebstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/apt.h"
#include "uml-lab/image/image_internal.h"

#define LOG_SIZE_MAX          (4 * IMAGE_MIB)
#define PROXY_TEXT_MAX        16384
#define APT_CONFIG_TIMEOUT_MS 10000
/* Removing some 400 MB of small files from a busy disk; cut short, they would stay. */
#define CLEAN_UP_MS  120000
#define LOOK_MS      250
#define WORDS_LINES  8
#define WORDS_LENGTH 200

/*
 * $0 is the sources file, "$@" the command, which job control (bash's works
 * without a terminal) gives a process group of its own.
 */
static const char guard[] =
	"set -m\n"
	"trap '[ -z \"$child\" ] || kill -INT -- -$child' TERM\n"
	"\"$@\" < \"$0\" & child=$!\n"
	"wait $child; status=$?\n"
	"if [ $status -gt 128 ] && kill -0 $child 2>/dev/null; then\n"
	/* Interrupted. dpkg can hang when its helpers are; whatever hangs is killed, but for the group's
	 * leader, which (fakeroot's script) still has its daemon to end. */
	"	for n in {1..100}; do kill -0 $child 2>/dev/null || break; sleep 0.1; done\n"
	"	pgrep -g $child | grep -vx $child | xargs -r kill -KILL\n"
	"	wait $child\n"
	"fi\n"
	"exit $status\n";

/*
 * Under fakechroot the host's loader looks for libraries where LD_LIBRARY_PATH
 * says, and mmdebstrap fills that from the image's ld.so.conf before the first
 * package is configured. systemd's programs have a library in a folder of
 * their own, which they name by a path that leads to the host's: on a host
 * without systemd they would find none, on others perhaps a different version.
 */
static const char add_systemd_libraries[] =
	"--setup-hook=umask 022; mkdir -p \"$1/etc/ld.so.conf.d\"\n"
	"for libc in /usr/lib/*-linux-gnu*/libc.so.6; do\n"
	"	folder=${libc%/*}/systemd; mkdir -p \"$1$folder\"; echo \"$folder\"\n"
	"done >\"$1/etc/ld.so.conf.d/systemd.conf\"";
static const char remove_systemd_libraries[] = "--customize-hook=rm \"$1/etc/ld.so.conf.d/systemd.conf\"";

/* ---- which way ---- */

static bool has_program(const char *name)
{
	cleanup_free char *path = image_program(name, "", NULL);

	return path != NULL;
}

/* Whether /etc/subuid or /etc/subgid gives this user a range. */
static bool has_range(const char *file)
{
	cleanup_free char *text = NULL;
	const struct passwd *user = getpwuid(getuid());
	char by_id[16];
	size_t length;

	if (!user || file_read_all(file, IMAGE_MIB, &text, &length, NULL))
		return false;
	snprintf(by_id, sizeof(by_id), "%u", (unsigned int)user->pw_uid);
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		line[strcspn(line, ":")] = '\0';
		if (str_eq(line, user->pw_name) || str_eq(line, by_id))
			return true;
	}
	return false;
}

static bool has_user_namespaces(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER) ? 1 : 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/*
 * fakechroot runs the image's programs with the host's dynamic loader and a
 * library built for the host's libc: only the host's own release works so.
 */
static bool can_fake(const char *suite)
{
	cleanup_free char *host = apt_host_suite();

	return str_eq(host, suite) && has_program("fakechroot") && has_program("fakeroot");
}

static const char *choose_mode(const char *suite, struct error *err)
{
	if (geteuid() == 0)
		return "root";
	if (has_program("newuidmap") && has_program("newgidmap") && has_range("/etc/subuid") &&
	    has_range("/etc/subgid") && has_user_namespaces())
		return "unshare";
	if (can_fake(suite))
		return "fakechroot";
	if (!has_user_namespaces()) {
		error_set(err, ERROR_FAILED,
			  "building %s needs user namespaces, which this host forbids, or, for the host's "
			  "own release, "
			  "fakechroot",
			  suite);
		error_hint(err, "apt install fakechroot fakeroot");
	} else {
		error_set(err, ERROR_FAILED,
			  "building %s needs newuidmap and a range of ids for you in /etc/subuid and "
			  "/etc/subgid",
			  suite);
		error_hint(err, "apt install uidmap");
	}
	return NULL;
}

/* ---- starting ---- */

/* The host's apt may reach its mirror through a proxy: mmdebstrap's apt shall, too. */
static int add_proxies(struct strv *argv, struct error *err)
{
	const char *const dump[] = {"apt-config", "dump", "--format", "%f \"%v\";%n", "Acquire", NULL};
	struct child_spec spec = {.argv = dump, .null_stdin = true, .death_signal = SIGKILL};
	cleanup_free char *text = NULL;
	int status;

	if (child_capture(&spec, APT_CONFIG_TIMEOUT_MS, PROXY_TEXT_MAX, false, &text, &status, NULL) ||
	    status)
		return 0;
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if ((str_starts(line, "Acquire::http::") || str_starts(line, "Acquire::https::")) &&
		    strcasestr(line, "proxy") && strv_addf(argv, err, "--aptopt=%s", line))
			return -1;
	return 0;
}

static int arguments(struct strv *argv, const char *mode, const char *suite, const char *packages,
		     const char *sources_path, struct error *err)
{
	cleanup_free char *program = image_program("mmdebstrap", "mmdebstrap", err);
	const char *const start[] = {"bash",         "-c",
				     guard,          sources_path,
				     program,        "--variant=minbase",
				     "--format=tar", "--dpkgopt=force-unsafe-io"};
	int result = program ? 0 : -1;

	for (size_t i = 0; !result && i < ARRAY_SIZE(start); i++)
		result = strv_add(argv, start[i], err);
	if (result || strv_addf(argv, err, "--mode=%s", mode) ||
	    strv_addf(argv, err, "--include=%s", packages) || add_proxies(argv, err))
		return -1;
	if (str_eq(mode, "fakechroot") &&
	    (strv_add(argv, add_systemd_libraries, err) || strv_add(argv, remove_systemd_libraries, err)))
		return -1;
	/* The archive to standard output, the sources from standard input. */
	return strv_add(argv, suite, err) || strv_add(argv, "-", err) || strv_add(argv, "-", err) ? -1 : 0;
}

/* Ours, with the system's programs (chroot, ldconfig) in PATH and our work folder for temporary files. */
static int environment(struct strv *env, const char *mode, const char *work, struct error *err)
{
	const char *path = getenv("PATH");

	for (char **e = environ; *e; e++)
		if (!str_starts(*e, "PATH=") && !str_starts(*e, "LC_ALL=") && !str_starts(*e, "TMPDIR=") &&
		    strv_add(env, *e, err))
			return -1;
	if (strv_addf(env, err, "PATH=%s:/usr/local/sbin:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin") ||
	    strv_add(env, "LC_ALL=C.UTF-8", err))
		return -1;
	/* Root of a user namespace is a stranger to our home folder; it takes /tmp. */
	return str_eq(mode, "unshare") ? 0 : strv_addf(env, err, "TMPDIR=%s", work);
}

static int spawn(struct mmdebstrap *m, const struct strv *argv, const struct strv *env, struct error *err)
{
	cleanup_close int log = m->log ? open(m->log, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	cleanup_close int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int ends[2];

	if (null < 0 || (m->log && log < 0) || pipe2(ends, O_CLOEXEC))
		return error_errno(err, errno, "starting mmdebstrap");
	m->output = ends[0];
	const struct child_fd fds[] = {{null, 0}, {ends[1], 1}, {m->log ? log : STDERR_FILENO, 2}};
	const struct child_spec spec = {
		.argv = (const char *const *)argv->items,
		.env = (const char *const *)env->items,
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.new_session = true,
		.death_signal = SIGTERM,
	};
	int result = child_spawn(&m->child, &spec, err);

	close(ends[1]);
	return result;
}

int mmdebstrap_start(struct mmdebstrap *m, const char *suite, const char *packages, const char *sources,
		     const char *work, bool verbose, const struct image_options *options, struct error *err)
{
	cleanup_strv struct strv argv = STRV_INIT, env = STRV_INIT;
	cleanup_free char *sources_path = file_join(err, work, "sources.list");
	const char *mode = choose_mode(suite, err);

	m->options = options;
	if (!sources_path || !mode || file_write_atomic(sources_path, sources, strlen(sources), 0600, err) ||
	    arguments(&argv, mode, suite, packages, sources_path, err) || environment(&env, mode, work, err))
		return -1;
	m->log = verbose ? NULL : file_join(err, work, "log");
	if (!verbose && !m->log)
		return -1;
	return spawn(m, &argv, &env, err);
}

/* ---- waiting ---- */

/* What it says it does ("I: …"), latest last, and what that is called here. */
static const struct {
	const char *words, *phase;
} phases[] = {
	{"I: running apt-get update", "reading package lists"},
	{"I: downloading packages", "downloading packages"},
	{"I: extracting archives", "unpacking packages"},
	{"I: installing essential", "installing essential packages"},
	{"I: installing remaining", "installing packages"},
	{"I: cleaning package lists", "cleaning up"},
	{"I: creating tarball", "importing"},
	{"I: removing tempdir", "cleaning up"},
};

static void tell_phase(const struct mmdebstrap *m)
{
	struct image_progress progress = {.phase = "starting mmdebstrap"};
	cleanup_free char *text = NULL;
	size_t length;

	if (!m->options->progress || !m->log || file_read_all(m->log, LOG_SIZE_MAX, &text, &length, NULL))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
		if (strstr(text, phases[i].words))
			progress.phase = phases[i].phase;
	m->options->progress(m->options->progress_arg, &progress);
}

int mmdebstrap_wait(struct mmdebstrap *m, struct error *err)
{
	struct pollfd output = {.fd = m->output, .events = POLLIN};
	int ready;

	do {
		if (image_check_cancel(m->options, err))
			return -1;
		ready = poll(&output, 1, LOOK_MS);
		tell_phase(m);
	} while (!ready || (ready < 0 && errno == EINTR));
	return ready < 0 ? error_errno(err, errno, "waiting for mmdebstrap") : 0;
}

/* Its last words, without what it tells of its progress; it quotes whole command lines, which are cut. */
static void quote_log(const struct mmdebstrap *m, char *out, size_t size)
{
	const char *lines[WORDS_LINES] = {NULL};
	cleanup_free char *text = NULL;
	size_t length, n = 0, count = 0;

	*out = '\0';
	if (!m->log || file_read_all(m->log, LOG_SIZE_MAX, &text, &length, NULL))
		return;
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!str_starts(line, "I: "))
			lines[count++ % WORDS_LINES] = line;
	for (size_t i = count > WORDS_LINES ? count - WORDS_LINES : 0; i < count && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "\n  %.*s", WORDS_LENGTH, lines[i % WORDS_LINES]);
}

bool mmdebstrap_broke_off(const struct mmdebstrap *m)
{
	struct pollfd output = {.fd = m->output, .events = POLLIN};

	/* The guard keeps the pipe open until everything has ended. */
	return poll(&output, 1, 0) == 1 && !(output.revents & POLLIN);
}

/* Reads what may follow the archive's end, until everything has ended. */
static int drain(struct mmdebstrap *m, struct error *err)
{
	char padding[16384];
	ssize_t n;

	do {
		if (mmdebstrap_wait(m, err))
			return -1;
		n = read(m->output, padding, sizeof(padding));
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? error_errno(err, errno, "reading from mmdebstrap") : 0;
}

int mmdebstrap_finish(struct mmdebstrap *m, struct error *err)
{
	char how[64], words[2048];
	int status;

	if (drain(m, err))
		return -1;
	if (child_wait(&m->child, CLEAN_UP_MS, &status, err))
		return error_prefix(err, "mmdebstrap");
	if (!status)
		return 0;
	quote_log(m, words, sizeof(words));
	return error_set(err, ERROR_FAILED, "mmdebstrap %s%s%s",
			 child_describe_status(status, how, sizeof(how)), *words ? ":" : "", words);
}

void mmdebstrap_end(struct mmdebstrap *m)
{
	static const struct image_progress cleaning_up = {.phase = "cleaning up"};
	if (m->output >= 0)
		close(m->output);
	if (m->child.pid && m->options->progress)
		m->options->progress(m->options->progress_arg, &cleaning_up);
	child_end(&m->child, CLEAN_UP_MS);
	free(m->log);
	*m = (struct mmdebstrap)MMDEBSTRAP_INIT;
}
