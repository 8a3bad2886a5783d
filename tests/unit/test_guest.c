/* The parts of stage-0 that need no guest: frames, configuration, tar both ways, /etc/hosts. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/guest/config.h"
#include "uml-lab/guest/frame.h"
#include "uml-lab/guest/settings.h"
#include "uml-lab/guest/tar.h"

/* ---- buffers and frames ---- */

static void test_buffer(void)
{
	struct buffer b = { 0 };
	char text[5000];
	int i;

	memset(text, 'x', sizeof(text));
	for (i = 0; i < 100; i++) {
		CU_ASSERT_EQUAL(buffer_add(&b, text, sizeof(text)), 0);
		buffer_consume(&b, 4900);
	}
	CU_ASSERT_EQUAL(b.length, 100 * 100);
	CU_ASSERT(b.size <= 32768);
	buffer_free(&b);
}

static void test_frames(void)
{
	struct buffer stream = { 0 }, in = { 0 };
	struct frame_view v;
	size_t skipped = 0, i, seen = 0;

	CU_ASSERT_EQUAL(frame_put(&stream, FRAME_LOG, 0, "one", 3), 0);
	buffer_add(&stream, "noise UML\2", 10);
	CU_ASSERT_EQUAL(frame_put(&stream, FRAME_DATA_IN, 0x01020304, NULL, 0), 0);
	for (i = 0; i < stream.length; i++) {
		buffer_add(&in, stream.data + i, 1);
		while (frame_next(&in, &v, &skipped)) {
			if (!seen++) {
				CU_ASSERT(v.type == FRAME_LOG && v.length == 3 && !memcmp(v.payload, "one", 3));
			} else {
				CU_ASSERT(v.type == FRAME_DATA_IN && v.channel == 0x01020304 && !v.length);
			}
			frame_drop(&in, &v);
		}
	}
	CU_ASSERT_EQUAL(seen, 2);
	CU_ASSERT_EQUAL(skipped, 10);
	CU_ASSERT(frame_put(&stream, FRAME_LOG, 0, NULL, FRAME_PAYLOAD_MAX + 1) < 0);
	buffer_free(&stream);
	buffer_free(&in);
}

/* ---- configuration ---- */

static struct config config;

static int parse(const char *text, struct fault *f)
{
	config_free(&config);
	return config_parse(&config, text, strlen(text), f);
}

static void test_config(void)
{
	struct fault f;
	const struct config_interface *i = &config.interfaces[0];

	CU_ASSERT_EQUAL(parse("hostname\tr1\nroot\t/dev/ubda\n\ninterface\teth0\t02:00:00:aa:bb:cc\n"
			      "slirp\teth0\t10.0.2.15/24\t10.0.2.2\naddress\teth0\tfd00::1/64\nnameserver\t10.0.2.3\n"
			      "host\t10.0.1.2\tr2\tr2.lan\nmodules\t/m\t6.1.176\nshare\twork\t/s\trw\nconsole\ttty0", &f), 0);
	CU_ASSERT_STRING_EQUAL(config.hostname, "r1");
	CU_ASSERT(i->slirp && i->mac[3] == 0xaa && i->address_count == 2 && i->addresses[0].prefix == 24);
	CU_ASSERT_EQUAL(i->addresses[1].family, AF_INET6);
	CU_ASSERT(!memcmp(config.hosts.data, "10.0.1.2\tr2 r2.lan\n", config.hosts.length));
	CU_ASSERT(config.share_count == 1 && config.shares[0].writable);
}

static void test_config_bad(void)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{ "hostname\tr1\n", "no root device" },
		{ "root\t/dev/../etc/passwd\n", "bad root device" },
		{ "root\t/dev/ubda\nflavour\tblue\n", "line 2: unknown word 'flavour'" },
		{ "root\n", "with 0 fields" },
		{ "root\t/dev/ubda\t/dev/ubdb\n", "with 2 fields" },
		{ "hostname\t-rf\n", "bad host name" },
		{ "hostname\ta b\n", "bad host name" },
		{ "address\teth0\t10.0.0.1/24\n", "no interface 'eth0'" },
		{ "interface\teth0\t02:00:00:aa:bb\n", "bad MAC" },
		{ "interface\teth0\t02:00:00:aa:bb:cc:dd\n", "bad MAC" },
		{ "interface\t../x\t02:00:00:aa:bb:cc\n", "bad interface name" },
		{ "interface\tabcdefghijklmnop\t02:00:00:aa:bb:cc\n", "bad interface name" },
		{ "interface\te\t02:00:00:aa:bb:cc\naddress\te\t10.0.0.1/33\n", "bad address" },
		{ "interface\te\t02:00:00:aa:bb:cc\naddress\te\t10.0.0.1\n", "bad address" },
		{ "interface\te\t02:00:00:aa:bb:cc\naddress\te\t10.0.0.1/ 4\n", "bad address" },
		{ "gateway\t10.0.0.1/24\n", "bad gateway" },
		{ "share\t../x\t/s\tro\n", "bad share" },
		{ "share\tx\t/s\tmaybe\n", "bad mode" },
		{ "console\tnull\n", "bad console" },
		{ "host\t10.0.0.1\tx;y\n", "bad host name" },
		{ "modules\t/m\t../../etc\n", "bad modules" },
		{ "init\tbin/init\n", "not an absolute path" },
	};
	struct fault f;
	size_t i;

	for (i = 0; i < GUEST_COUNT(bad); i++) {
		f.text[0] = '\0';
		CU_ASSERT(parse(bad[i].text, &f) < 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(f.text, bad[i].says));
		if (!strstr(f.text, bad[i].says))
			printf("%s: %s\n", bad[i].says, f.text);
	}
	CU_ASSERT(config_parse(&config, "root\0x", 6, &f) < 0);
	config_free(&config);
}

/* ---- tar ---- */

static ssize_t to_buffer(void *arg, const void *data, size_t n)
{
	return buffer_add(arg, data, n) < 0 ? -1 : (ssize_t)n;
}

static ssize_t from_buffer(void *arg, void *data, size_t n)
{
	struct buffer *b = arg;

	if (n > b->length)
		n = b->length;
	memcpy(data, b->data + b->start, n);
	buffer_consume(b, n);
	return n;
}

static struct tar_entry sent, got;

static void round_trip(void)
{
	struct buffer b = { 0 };
	struct tar_reader t = { from_buffer, &b, 0, 0 };
	struct fault f;

	CU_ASSERT_EQUAL(tar_write_header(to_buffer, &b, &sent), 0);
	CU_ASSERT_EQUAL(b.length % TAR_BLOCK, 0);
	CU_ASSERT_EQUAL(tar_next(&t, &got, &f), 1);
	CU_ASSERT_EQUAL(got.kind, sent.kind);
	CU_ASSERT_STRING_EQUAL(got.link, sent.link);
	CU_ASSERT(!strncmp(got.name, sent.name, strlen(sent.name)));
	CU_ASSERT(got.uid == sent.uid && got.gid == sent.gid && got.mode == sent.mode && got.size == sent.size);
	CU_ASSERT(got.mtime.tv_sec == sent.mtime.tv_sec && got.mtime.tv_nsec == sent.mtime.tv_nsec);
	CU_ASSERT(got.major == sent.major && got.minor == sent.minor);
	buffer_free(&b);
}

static void test_tar_round_trip(void)
{
	size_t n;

	sent = (struct tar_entry){ .kind = TAR_FILE, .name = "a/b", .mode = 04755, .uid = 1000, .gid = 7,
				   .size = 5, .mtime = { 1700000000, 0 } };
	round_trip();
	for (n = 95; n < 110; n++) {
		memset(sent.name, 'n', n);
		sent.name[n] = '\0';
		round_trip();
	}
	memset(sent.name, 'n', PATH_MAX - 2);
	sent.name[PATH_MAX - 2] = '\0';
	sent.uid = sent.gid = 4000000000u;
	sent.size = 1ull << 40;
	sent.mtime = (struct timespec){ 1700000000, 123456789 };
	round_trip();
	sent = (struct tar_entry){ .kind = TAR_SYMLINK, .name = "l", .mode = 0777, .mtime = { -5, 0 } };
	memset(sent.link, 't', 300);
	round_trip();
	sent = (struct tar_entry){ .kind = TAR_CHARACTER, .name = "null", .major = 1, .minor = 3, .mode = 0666 };
	round_trip();
	sent = (struct tar_entry){ .kind = TAR_FOLDER, .name = "d" };
	round_trip();
}

/* A plain ustar header with what the test changes. */
static void make_header(uint8_t *h, const char *name, char type, const char *size)
{
	unsigned int sum = 0, i;

	memset(h, 0, TAR_BLOCK);
	strcpy((char *)h, name);
	strcpy((char *)h + 100, "0000644");
	memcpy(h + 124, size, 12);
	h[156] = type;
	memcpy(h + 257, "ustar\00000", 8);
	memset(h + 148, ' ', 8);
	for (i = 0; i < TAR_BLOCK; i++)
		sum += h[i];
	snprintf((char *)h + 148, 8, "%06o", sum);
}

static int read_one(const void *data, size_t n, struct fault *f)
{
	struct buffer b = { 0 };
	struct tar_reader t = { from_buffer, &b, 0, 0 };
	int result;

	buffer_add(&b, data, n);
	while ((result = tar_next(&t, &got, f)) > 0)
		;
	buffer_free(&b);
	return result;
}

static void test_tar_hostile(void)
{
	static const char *const pax[] = {
		"5 a\n", "99 path=x\n", "0 path=x\n", "12 path=xyzz\n", "18446744073709551615 a=b\n", "9 size=x\n",
		"10 size=-1\n", "24 size=99999999999999\n", "12 mtime=1x\n", "18 uid=9999999999\n",
	};
	uint8_t blocks[3 * TAR_BLOCK];
	char size[13];
	struct fault f;
	size_t i;

	make_header(blocks, "x", '0', "00000000001");
	CU_ASSERT(read_one(blocks, TAR_BLOCK, &f) < 0);		/* content missing */
	CU_ASSERT(read_one(blocks, 300, &f) < 0);		/* header cut */
	CU_ASSERT_EQUAL(read_one(blocks, 0, &f), 0);		/* nothing at all is an empty archive */
	blocks[5] ^= 1;
	CU_ASSERT(read_one(blocks, TAR_BLOCK, &f) < 0);		/* checksum */
	make_header(blocks, "x", 'x', "77777777777");
	CU_ASSERT(read_one(blocks, sizeof(blocks), &f) < 0);	/* a pax header of 8 GiB */
	make_header(blocks, "x", '0', "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
	CU_ASSERT(read_one(blocks, sizeof(blocks), &f) < 0);	/* more than 63 bits */
	make_header(blocks, "x", '0', "0000000000z");
	CU_ASSERT(read_one(blocks, sizeof(blocks), &f) < 0);
	for (i = 0; i < GUEST_COUNT(pax); i++) {
		snprintf(size, sizeof(size), "%011o", (unsigned int)strlen(pax[i]) & 0777);
		make_header(blocks, "x", 'x', size);
		memset(blocks + TAR_BLOCK, 0, 2 * TAR_BLOCK);
		memcpy(blocks + TAR_BLOCK, pax[i], strlen(pax[i]));
		make_header(blocks + 2 * TAR_BLOCK, "y", '0', "00000000000");
		if (read_one(blocks, sizeof(blocks), &f) >= 0)
			printf("taken: %s\n", pax[i]);
		CU_ASSERT(read_one(blocks, sizeof(blocks), &f) < 0);
	}
}

/* Unpacks entries of our own making into a fresh folder; its path in *folder. */
static int unpack(const struct tar_entry *entries, int count, const char *rename, char *folder, struct fault *f)
{
	struct buffer b = { 0 };
	struct tar_reader t = { from_buffer, &b, 0, 0 };
	struct tar_entry e;
	int i, result;

	strcpy(folder, "/tmp/test-guest.XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	for (i = 0; i < count; i++) {
		e = entries[i];
		e.uid = getuid();
		e.gid = getgid();
		tar_write_header(to_buffer, &b, &e);
		while (e.size--)
			buffer_add(&b, "c", 1);
		tar_write_padding(to_buffer, &b, entries[i].size);
	}
	tar_write_end(to_buffer, &b);
	result = tar_unpack(&t, folder, rename, f);
	buffer_free(&b);
	return result;
}

static void remove_folder(const char *folder)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	CU_ASSERT_EQUAL(system(command), 0);
}

static void test_unpack(void)
{
	static const struct tar_entry entries[] = {
		{ .kind = TAR_FOLDER, .name = "./", .mode = 0 },
		{ .kind = TAR_FOLDER, .name = "one/d", .mode = 0750, .mtime = { 1000000000, 0 } },
		{ .kind = TAR_FILE, .name = "one/d/f", .mode = 0640, .size = 1000, .mtime = { 1000000001, 0 } },
		{ .kind = TAR_HARDLINK, .name = "one/h", .link = "one/d/f" },
		{ .kind = TAR_SYMLINK, .name = "one/s", .link = "../../elsewhere" },
		{ .kind = TAR_FILE, .name = "one/s", .mode = 0600, .size = 3 },
		{ .kind = TAR_FIFO, .name = "one/p", .mode = 0600 },
	};
	char folder[40];
	struct stat st;
	struct fault f = { 0 };

	CU_ASSERT_EQUAL(unpack(entries, GUEST_COUNT(entries), "two", folder, &f), 0);
	if (f.text[0])
		printf("%s\n", f.text);
	CU_ASSERT_EQUAL_FATAL(chdir(folder), 0);
	CU_ASSERT(stat("two/d", &st) == 0 && (st.st_mode & 07777) == 0750 && st.st_mtime == 1000000000);
	CU_ASSERT(stat("two/h", &st) == 0 && st.st_nlink == 2 && st.st_size == 1000 && (st.st_mode & 07777) == 0640);
	CU_ASSERT(lstat("two/s", &st) == 0 && S_ISREG(st.st_mode));	/* the link was replaced, not written through */
	CU_ASSERT(lstat("two/p", &st) == 0 && S_ISFIFO(st.st_mode));
	CU_ASSERT(stat(".", &st) == 0 && (st.st_mode & 0700) == 0700);	/* a folder that is there keeps its mode */
	CU_ASSERT_EQUAL(chdir("/"), 0);
	remove_folder(folder);
}

static void test_unpack_refuses(void)
{
	static const struct tar_entry bad[] = {
		{ .kind = TAR_FILE, .name = "../x" },
		{ .kind = TAR_FILE, .name = "a/../../x" },
		{ .kind = TAR_FOLDER, .name = "a/.." },
		{ .kind = TAR_HARDLINK, .name = "x", .link = "../../etc/passwd" },
		{ .kind = TAR_FILE, .name = "" },
		{ .kind = TAR_FILE, .name = "./." },
	};
	char folder[40];
	struct fault f;
	size_t i;

	for (i = 0; i < GUEST_COUNT(bad); i++) {
		CU_ASSERT(unpack(&bad[i], 1, NULL, folder, &f) < 0);
		remove_folder(folder);
	}
}

/* ---- /etc/hosts ---- */

static char *merge(const char *text, const char *lines)
{
	struct buffer block = { 0 }, out = { 0 };

	buffer_add(&block, lines, strlen(lines));
	CU_ASSERT_EQUAL(settings_merge_hosts(text, strlen(text), &block, &out), 0);
	buffer_add(&out, "", 1);
	buffer_free(&block);
	return (char *)out.data;
}

static void test_hosts(void)
{
	char *once = merge("127.0.0.1 localhost\n# mine", "10.0.0.1 a\n");
	char *twice = merge(once, "10.0.0.1 a\n");
	char *other = merge(twice, "10.0.0.2 b\n");
	char *none = merge(other, "");

	CU_ASSERT_PTR_NOT_NULL(strstr(once, "localhost\n# mine\n# uml-lab"));
	CU_ASSERT_STRING_EQUAL(once, twice);
	CU_ASSERT(strstr(other, "10.0.0.2 b") && !strstr(other, "10.0.0.1 a"));
	CU_ASSERT_STRING_EQUAL(none, "127.0.0.1 localhost\n# mine\n");
	free(once);
	free(twice);
	free(other);
	free(none);
}

UNIT_MAIN("guest", UNIT_CASE(test_buffer), UNIT_CASE(test_frames), UNIT_CASE(test_config), UNIT_CASE(test_config_bad),
	  UNIT_CASE(test_tar_round_trip), UNIT_CASE(test_tar_hostile), UNIT_CASE(test_unpack),
	  UNIT_CASE(test_unpack_refuses), UNIT_CASE(test_hosts))
