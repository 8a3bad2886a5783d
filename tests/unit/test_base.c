/* The shared helpers of uml-lab/base/. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/cli.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/str.h"

static char folder[64];

static void make_folder(void)
{
	strcpy(folder, "/tmp/test-base-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
}

static void remove_folder(void)
{
	CU_ASSERT_EQUAL(file_remove_tree(folder, NULL), 0);
	CU_ASSERT(!file_exists(folder));
}

static void test_error(void)
{
	struct error err = ERROR_INIT;

	CU_ASSERT_EQUAL(error_errno(&err, ENOENT, "cannot open %s", "x"), -1);
	error_prefix(&err, "lab %d", 7);
	CU_ASSERT_STRING_EQUAL(err.message, "lab 7: cannot open x: No such file or directory");
	CU_ASSERT_EQUAL(err.kind, ERROR_FAILED);
	CU_ASSERT_EQUAL(error_set(NULL, ERROR_FAILED, "nobody listens"), -1);
}

static void test_strings(void)
{
	uint64_t size = 0;
	int64_t ms = 0, number = 0;
	char human[16];

	CU_ASSERT_EQUAL(str_to_size("2G", &size), 0);
	CU_ASSERT_EQUAL(size, 2ull << 30);
	CU_ASSERT_EQUAL(str_to_size("1.5MiB", &size), 0);
	CU_ASSERT_EQUAL(size, 3u << 19);
	CU_ASSERT_EQUAL(str_to_size("-1", &size), -1);
	CU_ASSERT_EQUAL(str_to_size("1X", &size), -1);
	CU_ASSERT_EQUAL(str_to_size("99999999999T", &size), -1);
	CU_ASSERT_EQUAL(str_to_duration_ms("500ms", &ms), 0);
	CU_ASSERT_EQUAL(ms, 500);
	CU_ASSERT_EQUAL(str_to_duration_ms("2m", &ms), 0);
	CU_ASSERT_EQUAL(ms, 120000);
	CU_ASSERT_EQUAL(str_to_duration_ms("soon", &ms), -1);
	CU_ASSERT_EQUAL(str_to_i64("10", 0, 9, &number), -1);
	CU_ASSERT_EQUAL(str_to_i64("0x10", 0, 99, &number), -1);
	CU_ASSERT_STRING_EQUAL(str_human_size(1536, human, sizeof(human)), "1.5 KiB");
	CU_ASSERT_STRING_EQUAL(str_human_size(1048575, human, sizeof(human)), "1.0 MiB");
	CU_ASSERT(str_is_name("r1-a", 31));
	CU_ASSERT(!str_is_name("-r", 31));
	CU_ASSERT(!str_is_name("", 31));
	CU_ASSERT(!str_is_name("../x", 31));
}

static void test_nearest(void)
{
	const char *const words[] = {"status", "up", "down", NULL};

	CU_ASSERT_STRING_EQUAL(str_nearest("stauts", words), "status");
	CU_ASSERT_STRING_EQUAL(str_nearest("dwon", words), "down");
	CU_ASSERT_PTR_NULL(str_nearest("elephant", words));
}

static const char *cleaned(struct strbuf *b, const char *text, size_t length)
{
	strbuf_free(b);
	*b = (struct strbuf)STRBUF_INIT;
	strbuf_add(b, text, length);
	str_clean(b);
	return b->data ?: "";
}

static void test_clean(void)
{
	cleanup_strbuf struct strbuf b = STRBUF_INIT;

	CU_ASSERT_STRING_EQUAL(cleaned(&b, "", 0), "");
	CU_ASSERT_STRING_EQUAL(cleaned(&b, "a\tb\r\nc\r", 7), "a\tb\nc?");
	CU_ASSERT_STRING_EQUAL(cleaned(&b, "\033[2Jx\0y", 7), "?[2Jx?y");
	CU_ASSERT_STRING_EQUAL(cleaned(&b, "\xc3\xa9\xc2\x9b\xff", 5), "\xc3\xa9??");
	CU_ASSERT_STRING_EQUAL(cleaned(&b, "\xe2\x82", 2), "??"); /* cut within a character */
	char text[] = "a\r\n\033[2J\xc3\xa9\xc2\x9b\xff\xe2\x82";
	str_clean_chars(text);
	CU_ASSERT_STRING_EQUAL(text, "a?\n?[2J\xc3\xa9????");
	CU_ASSERT_STRING_EQUAL(cleaned(&b, "\xef\xbf\xbe", 3), "?"); /* U+FFFE: not in XML */
}

static void test_strbuf(void)
{
	cleanup_strbuf struct strbuf b = STRBUF_INIT;

	for (int i = 0; i < 1000; i++)
		strbuf_printf(&b, "%d,", i);
	CU_ASSERT_EQUAL(strbuf_check(&b, NULL), 0);
	CU_ASSERT_EQUAL(b.length, strlen(b.data));
	strbuf_consume(&b, 2);
	CU_ASSERT(str_starts(b.data, "1,2,"));
	strbuf_consume(&b, SIZE_MAX);
	CU_ASSERT_EQUAL(b.length, 0);
}

static void test_files(void)
{
	cleanup_free char *path = NULL, *text = NULL;
	struct error err = ERROR_INIT;
	struct stat st;
	size_t length;

	make_folder();
	path = str_printf(NULL, "%s/a/b/c/file", folder);
	cleanup_free char *deep = str_printf(NULL, "%s/a/b/c", folder);

	CU_ASSERT_EQUAL(file_mkdir_p(deep, 0700, &err), 0);
	CU_ASSERT_EQUAL(file_write_atomic(path, "one", 3, 0640, &err), 0);
	CU_ASSERT_EQUAL(file_write_atomic(path, "second", 6, 0600, &err), 0);
	CU_ASSERT_EQUAL(file_read_all(path, 100, &text, &length, &err), 0);
	CU_ASSERT_STRING_EQUAL(text, "second");
	CU_ASSERT_EQUAL(length, 6);
	CU_ASSERT_EQUAL(stat(path, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	CU_ASSERT_EQUAL(file_read_all(path, 5, &text, &length, &err), -1);
	/* A folder in the way of a file is told, and nothing is left of the attempt. */
	CU_ASSERT_EQUAL(file_write_atomic(deep, "x", 1, 0600, &err), -1);
	CU_ASSERT_EQUAL(file_mkdir_p(path, 0700, &err), -1);
	/* Nothing outside goes with a tree that links there. */
	cleanup_free char *link = str_printf(NULL, "%s/a/link", folder);

	CU_ASSERT_EQUAL(symlink("/etc", link), 0);
	remove_folder();
	CU_ASSERT(file_exists("/etc/passwd"));
}

static void test_lock(void)
{
	cleanup_free char *path = NULL;
	struct error err = ERROR_INIT;
	int first, second;

	make_folder();
	path = str_printf(NULL, "%s/lock", folder);
	first = file_lock(path, true, 0, &err);
	CU_ASSERT(first >= 0);
	CU_ASSERT_EQUAL(file_lock(path, true, 0, &err), -1);
	CU_ASSERT_EQUAL(err.kind, ERROR_STATE);
	CU_ASSERT_EQUAL(file_lock(path, false, 50, &err), -1);
	CU_ASSERT_EQUAL(err.kind, ERROR_TIMEOUT);
	close(first);
	second = file_lock(path, true, 0, &err);
	CU_ASSERT(second >= 0);
	close(second);
	remove_folder();
}

static void test_child(void)
{
	const char *argv[] = {"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
	const char *missing[] = {"/nonexistent/program", NULL};
	struct child_spec spec = {.argv = argv, .null_stdin = true};
	struct error err = ERROR_INIT;
	struct child child = CHILD_INIT;
	cleanup_free char *text = NULL;
	char described[64];
	int status;

	CU_ASSERT_EQUAL_FATAL(child_capture(&spec, 10000, 4096, true, &text, &status, &err), 0);
	CU_ASSERT_STRING_EQUAL(text, "out\nerr\n");
	CU_ASSERT_EQUAL(WEXITSTATUS(status), 3);
	spec.argv = missing;
	CU_ASSERT_EQUAL(child_spawn(&child, &spec, &err), -1);
	CU_ASSERT_EQUAL(err.sys_errno, ENOENT);

	const char *sleeper[] = {"sleep", "60", NULL};
	struct process_id id;

	spec.argv = sleeper;
	CU_ASSERT_EQUAL_FATAL(child_spawn(&child, &spec, &err), 0);
	CU_ASSERT_EQUAL(process_identify(child.pid, &id), 0);
	CU_ASSERT(process_alive(&id));
	CU_ASSERT_EQUAL(child_wait(&child, 20, &status, &err), -1);
	CU_ASSERT_EQUAL(err.kind, ERROR_TIMEOUT);
	child_kill(&child, SIGKILL);
	CU_ASSERT_EQUAL(child_wait(&child, 10000, &status, &err), 0);
	CU_ASSERT_STRING_EQUAL(child_describe_status(status, described, sizeof(described)), "was killed by SIGKILL");
	CU_ASSERT(!process_alive(&id));
	id.start++;
	CU_ASSERT(!process_alive(&id));
}

/* The child sees just the descriptors it was given, in the numbers asked for, though these overlap ours. */
static void test_child_fds(void)
{
	const char *argv[] = {"sh", "-c", "echo three >&3; echo four >&4; ls /proc/self/fd | tr '\\n' ' '", NULL};
	cleanup_free char *text = NULL;
	struct error err = ERROR_INIT;
	int a[2], b[2], leak = open("/dev/null", O_RDONLY), status;
	char buf[16] = "";

	CU_ASSERT_EQUAL_FATAL(pipe2(a, O_CLOEXEC), 0);
	CU_ASSERT_EQUAL_FATAL(pipe2(b, O_CLOEXEC), 0);
	struct child_fd fds[] = {{a[1], 4}, {b[1], 3}};
	struct child_spec spec = {.argv = argv, .fds = fds, .fd_count = 2, .null_stdin = true};

	CU_ASSERT_EQUAL_FATAL(child_capture(&spec, 10000, 4096, false, &text, &status, &err), 0);
	/* 5 is the folder that ls reads, or the shell's copy of a descriptor. */
	CU_ASSERT(str_starts(text, "0 1 2 3 4 "));
	CU_ASSERT(strlen(text) <= strlen("0 1 2 3 4 5 "));
	CU_ASSERT_EQUAL(read(a[0], buf, sizeof(buf)), 5);
	CU_ASSERT_EQUAL(memcmp(buf, "four\n", 5), 0);
	CU_ASSERT_EQUAL(read(b[0], buf, sizeof(buf)), 6);
	close(leak);
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
}

struct turns {
	struct loop *loop;
	struct loop_fd *source;
	struct loop_timer *timer;
	int reads, ticks;
};

static void on_read(void *arg, int fd, uint32_t events)
{
	struct turns *t = arg;
	char c;

	(void)events;
	CU_ASSERT_EQUAL(read(fd, &c, 1), 1);
	if (++t->reads == 3)
		loop_remove_fd(t->source);	/* itself, from within */
}

static void on_tick(void *arg)
{
	struct turns *t = arg;

	if (++t->ticks < 3)
		loop_arm_timer(t->timer, 1);
	else
		loop_stop(t->loop, 42);
}

static void test_loop(void)
{
	struct turns t = {0};
	int pipes[2];

	t.loop = loop_new(NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(t.loop);
	CU_ASSERT_EQUAL(pipe(pipes), 0);
	CU_ASSERT_EQUAL(write(pipes[1], "abcdef", 6), 6);
	t.source = loop_add_fd(t.loop, pipes[0], EPOLLIN, on_read, &t, NULL);
	t.timer = loop_add_timer(t.loop, 5, on_tick, &t, NULL);
	CU_ASSERT_EQUAL(loop_run(t.loop, NULL), 42);
	CU_ASSERT_EQUAL(t.reads, 3);
	CU_ASSERT_EQUAL(t.ticks, 3);
	loop_free(t.loop);
	close(pipes[0]);
	close(pipes[1]);
}

/* ---- the command line ---- */

struct demo_options {
	bool json;
	const char *name;
	struct strv params;
	uint64_t size;
	const char *wait;
};

static struct demo_options seen;
static size_t seen_operands;
static char seen_last[64], seen_param[64], seen_name[64];

static int demo_run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct demo_options *o = opaque;

	(void)err;
	seen = *o;
	seen_operands = operands->count;
	snprintf(seen_last, sizeof(seen_last), "%s", operands->count ? operands->items[operands->count - 1] : "");
	snprintf(seen_param, sizeof(seen_param), "%s", o->params.count ? o->params.items[o->params.count - 1] : "");
	snprintf(seen_name, sizeof(seen_name), "%s", o->name ?: "");
	return 0;
}

static const struct cli_option demo_options[] = {
	{"json", 'j', CLI_FLAG, offsetof(struct demo_options, json), NULL, "x"},
	{"name", 'n', CLI_STRING, offsetof(struct demo_options, name), "N", "x"},
	{"param", 0, CLI_LIST, offsetof(struct demo_options, params), "K=V", "x"},
	{"size", 0, CLI_SIZE, offsetof(struct demo_options, size), "S", "x"},
	{"wait", 0, CLI_CHOICE, offsetof(struct demo_options, wait), "ready|none", "x"},
	{NULL},
};
static const struct cli_command demo_up = {.name = "up", .operands = "LAB", .summary = "s", .options = demo_options,
	.options_size = sizeof(struct demo_options), .min_operands = 1, .max_operands = 2, .run = demo_run};
static const struct cli_command demo_exec = {.name = "exec", .operands = "M -- C", .summary = "s", .options = demo_options,
	.options_size = sizeof(struct demo_options), .min_operands = 2, .max_operands = -1, .operands_end_options = true,
	.run = demo_run};
static const struct cli_command demo_two = {.name = "image list", .operands = "", .summary = "s",
	.options_size = sizeof(struct demo_options), .run = demo_run};
static const struct cli_command *const demo_commands[] = {&demo_up, &demo_exec, &demo_two, NULL};
static const struct cli_program demo = {.name = "demo", .summary = "s", .version = "1", .commands = demo_commands};

#define DEMO(...) cli_main(&demo, (int)(sizeof((char *[]){"demo", __VA_ARGS__}) / sizeof(char *)), \
			   (char *[]){"demo", __VA_ARGS__, NULL})

static void test_cli(void)
{
	CU_ASSERT_EQUAL(DEMO("up", "--json", "lab", "--name=x", "--param", "a=1", "--param=b=2", "--size", "1K"), 0);
	CU_ASSERT(seen.json);
	CU_ASSERT_STRING_EQUAL(seen_name, "x");
	CU_ASSERT_STRING_EQUAL(seen_param, "b=2");
	CU_ASSERT_EQUAL(seen.size, 1024);
	CU_ASSERT_EQUAL(DEMO("up", "-nshort", "lab", "--wait", "none"), 0);
	CU_ASSERT_STRING_EQUAL(seen_name, "short");
	CU_ASSERT_EQUAL(DEMO("image", "list"), 0);
	CU_ASSERT_EQUAL(DEMO("image", "--help"), 0);
	CU_ASSERT_EQUAL(DEMO("help", "image"), 0);
	CU_ASSERT_EQUAL(DEMO("exec", "-j", "m", "--", "ls", "--json", "-n"), 0);
	CU_ASSERT_EQUAL(seen_operands, 4);
	CU_ASSERT_STRING_EQUAL(seen_last, "-n");
	CU_ASSERT_EQUAL(DEMO("exec", "m", "ls", "-l"), 0);
	CU_ASSERT_STRING_EQUAL(seen_last, "-l");
	CU_ASSERT_EQUAL(DEMO("exec", "m", "--json", "--", "ls", "-a"), 0);
	CU_ASSERT(seen.json);
	CU_ASSERT_EQUAL(seen_operands, 3);
}

static void test_cli_wrong(void)
{
	CU_ASSERT_EQUAL(DEMO("pu"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("image"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("image", "lsit"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up", "a", "b", "c"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up", "a", "--wait", "later"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up", "a", "--size", "big"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up", "a", "--nmae", "x"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up", "a", "--json=1"), ERROR_USAGE);
	CU_ASSERT_EQUAL(DEMO("up", "a", "--name"), ERROR_USAGE);
}

UNIT_MAIN("base", UNIT_CASE(test_error), UNIT_CASE(test_strings), UNIT_CASE(test_nearest), UNIT_CASE(test_clean),
	  UNIT_CASE(test_strbuf),
	  UNIT_CASE(test_files), UNIT_CASE(test_lock), UNIT_CASE(test_child), UNIT_CASE(test_child_fds),
	  UNIT_CASE(test_loop), UNIT_CASE(test_cli), UNIT_CASE(test_cli_wrong))
