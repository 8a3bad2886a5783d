/* Submissions: the manifest there and back, what it may not hold, the digest of pieces, labs made harmless.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/submission.h"

#define D1                                                                                                   \
	"sha512-1M:"                                                                                         \
	"0000000000000000000000000000000000000000000000000000000000000000"                                   \
	"1111111111111111111111111111111111111111111111111111111111111111"
#define MACHINE                                                                                              \
	"{\"name\": \"m\", \"set_up\": true, \"base\": {\"name\": \"tiny\", \"size\": 4096, \"digest\": "    \
	"\"" D1 "\"}, "                                                                                      \
	"\"disks\": [{\"file\": \"m/root.cow\", \"size\": 12288, \"digest\": \"" D1 "\"}]}"
#define REST                                                                                                 \
	"\"format\": \"uml-lab-submission\", \"version\": 1, \"lab\": \"x\", \"lab_digest\": null, "         \
	"\"session\": \"x\", "                                                                               \
	"\"time\": \"t\", \"seed\": \"s\", \"running\": false, \"check\": null"
#define GOOD "{" REST ", \"student\": \"anna\", \"params\": [\"a=b\"], \"machines\": [" MACHINE "]}"

static struct submission *parse(const char *text, struct error *err)
{
	return submission_parse(text, strlen(text), err);
}

static void test_there_and_back(void)
{
	struct error err = ERROR_INIT;
	cleanup_submission struct submission *s = parse(GOOD, &err), *again = NULL;
	cleanup_free char *text = NULL, *name = NULL;
	json_t *json;

	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	s->check = (struct session_last_check){
		.time = strdup("now"), .passed = 2, .failed = 1, .points = 5, .points_of = 7};
	CU_ASSERT_EQUAL(strv_add(&s->check.verdicts, "PASS it", &err), 0);
	json = submission_to_json(s, &err);
	text = json_dumps(json, 0);
	json_decref(json);
	again = parse(text, &err);
	CU_ASSERT_PTR_NOT_NULL_FATAL(again);
	CU_ASSERT_STRING_EQUAL(again->student, "anna");
	CU_ASSERT_STRING_EQUAL(again->params.items[0], "a=b");
	CU_ASSERT_EQUAL(again->check.points, 5);
	CU_ASSERT_STRING_EQUAL(again->check.verdicts.items[0], "PASS it");
	CU_ASSERT_EQUAL(again->machines[0].disks[0].size, 12288);
	CU_ASSERT_EQUAL(submission_disk_count(again), 1);
	name = submission_disk_name(&again->machines[0], 2, &err);
	CU_ASSERT_STRING_EQUAL(name, "m/disk2.img");
}

static void test_refused(void)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "not JSON"},
		{"[]", "no object"},
		{"{}", "not that of a submission"},
		{"{" REST "}", "student is missing"},
		{"{" REST ", \"student\": \"\", \"params\": [], \"machines\": [" MACHINE "]}",
		 "student is empty"},
		{"{" REST ", \"student\": 7, \"params\": [], \"machines\": [" MACHINE "]}",
		 "student is missing, or is no text"},
		{"{" REST ", \"student\": \"\\u0007\", \"params\": [], \"machines\": [" MACHINE "]}",
		 "control characters"},
		{"{" REST ", \"student\": \"\\u009b\", \"params\": [], \"machines\": [" MACHINE "]}",
		 "control characters"},
		{"{" REST ", \"student\": \"a\", \"params\": [\"a\"], \"machines\": [" MACHINE "]}",
		 "one without ="},
		{"{" REST ", \"student\": \"a\", \"params\": [], \"machines\": []}", "machines is no list"},
		{"{" REST ", \"student\": \"a\", \"params\": [], \"machines\": [{}]}",
		 "machines[0].name is missing"},
		{"{" REST ", \"student\": \"a\", \"params\": [], \"machines\": [7]}", "is no object"},
		{"{" REST ", \"student\": \"a\", \"params\": [], \"machines\": [" MACHINE "], \"x\": 1}",
		 "key that is not known"},
		{"{" REST ", \"student\": \"a\", \"params\": [], \"machines\": [" MACHINE ", " MACHINE "]}",
		 "there twice"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = ERROR_INIT;
		cleanup_submission struct submission *s = parse(bad[i].text, &err);

		CU_ASSERT_PTR_NULL(s);
		if (!strstr(err.message, bad[i].why))
			printf("%zu: '%s' does not say: %s\n", i, err.message, bad[i].why);
		CU_ASSERT_PTR_NOT_NULL(strstr(err.message, bad[i].why));
	}
}

/* Pieces give the digest of the file, whatever chunks of zeroes are left out. */
static void test_digest(void)
{
	char path[64], whole[COW_DIGEST_MAX], pieces[COW_DIGEST_MAX];
	const size_t size = 3 * COW_DIGEST_CHUNK + 700;
	cleanup_free char *chunk = calloc(1, COW_DIGEST_CHUNK);
	struct cow_digester digester = {.hash = {0}};
	int fd = memfd_create("disk", MFD_CLOEXEC);

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	memset(chunk, 'x', COW_DIGEST_CHUNK);
	CU_ASSERT_EQUAL(ftruncate(fd, (off_t)size), 0);
	CU_ASSERT(file_pwrite_full(fd, chunk, COW_DIGEST_CHUNK, COW_DIGEST_CHUNK) > 0);
	CU_ASSERT(file_pwrite_full(fd, "end", 3, (off_t)size - 3) > 0);
	CU_ASSERT_EQUAL(cow_file_digest(path, whole, NULL), 0);
	cow_digester_add(&digester, 1, chunk, COW_DIGEST_CHUNK);
	memset(chunk, 0, COW_DIGEST_CHUNK);
	cow_digester_add(&digester, 2, chunk, COW_DIGEST_CHUNK);
	memcpy(chunk + 697, "end", 3);
	cow_digester_add(&digester, 3, chunk, 700);
	cow_digester_end(&digester, size, pieces);
	CU_ASSERT_STRING_EQUAL(whole, pieces);
	close(fd);
}

static const char harmful[] =
	"lab: x\nbase: tiny\nnetworks:\n  a: {vde: \"udp://1234:127.0.0.1:4321\"}\nshares:\n  s: {path: "
	"/srv, mode: rw, hide: [\"*.key\"]}\n"
	"machines:\n  m:\n    memory: 4G\n    kernel: /bin/true\n    kernel_args: [panic=7]\n    restart: "
	"always\n    shares: [s]\n"
	"    files: /etc\n    disk: ubd\n    interfaces:\n"
	"      - {slirp: true, host: true, forward: [\"80:80\", \"81:81\"]}\n      - {slirp: true, restrict: "
	"true, allow: [\"1.2.3.4\"]}\n"
	"      - {network: a}\n";

static struct lab *load(struct error *err)
{
	const struct lab_load_options options = {.skip_paths = true};

	return lab_load_text(harmful, strlen(harmful), "lab.yml", "/nonexistent", &options, err);
}

static void test_harmless(void)
{
	struct error err = ERROR_INIT;
	struct lab *lab = load(&err);
	const struct lab_machine *m;

	CU_ASSERT_PTR_NOT_NULL_FATAL(lab);
	CU_ASSERT_EQUAL(submission_make_safe(lab, &(struct submission_trust){0}, &err), 0);
	m = &lab->machines[0];
	CU_ASSERT_EQUAL(lab->share_count, 0);
	CU_ASSERT_PTR_NULL(lab->networks[0].vde);
	CU_ASSERT_EQUAL(m->shares.count, 0);
	CU_ASSERT_EQUAL(m->kernel_args.count, 0);
	CU_ASSERT_PTR_NULL(m->files);
	CU_ASSERT_STRING_EQUAL(m->kernel, "auto");
	CU_ASSERT_STRING_EQUAL(m->disk_driver, "auto");
	CU_ASSERT_EQUAL(m->restart, LAB_RESTART_NO);
	CU_ASSERT(m->memory <= 512 << 20);
	CU_ASSERT(lab->limits.time_ms > 0 && lab->limits.disk > 0 && lab->limits.memory > 0 &&
		  lab->limits.cpu_percent > 0);
	for (size_t i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(m->interfaces[i].forward_count, 0);
		CU_ASSERT_EQUAL(m->interfaces[i].allow.count, 0);
		CU_ASSERT(m->interfaces[i].restricted && !m->interfaces[i].host);
	}
	CU_ASSERT_FALSE(m->interfaces[2].restricted);
	lab_free(lab);
}

/* The instructor's own lab, with the network asked for: what he wrote of the guest's side stays. */
static void test_trusted(void)
{
	const struct submission_trust trust = {.own = true, .network = true};
	struct error err = ERROR_INIT;
	struct lab *lab = load(&err);
	const struct lab_machine *m;

	CU_ASSERT_PTR_NOT_NULL_FATAL(lab);
	CU_ASSERT_EQUAL(submission_make_safe(lab, &trust, &err), 0);
	m = &lab->machines[0];
	CU_ASSERT_STRING_EQUAL(m->kernel, "/bin/true");
	CU_ASSERT_EQUAL(m->kernel_args.count, 1);
	CU_ASSERT_EQUAL(m->memory, 4ull << 30);
	CU_ASSERT_FALSE(m->interfaces[0].restricted);
	CU_ASSERT_FALSE(m->interfaces[0].host);
	CU_ASSERT_EQUAL(m->interfaces[0].forward_count, 0);
	CU_ASSERT_EQUAL(m->interfaces[1].allow.count, 1);
	CU_ASSERT_EQUAL(lab->share_count, 0);
	lab_free(lab);
}

UNIT_MAIN("submission", UNIT_CASE(test_there_and_back), UNIT_CASE(test_refused), UNIT_CASE(test_digest),
	  UNIT_CASE(test_harmless), UNIT_CASE(test_trusted))
