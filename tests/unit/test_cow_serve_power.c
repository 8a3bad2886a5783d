/*
 * Power cuts: whatever a host's disk holds of the server's writes when its power goes, what a guest had flushed is there.
 *
 * The server runs in this process; its pwritev(), pwrite(), fallocate() and fdatasync() are ours, and are recorded for the overlay
 * (and done). Then the host loses its power after each of these calls, once for each way in which that may come out: all that was
 * written before the last finished fdatasync() is there; of the writes since then any set, in any order, as POSIX allows. Up to
 * EXHAUSTIVE of them: every set. More: SAMPLES random ones, in half of which single sectors of a write are there and others not.
 *
 * Each sector that the driver writes holds its number and a version, so that what is found after the cut tells how old it is.
 *
 * "test_cow_serve_power guest" does the same to a real guest's ext4 (tests/boot/disk-power.sh): serves top on s0 and marks on s1
 * until the guest is gone. The guest writes files f1, f2, … on the first disk, fsyncs each, and then writes
 * its number to the second:
 * after the cut all files up to the last such number must be there, once e2fsck has replayed the journal.
 */
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/unit/serve_world.h"

#define SECTORS	   512u
#define SIZE	   (SECTORS * COW_SECTOR_SIZE)
#define OPS_MAX	   40000
#define MARKS_MAX  400
#define EXHAUSTIVE 4
#define SAMPLES	   10
#define SEED	   20261123

#define GUEST_CUTS 60 /* of a real guest's disk: each takes e2fsck's time */

enum op_kind { OP_WRITE, OP_PUNCH, OP_BARRIER, OP_MARK };

struct op {
	enum op_kind kind;
	uint64_t at;
	size_t length;
	uint8_t *data; /* OP_WRITE, OP_MARK */
};

/*
 * What a FLUSH promised: the version of each sector when it was asked for, and how many calls were recorded
 * when it was answered.
 */
struct mark {
	size_t ops;
	uint16_t versions[SECTORS];
};

static struct {
	pthread_mutex_t lock;
	struct stat file, marks; /* what is recorded, and what a guest's marks are written to; ino 0: none */
	struct op ops[OPS_MAX];
	size_t count;
} record = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct mark marks[MARKS_MAX];
static size_t mark_count;
static uint16_t versions[SECTORS];	   /* as of the last write */
static uint16_t zero_version[SECTORS]; /* the last version that is all zeroes; 0: none */
static bool sparse;		       /* every other 64 KiB of the base are a hole, which is version 0 there */

/* ---- Recording ---- */

static bool is_file(int fd, const struct stat *file)
{
	struct stat st;

	return file->st_ino && !fstat(fd, &st) && st.st_ino == file->st_ino && st.st_dev == file->st_dev;
}

static bool is_recorded(int fd)
{
	return is_file(fd, &record.file);
}

static void record_op(enum op_kind kind, uint64_t at, size_t length, const struct iovec *iov)
{
	struct op *o = &record.ops[record.count++];
	size_t done = 0;

	if (record.count == OPS_MAX)
		abort();
	*o = (struct op){kind, at, length, NULL};
	if (kind != OP_WRITE && kind != OP_MARK)
		return;
	o->data = malloc(length);
	for (; done < length; done += iov++->iov_len)
		memcpy(o->data + done, iov->iov_base, iov->iov_len < length - done ? iov->iov_len : length - done);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	bool mine = is_recorded(fd);
	ssize_t n;

	if (is_file(fd, &record.marks)) {
		pthread_mutex_lock(&record.lock);
		record_op(OP_MARK, 0, iov->iov_len, iov);
		pthread_mutex_unlock(&record.lock);
	}

	if (mine)
		pthread_mutex_lock(&record.lock);
	n = syscall(SYS_pwritev, fd, iov, count, at, 0);
	if (mine) {
		if (n > 0)
			record_op(OP_WRITE, (uint64_t)at, (size_t)n, iov);
		pthread_mutex_unlock(&record.lock);
	}
	return n;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
	const struct iovec iov = {(void *)data, n};

	return pwritev(fd, &iov, 1, at);
}

int fallocate(int fd, int mode, off_t at, off_t length)
{
	int ret = (int)syscall(SYS_fallocate, fd, mode, at, length);

	if (ret == 0 && is_recorded(fd)) {
		pthread_mutex_lock(&record.lock);
		record_op(OP_PUNCH, (uint64_t)at, (size_t)length, NULL);
		pthread_mutex_unlock(&record.lock);
	}
	return ret;
}

int fdatasync(int fd)
{
	int ret = (int)syscall(SYS_fdatasync, fd);

	/* the server has one thread for the disk: all it wrote before is recorded before */
	if (ret == 0 && is_recorded(fd)) {
		pthread_mutex_lock(&record.lock);
		record_op(OP_BARRIER, 0, 0, NULL);
		pthread_mutex_unlock(&record.lock);
	}
	return ret;
}

/* ---- The guest ---- */

static void fill(uint8_t *p, uint32_t sector, uint32_t version)
{
	for (unsigned i = 0; i < COW_SECTOR_SIZE; i += 8) {
		memcpy(p + i, &sector, 4);
		memcpy(p + i + 4, &version, 4);
	}
}

static uint32_t data_offset(unsigned i)
{
	return FRONT_DATA + i * 65536;
}

/* Queues a write, or a WRITE_ZEROES, of some sectors. */
static void change(struct front *f, unsigned i)
{
	uint32_t n = (uint32_t)world_random(24) + 1, first = (uint32_t)world_random(SECTORS - n);
	bool zeroes = world_random(8) == 0;

	for (uint32_t s = first; s < first + n; s++) {
		versions[s]++;
		if (zeroes)
			zero_version[s] = versions[s];
		fill(f->memory + data_offset(i) + (s - first) * COW_SECTOR_SIZE, s, versions[s]);
	}
	if (zeroes) {
		const struct virtio_blk_discard_write_zeroes r = {first, n, 0};

		memcpy(f->memory + data_offset(i), &r, sizeof(r));
		front_submit(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, data_offset(i), sizeof(r), false, 1);
	} else {
		front_submit(f, VIRTIO_BLK_T_OUT, first, data_offset(i), n * COW_SECTOR_SIZE, false, 1);
	}
}

/* Some changes at once, all answered; then perhaps a flush. `steady`: one change, and always a flush. */
static void round_of_changes(struct front *f, bool steady)
{
	for (unsigned i = 0; i < (steady ? 1 : 1 + world_random(6)); i++)
		change(f, i);
	front_kick(f);
	CU_ASSERT_TRUE_FATAL(front_wait(f));
	if (!steady && world_random(3))
		return;
	CU_ASSERT_EQUAL(front_flush(f), VIRTIO_BLK_S_OK);
	pthread_mutex_lock(&record.lock);
	marks[mark_count].ops = record.count;
	pthread_mutex_unlock(&record.lock);
	memcpy(marks[mark_count++].versions, versions, sizeof(versions));
}

/* ---- Power cuts ---- */

static uint8_t *durable, *image; /* of the overlay: as of the last barrier, and after the cut */
static size_t image_size;
static unsigned cuts;

static void apply(uint8_t *to, const struct op *o, bool torn)
{
	if (o->kind != OP_WRITE && o->kind != OP_PUNCH)
		return;
	for (size_t done = 0; done < o->length;) {
		size_t n = COW_SECTOR_SIZE - (o->at + done) % COW_SECTOR_SIZE;

		if (n > o->length - done)
			n = o->length - done;
		if (!torn || world_random(2)) {
			if (o->kind == OP_WRITE)
				memcpy(to + o->at + done, o->data + done, n);
			else
				memset(to + o->at + done, 0, n);
		}
		done += n;
	}
}

static bool is_zero(const uint8_t *p)
{
	return p[0] == 0 && !memcmp(p, p + 1, COW_SECTOR_SIZE - 1);
}

static bool in_hole(uint32_t sector)
{
	return sparse && sector / 128 % 2;
}

/* Whether a sector is as new as was promised, and no nonsense. */
static bool is_good(const uint8_t *p, uint32_t s, uint16_t promised)
{
	uint8_t expected[COW_SECTOR_SIZE];
	uint32_t version;

	/* sector 0 of version 0 is that, too */
	if (is_zero(p))
		return zero_version[s] >= promised && (zero_version[s] > 0 || s == 0 || in_hole(s));
	memcpy(&version, p + 4, 4);
	fill(expected, s, version);
	return version >= promised && version <= versions[s] && !memcmp(p, expected, sizeof(expected));
}

static void print_finding(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	if (finding >= COW_FINDING_REPAIRABLE)
		fprintf(stderr, "finding %d: %s\n", finding, text);
}

/* Opens the image as the disk after the cut. `promised`: versions; NULL: nothing was flushed. */
static bool check_image(const uint16_t *promised)
{
	static uint8_t disk[SIZE];
	struct error err = ERROR_INIT;
	struct cow_chain *c;
	bool ok = true;
	int found;

	cuts++;
	world_write_file("cut", image, image_size);
	found = cow_check("cut", false, NULL, print_finding, NULL, &err);
	c = cow_chain_open("cut", NULL, &err);
	if (found || !c || cow_chain_read(c, disk, SIZE, 0)) {
		fprintf(stderr, "%d findings, %s\n", found, err.message);
		cow_chain_close(c);
		return false;
	}
	for (uint32_t s = 0; s < SECTORS && ok; s++) {
		ok = is_good(disk + s * COW_SECTOR_SIZE, s, promised ? promised[s] : 0);
		if (!ok)
			fprintf(stderr, "sector %u is not as new as version %d\n", s, promised ? promised[s] : 0);
	}
	cow_chain_close(c);
	return ok;
}

/* A cut after ops[0 … end-1], of which those from `begin` on may be lost. */
static bool cut(size_t begin, size_t end, const uint16_t *promised)
{
	size_t pending = end - begin;
	unsigned sets = pending <= EXHAUSTIVE ? 1u << pending : SAMPLES;
	bool ok = true;

	for (unsigned set = 0; set < sets && ok; set++) {
		memcpy(image, durable, image_size);
		for (size_t i = 0; i < pending; i++) {
			const struct op *o = &record.ops[begin + i];

			if (pending <= EXHAUSTIVE ? set >> i & 1 : set == 0 || world_random(2))
				apply(image, o, pending > EXHAUSTIVE && set % 2);
		}
		ok = check_image(promised);
		if (!ok)
			fprintf(stderr, "after call %zu, %zu since the last fdatasync(), set %u, seed %d\n", end, pending,
				set, SEED);
	}
	return ok;
}

static void cut_everywhere(void)
{
	size_t begin = 0, mark = 0;
	bool ok = true;

	for (size_t end = 0; end <= record.count && ok; end++) {
		while (mark < mark_count && marks[mark].ops <= end)
			mark++;
		ok = cut(begin, end, mark ? marks[mark - 1].versions : NULL);
		if (end == record.count || record.ops[end].kind != OP_BARRIER)
			continue;
		for (; begin < end; begin++)
			apply(durable, &record.ops[begin], false);
	}
	CU_ASSERT_TRUE(ok);
}

static uint8_t *read_image(const char *path, size_t *size)
{
	char *data;

	if (file_read_all(path, 64 << 20, &data, size, NULL))
		abort();
	return (uint8_t *)data;
}

/* At random first, then so steadily that the server flushes before it is asked, then at random again. */
static void run(int rounds)
{
	struct server s = {.disks = {{"s0", "top", NULL}}, .options.count = 1};
	struct front f = {0};

	CU_ASSERT_TRUE_FATAL(server_start(&s));
	CU_ASSERT_TRUE_FATAL(front_connect(&f, "s0"));
	for (int i = 0; i < rounds; i++)
		round_of_changes(&f, i >= rounds / 3 && i < rounds * 2 / 3);
	front_close(&f);
	CU_ASSERT_EQUAL(server_stop(&s), 0);
}

static void power_cut(void)
{
	static uint8_t base[SIZE];

	world_seed = SEED;
	record.count = mark_count = cuts = 0;
	memset(versions, 0, sizeof(versions));
	memset(zero_version, 0, sizeof(zero_version));
	for (uint32_t s = 0; s < SECTORS; s++)
		fill(base + s * COW_SECTOR_SIZE, s, 0);
	world_write_file("base", base, SIZE);
	for (uint32_t s = 0; s < SECTORS; s += 128)
		if (in_hole(s))
			world_punch("base", s * COW_SECTOR_SIZE, 128 * COW_SECTOR_SIZE);
	world_age("base", 1000000000);
	unlink("top");
	OK(cow_create("top", "base", NULL, err));
	durable = read_image("top", &image_size);
	image = malloc(image_size);
	if (stat("top", &record.file))
		abort();
	run(90);
	cut_everywhere();
	printf("%zu calls, %zu flushes, %u cuts\n", record.count, mark_count, cuts);
	CU_ASSERT_TRUE(mark_count > 5 && cuts > 500);
	for (size_t i = 0; i < record.count; i++)
		free(record.ops[i].data);
	free(durable);
	free(image);
}

static void test_power_cut(void)
{
	sparse = false;
	power_cut();
}

/* Holes of the base are claimed ahead: their bits may reach the disk before or after the data. */
static void test_power_cut_sparse(void)
{
	sparse = true;
	power_cut();
}

/* Writes a sector with some version and flushes. Returns how many times the host's disk was made to wait for. */
static unsigned syncs_for(struct front *f, uint32_t sector)
{
	size_t begin = record.count;
	unsigned n = 0;

	fill(f->memory + data_offset(0), sector, 1);
	front_submit(f, VIRTIO_BLK_T_OUT, sector, data_offset(0), COW_SECTOR_SIZE, false, 1);
	front_kick(f);
	CU_ASSERT_TRUE_FATAL(front_wait(f));
	CU_ASSERT_EQUAL(front_flush(f), VIRTIO_BLK_S_OK);
	for (; begin < record.count; begin++)
		n += record.ops[begin].kind == OP_BARRIER;
	return n;
}

/* What a flush costs: two rounds with a new sector, one with an old one, or with one of a hole near one that is there. */
static void test_syncs(void)
{
	static uint8_t base[SIZE];
	struct server s = {.disks = {{"s0", "top", NULL}}, .options.count = 1};
	struct front f = {0};

	record.count = 0;
	memset(base, 1, SIZE);
	world_write_file("base", base, SIZE);
	world_punch("base", SIZE / 2, SIZE / 2);
	world_age("base", 1000000000);
	unlink("top");
	OK(cow_create("top", "base", NULL, err));
	if (stat("top", &record.file))
		abort();
	CU_ASSERT_TRUE_FATAL(server_start(&s));
	CU_ASSERT_TRUE_FATAL(front_connect(&f, "s0"));
	CU_ASSERT_EQUAL(syncs_for(&f, 8), 2);
	CU_ASSERT_EQUAL(syncs_for(&f, 8), 1);
	CU_ASSERT_EQUAL(syncs_for(&f, 80), 2);
	CU_ASSERT_EQUAL(syncs_for(&f, SECTORS - 8), 1);
	front_close(&f);
	CU_ASSERT_EQUAL(server_stop(&s), 0);
	for (size_t i = 0; i < record.count; i++)
		free(record.ops[i].data);
}

/* ---- A real guest ---- */

/* The number that a mark says: eight digits; 0 for the write of a bitmap or anything else. */
static unsigned mark_of(const struct op *o)
{
	char text[9] = "";
	int64_t n;

	if (o->kind != OP_MARK || o->length < 8)
		return 0;
	memcpy(text, o->data, 8);
	return str_to_i64(text + strspn(text, "0"), 1, 99999999, &n) ? 0 : (unsigned)n;
}

static bool run_tool(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool run_tool(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command) == 0;
}

/* The disk after a cut: replays its journal, and looks for damage and for the files 1 … n, which hold their number. */
static bool check_guest_disk(unsigned n)
{
	struct error err = ERROR_INIT;
	struct cow_chain *c;
	bool ok;

	world_write_file("cut", image, image_size);
	if (cow_check("cut", false, NULL, print_finding, NULL, &err))
		return false;
	c = cow_chain_open("cut", NULL, &err);
	ok = c && !cow_flatten(c, "cut.img", true, false, &err);
	cow_chain_close(c);
	if (!ok || !run_tool("e2fsck -E journal_only -y cut.img >e2fsck.out 2>&1; [ $? -le 1 ]") ||
	    !run_tool("e2fsck -fn cut.img >e2fsck.out 2>&1 || { cat e2fsck.out >&2; false; }"))
		return false;
	return run_tool("i=1; while [ $i -le %u ]; do echo cat /f$i; i=$((i + 1)); done | debugfs -f - cut.img 2>/dev/null | "
			"grep -v '^debugfs' >found; seq 1 %u | cmp - found",
			n, n);
}

/* Serves until both guests' connections are gone again, then cuts. */
static int run_guest(void)
{
	struct server s = {.disks = {{"s0", "top", NULL}, {"s1", "marks", NULL}}, .options.count = 2};
	struct cow_serve_message m;
	unsigned bad = 0, last = 0;
	bool gone = false;

	durable = read_image("top", &image_size);
	image = malloc(image_size);
	if (stat("top", &record.file) || stat("marks", &record.marks) || !server_start(&s))
		return 1;
	puts("ready");
	fflush(stdout);
	while (!gone) {
		poll(NULL, 0, 50);
		if (server_ask(&s, COW_SERVE_GET_STATS, 0, NULL, &m))
			return 1;
		gone = m.u.stats.connections && !m.u.stats.connected;
	}
	server_stop(&s);
	world_seed = SEED;
	for (size_t begin = 0, end = 0; end <= record.count; end++) {
		/* some points, and what the guest was promised there */
		if (record.count < GUEST_CUTS || world_random(record.count / GUEST_CUTS) == 0) {
			memcpy(image, durable, image_size);
			for (size_t i = begin; i < end; i++)
				if (world_random(2))
					apply(image, &record.ops[i], cuts % 2);
			cuts++;
			if (!check_guest_disk(last)) {
				fprintf(stderr, "after call %zu, file %u, seed %d\n", end, last, SEED);
				bad++;
			}
		}
		if (end == record.count)
			break;
		if (mark_of(&record.ops[end]) > last)
			last = mark_of(&record.ops[end]);
		for (; record.ops[end].kind == OP_BARRIER && begin < end; begin++)
			apply(durable, &record.ops[begin], false);
	}
	printf("%zu calls, %u files, %u cuts, %u bad\n", record.count, last, cuts, bad);
	return bad || last < 20 || cuts < 20;
}

int main(int argc, char **argv)
{
	static const struct unit_case cases[] = {UNIT_CASE(test_power_cut), UNIT_CASE(test_power_cut_sparse),
						 UNIT_CASE(test_syncs)};
	int ret;

	log_setup("test", LOG_LEVEL_ERROR);
	if (argc > 1 && str_eq(argv[1], "guest"))
		return run_guest();
	world_enter();
	ret = unit_run("cow serve power", cases, 3);
	world_leave();
	return ret;
}
