/* The kernel's command line, and the texts causes are quoted from. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "uml-lab/machine/supervisor.h"

static bool has(const struct strv *v, const char *word)
{
	for (size_t i = 0; i < v->count; i++)
		if (str_eq(v->items[i], word))
			return true;
	return false;
}

static void test_build(void)
{
	struct machine_disk disk = {.path = "/tmp/a, b:c/overlay", .backing = "/tmp/a, b:c/base"};
	struct machine_interface iface = {.slirp = true, .mac = {0x52, 0x54, 0, 0, 0, 0xff}, .mtu = 1500};
	struct machine_spec spec = {.session = "s",
				    .name = "r1",
				    .memory = 128 << 20,
				    .disks = &disk,
				    .disk_count = 1,
				    .ubd = true,
				    .interfaces = &iface,
				    .interface_count = 1};
	struct strv argv = STRV_INIT;
	struct error err = ERROR_INIT;

	CU_ASSERT_EQUAL_FATAL(strv_add(&spec.kernel_args, "quiet", &err), 0);
	CU_ASSERT_EQUAL_FATAL(uml_args_build(&spec, &argv, &err), 0);
	CU_ASSERT(has(&argv, "mem=131072K"));
	CU_ASSERT(has(&argv, "ubd0=disk0,disk0.base"));
	CU_ASSERT(has(&argv, "vec0:transport=bess,dst=eth0,mac=52:54:00:00:00:ff,mtu=1500"));
	CU_ASSERT(has(&argv, "quiet"));
	for (size_t i = 0; i < argv.count; i++)
		CU_ASSERT_PTR_NULL(strchr(argv.items[i], ' '));
	strv_free(&argv);
	strv_free(&spec.kernel_args);
}

/* Our server's disks, in their order, and no ubd beside them. */
static void test_served(void)
{
	struct machine_disk disks[] = {{.path = "/a, b", .backing = "/b"}, {.path = "/c"}};
	struct machine_spec spec = {.session = "s", .name = "r1", .memory = 128 << 20, .disks = disks, .disk_count = 2};
	cleanup_strv struct strv argv = STRV_INIT;
	size_t first = 0, second = 0;

	CU_ASSERT_EQUAL_FATAL(uml_args_build(&spec, &argv, NULL), 0);
	for (size_t i = 0; i < argv.count; i++) {
		CU_ASSERT(!str_starts(argv.items[i], "ubd"));
		first = str_eq(argv.items[i], "virtio_uml.device=disk0:2") ? i : first;
		second = str_eq(argv.items[i], "virtio_uml.device=disk1:2") ? i : second;
	}
	CU_ASSERT(first && first < second);
	CU_ASSERT(has(&argv, "initcall_blacklist=ubd_init,ubd_driver_init"));
}

/* RAID-6 is left out where no machine could make one of its disks, unless the lab decides itself. */
static void test_raid6(void)
{
	static const char word[] = "initcall_blacklist=raid6_select_algo,raid6_init";
	struct machine_disk disks[] = {{.path = "/a", .backing = "/b"}, {.path = "/c"}, {.path = "/d"}, {.path = "/e"}};
	struct machine_spec spec = {.session = "s", .name = "r1", .memory = 128 << 20, .disks = disks, .disk_count = 1};
	cleanup_strv struct strv few = STRV_INIT, many = STRV_INIT, own = STRV_INIT;

	CU_ASSERT_EQUAL_FATAL(uml_args_build(&spec, &few, NULL), 0);
	CU_ASSERT(has(&few, word));
	spec.disk_count = 4;
	CU_ASSERT_EQUAL_FATAL(uml_args_build(&spec, &many, NULL), 0);
	CU_ASSERT(!has(&many, word));
	spec.disk_count = 1;
	CU_ASSERT_EQUAL_FATAL(strv_add(&spec.kernel_args, "initcall_blacklist=none", NULL), 0);
	CU_ASSERT_EQUAL_FATAL(uml_args_build(&spec, &own, NULL), 0);
	CU_ASSERT(!has(&own, word));
	CU_ASSERT(has(&own, "initcall_blacklist=none"));
	strv_free(&spec.kernel_args);
}

static void test_words(void)
{
	static const char *const refused[] = {"mem=1G",
					      "con0=pty",
					      "con=xterm",
					      "ssl3=null",
					      "ubd1=/etc/shadow",
					      "ubd1r=/x",
					      "vec0:transport=tap",
					      "eth0=tuntap",
					      "init=/bin/sh",
					      "hostfs=/",
					      "",
					      "a b",
					      "a\"b",
					      "root=/dev/sda",
					      "umid=x",
					      "mconsole=notify:/x"};
	static const char *const taken[] = {"quiet", "console_x=1", "systemd.unit=rescue.target", "single",
					    "ethtool=1"};
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		CU_ASSERT_EQUAL(uml_args_check_word(refused[i], &err), -1);
	for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++)
		CU_ASSERT_EQUAL(uml_args_check_word(taken[i], &err), 0);
}

static void test_too_long(void)
{
	struct machine_disk disk = {.path = "d"};
	struct machine_spec spec = {
		.session = "s", .name = "r1", .memory = 128 << 20, .disks = &disk, .disk_count = 1};
	struct strv argv = STRV_INIT;
	struct error err = ERROR_INIT;
	char word[2100];

	memset(word, 'x', sizeof(word) - 1);
	word[sizeof(word) - 1] = '\0';
	CU_ASSERT_EQUAL_FATAL(strv_add(&spec.kernel_args, word, &err), 0);
	CU_ASSERT_EQUAL(uml_args_build(&spec, &argv, &err), -1);
	CU_ASSERT_EQUAL(err.kind, ERROR_LAB);
	strv_free(&argv);
	strv_free(&spec.kernel_args);
}

static void test_tail(void)
{
	struct tail tail = {.length = 0};
	static const char boot[] =
		"one\r\n\033[0;32m  OK  \033[0m two\r\n\r\nKernel panic - not syncing: no init\r\n";
	static char filler[3 * TAIL_SIZE];
	char text[200];

	tail_add(&tail, boot, sizeof(boot) - 1);
	tail_last_lines(&tail, 2, text, sizeof(text));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "Kernel panic - not syncing: no init"));
	CU_ASSERT_PTR_NULL(strchr(text, '\033'));
	CU_ASSERT(tail_find(&tail, "not syncing: ", text, sizeof(text)));
	CU_ASSERT_STRING_EQUAL(text, "no init");
	memset(filler, '\n', sizeof(filler));
	tail_add(&tail, filler, sizeof(filler));
	CU_ASSERT_EQUAL(tail.length, TAIL_SIZE);
	CU_ASSERT_FALSE(tail_find(&tail, "not syncing: ", text, sizeof(text)));
	tail_last_lines(&tail, 2, text, sizeof(text));
	CU_ASSERT_STRING_EQUAL(text, "");
}

UNIT_MAIN("machine args", UNIT_CASE(test_build), UNIT_CASE(test_served), UNIT_CASE(test_raid6), UNIT_CASE(test_words),
	  UNIT_CASE(test_too_long), UNIT_CASE(test_tail))
