/*
 * {{parameters}} in the values of a lab.yml.
 *
 * {{name}} is a parameter of the lab, {{user}} the login name, {{random:N}} N
 * letters and digits that nobody can guess; \{{ stands for two braces. Text that
 * was filled in is not looked at again, so a student's --param cannot make
 * anything happen but the text it gives.
 *
 * Random texts come from SipHash-2-4 (Aumasson and Bernstein, 2012), a keyed
 * function, over the path of the field and the number of the reference in it; the
 * key is the session's seed. So each place has its own text, and it stays the
 * same when the session is read again or other parts of the lab are edited.
 *
 * Parameters may use those above them. Since each may double the one before,
 * the text that all references add up to is bounded.
 */
#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

#define RANDOM_MAX     64 /* characters of {{random:N}} */
#define PARAM_NAME_MAX 32
#define REFERENCE_MAX  64 /* bytes between the braces and the second }, so that hostile text costs no more */

static uint64_t rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int rounds)
{
	while (rounds-- > 0) {
		v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
		v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
		v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
		v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
	}
}

static uint64_t siphash(const uint64_t key[2], const void *data, size_t length)
{
	uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			 key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
	const unsigned char *s = data;

	for (size_t i = 0; i <= length / 8; i++) {
		uint64_t word = i == length / 8 ? (uint64_t)length << 56 : 0;

		for (size_t j = 0; j < 8 && i * 8 + j < length; j++)
			word |= (uint64_t)s[i * 8 + j] << (8 * j);
		v[3] ^= word;
		sip_rounds(v, 2);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static char *login_name(struct error *err)
{
	const struct passwd *entry = getpwuid(getuid());

	if (entry && entry->pw_name && *entry->pw_name)
		return str_dup(entry->pw_name, err);
	return str_printf(err, "%u", (unsigned)getuid());
}

int lab_params_init(struct loader *loader, struct error *err)
{
	const char *user = loader->options->user, *seed = loader->options->random_seed;
	const struct strv *params = loader->options->params;

	for (size_t i = 0; params && i < params->count; i++)
		if (!strchr(params->items[i], '=') ||
		    !lab_is_utf8(params->items[i], strlen(params->items[i])))
			return error_set(err, ERROR_USAGE,
					 "--param '%s' is not of the form NAME=VALUE, in UTF-8",
					 params->items[i]);
	loader->user = user ? str_dup(user, err) : login_name(err);
	if (!loader->user)
		return -1;
	if (seed) {
		loader->seed[0] = siphash((uint64_t[2]){0, 0}, seed, strlen(seed));
		loader->seed[1] = siphash((uint64_t[2]){1, 0}, seed, strlen(seed));
		return 0;
	}
	if (getrandom(loader->seed, sizeof(loader->seed), 0) != sizeof(loader->seed))
		return error_errno(err, errno, "cannot get random bytes");
	return 0;
}

bool lab_params_is_name(const char *text)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

	return !text[length] && length <= PARAM_NAME_MAX && isalpha((unsigned char)*text) &&
	       !str_eq(text, "user") && !str_eq(text, "random");
}

/* The value of "NAME=VALUE" among the options; the last one counts, as with other options. */
const char *lab_params_given(const struct loader *loader, const char *name)
{
	const struct strv *params = loader->options->params;
	size_t length = strlen(name);

	for (size_t i = params ? params->count : 0; i-- > 0;)
		if (strncmp(params->items[i], name, length) == 0 && params->items[i][length] == '=')
			return params->items[i] + length + 1;
	return NULL;
}

static const struct lab_param *find(const struct lab *lab, const char *name)
{
	for (size_t i = 0; i < lab->param_count; i++)
		if (str_eq(lab->params[i].name, name))
			return &lab->params[i];
	return NULL;
}

/* The names of the lab's parameters, and those that every lab has when `all`. */
static int list_names(const struct lab *lab, bool all, struct strv *names, struct error *err)
{
	for (size_t i = 0; i < lab->param_count; i++)
		if (strv_add(names, lab->params[i].name, err) < 0)
			return -1;
	return all && (strv_add(names, "user", err) < 0 || strv_add(names, "random:8", err) < 0) ? -1 : 0;
}

static void join(const struct strv *names, struct strbuf *out)
{
	for (size_t i = 0; i < names->count; i++)
		strbuf_printf(out, "%s%s", i ? ", " : "", names->items[i]);
}

int lab_params_check(const struct loader *loader, struct error *err)
{
	const struct strv *params = loader->options->params;
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;

	if (list_names(loader->lab, false, &names, err) < 0)
		return -1;
	join(&names, &allowed);
	for (size_t i = 0; params && i < params->count; i++) {
		cleanup_free char *name = strndup(params->items[i], strcspn(params->items[i], "="));
		const char *nearest =
			name && names.count ? str_nearest(name, (const char *const *)names.items) : NULL;

		if (!name || strbuf_check(&allowed, err) < 0)
			return error_oom(err);
		if (find(loader->lab, name))
			continue;
		return error_set(
			err, ERROR_USAGE, "--param %s: lab %s has no parameter '%s'%s%s%s; allowed: %s",
			params->items[i], loader->lab->name, name, nearest ? "; did you mean " : "",
			nearest ? nearest : "", nearest ? "?" : "", names.count ? allowed.data : "none");
	}
	return 0;
}

/* ---- filling in ---- */

struct expansion {
	struct loader *loader;
	const struct node *node;
	const struct path *path;
	struct strbuf out;
	int braces; /* how many "{{" were met, for positions and random texts */
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct expansion *e, const char *fmt, ...)
{
	cleanup_free char *where = NULL;
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	struct lab_mark mark;
	va_list ap;

	if (e->loader->problems->count >= LAB_PROBLEMS_MAX) { /* finding the place is what takes time */
		e->loader->problems->untold++;
		return false;
	}
	mark = lab_source_find_braces(e->loader->source, e->node->start, e->node->end, e->braces,
				      e->node->mark);
	where = lab_path_format(e->path);
	va_start(ap, fmt);
	strbuf_vprintf(&text, fmt, ap);
	va_end(ap);
	if (!where || strbuf_check(&text, NULL) < 0)
		e->loader->out_of_memory = true;
	else
		lab_problem_add(e->loader->problems, mark, where, "%s", text.data);
	return false;
}

static bool put_random(struct expansion *e, const char *digits)
{
	static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789"; /* 32, none that look alike */
	cleanup_free char *where = lab_path_format(e->path);
	int64_t count;

	if (str_to_i64(digits, 1, RANDOM_MAX, &count) < 0)
		return refuse(e, "{{random:N}} needs a length; allowed: {{random:1}} to {{random:%d}}",
			      RANDOM_MAX);
	for (int64_t i = 0; where && i < count; i++) {
		cleanup_free char *what = str_printf(NULL, "%s#%d#%d", where, e->braces, (int)i);

		if (!what)
			break;
		strbuf_putc(&e->out,
			    letters[siphash(e->loader->seed, what, strlen(what)) % (sizeof(letters) - 1)]);
	}
	if (!where)
		e->loader->out_of_memory = true;
	return true;
}

static bool refuse_unknown(struct expansion *e, const char *name)
{
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;
	char quoted[LAB_QUOTE_MAX];
	const char *nearest;

	if (list_names(e->loader->lab, true, &names, NULL) < 0) {
		e->loader->out_of_memory = true;
		return false;
	}
	join(&names, &allowed);
	nearest = str_nearest(name, (const char *const *)names.items);
	return refuse(e, "no parameter is named %s%s%s%s; allowed: %s; write \\{{ for two braces as they are",
		      lab_quote(name, quoted), nearest ? "; did you mean " : "", nearest ? nearest : "",
		      nearest ? "?" : "", allowed.data ? allowed.data : "");
}

/* Puts what one reference stands for; reference is the text between the braces. */
static bool put_reference(struct expansion *e, const char *reference, size_t length)
{
	char name[PARAM_NAME_MAX + 8];
	const struct lab_param *param;

	while (length && *reference == ' ')
		reference++, length--;
	while (length && reference[length - 1] == ' ')
		length--;
	if (length >= sizeof(name))
		length = sizeof(name) - 1; /* too long for any name there is: unknown */
	memcpy(name, reference, length);
	name[length] = '\0';
	if (str_starts(name, "random:"))
		return put_random(e, name + strlen("random:"));
	param = find(e->loader->lab, name);
	if (!param && !str_eq(name, "user"))
		return refuse_unknown(e, name);
	strbuf_puts(&e->out, param ? param->value : e->loader->user);
	return true;
}

/* Fills in one "{{…}}" at text. Returns what follows it; NULL after a mistake, told. */
static const char *expand_one(struct expansion *e, const char *text)
{
	const char *end = memmem(text + 2, strnlen(text + 2, REFERENCE_MAX), "}}", 2);
	size_t before = e->out.length;
	bool already;

	if (!end) {
		refuse(e, "}} is missing after this {{; write \\{{ for two braces as they are");
		return NULL;
	}
	if (!put_reference(e, text + 2, (size_t)(end - text) - 2))
		return NULL;
	already = e->loader->expanded > LAB_EXPANSION_MAX; /* told once is enough */
	e->loader->expanded += e->out.length - before;
	if (e->loader->expanded > LAB_EXPANSION_MAX) {
		if (!already)
			refuse(e, "the parameters of the file add up to more than %u bytes",
			       LAB_EXPANSION_MAX);
		return NULL;
	}
	return end + 2;
}

char *lab_params_expand(struct loader *loader, const struct node *node, const struct path *path)
{
	struct expansion e = {.loader = loader, .node = node, .path = path};
	const char *text = node->text;
	bool good = true;
	char *expanded;

	while (*text) {
		const char *next;

		if (str_starts(text, "\\{{")) {
			strbuf_puts(&e.out, "{{");
			text += 3;
			e.braces++;
		} else if (str_starts(text, "{{")) {
			next = expand_one(&e, text);
			good = good && next;
			text = next ? next : text + 2;
			e.braces++;
		} else {
			strbuf_putc(&e.out, *text++);
		}
	}
	expanded = strbuf_steal(&e.out, NULL);
	if (!expanded)
		loader->out_of_memory = true;
	if (!good) {
		free(expanded);
		return NULL;
	}
	return expanded;
}
