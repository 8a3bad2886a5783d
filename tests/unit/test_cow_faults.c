/*
 * Fault injection: every operation that changes files is run again and again;
 * after its first, second, third, … system call it is killed, also in the middle of each
 * transfer; each call that changes something fails with ENOSPC; each call of any kind fails with EIO; each read
 * and each write is cut short, one at a time and all at once. After each run every disk
 * involved must open and show either what it showed before or what the operation should have made of it, an
 * operation that says it succeeded must have, and running it again (for a commit)
 * must complete it. One whose reads and writes are short must succeed.
 *
 * The operation runs in a child under ptrace(); a call that is to fail is
 * replaced by an impossible one and its result set; one that is to be short is
 * given half of its length, and of a vector the first half of its first piece.
 */
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "tests/unit/cow_world.h"

#define SECTORS   700
#define SIZE      (SECTORS * COW_SECTOR_SIZE)
#define CALLS_MAX 3000

#define CALLS_ALL 0 /* in place of a call's number */

enum fault { FAULT_KILL, FAULT_TORN, FAULT_ENOSPC, FAULT_EIO, FAULT_SHORT };

struct scene {
	const char *name;
	int (*run)(struct error *err);
	const char *changes;  /* the disk that may show old or new content */
	const char *keeps[3]; /* disks that must show what they did */
	bool again;           /* the operation is repeated after a fault, and must then succeed */
};

/* ---- Disks: base, lower and middle layers, upper overlay; made once, copied for each run ---- */

static void write_some(const char *path, unsigned int times)
{
	const struct cow_open_options o = {.writable = true};
	struct cow_chain *c = cow_chain_open(path, &o, NULL);
	uint8_t data[20 * COW_SECTOR_SIZE];

	if (!c)
		abort();
	for (unsigned int i = 0; i < times; i++) {
		size_t n = (size_t)world_random(sizeof(data)) + 1;

		world_fill(data, n);
		if (cow_chain_write(c, data, n, world_random(SIZE - n)))
			abort();
	}
	if (cow_chain_flush(c))
		abort();
	cow_chain_close(c);
}

static void make_disks(void)
{
	static uint8_t base[SIZE];

	world_empty();
	world_seed = 7;
	world_fill(base, SIZE / 2);
	world_write_file("base", base, SIZE);
	world_age("base", 1000000000);
	if (cow_create("lower", "base", NULL, NULL))
		abort();
	write_some("lower", 8);
	world_age("lower", 1000000001);
	if (cow_create("middle", "lower", NULL, NULL))
		abort();
	write_some("middle", 8);
	world_age("middle", 1000000002);
	if (cow_create("upper", "middle", NULL, NULL))
		abort();
	write_some("upper", 8);
	world_age("upper", 1000000003);
}

static bool show(const char *path, uint8_t *data, bool complain)
{
	struct error err = ERROR_INIT;
	struct cow_chain *c = cow_chain_open(path, NULL, &err);
	bool ok = c && cow_chain_size(c) == SIZE && !cow_chain_read(c, data, SIZE, 0);

	if (!ok && complain)
		fprintf(stderr, "%s does not open: %s\n", path, err.message);
	cow_chain_close(c);
	return ok;
}

/* ---- The operations ---- */

static int do_commit_layer(struct error *err)
{
	return cow_commit("upper", NULL, err);
}

static int do_commit_base(struct error *err)
{
	return cow_commit("lower", NULL, err);
}

static int do_fold(struct error *err)
{
	/* done before: the base has its place */
	return access("base", F_OK) == 0 ? cow_fold("lower", NULL, err) : 0;
}

static int do_merge(struct error *err)
{
	return cow_merge("upper", "middle", NULL, NULL, err);
}

static int do_rebase(struct error *err)
{
	return cow_rebase("upper", "base", false, NULL, err);
}

static int do_rebase_header(struct error *err)
{
	return cow_rebase("upper", "middle", true, NULL, err);
}

static int do_compact(struct error *err)
{
	return cow_compact("upper", NULL, NULL, err);
}

static int do_create(struct error *err)
{
	const struct cow_create_options o = {.replace = true, .durable = true};

	return cow_create("other", "middle", &o, err);
}

static int do_flatten(struct error *err)
{
	struct cow_chain *c = cow_chain_open("upper", NULL, err);
	int ret = c ? cow_flatten(c, "flat", true, true, err) : -1;

	cow_chain_close(c);
	return ret;
}

static int do_convert(struct error *err)
{
	return cow_convert("upper", "converted", true, NULL, err);
}

static int do_express(struct error *err)
{
	return cow_express("upper", "base", "expressed", true, NULL, err);
}

static int do_check(struct error *err);

static const struct scene scenes[] = {
	{"commit to a layer", do_commit_layer, "middle", {"upper", "lower", "base"}, true},
	{"commit to the base", do_commit_base, "base", {"lower"}, true},
	{"fold", do_fold, NULL, {"upper", "middle", "lower"}, true},
	{"merge", do_merge, NULL, {"upper", "middle", "lower"}, false},
	{"rebase", do_rebase, NULL, {"upper", "middle", "lower"}, true},
	{"rebase the header", do_rebase_header, NULL, {"upper", "middle"}, true},
	{"compact", do_compact, NULL, {"upper", "middle", "lower"}, true},
	{"create", do_create, NULL, {"upper", "middle", "lower"}, true},
	{"flatten", do_flatten, NULL, {"upper", "middle", "lower"}, true},
	{"convert", do_convert, NULL, {"upper", "middle", "lower"}, true},
	{"convert to an overlay", do_express, NULL, {"upper", "middle", "lower"}, true},
	{"check", do_check, NULL, {"upper", "middle", "lower"}, true},
};

static void no_finding(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	(void)finding;
	(void)text;
}

static int do_check(struct error *err)
{
	return cow_check("upper", true, NULL, no_finding, NULL, err) == 0 ? 0 : -1;
}

/* ---- Running one with a fault ---- */

static void child(const struct scene *s)
{
	struct error err = ERROR_INIT;

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	_exit(s->run(&err) < 0 ? 1 : 0);
}

/* Calls that change what is on the disk. */
static bool is_change(const struct user_regs_struct *r)
{
	switch ((long)r->orig_rax) {
	case SYS_openat:
		return r->rdx & O_CREAT;
	case SYS_open:
		return r->rsi & O_CREAT;
	case SYS_write:
	case SYS_pwrite64:
	case SYS_pwritev:
	case SYS_ftruncate:
	case SYS_fallocate:
	case SYS_fsetxattr:
	case SYS_fremovexattr:
	case SYS_rename:
	case SYS_renameat2:
	case SYS_link:
	case SYS_unlink:
	case SYS_utimensat:
	case SYS_fchmod:
	case SYS_fchown:
	case SYS_ioctl:
		return true;
	default:
		return false;
	}
}

static bool is_vector(long nr)
{
	return nr == SYS_preadv || nr == SYS_pwritev;
}

static bool is_transfer(long nr)
{
	return is_vector(nr) || nr == SYS_read || nr == SYS_pread64 || nr == SYS_write || nr == SYS_pwrite64;
}

/* Whether the fault is tried at a call: SIGKILL at every one, ENOSPC where something changes, EIO at all but what never fails
 * so. */
static bool is_target(const struct user_regs_struct *r, enum fault fault)
{
	long nr = (long)r->orig_rax;

	if (fault == FAULT_KILL)
		return true;
	if (fault == FAULT_SHORT || fault == FAULT_TORN)
		return is_transfer(nr) && r->rdx > (is_vector(nr) ? 0 : 1);
	if (is_change(r))
		return true;
	if (nr == SYS_fsync || nr == SYS_fdatasync)
		return true;
	/* sigaltstack: the sanitizers, when a process ends */
	return fault == FAULT_EIO && nr != SYS_sigaltstack && nr != SYS_exit_group && nr != SYS_brk && nr != SYS_munmap &&
	       nr != SYS_close && nr != SYS_mmap && nr != SYS_mprotect && nr != SYS_getrandom;
}

static void kill_and_reap(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

/* The length of a vector's first piece, changed for a call and put back after it. */
struct piece {
	unsigned long long where; /* 0: none is changed */
	long length;
};

/* The call that is about to happen transfers half of what it asks for, of a vector half of its first piece. */
static void cut_short(pid_t pid, struct user_regs_struct *r, struct piece *piece)
{
	if (!is_vector((long)r->orig_rax)) {
		r->rdx /= 2;
		return;
	}
	piece->where = r->rsi + offsetof(struct iovec, iov_len);
	piece->length = ptrace(PTRACE_PEEKDATA, pid, (void *)piece->where, NULL);
	ptrace(PTRACE_POKEDATA, pid, (void *)piece->where, (void *)((piece->length + 1) / 2));
	r->rdx = 1;
}

/* Before the call that the fault is for. */
static void inject(pid_t pid, struct user_regs_struct *r, enum fault fault, struct piece *piece)
{
	if (fault == FAULT_KILL)
		return;
	if (fault == FAULT_SHORT || fault == FAULT_TORN)
		cut_short(pid, r, piece);
	else
		r->orig_rax = (unsigned long long)-1;
	ptrace(PTRACE_SETREGS, pid, NULL, r);
}

/* After it. */
static void complete(pid_t pid, struct user_regs_struct *r, enum fault fault, struct piece *piece)
{
	if (fault == FAULT_SHORT) {
		if (piece->where)
			ptrace(PTRACE_POKEDATA, pid, (void *)piece->where, (void *)piece->length);
		piece->where = 0;
		return;
	}
	r->rax = (unsigned long long)-(fault == FAULT_ENOSPC ? ENOSPC : EIO);
	ptrace(PTRACE_SETREGS, pid, NULL, r);
}

/*
 * Runs the operation with a fault at target call number `at`, or at all of them
 * (CALLS_ALL): it is killed right after that call, or half of it, or the call fails or is short.
 * Returns its exit status, 128 when it was killed, and in *calls how many such
 * calls it made.
 */
static int run_with_fault(const struct scene *s, enum fault fault, int at, int *calls)
{
	pid_t pid = fork();
	bool entry = true, hit = false;
	struct piece piece = {0};
	int status;

	if (pid == 0)
		child(s);
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	*calls = 0;
	while (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
	       WIFSTOPPED(status)) {
		struct user_regs_struct regs;

		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			continue;
		ptrace(PTRACE_GETREGS, pid, NULL, &regs);
		if (entry && is_target(&regs, fault) && (++*calls == at || at == CALLS_ALL)) {
			hit = true;
			inject(pid, &regs, fault, &piece);
		} else if (!entry && hit) {
			hit = false;
			if (fault == FAULT_KILL || fault == FAULT_TORN) {
				kill_and_reap(pid);
				return 128;
			}
			complete(pid, &regs, fault, &piece);
			if (at != CALLS_ALL)
				break; /* the rest is as without us */
		}
		entry = !entry;
	}
	if (WIFSTOPPED(status) && (ptrace(PTRACE_CONT, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid))
		abort();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static uint8_t before[3][SIZE], old[SIZE], new[SIZE], now[SIZE];

static void check_keeps(const struct scene *s, const char *what)
{
	for (size_t i = 0; i < 3 && s->keeps[i]; i++) {
		bool ok = show(s->keeps[i], now, true) && memcmp(now, before[i], SIZE) == 0;

		/* what others show who stand on a changed file is not kept, and they are refused */
		if (!ok)
			fprintf(stderr, "%s, %s: %s is not what it was\n", s->name, what, s->keeps[i]);
		CU_ASSERT_TRUE(ok);
	}
}

static void check_changes(const struct scene *s, int status, const char *what)
{
	bool is_old, is_new, ok;

	if (!s->changes)
		return;
	ok = show(s->changes, now, true);
	is_old = ok && memcmp(now, old, SIZE) == 0;
	is_new = ok && memcmp(now, new, SIZE) == 0;
	if (status == 0 ? !is_new : !is_old && !is_new)
		fprintf(stderr, "%s, %s: %s is neither old nor new\n", s->name, what, s->changes);
	CU_ASSERT_TRUE(status == 0 ? is_new : is_old || is_new);
}

static void check_again(const struct scene *s, const char *what)
{
	struct error err = ERROR_INIT;

	if (s->run(&err) < 0) {
		fprintf(stderr, "%s, %s: again: %s\n", s->name, what, err.message);
		CU_FAIL("does not complete");
	}
	check_keeps(s, what);
	check_changes(s, 0, what);
}

static void remember(const struct scene *s)
{
	int calls;

	make_disks();
	for (size_t i = 0; i < 3 && s->keeps[i]; i++)
		CU_ASSERT_TRUE_FATAL(show(s->keeps[i], before[i], true));
	if (s->changes)
		CU_ASSERT_TRUE_FATAL(show(s->changes, old, true));
	CU_ASSERT_EQUAL_FATAL(run_with_fault(s, FAULT_KILL, CALLS_MAX, &calls), 0);
	if (s->changes)
		CU_ASSERT_TRUE_FATAL(show(s->changes, new, true));
	check_keeps(s, "no fault");
}

/* One run with a fault, and all that must hold after it. Returns how many calls it could have been at. */
static int run_once(const struct scene *s, enum fault fault, int at)
{
	static const char *const names[] = {"SIGKILL", "SIGKILL in the middle", "ENOSPC", "EIO", "short"};
	char what[64];
	int calls, status;

	make_disks();
	status = run_with_fault(s, fault, at, &calls);
	if (calls < at)
		return calls;
	snprintf(what, sizeof(what), "%s at call %d", names[fault], at);
	check_keeps(s, what);
	check_changes(s, status, what);
	if (fault == FAULT_SHORT && status != 0) {
		fprintf(stderr, "%s, %s: fails\n", s->name, what);
		CU_FAIL("fails for a short transfer");
	}
	if (s->again)
		check_again(s, what);
	return calls;
}

static void run_scene(const struct scene *s, enum fault fault)
{
	remember(s);
	if (fault == FAULT_SHORT)
		run_once(s, fault, CALLS_ALL);
	for (int at = 1; at < CALLS_MAX; at++)
		if (run_once(s, fault, at) < at)
			return;
	CU_FAIL("more calls than expected");
}

/* A child that stops at each call runs sooner where its parent just was than on another processor. */
static void stay_here(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET((size_t)sched_getcpu(), &here);
	sched_setaffinity(0, sizeof(here), &here);
}

static void run_all(enum fault fault)
{
	stay_here();
	world_enter();
	for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++)
		run_scene(&scenes[i], fault);
	world_leave();
}

static void test_killed(void)
{
	run_all(FAULT_KILL);
}

static void test_killed_within(void)
{
	run_all(FAULT_TORN);
}

static void test_disk_full(void)
{
	run_all(FAULT_ENOSPC);
}

static void test_io_error(void)
{
	run_all(FAULT_EIO);
}

static void test_short(void)
{
	run_all(FAULT_SHORT);
}

UNIT_MAIN("cow faults", UNIT_CASE(test_killed), UNIT_CASE(test_killed_within), UNIT_CASE(test_disk_full), UNIT_CASE(test_io_error),
	  UNIT_CASE(test_short))
