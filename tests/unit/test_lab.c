/* Loading: defaults, every field, parameters, positions, limits; writing what was loaded. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

static struct error err;

static struct lab *load_with(const char *text, const struct lab_load_options *options)
{
	struct lab *lab;

	error_clear(&err);
	lab = lab_load_text(text, strlen(text), "lab.yml", "/tmp", options, &err);
	if (lab)
		CU_ASSERT_EQUAL(err.kind, ERROR_NONE);
	return lab;
}

static struct lab *load(const char *text)
{
	return load_with(
		text, &(struct lab_load_options){.user = "student", .random_seed = "s", .skip_paths = true});
}

/* The text is refused with exactly this message. */
static void refuses(const char *text, const char *message)
{
	struct lab *lab = load(text);

	CU_ASSERT_PTR_NULL(lab);
	CU_ASSERT_EQUAL(err.kind, ERROR_LAB);
	CU_ASSERT_STRING_EQUAL(err.message, message);
	if (!str_eq(err.message, message))
		fprintf(stderr, "told:   %s\nwanted: %s\n", err.message, message);
	lab_free(lab);
}

static void test_minimal(void)
{
	struct lab *lab = load("lab: x\nbase: tiny\nmachines: {m: }\n");
	const struct lab_machine *m;

	CU_ASSERT_PTR_NOT_NULL_FATAL(lab);
	CU_ASSERT_STRING_EQUAL(lab->name, "x");
	CU_ASSERT_PTR_NULL(lab->title);
	CU_ASSERT_EQUAL(lab->machine_count, 1);
	m = lab_find_machine(lab, "m");
	CU_ASSERT_PTR_NOT_NULL_FATAL(m);
	CU_ASSERT_STRING_EQUAL(m->base, "tiny");
	CU_ASSERT_STRING_EQUAL(m->kernel, "auto");
	CU_ASSERT_STRING_EQUAL(m->disk_driver, "auto");
	CU_ASSERT_EQUAL(m->memory, 128u << 20);
	CU_ASSERT_EQUAL(m->restart, LAB_RESTART_NO);
	CU_ASSERT_EQUAL(m->interface_count + m->disk_count + m->shares.count + m->kernel_args.count, 0);
	CU_ASSERT_PTR_NULL(m->files);
	CU_ASSERT_PTR_NULL(m->setup);
	CU_ASSERT_EQUAL(m->mark.line, 3);
	CU_ASSERT_EQUAL(m->mark.column, 12);
	CU_ASSERT_PTR_NULL(lab_find_machine(lab, "n"));
	lab_free(lab);
}

static const char full[] =
	"lab: routing-1\n"
	"title: For {{student}}\n"
	"base: debian-12\n"
	"params: {student: \"{{user}}\", index: 7, net: \"10.{{index}}.0\"}\n"
	"networks: {lan-a: {switch: true, rate: 10M, delay: 50ms, jitter: 5ms, loss: 2%}, up: {vde: "
	"\"vxvde://239.1.2.3\"}}\n"
	"machines:\n"
	"  r1:\n"
	"    base: /srv/course.cow\n"
	"    memory: 0.5G\n"
	"    kernel: 6.12\n"
	"    kernel_args: [quiet, loglevel=3]\n"
	"    disk: ubd\n"
	"    disks: [{size: 1G}, {size: 512K0}]\n"
	"    interfaces:\n"
	"      - {network: lan-a, address: [\"{{net}}.1/24\", 2001:db8::1/64], mac: 02:00:00:00:00:0A, mtu: "
	"1400}\n"
	"      - slirp: yes\n"
	"        forward: [8080:80, \"127.0.0.2:5353:53/udp\", auto:22]\n"
	"        restrict: on\n"
	"        allow: 192.0.2.1:443\n"
	"    shares: [handout]\n"
	"    files: r1\n"
	"    setup: |\n"
	"      echo {{student}} '\\{{.Names}}'\n"
	"    restart: on-failure\n"
	"  r2: {memory: 64M}\n"
	"shares: {handout: {path: /srv/handout, mode: rw, owner: 1000:1000, quota: 200M}}\n"
	"limits: {memory: 1G, disk: 300M, cpu: 50%, time: 3h}\n"
	"checks:\n"
	"  - {name: n, machine: r1, run: id, expect: {output: \"1\", match: '^1', status: 2}, points: 0, "
	"stage: first,\n"
	"     timeout: 1.5s, retry: 2m}\n";

static char *full_text(void)
{
	char *text = strdup(full), *odd = strstr(text, "512K0");

	memcpy(odd, "1536K", 5);
	return text;
}

static void check_interfaces(const struct lab_machine *r1)
{
	static const uint8_t mac[] = {2, 0, 0, 0, 0, 10};
	const struct lab_interface *lan = &r1->interfaces[0], *slirp = &r1->interfaces[1];
	char address[INET6_ADDRSTRLEN];

	CU_ASSERT_STRING_EQUAL(lan->network, "lan-a");
	CU_ASSERT_FALSE(lan->slirp);
	CU_ASSERT_EQUAL_FATAL(lan->address_count, 2);
	CU_ASSERT_STRING_EQUAL(inet_ntop(AF_INET, &lan->addresses[0].v4, address, sizeof(address)),
			       "10.7.0.1");
	CU_ASSERT_EQUAL(lan->addresses[0].prefix, 24);
	CU_ASSERT_EQUAL(lan->addresses[1].family, AF_INET6);
	CU_ASSERT(lan->mac_given && memcmp(lan->mac, mac, 6) == 0);
	CU_ASSERT_EQUAL(lan->mtu, 1400);
	CU_ASSERT_TRUE(slirp->slirp);
	CU_ASSERT_PTR_NULL(slirp->network);
	CU_ASSERT_FALSE(slirp->mac_given);
	CU_ASSERT_EQUAL_FATAL(slirp->forward_count, 3);
	CU_ASSERT_STRING_EQUAL(slirp->forwards[0].host_address, "127.0.0.1");
	CU_ASSERT_EQUAL(slirp->forwards[0].host_port, 8080);
	CU_ASSERT_EQUAL(slirp->forwards[0].guest_port, 80);
	CU_ASSERT_STRING_EQUAL(slirp->forwards[1].host_address, "127.0.0.2");
	CU_ASSERT_TRUE(slirp->forwards[1].udp);
	CU_ASSERT_EQUAL(slirp->forwards[2].host_port, 0);
	CU_ASSERT_TRUE(slirp->restricted);
	CU_ASSERT_EQUAL_FATAL(slirp->allow.count, 1);
	CU_ASSERT_STRING_EQUAL(slirp->allow.items[0], "192.0.2.1:443");
	CU_ASSERT_PTR_NULL(slirp->allow.items[1]);
}

static void test_every_field(void)
{
	cleanup_free char *text = full_text();
	struct lab *lab = load(text);
	const struct lab_machine *r1;

	if (!lab)
		fprintf(stderr, "%s\n", err.message);
	CU_ASSERT_PTR_NOT_NULL_FATAL(lab);
	r1 = lab_find_machine(lab, "r1");
	CU_ASSERT_STRING_EQUAL(lab->title, "For student");
	CU_ASSERT_TRUE(lab_find_network(lab, "lan-a")->learning_switch);
	CU_ASSERT_STRING_EQUAL(lab_find_network(lab, "lan-a")->traffic.loss, "2%");
	CU_ASSERT_STRING_EQUAL(lab_find_network(lab, "up")->vde, "vxvde://239.1.2.3");
	CU_ASSERT_STRING_EQUAL(r1->base, "/srv/course.cow");
	CU_ASSERT_STRING_EQUAL(lab_find_machine(lab, "r2")->base, "debian-12");
	CU_ASSERT_EQUAL(r1->memory, 512u << 20);
	CU_ASSERT_STRING_EQUAL(r1->kernel, "6.12");
	CU_ASSERT_STRING_EQUAL(r1->kernel_args.items[1], "loglevel=3");
	CU_ASSERT_STRING_EQUAL(r1->disk_driver, "ubd");
	CU_ASSERT_EQUAL(r1->disks[1].size, 1536u << 10);
	CU_ASSERT_STRING_EQUAL(r1->files, "/tmp/r1");
	CU_ASSERT_STRING_EQUAL(r1->setup, "echo student '{{.Names}}'\n");
	CU_ASSERT_EQUAL(r1->restart, LAB_RESTART_ON_FAILURE);
	check_interfaces(r1);
	CU_ASSERT_TRUE(lab_find_share(lab, "handout")->writable);
	CU_ASSERT_EQUAL(lab_find_share(lab, "handout")->quota, 200u << 20);
	CU_ASSERT_EQUAL(lab->limits.cpu_percent, 50);
	CU_ASSERT_EQUAL(lab->limits.time_ms, 3 * 3600 * 1000);
	CU_ASSERT_EQUAL(lab->checks[0].expect_status, 2);
	CU_ASSERT_STRING_EQUAL(lab->checks[0].expect_match, "^1");
	CU_ASSERT_EQUAL(lab->checks[0].points, 0);
	CU_ASSERT_EQUAL(lab->checks[0].timeout_ms, 1500);
	CU_ASSERT_EQUAL(lab->checks[0].retry_ms, 120000);
	lab_free(lab);
}

static void test_params(void)
{
	static const char text[] = "lab: x\nbase: tiny\nmachines: {m: {setup: \"{{key}} {{random:4}} "
				   "{{random:4}} {{ who }}\"}}\n"
				   "params: {key: \"{{random:8}}\", who: \"{{user}}\"}\n";
	cleanup_strv struct strv params = STRV_INIT;
	struct lab *a = load(text), *b = load(text), *c;

	CU_ASSERT_FATAL(a && b);
	CU_ASSERT_STRING_EQUAL(a->machines[0].setup, b->machines[0].setup);
	CU_ASSERT_EQUAL(strlen(a->machines[0].setup), 8 + 1 + 4 + 1 + 4 + 1 + strlen("student"));
	CU_ASSERT(memcmp(a->machines[0].setup + 9, a->machines[0].setup + 14, 4) != 0);
	c = load_with(text, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_STRING_NOT_EQUAL(a->params[0].value, c->params[0].value);
	lab_free(c);
	/* What --param gives is text, not looked at again. */
	strv_add(&params, "key={{who}}", NULL);
	strv_add(&params, "who=", NULL);
	c = load_with(text, &(struct lab_load_options){.params = &params, .random_seed = "s"});
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_STRING_EQUAL(c->params[0].value, "{{who}}");
	CU_ASSERT(str_starts(c->machines[0].setup, "{{who}} "));
	CU_ASSERT(memcmp(c->machines[0].setup + 8, a->machines[0].setup + 9, 9) == 0);
	lab_free(a);
	lab_free(b);
	lab_free(c);
	strv_add(&params, "nope=1", NULL);
	CU_ASSERT_PTR_NULL(load_with(text, &(struct lab_load_options){.params = &params}));
	CU_ASSERT_EQUAL(err.kind, ERROR_USAGE);
	strv_add(&params, "key=\xff", NULL);
	CU_ASSERT_PTR_NULL(load_with(text, &(struct lab_load_options){.params = &params}));
	CU_ASSERT_EQUAL(err.kind, ERROR_USAGE);
}

static void test_messages(void)
{
	cleanup_with(lab_problems_free) struct lab_problems problems = {0};
	struct lab_load_options options = {.problems = &problems, .skip_paths = true};

	refuses("lab: x\nbase: tiny\nmachines: {m: {memory: 12K}}\nfoo: 1\n",
		"lab.yml:3:24: machines.m.memory: is \"12K\": too small, a UML kernel needs 32M to boot; "
		"allowed: a number "
		"with K, M, G or T, 32M to 256G\n"
		"lab.yml:4:1: foo: unknown key; allowed: lab, title, description, base, params, networks, "
		"machines, "
		"shares, limits, checks");
	refuses("", "lab.yml:1:1: the file is empty; a lab needs at least lab: NAME, base: IMAGE and "
		    "machines: {NAME: {}}");
	refuses("\xff\xfe"
		"l",
		"lab.yml:1:1: the file is UTF-16; save it as UTF-8");
	refuses("lab: \xc0\xaf", "lab.yml:1:6: byte 0xc0 is not valid UTF-8; save the file as UTF-8");
	refuses("lab: x\nb\xed\xa0\x80", "lab.yml:2:2: byte 0xed is not valid UTF-8; save the file as UTF-8");
	CU_ASSERT_PTR_NULL(load_with("lab: X\nbase: Y\nmachines: {m: {}}\n", &options));
	CU_ASSERT_EQUAL_FATAL(problems.count, 2);
	CU_ASSERT_EQUAL(problems.items[1].line, 2);
	CU_ASSERT_EQUAL(problems.items[1].column, 7);
	CU_ASSERT_STRING_EQUAL(problems.items[1].path, "base");
	/* A right lab leaves none. */
	lab_free(load_with("lab: x\nbase: y\nmachines: {m: {}}\n", &options));
	CU_ASSERT_EQUAL(problems.count, 0);
	CU_ASSERT_STRING_EQUAL(problems.file, "lab.yml");
}

/* A file of nothing but mistakes: the first are told, the rest is counted. */
static void test_many_mistakes(void)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	for (int i = 0; i < 3000; i++)
		strbuf_printf(&text, "key%d: x\n", i);
	CU_ASSERT_PTR_NULL(load(text.data));
	CU_ASSERT_EQUAL(err.kind, ERROR_LAB);
	CU_ASSERT(str_starts(err.message, "lab.yml:1:1: "));
	CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "\n… and "));
	CU_ASSERT(strlen(err.message) < ERROR_MESSAGE_MAX - 256);
}

static void repeat(struct strbuf *text, const char *before, const char *piece, int times, const char *after)
{
	text->length = 0;
	strbuf_puts(text, before);
	while (times-- > 0)
		strbuf_puts(text, piece);
	strbuf_puts(text, after);
}

/* Files at the limit of size, of the kinds that cost naive readers minutes. */
static void test_hostile_sizes(void)
{
	static const char script[] = "lab: x\nbase: y\nmachines: {m: {setup: \"";
	static const struct {
		const char *before, *piece;
		int times;
		const char *after;
	} files[] = {
		{"", "a: x\n", 200000, ""},
		{"lab: x\na: &a x\nb: [", "*a, ", 99000, "]\n"},
		{"", "[", 1000000, ""},
		{script, "{{x}} ", 170000, "\"}}\n"},
		{script, "{{x ", 250000, "}}\"}}\n"},
		{script, "{{random:64}} ", 70000, "\"}}\n"},
		{"lab: x\nbase: y\nmachines: {m: }\nchecks:\n",
		 "- {name: a, machine: m, run: b, expect: {match: '((((((((((a*)*)*)*)*)*)*)*)*)*{20}'}}\n",
		 10000, ""},
	};
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		clock_t start = clock(); /* processor time: others load the machine too */

		repeat(&text, files[i].before, files[i].piece, files[i].times, files[i].after);
		CU_ASSERT_PTR_NULL(load(text.data));
		CU_ASSERT_EQUAL(err.kind, ERROR_LAB);
		CU_ASSERT(clock() - start < 20 * CLOCKS_PER_SEC);
	}
}

static void test_forward(void)
{
	struct lab_forward f = {0};

	CU_ASSERT_EQUAL(lab_parse_forward("[::1]:8080:80", &f, &err), 0);
	CU_ASSERT_STRING_EQUAL(f.host_address, "::1");
	lab_forward_free(&f);
	CU_ASSERT_EQUAL(lab_parse_forward("8080:10.0.2.20:80/tcp", &f, &err), 0);
	CU_ASSERT_STRING_EQUAL(f.guest_address, "10.0.2.20");
	CU_ASSERT_STRING_EQUAL(f.text, "8080:10.0.2.20:80/tcp");
	lab_forward_free(&f);
	CU_ASSERT_PTR_NULL(f.text);
	CU_ASSERT_EQUAL(lab_parse_forward("80", &f, &err), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "allowed: "));
}

/* ---- writing ---- */

static bool same_object(const struct object *object, const char *a, const char *b);

static bool same_scalar(const struct field *field, const char *a, const char *b)
{
	cleanup_strbuf struct strbuf x = STRBUF_INIT, y = STRBUF_INIT;

	if (field->type->size == sizeof(char *) && field->type->release &&
	    (!*(char *const *)a || !*(char *const *)b))
		return *(char *const *)a == *(char *const *)b;
	field->type->write(field, a, &x);
	field->type->write(field, b, &y);
	return str_eq(x.data ? x.data : "", y.data ? y.data : "");
}

static bool same_elements(const struct field *field, const char *a, const char *b)
{
	size_t count = *(const size_t *)(a + field->count_offset), size = lab_element_size(field);
	const char *x = *(char *const *)(a + field->offset), *y = *(char *const *)(b + field->offset);

	if (count != *(const size_t *)(b + field->count_offset))
		return false;
	for (size_t i = 0; i < count; i++, x += size, y += size) {
		const struct object *object = field->object;

		if (field->kind == FIELD_MAP && !str_eq(*(char *const *)(x + object->name_offset),
							*(char *const *)(y + object->name_offset)))
			return false;
		if (object ? !same_object(object, x, y) : !same_scalar(field, x, y))
			return false;
	}
	return true;
}

static bool same_object(const struct object *object, const char *a, const char *b)
{
	if (object->scalar)
		return same_scalar(object->scalar, a + object->scalar->offset, b + object->scalar->offset);
	for (const struct field *f = object->fields; f->key; f++) {
		bool same = f->kind == FIELD_SCALAR   ? same_scalar(f, a + f->offset, b + f->offset)
			    : f->kind == FIELD_OBJECT ? same_object(f->object, a + f->offset, b + f->offset)
						      : same_elements(f, a, b);

		if (!same) {
			fprintf(stderr, "%s differs\n", f->key);
			return false;
		}
	}
	return true;
}

/* Loads what a lab was written as, also when it stands indented, and compares. */
static void check_round_trip(const struct lab *lab)
{
	cleanup_strbuf struct strbuf out = STRBUF_INIT;
	struct lab *again;
	bool same;

	CU_ASSERT_EQUAL_FATAL(lab_write_effective(lab, &out, &err), 0);
	again = load(out.data);
	if (!again)
		fprintf(stderr, "%s\n%s\n", err.message, out.data);
	CU_ASSERT_PTR_NOT_NULL_FATAL(again);
	same = same_object(&lab_schema, (const char *)lab, (const char *)again);
	if (!same)
		fprintf(stderr, "%s\n", out.data);
	CU_ASSERT(same);
	lab_free(again);
}

static void test_round_trip(void)
{
	cleanup_free char *text = full_text();
	struct lab *lab = load(text);

	CU_ASSERT_PTR_NOT_NULL_FATAL(lab);
	check_round_trip(lab);
	lab_free(lab);
}

static unsigned dice(unsigned sides)
{
	static uint32_t state = 12345;

	state = state * 1664525 + 1013904223;
	return (state >> 8) % sides;
}

/* Some text, from pieces that YAML, parameters and shells care about. */
static void put_random_text(struct strbuf *out, bool lines)
{
	static const char *const pieces[] = {
		"a",       "Z",        "0",
		" ",       "  ",       ": ",
		" #",      "-",        "- ",
		"'",       "\\\"",     "\\\\",
		"\\\\{{",  "{",        "}",
		"}}",      "[",        "&a",
		"*a",      "!",        "|",
		">",       "%",        "@",
		"`",       "~",        "null",
		"no",      "0x1",      "1_0",
		"12:34",   "\u00e9",   "\u65e5",
		"\\u00a0", "\\ufeff",  ",",
		"?",       "{{user}}", "{{random:3}}",
		"\\n",     "\\n\\n",   "\\t",
		"\\n  ",   " \\n",
	};
	size_t count = dice(12) + 1;

	strbuf_puts(out, "\"x");
	while (count--)
		strbuf_puts(out, pieces[dice(lines ? ARRAY_SIZE(pieces) : ARRAY_SIZE(pieces) - 5)]);
	strbuf_putc(out, '"');
}

static void put_random_lab(struct strbuf *out)
{
	strbuf_puts(out, "lab: x\nbase: tiny\ntitle: ");
	put_random_text(out, false);
	strbuf_puts(out, "\ndescription: ");
	put_random_text(out, true);
	strbuf_puts(out, "\nparams: {p: ");
	put_random_text(out, true);
	strbuf_puts(out, ", \"null\": ");
	put_random_text(out, true);
	strbuf_puts(out, "}\nnetworks: {\"no\": {}, n: {switch: on}}\nmachines:\n");
	for (unsigned i = 0; i < 1 + dice(3); i++) {
		strbuf_printf(out, "  m%u:\n    memory: %uK\n    setup: ", i, 32768 + dice(100000));
		put_random_text(out, true);
		strbuf_puts(out, "\n    startup: ");
		put_random_text(out, true);
		strbuf_printf(out,
			      "\n    interfaces:\n      - {network: no, mtu: %u, address: 10.%u.0.1/16}\n",
			      576 + dice(1000), i);
	}
	strbuf_printf(out, "checks:\n  - {name: n, machine: m0, points: %u, timeout: %ums, run: ", dice(100),
		      1 + dice(100000));
	put_random_text(out, true);
	strbuf_puts(out, ", expect: {output: ");
	put_random_text(out, true);
	strbuf_puts(out, "}}\n");
}

static void test_random_round_trips(void)
{
	int loaded = 0;

	for (int i = 0; i < 2000; i++) {
		cleanup_strbuf struct strbuf text = STRBUF_INIT;
		struct lab *lab;

		put_random_lab(&text);
		lab = load(text.data);
		if (!lab && str_eq(err.message, ""))
			fprintf(stderr, "%s\n", text.data);
		/* Unescaped braces that fell together by chance may be refused; nothing else may. */
		if (!lab && !strstr(err.message, "{{")) {
			fprintf(stderr, "%s\n%s\n", err.message, text.data);
			CU_FAIL("a random lab was refused");
		}
		loaded += lab != NULL;
		if (lab)
			check_round_trip(lab);
		lab_free(lab);
	}
	CU_ASSERT(loaded > 1000);
}

UNIT_MAIN("lab", UNIT_CASE(test_minimal), UNIT_CASE(test_every_field), UNIT_CASE(test_params),
	  UNIT_CASE(test_messages), UNIT_CASE(test_many_mistakes), UNIT_CASE(test_hostile_sizes),
	  UNIT_CASE(test_forward), UNIT_CASE(test_round_trip), UNIT_CASE(test_random_round_trips))
