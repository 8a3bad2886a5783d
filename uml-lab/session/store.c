/*
 * session.yml: the lab as instantiated, in lab.yml's own words, and one more
 * top-level key `session:` with what happened. To read it back, the `session:`
 * part is read here, and blanked out of the text before the rest goes through
 * the ordinary lab loader; so there is one reader of lab descriptions.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

#define YML_LOCK_MS 10000	/* a rewrite takes milliseconds; this long means a stopped process */

char *session_time(int64_t seconds, struct error *err)
{
	char text[40];
	time_t at = seconds;
	struct tm tm;

	localtime_r(&at, &tm);
	strftime(text, sizeof(text), "%FT%T%z", &tm);
	return str_dup(text, err);
}

char *session_now(struct error *err)
{
	return session_time(time(NULL), err);
}

int64_t session_time_parse(const char *text)
{
	struct tm tm = {0};
	const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S%z", &tm) : NULL;
	long offset = tm.tm_gmtoff;

	return rest && !*rest ? timegm(&tm) - offset : 0;
}

static void machine_free(struct session_machine *m)
{
	free(m->name);
	free(m->cause);
	free(m->started);
	free(m->changed);
	free(m->kernel);
	free(m->sandbox);
	free(m->base);
	strv_free(&m->forwards);
	strv_free(&m->disks);
	strv_free(&m->next_disks);
	free(m->snapshot);
}

void session_free(struct session *session)
{
	if (!session)
		return;
	for (size_t i = 0; i < session->machine_count; i++)
		machine_free(&session->machines[i]);
	free(session->machines);
	free(session->network_switches);
	snapshots_free(session);
	free(session->name);
	free(session->folder);
	free(session->lab_file);
	free(session->created);
	free(session->ends);
	free(session->seed);
	strv_free(&session->params);
	last_check_free(&session->last_check);
	session_origin_free(&session->origin);
	lab_free(session->lab);
	free(session);
}

void session_cleanup(struct session **session)
{
	int saved = errno;

	session_free(*session);
	errno = saved;
}

struct session_machine *session_find_machine(struct session *session, const char *name)
{
	for (size_t i = 0; i < session->machine_count; i++)
		if (str_eq(session->machines[i].name, name))
			return &session->machines[i];
	return NULL;
}

int session_add_machines(struct session *session, struct error *err)
{
	const struct lab *lab = session->lab;

	session->machines = calloc(lab->machine_count, sizeof(*session->machines));
	if (!session->machines)
		return error_oom(err);
	session->machine_count = lab->machine_count;
	for (size_t i = 0; i < lab->machine_count; i++) {
		session->machines[i].name = str_dup(lab->machines[i].name, err);
		if (!session->machines[i].name)
			return -1;
	}
	return 0;
}

/* ---- reading ---- */

static int read_machine(yaml_document_t *doc, yaml_node_t *node, struct session_machine *m, struct error *err)
{
	const char *state = yaml_get_text(doc, node, "state");
	yaml_node_t *base = yaml_get(doc, node, "base");

	m->ever_started = state && machine_state_parse(state, &m->state) == 0;
	m->supervisor = yaml_get_process(doc, node, "supervisor");
	m->kernel_process = yaml_get_process(doc, node, "kernel-process");
	m->plug = yaml_get_process(doc, node, "plug");
	m->disk_server = yaml_get_process(doc, node, "disk-server");
	m->hostfs = yaml_get_process(doc, node, "hostfs");
	m->base_size = (uint64_t)yaml_get_number(doc, base, "size", 0);
	m->base_mtime = yaml_get_number(doc, base, "mtime", 0);
	m->set_up = str_eq(yaml_get_text(doc, node, "set-up"), "true");
	m->ready_ms = yaml_get_number(doc, node, "ready-ms", 0);
	m->restarts = (int)yaml_get_number(doc, node, "restarts", 0);
	if (yaml_copy_text(doc, node, "cause", &m->cause, err) < 0 ||
	    yaml_copy_text(doc, node, "started", &m->started, err) < 0 ||
	    yaml_copy_text(doc, node, "changed", &m->changed, err) < 0 ||
	    yaml_copy_text(doc, node, "kernel", &m->kernel, err) < 0 ||
	    yaml_copy_text(doc, node, "sandbox", &m->sandbox, err) < 0 ||
	    yaml_copy_text(doc, node, "snapshot", &m->snapshot, err) < 0 ||
	    yaml_copy_list(doc, node, "disks", &m->disks, err) < 0 ||
	    yaml_copy_list(doc, node, "next-disks", &m->next_disks, err) < 0 ||
	    yaml_copy_text(doc, base, "path", &m->base, err) < 0)
		return -1;
	return yaml_copy_list(doc, node, "forwards", &m->forwards, err);
}

/* Fills what `session:` holds. The lab is loaded already: machines follow its order. */
static int read_session_part(struct session *s, yaml_document_t *doc, yaml_node_t *part, struct error *err)
{
	yaml_node_t *machines = yaml_get(doc, part, "machines");

	if (yaml_copy_text(doc, part, "created", &s->created, err) < 0 ||
	    yaml_copy_text(doc, part, "ends", &s->ends, err) < 0 ||
	    yaml_copy_list(doc, part, "params", &s->params, err) < 0 ||
	    session_networks_read(doc, part, s, err) < 0 ||
	    last_check_read(doc, yaml_get(doc, part, "check"), &s->last_check, err) < 0 ||
	    session_origin_read(doc, yaml_get(doc, part, "submission"), &s->origin, err) < 0 ||
	    session_add_machines(s, err) < 0)
		return -1;
	for (size_t i = 0; i < s->machine_count; i++)
		if (read_machine(doc, yaml_get(doc, machines, s->machines[i].name), &s->machines[i], err) < 0)
			return -1;
	return snapshots_read(s, doc, part, err);
}

/* Overwrites the top-level key `session` and its value with blanks, keeping line breaks. */
static void blank_session_part(yaml_document_t *doc, yaml_node_t *root, char *text, size_t length)
{
	for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
		yaml_node_t *key = yaml_document_get_node(doc, p->key);
		yaml_node_t *value = yaml_document_get_node(doc, p->value);

		if (!key || !value || key->type != YAML_SCALAR_NODE ||
		    !str_eq((char *)key->data.scalar.value, "session"))
			continue;
		for (size_t i = key->start_mark.index; i < value->end_mark.index && i < length; i++)
			if (text[i] != '\n')
				text[i] = ' ';
	}
}

static int parse_session(struct session *s, char *text, size_t length, const char *path, struct error *err)
{
	yaml_parser_t parser;
	yaml_document_t doc;
	yaml_node_t *root, *part;
	cleanup_free char *lab_folder = NULL;
	char *slash;
	int result = -1;

	if (!yaml_parser_initialize(&parser))
		return error_oom(err);
	yaml_parser_set_input_string(&parser, (unsigned char *)text, length);
	if (!yaml_parser_load(&parser, &doc)) {
		error_set(err, ERROR_FAILED, "%s:%zu: %s", path, parser.problem_mark.line + 1,
			  parser.problem ?: "cannot be read");
		yaml_parser_delete(&parser);
		return -1;
	}
	root = yaml_document_get_root_node(&doc);
	part = yaml_get(&doc, root, "session");
	if (!part) {
		error_set(err, ERROR_FAILED, "%s: is damaged: no `session:` in it", path);
		goto out;
	}
	if (yaml_copy_text(&doc, part, "lab-file", &s->lab_file, err) < 0 ||
	    yaml_copy_text(&doc, part, "seed", &s->seed, err) < 0)
		goto out;
	lab_folder = str_dup(s->lab_file ?: "/", err);
	if (!lab_folder)
		goto out;
	slash = strrchr(lab_folder, '/');
	if (slash && slash > lab_folder)
		*slash = '\0';
	/* The marks count characters; what we write is ASCII up to the end of this part (strings are escaped). */
	blank_session_part(&doc, root, text, length);
	s->lab = lab_load_text(text, length, path, lab_folder,
			       &(struct lab_load_options){.random_seed = s->seed, .skip_paths = true}, err);
	if (s->lab)
		result = read_session_part(s, &doc, part, err);
out:
	yaml_document_delete(&doc);
	yaml_parser_delete(&parser);
	return result;
}

struct session *session_load(const char *name, struct error *err)
{
	cleanup_session struct session *s = calloc(1, sizeof(*s));
	cleanup_free char *root = session_root(err), *path = NULL, *text = NULL;
	size_t length;

	if (!s || !root)
		return s ? NULL : (error_oom(err), NULL);
	if (!str_is_name(name, SESSION_NAME_MAX)) {
		error_set(err, ERROR_USAGE, "'%s' is no name of a session; allowed: a-z, 0-9 and -", name);
		return NULL;
	}
	s->name = str_dup(name, err);
	s->folder = file_join(err, root, name);
	path = s->folder ? file_join(err, s->folder, "session.yml") : NULL;
	if (!s->name || !path)
		return NULL;
	if (file_read_all(path, SESSION_YML_MAX, &text, &length, err) < 0) {
		if (err && err->sys_errno == ENOENT) {
			error_set(err, ERROR_NOT_FOUND, "there is no session %s", name);
			error_hint(err, "`uml-lab status` lists the sessions there are");
		}
		return NULL;
	}
	if (parse_session(s, text, length, path, err) < 0) {
		error_prefix(err, "cannot read session %s", name);
		error_hint(err,
			   "another version of uml-lab wrote it, or it is damaged; if it is worth nothing, and "
			   "`pgrep -f 'uml: %s/'` finds no machine of it: rm -r %s",
			   name, s->folder);
		return NULL;
	}
	return steal_ptr(&s);
}

int session_reload(struct session *session, struct error *err)
{
	struct session *fresh = session_load(session->name, err), old;

	if (!fresh)
		return -1;
	old = *session;
	*session = *fresh;
	*fresh = old;
	session_free(fresh);
	return 0;
}

/* ---- writing ---- */

static void write_machine(struct yaml_out *out, const struct session_machine *m)
{
	yaml_out_map(out, m->name, false);
	if (m->ever_started)
		yaml_out_plain(out, "state", machine_state_name(m->state));
	yaml_out_text(out, "cause", m->cause);
	yaml_out_text(out, "started", m->started);
	yaml_out_text(out, "changed", m->changed);
	yaml_out_process(out, "supervisor", &m->supervisor);
	yaml_out_process(out, "kernel-process", &m->kernel_process);
	yaml_out_process(out, "plug", &m->plug);
	yaml_out_process(out, "disk-server", &m->disk_server);
	yaml_out_process(out, "hostfs", &m->hostfs);
	yaml_out_text(out, "kernel", m->kernel);
	yaml_out_text(out, "sandbox", m->sandbox);
	base_write(out, m->base, m->base_size, m->base_mtime);
	yaml_out_strings(out, "disks", &m->disks);
	yaml_out_strings(out, "next-disks", &m->next_disks);
	yaml_out_text(out, "snapshot", m->snapshot);
	yaml_out_strings(out, "forwards", &m->forwards);
	yaml_out_plain(out, "set-up", m->set_up ? "true" : "false");
	if (m->ready_ms)
		yaml_out_number(out, "ready-ms", m->ready_ms);
	if (m->restarts)
		yaml_out_number(out, "restarts", m->restarts);
	yaml_out_close_map(out);
}

static char *session_part(const struct session *s, struct error *err)
{
	struct yaml_out out;

	if (yaml_out_begin(&out, err) < 0)
		return NULL;
	/* ASCII up to the end of this part: see parse_session(). */
	yaml_emitter_set_unicode(&out.emitter, 0);
	yaml_out_map(&out, NULL, false);
	yaml_out_map(&out, "session", false);
	yaml_out_text(&out, "name", s->name);
	yaml_out_text(&out, "created", s->created);
	yaml_out_text(&out, "ends", s->ends);
	yaml_out_text(&out, "lab-file", s->lab_file);
	yaml_out_text(&out, "seed", s->seed);
	yaml_out_strings(&out, "params", &s->params);
	session_origin_write(&out, &s->origin);
	last_check_write(&out, &s->last_check);
	session_networks_write(&out, s);
	yaml_out_map(&out, "machines", false);
	for (size_t i = 0; i < s->machine_count; i++)
		write_machine(&out, &s->machines[i]);
	yaml_out_close_map(&out);
	snapshots_write(&out, s);
	yaml_out_close_map(&out);
	yaml_out_close_map(&out);
	return yaml_out_end(&out, err);
}

int session_write(const struct session *session, struct error *err)
{
	cleanup_free char *part = session_part(session, err), *path = NULL;
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	path = part ? file_join(err, session->folder, "session.yml") : NULL;
	if (!path)
		return -1;
	strbuf_puts(&text, "# Written by uml-lab; read it, but do not edit it.\n");
	strbuf_puts(&text, part);
	if (lab_write_effective(session->lab, &text, err) < 0 || strbuf_check(&text, err) < 0)
		return -1;
	return file_replace(path, text.data, text.length, 0600, err);
}

int session_yml_lock(const char *name, struct error *err)
{
	cleanup_free char *root = session_root(err), *path = NULL;

	path = root ? str_printf(err, "%s/%s/.yml.lock", root, name) : NULL;
	return path ? file_lock(path, true, YML_LOCK_MS, err) : -1;
}

int session_update(const char *name, int (*fn)(struct session *session, void *arg, struct error *err), void *arg,
		   struct error *err)
{
	cleanup_session struct session *s = NULL;
	cleanup_close int lock = session_yml_lock(name, err);

	if (lock < 0)
		return -1;
	s = session_load(name, err);
	if (!s || fn(s, arg, err) < 0)
		return -1;
	return session_write(s, err);
}

/* ---- all of them ---- */

static bool stands_on(const struct session *s, const char *path)
{
	for (size_t i = 0; i < s->machine_count; i++)
		if (str_eq(s->machines[i].base, path))
			return true;
	for (size_t i = 0; i < s->snapshot_count; i++)
		for (size_t j = 0; j < s->snapshots[i].machine_count; j++)
			if (str_eq(s->snapshots[i].machines[j].base, path))
				return true;
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int session_names(struct strv *out, struct error *err)
{
	cleanup_free char *root = session_root(err);
	cleanup_dir DIR *dir = root ? opendir(root) : NULL;
	struct dirent *entry;

	if (!root)
		return -1;
	if (!dir)
		return error_errno(err, errno, "cannot read %s", root);
	while ((errno = 0, entry = readdir(dir))) {
		cleanup_free char *yml = NULL;

		if (!str_is_name(entry->d_name, SESSION_NAME_MAX))
			continue;
		yml = str_printf(err, "%s/%s/session.yml", root, entry->d_name);
		if (!yml)
			return -1;
		if (file_exists(yml) && strv_add(out, entry->d_name, err) < 0)
			return -1;
	}
	if (errno)
		return error_errno(err, errno, "cannot read %s", root);
	if (out->count)
		qsort(out->items, out->count, sizeof(*out->items), by_name);
	return 0;
}

int session_image_users(void *arg, const char *path, struct strv *users, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;

	(void)arg;
	if (session_names(&names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.count; i++) {
		cleanup_session struct session *s = session_load(names.items[i], NULL);

		if (s && stands_on(s, path) && strv_addf(users, err, "session %s", s->name) < 0)
			return -1;
	}
	return 0;
}
