/*
 * Between fork() and exec(): environment, folder, identity of a program that a
 * client asked for. All that touches files happens here, in the child, so that a
 * file system that hangs or is frozen never stops the agent.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/guest/exec.h"
#include "uml-lab/guest/frame.h"
#include "uml-lab/guest/tar.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The next string of the payload, or NULL when there is none that ends. */
static char *next_string(char **at, char *end)
{
	char *start = *at, *nul = start < end ? memchr(start, '\0', end - start) : NULL;

	if (!nul)
		return NULL;
	*at = nul + 1;
	return start;
}

static char **take_strings(char **at, char *end, int count)
{
	char **v = calloc(count + 1, sizeof(*v));
	int i;

	for (i = 0; v && i < count; i++) {
		v[i] = next_string(at, end);
		if (!v[i]) {
			free(v);
			return NULL;
		}
	}
	return v;
}

int exec_request_parse(struct exec_request *r, const uint8_t *payload, size_t length, struct fault *f)
{
	struct exec_request parsed = { 0 };
	const size_t fixed = sizeof(struct frame_exec);
	char *at, *end;
	int argc, envc;

	if (length < fixed)
		return fault_set(f, "EXEC is too short");
	parsed.flags = frame_u32(payload);
	parsed.rows = frame_u16(payload + offsetof(struct frame_exec, rows));
	parsed.columns = frame_u16(payload + offsetof(struct frame_exec, columns));
	argc = frame_u16(payload + offsetof(struct frame_exec, argc));
	envc = frame_u16(payload + offsetof(struct frame_exec, envc));
	parsed.text = malloc(length - fixed + 1);
	if (!parsed.text)
		return fault_errno(f, ENOMEM, "EXEC");
	memcpy(parsed.text, payload + fixed, length - fixed);
	at = parsed.text;
	end = at + length - fixed;
	parsed.cwd = next_string(&at, end);
	parsed.argv = parsed.cwd ? take_strings(&at, end, argc) : NULL;
	parsed.env = parsed.argv ? take_strings(&at, end, envc) : NULL;
	if (!parsed.env || at != end || (parsed.flags & ~(EXEC_TERMINAL | EXEC_LOGIN_SHELL)) ||
	    (!argc && !(parsed.flags & EXEC_LOGIN_SHELL))) {
		exec_request_free(&parsed);
		return fault_set(f, "EXEC is malformed");
	}
	*r = parsed;
	return 0;
}

void exec_request_free(struct exec_request *r)
{
	free(r->argv);
	free(r->env);
	free(r->text);
	memset(r, 0, sizeof(*r));
}

static __attribute__((noreturn)) void fail(int status, const struct fault *f)
{
	guest_write_full(status, f, sizeof(*f));
	_exit(1);
}

/* The n-th colon-separated field of the line into out. */
static void passwd_field(const char *line, int n, char *out, size_t size)
{
	size_t length;

	while (n-- && line)
		line = strchr(line, ':') ? strchr(line, ':') + 1 : NULL;
	if (!line)
		return;
	length = strcspn(line, ":\n");
	if (length && length < size) {
		memcpy(out, line, length);
		out[length] = '\0';
	}
}

void exec_root_account(char *shell, size_t shell_size, char *home, size_t home_size)
{
	char *text = guest_read_file("/etc/passwd", 65536, NULL);
	const char *line = text;

	snprintf(shell, shell_size, "/bin/sh");
	snprintf(home, home_size, "/root");
	while (line && *line && strncmp(line, "root:", 5)) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	if (line && *line) {
		passwd_field(line, 5, home, home_size);
		passwd_field(line, 6, shell, shell_size);
	}
	free(text);
	if (access(shell, X_OK) < 0)
		snprintf(shell, shell_size, access("/bin/sh", X_OK) < 0 ? "/bin/bash" : "/bin/sh");
	if (access(home, X_OK) < 0)
		snprintf(home, home_size, "/");
}

static void set_environment(const struct exec_request *r, const char *shell, const char *home)
{
	char **e;

	clearenv();
	setenv("PATH", DEFAULT_PATH, 1);
	setenv("HOME", home, 1);
	setenv("SHELL", shell, 1);
	setenv("USER", "root", 1);
	setenv("LOGNAME", "root", 1);
	for (e = r->env; *e; e++)
		if (strchr(*e, '='))
			putenv(*e);
}

void exec_program(const struct exec_request *r, int status)
{
	static char shell[256], home[256], login[258];
	char *login_argv[] = { login, NULL };
	char **argv = r->argv;
	const char *file;
	struct fault f;
	sigset_t none;

	exec_root_account(shell, sizeof(shell), home, sizeof(home));
	set_environment(r, shell, home);
	if (chdir(*r->cwd ? r->cwd : home) < 0) {
		fault_errno(&f, errno, "cannot enter %s", *r->cwd ? r->cwd : home);
		fail(status, &f);
	}
	guest_poke("/proc/self/oom_score_adj", "0");
	umask(022);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	file = argv[0];
	if (r->flags & EXEC_LOGIN_SHELL) {
		snprintf(login, sizeof(login), "-%s", strrchr(shell, '/') ? strrchr(shell, '/') + 1 : shell);
		argv = login_argv;
		file = shell;
	}
	execvp(file, argv);
	fault_errno(&f, errno, "cannot run %s", file);
	fail(status, &f);
}

static ssize_t read_stream(void *arg, void *buf, size_t n)
{
	(void)arg;
	return guest_read_full(STDIN_FILENO, buf, n);
}

static ssize_t write_stream(void *arg, const void *buf, size_t n)
{
	(void)arg;
	return guest_write_full(STDOUT_FILENO, buf, n);
}

/* A folder that is there, or a name with a slash at its end, is what to unpack into; else the name to unpack as. */
static int put_target(const char *path, char *folder, const char **rename, struct fault *f)
{
	size_t n = strlen(path);
	struct stat st;
	char *slash;

	if (path[0] != '/' || n >= PATH_MAX)
		return fault_set(f, "'%s' is not an absolute path", path);
	strcpy(folder, path);
	*rename = NULL;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	if (path[n - 1] != '/') {
		slash = strrchr(folder, '/');
		*slash = '\0';
		*rename = slash + 1;
		if (!strcmp(*rename, ".") || !strcmp(*rename, ".."))
			return fault_set(f, "'%s' is no name to copy to", path);
	}
	if (folder[0] && guest_mkdir_p(folder) < 0)
		return fault_errno(f, errno, "cannot make %s", folder);
	return 0;
}

void exec_put(const char *path, int status)
{
	static char folder[PATH_MAX], rest[65536];
	struct tar_reader t = { .read = read_stream };
	const char *rename = NULL;
	struct fault f;

	umask(0);
	if (put_target(path, folder, &rename, &f) < 0 ||
	    tar_unpack(&t, *folder ? folder : "/", rename, &f) < 0)
		fail(status, &f);
	/* What tar programs add after the end (they fill a record). */
	while (guest_read_full(STDIN_FILENO, rest, sizeof(rest)) > 0)
		;
	_exit(0);
}

void exec_get(const char *path, int status)
{
	struct fault f;

	if (tar_pack(write_stream, NULL, path, &f) < 0)
		fail(status, &f);
	_exit(0);
}
