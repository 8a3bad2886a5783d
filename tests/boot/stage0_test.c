/*
 * Boots a kernel with stage-0 on a disk and tries the agent:
 *	stage0_test KERNEL DISK WORKDIR MODE
 *	full	everything, and a second boot
 *	boot	up and down, with the times it takes
 *	broken	a disk that can't be mounted must be told
 * Prints a line per check, ends with 1 when one failed. KERNEL is as in lab.yml
 * (auto, 6.1, a path). WORKDIR holds tree.tar, and gets back.tar, log and more.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/boot/stage0_host.h"
#include "uml-lab/machine/kernel.h"

/* UML reads a serial line byte by byte (chan_interrupt()): about 1 MB/s in, so the way in is tried with less. */
#define OUT_BYTES (50ull << 20)
#define IN_BYTES (uint64_t)(getenv("STAGE0_IN_BYTES") ? atoll(getenv("STAGE0_IN_BYTES")) : 4 << 20)

static int failures;
static const char *work;

static bool check(bool ok, const char *what)
{
	printf("%s %s\n", ok ? "ok  " : "FAIL", what);
	fflush(stdout);
	failures += !ok;
	return ok;
}

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define SHELL(text) ARGV("sh", "-c", text)

static void since(const struct host *h, const char *what)
{
	printf("time %-8s %5lld ms\n", what, (long long)(guest_now_ms() - h->started));
}

/* From HELLO until the root file system is mounted. */
static bool mount_disk(struct host *h, const char *mounted)
{
	struct host_frame f;

	if (!check(host_next(h, &f, 30000) && f.type == FRAME_HELLO && frame_u32(f.payload) == FRAME_VERSION,
		   "HELLO"))
		return false;
	since(h, "hello");
	host_send_text(h, FRAME_CONFIG, 0, "hostname\tr1\nroot\t/dev/ubda\nconsole\ttty0\ncon");
	host_send_text(h, FRAME_CONFIG, 0, "sole\ttty1\nhost\t10.0.1.2\tr2\tr2.lan\nnameserver\t10.0.2.3\n");
	host_send_text(h, FRAME_CONFIG, 0, "interface\teth0\t" HOST_MAC "\ndhcp\teth0\n");
	host_send_text(h, FRAME_CONFIG, 0, "slirp\teth0\t10.0.2.15/24\t10.0.2.2\n");
	host_send(h, FRAME_MOUNT, 0, NULL, 0);
	if (!host_phase(h, mounted, 15000))
		return false;
	since(h, "mounted");
	return true;
}

/* A tree of all kinds of things, made on the host, copied in before BOOT and out again later. */
static void check_copy_in(struct host *h)
{
	char path[300];
	struct run r = { .request = FRAME_PUT, .argv = ARGV("/copied/") };

	snprintf(path, sizeof(path), "%s/tree.tar", work);
	r.input_fd = open(path, O_RDONLY);
	check(host_run(h, &r, 1, 60000) && r.status == 0, "PUT of a tree before BOOT");
	if (r.text[0])
		printf("     %s\n", r.text);
	close(r.input_fd);
}

static void check_copy_out(struct host *h)
{
	char path[300];
	struct run r = { .request = FRAME_GET, .argv = ARGV("/copied") };

	snprintf(path, sizeof(path), "%s/back.tar", work);
	r.output_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	check(host_run(h, &r, 1, 60000) && r.status == 0, "GET of the tree");
	if (r.text[0])
		printf("     %s\n", r.text);
	close(r.output_fd);
}

static void check_copy_errors(struct host *h)
{
	struct run r[] = {
		{ .request = FRAME_GET, .argv = ARGV("/no/such/thing") },
		{ .request = FRAME_PUT, .argv = ARGV("/tmp"), .input = "this is no tar archive at all" },
		{ .request = FRAME_PUT, .argv = ARGV("/etc/passwd/x"), .input = "" },
	};

	check(host_run(h, r, 3, 20000), "bad copies end");
	check(r[0].errnum == ENOENT && strstr(r[0].text, "/no/such/thing"), "GET of nothing says which");
	check(r[1].status == -1 && strstr(r[1].text, "archive"), "PUT of garbage says so");
	check(r[2].errnum == ENOTDIR || r[2].errnum == EEXIST, "PUT below a file");
}

static void check_statuses(struct host *h)
{
	struct run r[] = {
		{ .argv = SHELL("exit 0") },
		{ .argv = SHELL("exit 3") },
		{ .argv = SHELL("kill -SEGV $$") },
		{ .argv = ARGV("no-such-program") },
		{ .argv = SHELL("echo out; echo err >&2"), },
		{ .argv = SHELL("pwd; echo $A $HOME $USER"), .env = ARGV("A=b c"), .cwd = "/etc" },
		{ .argv = ARGV("true"), .cwd = "/no/where" },
		{ .argv = ARGV("cat"), .input = "hello" },
		{ .argv = SHELL("sleep 1000 & echo left") },
	};

	check(host_run(h, r, 9, 20000), "nine at once end");
	check(WIFEXITED(r[0].status) && WEXITSTATUS(r[0].status) == 0, "status 0");
	check(WIFEXITED(r[1].status) && WEXITSTATUS(r[1].status) == 3, "status 3");
	check(WIFSIGNALED(r[2].status) && WTERMSIG(r[2].status) == SIGSEGV, "killed by SIGSEGV");
	check(r[3].errnum == ENOENT && strstr(r[3].text, "no-such-program"), "a program that is not there");
	check(!strcmp(r[4].out, "out\n") && !strcmp(r[4].err, "err\n"), "stderr is separate");
	check(!strcmp(r[5].out, "/etc\nb c /root root\n"), "folder and environment");
	check(r[6].errnum == ENOENT && strstr(r[6].text, "/no/where"), "a folder that is not there");
	check(!strcmp(r[7].out, "hello") && r[7].status == 0, "input and its end");
	check(!strcmp(r[8].out, "left\n") && r[8].status == 0, "a process left behind doesn't hold EXIT");
}

static void check_signals(struct host *h)
{
	struct run r[] = {
		{ .argv = ARGV("sleep", "1000"), .signal_after_ms = 100, .signo = SIGTERM, .keep_open = true },
		{ .argv = SHELL("trap 'exit 9' INT; echo; while :; do sleep 0.05; done"), .signal_after_ms = 1,
		  .signo = SIGINT, .keep_open = true, .after_output = true },
		{ .argv = ARGV("sleep", "1000"), .close_after_ms = 100, .keep_open = true },
		{ .argv = SHELL("trap '' HUP; echo; sleep 1000; sleep 1000"), .close_after_ms = 1, .keep_open = true,
		  .after_output = true },
		{ .argv = ARGV("true"), .signal_after_ms = 0, .input_bytes = 0, .flags = 64 },
	};

	check(host_run(h, r, 5, 20000), "signalled ones end");
	check(WIFSIGNALED(r[0].status) && WTERMSIG(r[0].status) == SIGTERM, "SIGNAL kills");
	check(WEXITSTATUS(r[1].status) == 9, "SIGNAL is caught");
	check(WIFSIGNALED(r[2].status) && WTERMSIG(r[2].status) == SIGHUP, "CLOSE hangs up");
	check(WIFSIGNALED(r[3].status) && WTERMSIG(r[3].status) == SIGKILL, "CLOSE kills in the end");
	check(r[4].status == -1 && strstr(r[4].text, "malformed"), "unknown flags are refused");
}

static void check_terminal(struct host *h)
{
	struct run r[] = {
		{ .argv = SHELL("stty size; tty; cat; echo end"), .flags = EXEC_TERMINAL, .rows = 33, .columns = 99,
		  .input = "typed\n" },
		{ .flags = EXEC_TERMINAL | EXEC_LOGIN_SHELL, .env = ARGV("TERM=vt100"), .argv = ARGV(NULL),
		  .input = "echo $0 $TERM; exit 5\n" },
		{ .argv = ARGV("sleep", "1000"), .flags = EXEC_TERMINAL, .signal_after_ms = 200, .signo = SIGINT,
		  .keep_open = true },
	};

	check(host_run(h, r, 3, 20000), "terminals end");
	check(strstr(r[0].out, "33 99\r\n") && strstr(r[0].out, "/dev/pts/") && strstr(r[0].out, "end\r\n"),
	      "window size, name, end of input");
	check(WEXITSTATUS(r[1].status) == 5 && strstr(r[1].out, "vt100"), "login shell");
	check(WIFSIGNALED(r[2].status) && WTERMSIG(r[2].status) == SIGINT, "SIGNAL to the foreground group");
	if (!strstr(r[0].out, "33 99") || WEXITSTATUS(r[1].status) != 5)
		printf("     %s\n     %s\n", r[0].out, r[1].out);
}

static void report_rate(const char *what, uint64_t bytes, int64_t begun)
{
	int64_t ms = guest_now_ms() - begun;

	printf("rate %-22s %6.1f MB/s\n", what, bytes / 1000.0 / (ms ? ms : 1));
}

static void check_streams(struct host *h)
{
	struct run out = { .argv = SHELL("head -c 52428800 /dev/zero") };
	struct run in = { .argv = SHELL("wc -c"), .input_bytes = IN_BYTES };
	struct run echo = { .argv = ARGV("cat"), .input_bytes = IN_BYTES };
	struct run slow[] = {
		{ .argv = SHELL("head -c 2000000 /dev/zero"), .credit_delay_ms = 100 },
		{ .argv = ARGV("cat"), .input_bytes = 1000000 },
	};

	check(host_run(h, &out, 1, 60000) && out.out_bytes == OUT_BYTES && out.status == 0, "a large stream out");
	report_rate("out", OUT_BYTES, out.begun);
	check(host_run(h, &in, 1, 180000) && strtoull(in.out, NULL, 10) == IN_BYTES, "a large stream in");
	report_rate("in", IN_BYTES, in.begun);
	check(host_run(h, &echo, 1, 180000) && echo.out_bytes == IN_BYTES &&
	      echo.out_hash == host_pattern_hash(IN_BYTES), "both ways, unchanged");
	report_rate("both ways", IN_BYTES, echo.begun);
	check(host_run(h, slow, 2, 60000) && slow[0].out_bytes == 2000000 && slow[1].out_bytes == 1000000 &&
	      slow[1].out_hash == host_pattern_hash(1000000), "a slow reader and a fast one");
}

static void check_many(struct host *h)
{
	const char *const *cat = ARGV("cat");
	static struct run r[70];
	int i, ok = 0, refused = 0;

	for (i = 0; i < 20; i++)
		r[i] = (struct run){ .argv = cat, .input_bytes = 200000 };
	check(host_run(h, r, 20, 60000), "twenty at once end");
	for (i = 0; i < 20; i++)
		ok += r[i].out_hash == host_pattern_hash(200000) && r[i].status == 0;
	check(ok == 20, "twenty streams, each its own");
	for (i = 0; i < 70; i++)
		r[i] = (struct run){ .argv = cat, .keep_open = true, .close_after_ms = 2000 };
	check(host_run(h, r, 70, 30000), "seventy at once end");
	for (i = 0; i < 70; i++)
		refused += r[i].errnum == EAGAIN;
	check(refused == 70 - (int)FRAME_CHANNELS_MAX, "those beyond the limit are refused");
}

static void check_garbage(struct host *h)
{
	struct frame_credit much = { .stream = STREAM_OUT, .bytes = 0x7fffffff };
	struct run r = { .argv = SHELL("echo alive") };
	static const char noise[] = "\x55MLA\1 noise UML\1\0\0\xff\xff\1\1\1\1";
	uint32_t unused = 0xfffffff0;
	int i;

	buffer_add(&h->out, noise, sizeof(noise));
	host_send(h, 999, 0, "x", 1);
	host_send(h, FRAME_EXEC, 0xffffff00, "x", 1);
	host_send(h, FRAME_CREDIT, unused, &much, sizeof(much));
	host_send(h, FRAME_SHUTDOWN, 0, "dance", 5);
	host_send(h, FRAME_BOOT, 0, NULL, 0);
	host_send(h, FRAME_PING, 0, NULL, 0);
	for (i = 0; i < 3 && !host_phase(h, "pong", 5000); i++)
		;	/* what failed before it */
	check(host_run(h, &r, 1, 10000) && !strcmp(r.out, "alive\n"), "garbage is survived");
}

static void check_freeze(struct host *h)
{
	struct run write = { .argv = SHELL("echo x > /frozen-write"), .close_after_ms = 0 };
	struct run read = { .argv = SHELL("echo read") };

	host_send(h, FRAME_FREEZE, 0, NULL, 0);
	check(host_phase(h, "frozen", 10000), "FREEZE");
	check(host_run(h, &read, 1, 10000) && !strcmp(read.out, "read\n"), "the agent works while frozen");
	check(!host_run(h, &write, 1, 700), "a write waits while frozen");
	host_send(h, FRAME_THAW, 0, NULL, 0);
	check(host_phase(h, "thawed", 10000), "THAW");
	read = (struct run){ .argv = SHELL("while [ ! -e /frozen-write ]; do sleep 0.1; done") };
	check(host_run(h, &read, 1, 10000), "the write went on");
}

static void check_machine(struct host *h)
{
	struct frame_size size = { .rows = 44, .columns = 111 };
	struct run r[] = {
		{ .argv = SHELL("hostname; cat /etc/hostname") },
		{ .argv = SHELL("grep -c r2.lan /etc/hosts; grep -c uml-lab /etc/hosts") },
		{ .argv = SHELL("grep nameserver /etc/resolv.conf | head -1") },
		{ .argv = SHELL("date +%s") },
		{ .argv = SHELL("stty size </dev/tty0") },
		{ .argv = SHELL("cat /proc/self/oom_score_adj; grep -c . /proc/$PPID/cmdline; ls /dev/ttyS0") },
	};
	long long begun = time(NULL), told;

	host_send(h, FRAME_CONSOLE_SIZE, 0, &size, sizeof(size));
	check(host_run(h, r, 6, 20000), "questions end");
	told = atoll(r[3].out);
	check(!strcmp(r[0].out, "r1\nr1\n"), "host name");
	check(!strcmp(r[1].out, "1\n2\n"), "/etc/hosts");
	check(strstr(r[2].out, "nameserver"), "/etc/resolv.conf");
	check(told >= begun - 2 && told <= time(NULL) + 2, "the clock is the host's");
	check(!strcmp(r[4].out, "44 111\n"), "console size");
	check(!strncmp(r[5].out, "0\n", 2) && strstr(r[5].err, "No such file"), "oom score, hidden line");
}

static void check_set_up(struct host *h)
{
	host_send(h, FRAME_SET_UP, 0, NULL, 0);
	check(host_phase(h, "set-up", 10000), "SET_UP");
}

static void shut_down(struct host *h)
{
	int64_t begun = guest_now_ms();

	host_send_text(h, FRAME_SHUTDOWN, 0, "poweroff");
	check(host_wait_exit(h, 60000), "SHUTDOWN ends the kernel");
	printf("time %-8s %5lld ms\n", "down", (long long)(guest_now_ms() - begun));
}

/* Without a network manager in the image the route must come back by us. */
static void check_network(struct host *h)
{
	struct run before = { .argv = SHELL("ip addr show eth0; ip route") };
	struct run after = { .argv = SHELL("ip link set eth0 down; ip link set eth0 up; i=0; "
					   "until ip route | grep default; do i=$((i+1)); [ $i -lt 150 ] || exit 1; "
					   "sleep 0.1; done") };
	struct run managed = { .argv = ARGV("test", "-e", "/run/systemd/netif") };

	check(host_run(h, &before, 1, 10000) && strstr(before.out, HOST_MAC), "eth0");
	if (host_run(h, &managed, 1, 10000) && managed.status == 0)
		return;
	check(strstr(before.out, "10.0.2.15/24") && strstr(before.out, "default via 10.0.2.2"), "address and route");
	check(host_run(h, &after, 1, 20000) && after.status == 0, "the route comes back after down and up");
}

static void check_all(struct host *h)
{
	check_machine(h);
	check_network(h);
	check_statuses(h);
	check_signals(h);
	check_terminal(h);
	check_copy_out(h);
	check_copy_errors(h);
	check_garbage(h);
	check_many(h);
	check_freeze(h);
	check_streams(h);
	check_set_up(h);
}

static bool boot(struct host *h)
{
	host_send(h, FRAME_BOOT, 0, NULL, 0);
	if (!check(host_phase(h, "init", 15000), "init"))
		return false;
	since(h, "init");
	if (!check(host_phase(h, "ready", 60000), "ready"))
		return false;
	since(h, "ready");
	if (!check(host_phase(h, "login", 30000), "login"))
		return false;
	since(h, "login");
	return true;
}

static void test_broken(struct host *h)
{
	check(!mount_disk(h, "mounted first"), "a broken disk is not mounted");
	check(strstr(h->failure, "/dev/ubda") && strlen(h->failure) > 30, h->failure);
}

static void test_boot(struct host *h, bool full)
{
	if (!check(mount_disk(h, "mounted first"), "mounted first"))
		return;
	if (full)
		check_copy_in(h);
	if (!boot(h))
		return;
	if (full)
		check_all(h);
	shut_down(h);
}

int main(int argc, char **argv)
{
	struct error err = ERROR_INIT;
	struct kernel kernel;
	char *initramfs;
	struct host h;
	bool full;

	if (argc != 5)
		return 2;
	work = argv[3];
	full = !strcmp(argv[4], "full");
	if (kernel_find(argv[1], &kernel, &err) < 0 || initramfs_get(&kernel, &initramfs, &err) < 0) {
		error_print("stage0_test", &err);
		return 2;
	}
	printf("kernel %s, %s\n", kernel.release, initramfs);
	host_start(&h, kernel.path, initramfs, argv[2], work);
	if (!strcmp(argv[4], "broken"))
		test_broken(&h);
	else
		test_boot(&h, full);
	host_end(&h);
	if (full && !failures) {
		host_start(&h, kernel.path, initramfs, argv[2], work);
		if (check(mount_disk(&h, "mounted again"), "mounted again"))
			shut_down(&h);
		host_end(&h);
	}
	kernel_free(&kernel);
	free(initramfs);
	return failures != 0;
}
