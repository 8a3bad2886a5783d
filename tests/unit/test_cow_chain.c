/*
 * Chains: how backing files are found and which are never opened, what is said
 * of those that changed, cycles, locks, and repairs.
 */
#include <sys/wait.h>
#include <sys/xattr.h>

#include "tests/unit/cow_world.h"

#define SIZE (64 * 1024)

static uint8_t content[SIZE];

static void enter(void)
{
	world_enter();
	world_fill(content, SIZE);
	world_write_file("base", content, SIZE);
	world_age("base", 1000000000);
}

/* Opens, and compares what is seen with the base's content. NULL err: it must open. */
static bool opens(const char *path, const struct cow_open_options *o, struct error *err)
{
	struct error own = ERROR_INIT;
	struct cow_chain *c = cow_chain_open(path, o, err ? err : &own);
	uint8_t data[SIZE];

	if (!c) {
		if (!err)
			fprintf(stderr, "%s\n", own.message);
		return false;
	}
	CU_ASSERT_EQUAL(cow_chain_size(c), SIZE);
	CU_ASSERT_EQUAL(cow_chain_read(c, data, SIZE, 0), 0);
	CU_ASSERT_TRUE(memcmp(data, content, SIZE) == 0);
	cow_chain_close(c);
	return true;
}

static bool says(const struct error *err, const char *text)
{
	if (strstr(err->message, text) || strstr(err->hint, text))
		return true;
	fprintf(stderr, "said: %s (%s)\n", err->message, err->hint);
	return false;
}

static void test_deep(void)
{
	char below[32] = "base", path[32];

	enter();
	for (int i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "layer%d", i);
		OK(cow_create(path, below, NULL, err));
		strcpy(below, path);
	}
	CU_ASSERT_TRUE(opens(path, NULL, NULL));
	world_leave();
}

static void test_moved_backing(void)
{
	struct error why = ERROR_INIT;
	struct strv folders = STRV_INIT;
	struct cow_open_options o = {.folders = &folders};

	enter();
	OK(cow_create("o.cow", "base", NULL, err));
	/* both moved: the base is found beside the overlay */
	CU_ASSERT_EQUAL(mkdir("a", 0700) + rename("base", "a/base") + rename("o.cow", "a/o.cow"), 0);
	CU_ASSERT_TRUE(opens("a/o.cow", NULL, NULL));
	/* elsewhere: only when that folder is named */
	CU_ASSERT_EQUAL(mkdir("b", 0700) + rename("a/base", "b/base"), 0);
	CU_ASSERT_FALSE(opens("a/o.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "rebase --header-only"));
	OK(strv_add(&folders, "b", err));
	CU_ASSERT_TRUE(opens("a/o.cow", &o, NULL));
	/* a namesake with another time is not taken for it */
	CU_ASSERT_EQUAL(rename("b/base", "b/other"), 0);
	world_write_file("a/base", content, SIZE);
	CU_ASSERT_FALSE(opens("a/o.cow", &o, &why));
	OK(cow_rebase("a/o.cow", "b/other", true, NULL, err));
	CU_ASSERT_TRUE(opens("a/o.cow", NULL, NULL));
	strv_free(&folders);
	world_leave();
}

static void test_renamed_backing_by_digest(void)
{
	const struct cow_create_options digest = {.digest = true};

	enter();
	OK(cow_create("o.cow", "base", &digest, err));
	CU_ASSERT_EQUAL(rename("base", "another-name"), 0);
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	world_leave();
}

/* The image folders are searched too, by name and by digest; other folders are not. */
static void test_moved_to_images(void)
{
	const struct cow_create_options digest = {.digest = true};
	struct error why = ERROR_INIT;
	char folders[600];

	enter();
	snprintf(folders, sizeof(folders), "%s/none:%s/images", world_dir, world_dir);
	CU_ASSERT_EQUAL(mkdir("images", 0700) + mkdir("elsewhere", 0700), 0);
	OK(cow_create("o.cow", "base", &digest, err));
	CU_ASSERT_EQUAL(rename("base", "images/base"), 0);
	CU_ASSERT_FALSE(opens("o.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "nor in an image folder"));
	CU_ASSERT_EQUAL(setenv("UML_LAB_IMAGES", folders, 1), 0);
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	CU_ASSERT_EQUAL(rename("images/base", "images/renamed"), 0);
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	CU_ASSERT_EQUAL(rename("images/renamed", "elsewhere/base"), 0);
	CU_ASSERT_FALSE(opens("o.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "base of"));
	CU_ASSERT_TRUE(says(&why, "o.cow is not there, nor beside it"));
	unsetenv("UML_LAB_IMAGES");
	world_leave();
}

static void copy_base(const char *to)
{
	world_write_file(to, content, SIZE);
}

static void test_copied_backing(void)
{
	const struct cow_create_options digest = {.digest = true};
	struct error why = ERROR_INIT;

	enter();
	OK(cow_create("known.cow", "base", &digest, err));
	CU_ASSERT_EQUAL(unlink("base"), 0);
	copy_base("base"); /* cp without -p */
	CU_ASSERT_TRUE(opens("known.cow", NULL, NULL));
	/* without a digest it can't be told, and is refused */
	world_age("base", 1000000000);
	CU_ASSERT_EQUAL(removexattr("base", "user.uml-cow.digest"), 0);
	OK(cow_create("unknown.cow", "base", NULL, err));
	copy_base("base");
	CU_ASSERT_FALSE(opens("unknown.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "or copied without its time"));
	/* changed, and known to be */
	content[0] ^= 1;
	copy_base("base");
	content[0] ^= 1;
	CU_ASSERT_FALSE(opens("known.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "its content is another"));
	CU_ASSERT_TRUE(says(&why, "put a copy of it in its place"));
	world_write_file("base", content, SIZE / 2);
	CU_ASSERT_FALSE(opens("known.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "bytes, but had"));
	CU_ASSERT_TRUE(says(&why, "put a copy of it in its place"));
	/* as it says */
	copy_base("base");
	CU_ASSERT_TRUE(opens("known.cow", NULL, NULL));
	world_leave();
}

/* A digest is of the content, however it is laid out; and a note of it lasts as long as the file is as it
 * was. */
static void test_digest(void)
{
	const struct cow_create_options digest = {.digest = true, .replace = true};
	struct error why = ERROR_INIT;
	struct stat sparse, full;

	enter();
	memset(content + 4096, 0, SIZE - 8192);
	copy_base("base");
	CU_ASSERT_EQUAL(truncate("base", 4096) + truncate("base", SIZE), 0);
	memset(content + SIZE - 4096, 0, 4096);
	world_age("base", 1000000000);
	OK(cow_create("o.cow", "base", &digest, err));
	CU_ASSERT_EQUAL(stat("base", &sparse) + unlink("base"), 0);
	copy_base("base");
	CU_ASSERT_EQUAL(stat("base", &full), 0);
	CU_ASSERT_TRUE(sparse.st_blocks < full.st_blocks);
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	/* the same size and content but for one byte */
	content[SIZE / 2] = 1;
	copy_base("base");
	CU_ASSERT_FALSE(opens("o.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "its content is another"));
	world_leave();
}

static void test_cycle(void)
{
	struct error why = ERROR_INIT;
	struct stat st;

	enter();
	OK(cow_create("a", "base", NULL, err));
	OK(cow_create("b", "a", NULL, err));
	/* a hand that forges: a stands on b, which stands on a; with the time a has, so that nothing else is
	 * wrong */
	CU_ASSERT_EQUAL(stat("a", &st), 0);
	OK(cow_rebase("a", "b", true, NULL, err));
	CU_ASSERT_FALSE(opens("a", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "cycle"));
	CU_ASSERT_FALSE(opens("b", NULL, &why));
	CU_ASSERT_EQUAL(cow_rebase("b", "b", false, NULL, &why), -1);
	world_leave();
}

/* ---- Disks from elsewhere ---- */

/* An overlay whose header names any path, made without cow_create()'s mark. */
static void forge(const char *path, const char *backing)
{
	char *data;
	size_t n;
	int fd;

	OK(cow_create("forged", "base", NULL, err));
	OK(file_read_all("forged", 1 << 20, &data, &n, err));
	memset(data + 32, 0, 4096);
	strcpy(data + 32, backing);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CU_ASSERT_TRUE(file_write_full(fd, data, n) == (ssize_t)n);
	close(fd);
	unlink("forged");
	free(data);
}

static void test_forbidden_backing(void)
{
	const struct cow_open_options any = {.any_backing = true};
	struct strv folders = STRV_INIT;
	const struct cow_open_options allowed = {.folders = &folders};
	struct error why = ERROR_INIT;
	char path[512];

	enter();
	CU_ASSERT_EQUAL(mkdir("secret", 0700) + mkdir("in", 0700) + rename("base", "secret/base"), 0);
	copy_base("base");
	world_age("base", 1000000000);
	snprintf(path, sizeof(path), "%s/secret/base", world_dir);
	forge("in/evil.cow", path);
	CU_ASSERT_FALSE(opens("in/evil.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "outside of the folders allowed"));
	CU_ASSERT_TRUE(opens("in/evil.cow", &any, NULL));
	OK(strv_add(&folders, "secret", err));
	CU_ASSERT_TRUE(opens("in/evil.cow", &allowed, NULL));
	/* by a detour */
	forge("in/evil.cow", "../secret/base");
	CU_ASSERT_FALSE(opens("in/evil.cow", NULL, &why));
	CU_ASSERT_EQUAL(symlink("../secret/base", "in/link"), 0);
	forge("in/evil.cow", "link");
	CU_ASSERT_FALSE(opens("in/evil.cow", NULL, &why));
	CU_ASSERT_TRUE(says(&why, "outside of the folders allowed"));
	/* a folder whose name merely begins the same */
	CU_ASSERT_EQUAL(mkdir("secret2", 0700) + rename("secret/base", "secret2/base"), 0);
	snprintf(path, sizeof(path), "%s/secret2/base", world_dir);
	forge("in/evil.cow", path);
	CU_ASSERT_FALSE(opens("in/evil.cow", &allowed, &why));
	strv_free(&folders);
	world_leave();
}

/* Depth of what a file opens as; 0: not at all. */
static size_t depth_of(const char *path)
{
	const struct cow_open_options any = {.any_backing = true};
	struct cow_chain *chain = cow_chain_open(path, &any, NULL);
	size_t depth = chain ? cow_chain_depth(chain) : 0;

	cow_chain_close(chain);
	return depth;
}

/* A guest with a raw disk makes it look like an overlay over something else. */
static void test_raw_in_disguise(void)
{
	struct cow_chain *chain;
	int fd;

	enter();
	forge("disk.img", "base");
	CU_ASSERT_EQUAL(depth_of("disk.img"), 2);
	fd = open("disk.img", O_RDWR);
	OK(cow_note_raw(fd, "disk.img", err));
	close(fd);
	CU_ASSERT_EQUAL(depth_of("disk.img"), 1);
	/* an overlay has it below, and what is made of its content knows it too */
	OK(cow_create("over.cow", "disk.img", NULL, err));
	CU_ASSERT_EQUAL(depth_of("over.cow"), 2);
	chain = cow_chain_open("over.cow", NULL, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(chain);
	OK(cow_flatten(chain, "flat.img", false, false, err));
	cow_chain_close(chain);
	CU_ASSERT_EQUAL(depth_of("flat.img"), 1);
	world_leave();
}

/* The mark that cow_create() leaves is of no use on another file. */
static void test_copied_mark(void)
{
	struct error why = ERROR_INIT;
	char mark[4400];
	ssize_t n;

	enter();
	CU_ASSERT_EQUAL(mkdir("far", 0700) + mkdir("in", 0700) + rename("base", "far/base"), 0);
	OK(cow_create("in/good.cow", "far/base", NULL, err));
	CU_ASSERT_TRUE(opens("in/good.cow", NULL, NULL));
	n = getxattr("in/good.cow", "user.uml-cow.origin", mark, sizeof(mark));
	if (n > 0) {
		CU_ASSERT_EQUAL(system("cp in/good.cow in/copy.cow"), 0);
		CU_ASSERT_EQUAL(setxattr("in/copy.cow", "user.uml-cow.origin", mark, (size_t)n, 0), 0);
		CU_ASSERT_FALSE(opens("in/copy.cow", NULL, &why));
		CU_ASSERT_TRUE(says(&why, "outside of the folders allowed"));
	}
	world_leave();
}

static void test_forged_journal(void)
{
	struct error why = ERROR_INIT;

	enter();
	if (setxattr("base", "user.uml-cow.commit", "copying 1-2.3 /etc/shadow", 25, 0) == 0) {
		CU_ASSERT_FALSE(opens("base", NULL, &why));
		CU_ASSERT_TRUE(says(&why, "/etc/shadow is gone, or another file now"));
		CU_ASSERT_EQUAL(setxattr("base", "user.uml-cow.commit", "garbage", 7, 0), 0);
		CU_ASSERT_FALSE(opens("base", NULL, &why));
	}
	world_leave();
}

static void test_not_regular(void)
{
	struct error why = ERROR_INIT;

	enter();
	CU_ASSERT_EQUAL(mkfifo("fifo", 0600), 0);
	CU_ASSERT_FALSE(opens("fifo", NULL, &why));
	forge("o.cow", "fifo");
	CU_ASSERT_FALSE(opens("o.cow", NULL, &why));
	forge("o.cow", ".");
	CU_ASSERT_FALSE(opens("o.cow", NULL, &why));
	world_leave();
}

/* ---- Locks ---- */

/* Takes the lock the kernel takes (a POSIX one) in another process, and calls fn meanwhile. */
static void while_locked(const char *path, short type, void (*fn)(void))
{
	int ready[2], go[2];
	char c;
	pid_t pid;

	CU_ASSERT_EQUAL_FATAL(pipe(ready) + pipe(go), 0);
	pid = fork();
	if (pid == 0) {
		struct flock fl = {.l_type = type, .l_whence = SEEK_SET};
		int fd = open(path, O_RDWR);

		c = fcntl(fd, F_SETLK, &fl) == 0;
		if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(1);
		_exit(0);
	}
	CU_ASSERT_TRUE(read(ready[0], &c, 1) == 1 && c);
	fn();
	CU_ASSERT_TRUE(write(go[1], "", 1) == 1);
	waitpid(pid, NULL, 0);
	close(ready[0]);
	close(ready[1]);
	close(go[0]);
	close(go[1]);
}

static void in_use(void)
{
	struct cow_open_options look = {.no_lock = true};
	struct error why = ERROR_INIT;

	CU_ASSERT_FALSE(opens("o.cow", NULL, &why));
	CU_ASSERT_EQUAL(why.kind, ERROR_STATE);
	CU_ASSERT_EQUAL(cow_commit("o.cow", NULL, NULL), -1);
	CU_ASSERT_EQUAL(cow_compact("o.cow", NULL, NULL, NULL), -1);
	CU_ASSERT_EQUAL(cow_rebase("o.cow", "base", true, NULL, NULL), -1);
	CU_ASSERT_TRUE(opens("o.cow", &look, NULL));
}

static void base_read_by_others(void)
{
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	CU_ASSERT_EQUAL(cow_commit("o.cow", NULL, NULL), -1);
}

static void test_locks(void)
{
	enter();
	OK(cow_create("o.cow", "base", NULL, err));
	while_locked("o.cow", F_WRLCK, in_use);
	while_locked("base", F_RDLCK, base_read_by_others);
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	world_leave();
}

/* ---- Check ---- */

static char findings[4096];

static void collect(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	snprintf(findings + strlen(findings), sizeof(findings) - strlen(findings), "%d %s\n", finding, text);
}

static int check(const char *path, bool repair)
{
	struct error why = ERROR_INIT;
	int wrong;

	findings[0] = '\0';
	wrong = cow_check(path, repair, NULL, collect, NULL, &why);
	if (wrong < 0)
		fprintf(stderr, "%s\n", why.message);
	return wrong;
}

static void test_repairs(void)
{
	const struct cow_create_options digest = {.digest = true};
	struct stat before, after;
	int fd;

	enter();
	OK(cow_create("o.cow", "base", &digest, err));
	world_age("o.cow", 1000000005);
	CU_ASSERT_EQUAL(stat("o.cow", &before), 0);
	CU_ASSERT_EQUAL(check("o.cow", false), 0);
	/* cut off, copied base, and what a killed process left */
	CU_ASSERT_EQUAL(truncate("o.cow", before.st_size - 5000), 0);
	CU_ASSERT_EQUAL(unlink("base"), 0);
	copy_base("base");
	fd = open(".o.cow.uml-cow-abc123", O_CREAT | O_WRONLY, 0600);
	close(fd);
	world_age("o.cow", 1000000005);
	CU_ASSERT_EQUAL(check("o.cow", false), 3);
	CU_ASSERT_EQUAL(check("o.cow", true), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(findings, "cut off"));
	CU_ASSERT_PTR_NOT_NULL(strstr(findings, "same by digest"));
	CU_ASSERT_NOT_EQUAL(access(".o.cow.uml-cow-abc123", F_OK), 0);
	CU_ASSERT_EQUAL(stat("o.cow", &after), 0);
	CU_ASSERT_EQUAL(after.st_size, before.st_size);
	CU_ASSERT_EQUAL(after.st_mtime, before.st_mtime);
	CU_ASSERT_EQUAL(check("o.cow", false), 0);
	CU_ASSERT_TRUE(opens("o.cow", NULL, NULL));
	world_leave();
}

static void test_stray_bits(void)
{
	uint8_t last = 0xff;
	int fd;

	enter();
	CU_ASSERT_EQUAL(truncate("base", 3 * 512), 0);
	OK(cow_create("o.cow", "base", NULL, err));
	fd = open("o.cow", O_RDWR);
	last = 0xf8;
	CU_ASSERT_EQUAL(pwrite(fd, &last, 1, 8192), 1);
	close(fd);
	CU_ASSERT_EQUAL(check("o.cow", false), 1);
	CU_ASSERT_EQUAL(check("o.cow", true), 0);
	CU_ASSERT_EQUAL(check("o.cow", false), 0);
	world_leave();
}

UNIT_MAIN("cow chain", UNIT_CASE(test_deep), UNIT_CASE(test_moved_backing), UNIT_CASE(test_moved_to_images),
	  UNIT_CASE(test_renamed_backing_by_digest), UNIT_CASE(test_copied_backing), UNIT_CASE(test_digest),
	  UNIT_CASE(test_cycle), UNIT_CASE(test_forbidden_backing), UNIT_CASE(test_raw_in_disguise),
	  UNIT_CASE(test_copied_mark), UNIT_CASE(test_forged_journal), UNIT_CASE(test_not_regular),
	  UNIT_CASE(test_locks), UNIT_CASE(test_repairs), UNIT_CASE(test_stray_bits))
