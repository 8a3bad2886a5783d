/*
 * Folding: a raw file takes in what the overlay above it stores, and its place. By itself, and under a guest that writes;
 * killed at each call that changes something (by itself: test_cow_faults.c).
 * Amid all other operations: test_cow_model.c.
 */
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "cow/format.h"
#include "tests/unit/serve_guest.h"
#include "uml-lab/base/cleanup.h"

/*
 * The server runs in this process, and these calls of its are ours: when calls_left comes to 0, it is killed instead.
 */
static atomic_int calls_left;
static bool no_xattrs; /* as on a file system that has none */

static void count_call(void)
{
	if (atomic_load(&calls_left) && atomic_fetch_sub(&calls_left, 1) == 1)
		kill(getpid(), SIGKILL);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
	count_call();
	return syscall(SYS_pwrite64, fd, data, n, at);
}

int fallocate(int fd, int mode, off_t at, off_t length)
{
	count_call();
	return (int)syscall(SYS_fallocate, fd, mode, at, length);
}

int fdatasync(int fd)
{
	count_call();
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	count_call();
	return (int)syscall(SYS_fsync, fd);
}

int fsetxattr(int fd, const char *name, const void *value, size_t n, int flags)
{
	count_call();
	errno = ENOTSUP;
	return no_xattrs ? -1 : (int)syscall(SYS_fsetxattr, fd, name, value, n, flags);
}

int fremovexattr(int fd, const char *name)
{
	count_call();
	errno = ENOTSUP;
	return no_xattrs ? -1 : (int)syscall(SYS_fremovexattr, fd, name);
}

ssize_t fgetxattr(int fd, const char *name, void *value, size_t n)
{
	errno = ENOTSUP;
	return no_xattrs ? -1 : syscall(SYS_fgetxattr, fd, name, value, n);
}

int futimens(int fd, const struct timespec times[2])
{
	count_call();
	return (int)syscall(SYS_utimensat, fd, NULL, times, 0);
}

int rename(const char *from, const char *to)
{
	count_call();
	return (int)syscall(SYS_rename, from, to);
}

/* Whether a path is a raw file of the disk's size with the model's content, and nothing is left of the overlay. */
static bool is_raw(const char *path)
{
	char note[16];
	struct stat st;

	return stat(path, &st) == 0 && st.st_size == SIZE && shows(path, model) &&
	       getxattr(path, "user.uml-cow.commit", note, sizeof(note)) < 0 && findings(path) == 0;
}

static int fold(const char *overlay, struct error *err)
{
	*err = (struct error)ERROR_INIT;
	return cow_fold(overlay, NULL, err);
}

/* What stands on the overlay stands on the raw file then, and opens as before. */
static void test_file(void)
{
	static uint8_t middle[SIZE];
	struct error why;
	struct stat before, after;

	make_chain(3); /* base, layer1, top */
	CU_ASSERT_EQUAL(stat("layer1", &before), 0);
	CU_ASSERT_TRUE(shows("top", model));
	CU_ASSERT_TRUE(fold("top", &why) < 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.message, "no overlay over a raw image"));
	CU_ASSERT_TRUE(fold("base", &why) < 0);
	OK(cow_fold("layer1", NULL, err));
	CU_ASSERT_NOT_EQUAL(access("base", F_OK), 0);
	CU_ASSERT_EQUAL(stat("layer1", &after), 0);
	CU_ASSERT_EQUAL(after.st_size, SIZE);
	CU_ASSERT_EQUAL(after.st_mtime, before.st_mtime);
	CU_ASSERT_TRUE(shows("top", model));
	CU_ASSERT_EQUAL(findings("top"), 0);
	memcpy(middle, model, SIZE);
	OK(cow_fold("top", NULL, err));
	CU_ASSERT_TRUE(is_raw("top"));
	/* an overlay that stores nothing */
	OK(cow_create("empty", "top", NULL, err));
	OK(cow_fold("empty", NULL, err));
	CU_ASSERT_TRUE(is_raw("empty"));
}

/* A guest that writes a COW header into its raw disk gets no file of the host's opened by it. */
static void fold_disguised(void)
{
	const struct cow_open_options o = {.writable = true};
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	uint8_t header[COW_V3_SIZE];
	struct cow_chain *c;

	make_chain(2);
	OK(cow_header_init(h, "/etc/passwd", SIZE, 0, err));
	cow_header_encode(h, header);
	c = cow_chain_open("top", &o, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_EQUAL(cow_chain_write(c, header, sizeof(header), 0), 0);
	CU_ASSERT_EQUAL(cow_chain_flush(c), 0);
	cow_chain_close(c);
	memcpy(model, header, sizeof(header));
	OK(cow_fold("top", NULL, err));
	CU_ASSERT_TRUE(is_raw("top"));
}

static void test_disguise(void)
{
	fold_disguised();
	no_xattrs = true;
	fold_disguised();
	CU_ASSERT_NOT_EQUAL(access(".base.uml-cow-notes", F_OK), 0);
	no_xattrs = false;
}

static void test_half_a_sector(void)
{
	make_chain(1);
	CU_ASSERT_EQUAL(truncate("base", SIZE - 100), 0);
	OK(cow_create("top", "base", NULL, err));
	CU_ASSERT_TRUE(cow_fold("top", NULL, NULL) < 0);
	CU_ASSERT_EQUAL(access("base", F_OK), 0);
}

static void ask(struct server *s, enum cow_serve_type type, const char *name)
{
	struct cow_serve_message m;
	int ret = server_ask(s, type, 0, path_of(name), &m);

	if (ret)
		fprintf(stderr, "request %d of %s: %s\n", type, name, m.u.reply.text);
	CU_ASSERT_EQUAL(ret, 0);
}

/* Frozen overlays first, then the top, again and again, while the guest writes. */
static void test_served(void)
{
	struct cow_serve_message m;
	struct server s = {0};
	struct front f;
	struct writer w;
	char name[16], last[16] = "top2";

	make_chain(3);
	begin(&s, &f);
	write_random(&f, 20);
	ask(&s, COW_SERVE_SNAPSHOT, "top2");
	writer_start(&w, &f);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_FOLD, 0, path_of("layer1"), &m), ERROR_NOT_FOUND);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_FOLD, 0, path_of("nothing"), &m), ERROR_FAILED);
	ask(&s, COW_SERVE_FOLD, "base"); /* into layer1's place */
	ask(&s, COW_SERVE_FOLD, "layer1");
	ask(&s, COW_SERVE_FOLD, "top"); /* what the guest writes to */
	for (int i = 3; i < 40; i++) {
		snprintf(name, sizeof(name), "top%d", i);
		ask(&s, COW_SERVE_SNAPSHOT, name);
		if (i % 2)
			writer_await(&w, 4);
		world_age(last, 1000000000); /* one that was modified in this second is left alone until the next */
		ask(&s, COW_SERVE_FOLD, last);
		strcpy(last, name);
	}
	writer_stop(&w);
	CU_ASSERT_TRUE(guest_sees(&f));
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_GET_STATS, 0, NULL, &m), 0);
	CU_ASSERT_EQUAL(m.u.stats.depth, 1);
	CU_ASSERT_EQUAL(m.u.stats.size, SIZE);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_FOLD, 0, path_of(last), &m), ERROR_NOT_FOUND);
	/* it is locked as the top is, and written to */
	CU_ASSERT_PTR_NULL(cow_chain_open(last, NULL, NULL));
	write_random(&f, 5);
	end(&s, &f);
	CU_ASSERT_TRUE(is_raw(last));
}

/* Without room for both copies the disk goes on as it was, and what was taken for the attempt is given back. */
static void test_quota(void)
{
	struct server s = {.options.quota = 5 << 19};
	struct cow_serve_message m;
	struct front f;

	make_chain(1);
	world_write_file("base", "", 0);
	CU_ASSERT_EQUAL(truncate("base", SIZE), 0);
	memset(model, 0, SIZE);
	OK(cow_create("top", "base", NULL, err));
	s.options.quota_with = (struct strv){(char *[]){(char *)"base"}, 1};
	begin(&s, &f);
	world_fill(model, SIZE);
	for (uint64_t at = 0; at < SIZE - SIZE / 8; at += 65536)
		CU_ASSERT_EQUAL(front_write(&f, at / COW_SECTOR_SIZE, model + at, 65536), VIRTIO_BLK_S_OK);
	memset(model + SIZE - SIZE / 8, 0, SIZE / 8);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_FOLD, 0, path_of("base"), &m), ERROR_FAILED);
	CU_ASSERT_PTR_NOT_NULL(strstr(m.u.reply.text, "quota"));
	world_fill(model + SIZE - SIZE / 8, 65536);
	CU_ASSERT_EQUAL(front_write(&f, (SIZE - SIZE / 8) / COW_SECTOR_SIZE, model + SIZE - SIZE / 8, 65536), VIRTIO_BLK_S_OK);
	CU_ASSERT_TRUE(guest_sees(&f));
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top", model));
	OK(cow_fold("top", NULL, err));
	CU_ASSERT_TRUE(is_raw("top"));
}

/* ---- killed ---- */

/* A server in a process of its own, which is killed at a call that changes something; `done`: it was told that all is folded. */
struct victim {
	pid_t pid;
	int tell, done;
};

static void serve_and_fold(int at, int tell, int done)
{
	struct server s = {.disks = {{SOCKET, "top", NULL}}, .options.count = 1};
	struct cow_serve_message m;
	char byte;

	if (!server_start(&s) || write(done, "r", 1) != 1 || read(tell, &byte, 1) != 1)
		_exit(1);
	atomic_store(&calls_left, at);
	if (server_ask(&s, COW_SERVE_FOLD, 0, path_of("base"), &m) != 0 || write(done, "d", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static struct victim start_victim(int at)
{
	int tell[2], done[2];
	struct victim v;
	char byte;

	if (pipe(tell) || pipe(done) || (v.pid = fork()) < 0)
		abort();
	if (v.pid == 0) {
		close(done[0]);
		serve_and_fold(at, tell[0], done[1]);
	}
	close(tell[0]);
	close(done[1]);
	v.tell = tell[1];
	v.done = done[0];
	CU_ASSERT_EQUAL_FATAL(read(v.done, &byte, 1), 1);
	return v;
}

/* Lets it fold, and ends it if it was not killed before. Returns whether it came to the end. */
static bool run_victim(struct victim *v)
{
	char byte;
	bool done;

	CU_ASSERT_EQUAL(write(v->tell, "x", 1), 1);
	done = read(v->done, &byte, 1) == 1;
	kill(v->pid, SIGKILL);
	waitpid(v->pid, NULL, 0);
	close(v->tell);
	close(v->done);
	unlink(SOCKET);
	return done;
}

/*
 * Writes that are under way while it folds, from the middle on and not flushed: any of them may be there afterwards. What is in the
 * first half was flushed.
 */
static void write_meanwhile(struct front *f)
{
	for (unsigned i = 0; i < 30; i++) {
		world_fill(f->memory + FRONT_DATA + i * 8192, 8192);
		front_submit(f, VIRTIO_BLK_T_OUT, SECTORS / 2 + 16 * i, FRONT_DATA + i * 8192, 8192, false, 2);
		if (i % 10 == 9)
			front_submit(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, 1);
	}
	front_kick(f);
}

/* SIGKILL at the call number `at`: all that was flushed is there, and folding again completes it. 1: it was not killed. */
static bool kill_at(int at, unsigned *renamed)
{
	const uint64_t seed = world_seed;
	static uint8_t flushed[SIZE];
	struct victim v;
	struct front f;
	bool done;

	make_chain(2);
	v = start_victim(at);
	CU_ASSERT_TRUE_FATAL(front_connect(&f, SOCKET));
	write_random(&f, 4);
	CU_ASSERT_EQUAL(front_flush(&f), VIRTIO_BLK_S_OK);
	memcpy(flushed, model, SIZE);
	write_meanwhile(&f);
	done = run_victim(&v);
	front_close(&f);
	*renamed += !done && access("base", F_OK) != 0;
	CU_ASSERT_TRUE(shows("top", model) || memcmp(buffer, flushed, SIZE / 2) == 0);
	memcpy(model, buffer, SIZE);
	if (access("base", F_OK) == 0)
		OK(cow_fold("top", NULL, err));
	CU_ASSERT_TRUE(is_raw("top"));
	world_seed = seed; /* the next one makes the same calls, but for what is copied again for the guest */
	return done;
}

static void test_killed(void)
{
	unsigned renamed = 0, done = 0;
	int at = 0;

	while (done < 3 && at < 1000)
		done = kill_at(++at, &renamed) ? done + 1 : 0;
	printf("killed at %d calls, %u of them after the raw file had its new name\n", at - 3, renamed);
	CU_ASSERT_TRUE(at > 20 && at < 1000);
}

int main(void)
{
	static const struct unit_case cases[] = {
		UNIT_CASE(test_file), UNIT_CASE(test_disguise), UNIT_CASE(test_half_a_sector),
		UNIT_CASE(test_served), UNIT_CASE(test_quota), UNIT_CASE(test_killed),
	};

	return serve_guest_run("cow fold", cases, ARRAY_SIZE(cases));
}
