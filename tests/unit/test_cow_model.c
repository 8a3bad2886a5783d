/*
 * A property test: random operations on a stack of layers, each followed by a
 * comparison of every sector with a plain in-memory model.
 *
 * The model keeps, for each file of the stack, the bytes that a guest would see
 * through it. COW_TEST_STEPS and COW_TEST_SEED (environment) change the length
 * and the course; a failure prints the seed.
 */
#include "tests/unit/cow_world.h"
#include "uml-lab/base/cleanup.h"

#define SECTORS    3000 /* no multiple of 8: the bitmap's last byte is half used */
#define SIZE       (SECTORS * COW_SECTOR_SIZE)
#define LAYERS_MAX 9

struct level {
	char path[64];
	uint8_t *view;
};

static struct level stack[LAYERS_MAX]; /* 0: the base */
static size_t depth;
static unsigned int names;
static struct cow_chain *chain; /* of the top, open for writing, or NULL */

static struct level *top(void)
{
	return &stack[depth - 1];
}

static void close_top(void)
{
	if (chain)
		CU_ASSERT_EQUAL(cow_chain_flush(chain), 0);
	cow_chain_close(chain);
	chain = NULL;
}

static void open_top(void)
{
	const struct cow_open_options o = {.writable = true};
	struct error err = ERROR_INIT;

	if (chain)
		return;
	chain = cow_chain_open(top()->path, &o, &err);
	if (!chain)
		fprintf(stderr, "%s\n", err.message);
	CU_ASSERT_PTR_NOT_NULL_FATAL(chain);
}

static void compare_with(const char *path, const uint8_t *view)
{
	static uint8_t data[SIZE];
	struct cow_chain *c = chain;
	struct error err = ERROR_INIT;

	if (path != top()->path || !chain)
		c = cow_chain_open(path, NULL, &err);
	if (!c)
		fprintf(stderr, "%s\n", err.message);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_EQUAL_FATAL(cow_chain_size(c), SIZE);
	CU_ASSERT_EQUAL_FATAL(cow_chain_read(c, data, SIZE, 0), 0);
	if (c != chain)
		cow_chain_close(c);
	CU_ASSERT_TRUE_FATAL(memcmp(data, view, SIZE) == 0);
}

static void push(const char *path, const uint8_t *view)
{
	struct level *l = &stack[depth++];

	snprintf(l->path, sizeof(l->path), "%s", path);
	l->view = malloc(SIZE);
	memcpy(l->view, view, SIZE);
}

static void drop(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		free(stack[i].view);
	memmove(stack + from, stack + to, (depth - to) * sizeof(*stack));
	depth -= to - from;
}

/* ---- Operations ---- */

static void random_range(uint64_t *at, size_t *n)
{
	/* mostly small, some spanning many sectors, half of them aligned */
	size_t max = world_random(8) == 0 ? 200 * COW_SECTOR_SIZE : 3 * COW_SECTOR_SIZE;

	*at = world_random(SIZE);
	*n = (size_t)world_random(max) + 1;
	if (world_random(2)) {
		*at &= ~(uint64_t)(COW_SECTOR_SIZE - 1);
		*n = (*n + COW_SECTOR_SIZE - 1) & ~(size_t)(COW_SECTOR_SIZE - 1);
	}
	if (*n > SIZE - *at)
		*n = SIZE - *at;
}

static void op_write(void)
{
	static uint8_t data[SIZE];
	uint64_t at;
	size_t n;

	random_range(&at, &n);
	if (world_random(4) == 0)
		memset(data, 0, n);
	else if (world_random(4) == 0 && depth > 1) /* what the layer below holds: compact can drop it */
		memcpy(data, stack[depth - 2].view + at, n);
	else
		world_fill(data, n);
	open_top();
	CU_ASSERT_EQUAL_FATAL(cow_chain_write(chain, data, n, at), 0);
	memcpy(top()->view + at, data, n);
}

static void op_writev(void)
{
	static uint8_t data[64 * 1024];
	struct iovec iov[100];
	uint64_t at = world_random(SIZE - sizeof(data));
	size_t n = 0;
	int count = 0;

	world_fill(data, sizeof(data));
	for (; count < 100 && n < sizeof(data); count++) {
		size_t piece = (size_t)world_random(1500);

		if (piece > sizeof(data) - n)
			piece = sizeof(data) - n;
		iov[count] = (struct iovec){data + n, piece};
		n += piece;
	}
	open_top();
	CU_ASSERT_EQUAL_FATAL(cow_chain_writev(chain, iov, count, at), 0);
	memcpy(top()->view + at, data, n);
}

static void op_readv(void)
{
	static uint8_t data[64 * 1024];
	struct iovec iov[100];
	uint64_t at = world_random(SIZE - sizeof(data));
	size_t n = 0;
	int count = 0;

	for (; count < 100 && n < sizeof(data); count++) {
		size_t piece = (size_t)world_random(1500);

		if (piece > sizeof(data) - n)
			piece = sizeof(data) - n;
		iov[count] = (struct iovec){data + n, piece};
		n += piece;
	}
	open_top();
	CU_ASSERT_EQUAL_FATAL(cow_chain_readv(chain, iov, count, at), 0);
	CU_ASSERT_TRUE_FATAL(memcmp(data, top()->view + at, n) == 0);
}

static void op_zero(void)
{
	uint64_t at = world_random(SECTORS) * COW_SECTOR_SIZE;
	uint64_t n = world_random(300) * COW_SECTOR_SIZE;

	if (n > SIZE - at)
		n = SIZE - at;
	open_top();
	CU_ASSERT_EQUAL_FATAL(cow_chain_zero(chain, n, at, world_random(2)), 0);
	memset(top()->view + at, 0, n);
}

static void op_reopen(void)
{
	close_top();
	open_top();
}

static void op_create(void)
{
	char path[64];

	if (depth == LAYERS_MAX)
		return;
	close_top();
	snprintf(path, sizeof(path), "layer-%u", names++);
	OK(cow_create(path, top()->path, NULL, err));
	push(path, top()->view);
}

static void op_commit(void)
{
	struct level *lower;

	if (depth < 2)
		return;
	close_top();
	lower = &stack[depth - 2];
	/* a commit waits until the file's second has passed; see to it that it has */
	world_age(lower->path, 1000000000 + (time_t)world_random(100000000));
	OK(cow_rebase(top()->path, lower->path, true, NULL, err));
	OK(cow_commit(top()->path, NULL, err));
	memcpy(lower->view, top()->view, SIZE);
	compare_with(lower->path, lower->view);
}

/* The base takes the place of the layer above it, on which others stand. */
static void op_fold(void)
{
	if (depth < 3)
		return;
	close_top();
	world_age(stack[0].path, 1000000000 + (time_t)world_random(100000000));
	OK(cow_rebase(stack[1].path, stack[0].path, true, NULL, err));
	OK(cow_fold(stack[1].path, NULL, err));
	CU_ASSERT_NOT_EQUAL(access(stack[0].path, F_OK), 0);
	drop(0, 1);
	compare_with(stack[0].path, stack[0].view);
}

static void op_merge(void)
{
	size_t lower;

	if (depth < 3)
		return;
	close_top();
	lower = 1 + (size_t)world_random(depth - 2);
	OK(cow_merge(top()->path, stack[lower].path, NULL, NULL, err));
	compare_with(stack[lower].path, stack[lower].view);
	drop(lower, depth - 1);
}

static void op_rebase(void)
{
	size_t lower;

	if (depth < 2)
		return;
	close_top();
	lower = (size_t)world_random(depth - 1);
	OK(cow_rebase(top()->path, stack[lower].path, false, NULL, err));
	drop(lower + 1, depth - 1);
}

static void op_compact(void)
{
	struct cow_compact_result r;

	close_top();
	OK(cow_compact(top()->path, NULL, &r, err));
	/* ext4 may write what was delayed meanwhile, and takes a block for the list of a file's pieces when it does. */
	CU_ASSERT_TRUE(r.after <= r.before + 4096);
}

static void op_flatten(void)
{
	static uint8_t data[SIZE];
	struct cow_chain *c;
	int fd;

	close_top();
	c = cow_chain_open(top()->path, NULL, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	OK(cow_flatten(c, "flat", true, true, err));
	cow_chain_close(c);
	fd = open("flat", O_RDONLY);
	CU_ASSERT_EQUAL(lseek(fd, 0, SEEK_END), SIZE);
	CU_ASSERT_EQUAL(file_pread_full(fd, data, SIZE, 0), SIZE);
	CU_ASSERT_TRUE_FATAL(memcmp(data, top()->view, SIZE) == 0);
	close(fd);
}

struct told {
	uint8_t differs[SECTORS];
	uint64_t end;
};

static int tell(void *arg, uint64_t start, uint64_t length, struct error *err)
{
	struct told *t = arg;

	(void)err;
	CU_ASSERT_TRUE(start >= t->end);
	memset(t->differs + start, 1, length);
	t->end = start + length;
	return 0;
}

static void op_diff(void)
{
	static struct told told;
	size_t other = (size_t)world_random(depth);
	struct cow_chain *a, *b;

	close_top();
	memset(&told, 0, sizeof(told));
	a = cow_chain_open(top()->path, NULL, NULL);
	b = cow_chain_open(stack[other].path, NULL, NULL);
	CU_ASSERT_TRUE_FATAL(a && b);
	OK(cow_diff(a, b, tell, &told, err));
	cow_chain_close(a);
	cow_chain_close(b);
	for (size_t s = 0; s < SECTORS; s++)
		CU_ASSERT_EQUAL(told.differs[s],
				memcmp(top()->view + s * 512, stack[other].view + s * 512, 512) != 0);
}

static void count_wrong(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	if (finding != COW_FINDING_NOTE)
		fprintf(stderr, "check: %s\n", text);
}

static void op_check(void)
{
	int wrong = -1;

	close_top();
	OK(wrong = cow_check(top()->path, false, NULL, count_wrong, NULL, err));
	CU_ASSERT_EQUAL(wrong, 0);
}

static const struct {
	const char *name;
	void (*run)(void);
	unsigned int weight;
} operations[] = {
	{"write", op_write, 40},    {"writev", op_writev, 6},   {"readv", op_readv, 6},
	{"zero", op_zero, 8},       {"reopen", op_reopen, 8},   {"create", op_create, 8},
	{"commit", op_commit, 3},   {"merge", op_merge, 2},     {"rebase", op_rebase, 3},
	{"compact", op_compact, 4}, {"flatten", op_flatten, 2}, {"diff", op_diff, 3},
	{"check", op_check, 3},     {"fold", op_fold, 2},
};

static size_t pick(void)
{
	unsigned int total = 0;
	uint64_t r;

	for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
		total += operations[i].weight;
	r = world_random(total);
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		if (r < operations[i].weight)
			return i;
		r -= operations[i].weight;
	}
	return 0;
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_random_operations(void)
{
	uint64_t steps = from_environment("COW_TEST_STEPS", 4000);
	static uint8_t base[SIZE];

	world_seed = from_environment("COW_TEST_SEED", 20240229);
	printf("seed %" PRIu64 ", %" PRIu64 " steps\n", world_seed, steps);
	world_fill(base + SIZE / 4, SIZE / 3);
	world_write_file("base", base, SIZE);
	push("base", base);
	op_create();
	for (uint64_t i = 0; i < steps; i++) {
		size_t op = pick();

		if (getenv("COW_TEST_TRACE"))
			fprintf(stderr, "%" PRIu64 ": %s, depth %zu\n", i, operations[op].name, depth);
		operations[op].run();
		compare_with(top()->path, top()->view);
	}
	close_top();
	for (size_t i = 0; i < depth; i++)
		compare_with(stack[i].path, stack[i].view);
	drop(0, depth);
}

static void test_world(void)
{
	world_enter();
	test_random_operations();
	world_leave();
}

UNIT_MAIN("cow model", UNIT_CASE(test_world))
