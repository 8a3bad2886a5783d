/*
 * manifest.json: struct submission as JSON, and back.
 *
 * What is read back was written by whoever made the file. Every value is checked for its kind, length and
 * range before it is kept; a text holds no control characters, names are names, digests are digests. Keys
 * that are not known are errors: a later version that needs one has another number.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/submission/submission.h"

#define FORMAT        "uml-lab-submission"
#define DIGEST_PREFIX "sha512-1M:"
#define DIGEST_DIGITS 128

void submission_free(struct submission *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->machine_count; i++) {
		struct submission_machine *m = &s->machines[i];

		for (size_t j = 0; j < m->disk_count; j++)
			free(m->disks[j].digest);
		free(m->disks);
		free(m->name);
		free(m->base);
		free(m->base_digest);
	}
	free(s->machines);
	free(s->lab);
	free(s->lab_digest);
	free(s->student);
	free(s->session);
	free(s->time);
	free(s->seed);
	strv_free(&s->params);
	last_check_free(&s->check);
	free(s);
}

void submission_cleanup(struct submission **s)
{
	int saved = errno;

	submission_free(*s);
	errno = saved;
}

char *submission_disk_name(const struct submission_machine *m, size_t disk, struct error *err)
{
	return disk ? str_printf(err, "%s/disk%zu.img", m->name, disk)
		    : str_printf(err, "%s/root.cow", m->name);
}

size_t submission_disk_count(const struct submission *s)
{
	size_t count = 0;

	for (size_t i = 0; i < s->machine_count; i++)
		count += s->machines[i].disk_count;
	return count;
}

/* ---- writing ---- */

static json_t *disks_json(const struct submission_machine *m)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < m->disk_count; i++) {
		cleanup_free char *name = submission_disk_name(m, i, NULL);

		if (!name || json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "file", name, "size",
								   (json_int_t)m->disks[i].size, "digest",
								   m->disks[i].digest))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *machines_json(const struct submission *s)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < s->machine_count; i++) {
		const struct submission_machine *m = &s->machines[i];

		if (json_array_append_new(list, json_pack("{s:s, s:b, s:{s:s, s:I, s:s}, s:o}", "name",
							  m->name, "set_up", m->set_up, "base", "name",
							  m->base, "size", (json_int_t)m->base_size, "digest",
							  m->base_digest, "disks", disks_json(m)))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *texts_json(const struct strv *texts)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < texts->count; i++)
		if (json_array_append_new(list, json_string(texts->items[i]))) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *check_json(const struct session_last_check *c)
{
	if (!c->time)
		return json_null();
	return json_pack("{s:s, s:s?, s:i, s:i, s:i, s:i, s:i, s:o}", "time", c->time, "stage", c->stage,
			 "passed", c->passed, "failed", c->failed, "skipped", c->skipped, "points", c->points,
			 "points_of", c->points_of, "verdicts", texts_json(&c->verdicts));
}

json_t *submission_to_json(const struct submission *s, struct error *err)
{
	json_t *object = json_pack(
		"{s:s, s:i, s:s, s:s?, s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:o}", "format", FORMAT, "version",
		SUBMISSION_VERSION, "lab", s->lab, "lab_digest", s->lab_digest, "student", s->student,
		"session", s->session, "time", s->time, "seed", s->seed, "running", s->running, "params",
		texts_json(&s->params), "check", check_json(&s->check), "machines", machines_json(s));

	if (!object)
		error_set(err, ERROR_FAILED,
			  "cannot describe session %s: out of memory, or a text that is not UTF-8",
			  s->session);
	return object;
}

/* ---- reading ---- */

/* An object of the manifest, and the way to it for messages: "machines[1].". */
struct node {
	json_t *json;
	char path[96];
};

static int wrong(const struct node *n, const char *key, const char *what, struct error *err)
{
	return error_set(err, ERROR_FAILED, SUBMISSION_MANIFEST ": %s%s %s", n->path, key, what);
}

static bool is_clean(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p < ' ' || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
			return false;
	return true;
}

static int check_text(const struct node *n, const char *key, json_t *value, size_t max, struct error *err)
{
	if (!json_is_string(value))
		return wrong(n, key, "is missing, or is no text", err);
	if (json_string_length(value) > max)
		return wrong(n, key, "is too long", err);
	return is_clean(json_string_value(value)) ? 0 : wrong(n, key, "holds control characters", err);
}

static int get_text(const struct node *n, const char *key, char **out, struct error *err)
{
	json_t *value = json_object_get(n->json, key);

	if (check_text(n, key, value, SUBMISSION_TEXT_MAX, err) < 0)
		return -1;
	*out = str_dup(json_string_value(value), err);
	return *out ? 0 : -1;
}

/* One that may be null. */
static int get_optional(const struct node *n, const char *key, char **out, struct error *err)
{
	return json_is_null(json_object_get(n->json, key)) ? 0 : get_text(n, key, out, err);
}

static int get_name(const struct node *n, const char *key, size_t max, char **out, struct error *err)
{
	if (get_text(n, key, out, err) < 0)
		return -1;
	return str_is_name(*out, max) ? 0 : wrong(n, key, "is no name of a-z, 0-9 and -", err);
}

static int get_digest(const struct node *n, const char *key, char **out, struct error *err)
{
	const char *digits;

	if (get_text(n, key, out, err) < 0)
		return -1;
	digits = *out + strlen(DIGEST_PREFIX);
	if (!str_starts(*out, DIGEST_PREFIX) || strlen(digits) != DIGEST_DIGITS ||
	    strspn(digits, "0123456789abcdef") != DIGEST_DIGITS)
		return wrong(n, key, "is no digest", err);
	return 0;
}

static int get_number(const struct node *n, const char *key, uint64_t max, uint64_t *out, struct error *err)
{
	json_t *value = json_object_get(n->json, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max)
		return wrong(n, key, "is missing, or is no number that can be", err);
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int get_int(const struct node *n, const char *key, int *out, struct error *err)
{
	uint64_t value;

	if (get_number(n, key, INT32_MAX, &value, err) < 0)
		return -1;
	*out = (int)value;
	return 0;
}

static int get_bool(const struct node *n, const char *key, bool *out, struct error *err)
{
	json_t *value = json_object_get(n->json, key);

	if (!json_is_boolean(value))
		return wrong(n, key, "is missing, or is not true or false", err);
	*out = json_is_true(value);
	return 0;
}

static int get_texts(const struct node *n, const char *key, size_t max, size_t text_max, struct strv *out,
		     struct error *err)
{
	json_t *list = json_object_get(n->json, key), *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > max)
		return wrong(n, key, "is no list, or too long a one", err);
	json_array_foreach (list, i, item)
		if (check_text(n, key, item, text_max, err) < 0 ||
		    strv_add(out, json_string_value(item), err) < 0)
			return -1;
	return 0;
}

/* Only keys of the list (NULL-terminated): what we would not look at must not be there. */
static int check_keys(const struct node *n, const char *const *keys, struct error *err)
{
	const char *key;
	json_t *value;

	if (!json_is_object(n->json))
		return wrong(n, "", "is no object", err);
	json_object_foreach (n->json, key, value) {
		bool known = false;

		for (size_t i = 0; keys[i]; i++)
			known |= str_eq(keys[i], key);
		if (!known)
			return error_set(err, ERROR_FAILED,
					 SUBMISSION_MANIFEST ": %shas a key that is not known", n->path);
	}
	return 0;
}

static int read_disk(const struct node *n, const struct submission_machine *m, size_t index,
		     struct submission_disk *d, struct error *err)
{
	static const char *const keys[] = {"file", "size", "digest", NULL};
	cleanup_free char *name = submission_disk_name(m, index, err), *file = NULL;

	if (!name || check_keys(n, keys, err) < 0 || get_text(n, "file", &file, err) < 0 ||
	    get_number(n, "size", SUBMISSION_DISK_MAX, &d->size, err) < 0)
		return -1;
	if (!str_eq(name, file))
		return error_set(err, ERROR_FAILED, SUBMISSION_MANIFEST ": %sfile is not %s", n->path, name);
	return get_digest(n, "digest", &d->digest, err);
}

/* The items of a list of at least one, and their memory. */
static json_t *get_list(const struct node *n, const char *key, size_t max, size_t item_size, void *items,
			struct error *err)
{
	json_t *list = json_object_get(n->json, key);
	void *memory;

	if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > max) {
		wrong(n, key, "is no list, empty, or too long", err);
		return NULL;
	}
	memory = calloc(json_array_size(list), item_size);
	if (!memory) {
		error_oom(err);
		return NULL;
	}
	memcpy(items, &memory, sizeof(memory));
	return list;
}

static struct node child_node(const char *path, const char *key, size_t index, json_t *json)
{
	struct node n = {.json = json};

	snprintf(n.path, sizeof(n.path), "%.48s%s[%zu].", path, key, index);
	return n;
}

static int read_disks(const struct node *n, struct submission_machine *m, struct error *err)
{
	json_t *list = get_list(n, "disks", 1 + LAB_DISKS_MAX, sizeof(*m->disks), &m->disks, err), *item;
	size_t i;

	if (!list)
		return -1;
	json_array_foreach (list, i, item) {
		struct node disk = child_node(n->path, "disks", i, item);

		if (read_disk(&disk, m, m->disk_count++, &m->disks[i], err) < 0)
			return -1;
	}
	return 0;
}

static int read_base(const struct node *n, struct submission_machine *m, struct error *err)
{
	static const char *const keys[] = {"name", "size", "digest", NULL};
	struct node base = {.json = json_object_get(n->json, "base")};

	snprintf(base.path, sizeof(base.path), "%.64sbase.", n->path);
	if (check_keys(&base, keys, err) < 0 || get_text(&base, "name", &m->base, err) < 0 ||
	    get_number(&base, "size", SUBMISSION_DISK_MAX, &m->base_size, err) < 0)
		return -1;
	return get_digest(&base, "digest", &m->base_digest, err);
}

static int read_machine(const struct node *n, struct submission_machine *m, struct error *err)
{
	static const char *const keys[] = {"name", "set_up", "base", "disks", NULL};

	if (check_keys(n, keys, err) < 0 || get_name(n, "name", LAB_NAME_MAX, &m->name, err) < 0 ||
	    get_bool(n, "set_up", &m->set_up, err) < 0 || read_base(n, m, err) < 0)
		return -1;
	return read_disks(n, m, err);
}

static int read_machines(const struct node *n, struct submission *s, struct error *err)
{
	json_t *list = get_list(n, "machines", LAB_MACHINES_MAX, sizeof(*s->machines), &s->machines, err),
	       *item;
	size_t i;

	if (!list)
		return -1;
	json_array_foreach (list, i, item) {
		struct node machine = child_node(n->path, "machines", i, item);

		if (read_machine(&machine, &s->machines[s->machine_count++], err) < 0)
			return -1;
		for (size_t j = 0; j < i; j++)
			if (str_eq(s->machines[j].name, s->machines[i].name))
				return wrong(&machine, "name", "is there twice", err);
	}
	return submission_disk_count(s) <= SUBMISSION_DISKS_MAX
		       ? 0
		       : wrong(n, "machines", "have too many disks", err);
}

static int read_check(const struct node *n, struct session_last_check *c, struct error *err)
{
	static const char *const keys[] = {"time",   "stage",     "passed",   "failed", "skipped",
					   "points", "points_of", "verdicts", NULL};
	struct node check = {json_object_get(n->json, "check"), "check."};

	if (json_is_null(check.json))
		return 0;
	if (check_keys(&check, keys, err) < 0 || get_text(&check, "time", &c->time, err) < 0 ||
	    get_optional(&check, "stage", &c->stage, err) < 0 ||
	    get_int(&check, "passed", &c->passed, err) < 0 ||
	    get_int(&check, "failed", &c->failed, err) < 0 ||
	    get_int(&check, "skipped", &c->skipped, err) < 0 ||
	    get_int(&check, "points", &c->points, err) < 0 ||
	    get_int(&check, "points_of", &c->points_of, err) < 0)
		return -1;
	return get_texts(&check, "verdicts", SUBMISSION_VERDICTS_MAX, SUBMISSION_PARAM_MAX, &c->verdicts,
			 err);
}

/* Before all else, so that a later version's file says so. */
static int check_version(const struct node *n, struct error *err)
{
	json_t *format = json_object_get(n->json, "format"), *version = json_object_get(n->json, "version");

	if (!str_eq(json_string_value(format), FORMAT) || !json_is_integer(version))
		return error_set(err, ERROR_FAILED, SUBMISSION_MANIFEST " is not that of a submission");
	if (json_integer_value(version) == SUBMISSION_VERSION)
		return 0;
	error_set(err, ERROR_FAILED,
		  "this submission has version %lld of the format, and this uml-lab reads version %d",
		  (long long)json_integer_value(version), SUBMISSION_VERSION);
	return error_hint(err, "open it with the uml-lab it was made with");
}

static int read_all(const struct node *n, struct submission *s, struct error *err)
{
	static const char *const keys[] = {"format",  "version",  "lab",  "lab_digest", "student",
					   "session", "time",     "seed", "running",    "params",
					   "check",   "machines", NULL};

	if (check_version(n, err) < 0 || check_keys(n, keys, err) < 0 ||
	    get_name(n, "lab", LAB_NAME_MAX, &s->lab, err) < 0 ||
	    get_text(n, "student", &s->student, err) < 0 ||
	    get_name(n, "session", SESSION_NAME_MAX, &s->session, err) < 0 ||
	    get_text(n, "time", &s->time, err) < 0 || get_text(n, "seed", &s->seed, err) < 0 ||
	    get_bool(n, "running", &s->running, err) < 0 || read_check(n, &s->check, err) < 0 ||
	    get_texts(n, "params", SUBMISSION_PARAMS_MAX, SUBMISSION_PARAM_MAX, &s->params, err) < 0)
		return -1;
	for (size_t i = 0; i < s->params.count; i++)
		if (!strchr(s->params.items[i], '='))
			return wrong(n, "params", "holds one without =", err);
	if (!*s->student)
		return wrong(n, "student", "is empty", err);
	if (!json_is_null(json_object_get(n->json, "lab_digest")) &&
	    get_digest(n, "lab_digest", &s->lab_digest, err) < 0)
		return -1;
	return read_machines(n, s, err);
}

struct submission *submission_parse(const char *text, size_t length, struct error *err)
{
	cleanup_submission struct submission *s = calloc(1, sizeof(*s));
	struct node root = {.path = ""};
	json_error_t why;
	int result;

	if (!s) {
		error_oom(err);
		return NULL;
	}
	root.json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
	if (!root.json) {
		error_set(err, ERROR_FAILED, SUBMISSION_MANIFEST " is not JSON, at line %d", why.line);
		return NULL;
	}
	result =
		json_is_object(root.json) ? read_all(&root, s, err) : wrong(&root, "it", "is no object", err);
	json_decref(root.json);
	return result == 0 ? steal_ptr(&s) : NULL;
}
