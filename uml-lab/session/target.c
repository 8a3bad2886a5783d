/* Which session, which machine: "SESSION", "SESSION/MACHINE", or nothing where it is clear. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

static void join_names(struct strbuf *out, const struct strv *names)
{
	for (size_t i = 0; i < names->count; i++)
		strbuf_printf(out, "%s%s", i ? ", " : "", names->items[i]);
}

/* The sessions whose lab lies in the current folder. */
static int sessions_here(const struct strv *names, struct strv *here, struct error *err)
{
	cleanup_free char *cwd = getcwd(NULL, 0);

	for (size_t i = 0; cwd && i < names->count; i++) {
		cleanup_session struct session *s = session_load(names->items[i], NULL);
		size_t n = strlen(cwd);

		if (s && s->lab_file && strncmp(s->lab_file, cwd, n) == 0 && s->lab_file[n] == '/' &&
		    strv_add(here, s->name, err) < 0)
			return -1;
	}
	return 0;
}

/* Chooses when none was named. */
static char *the_session(struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT, here = STRV_INIT;
	cleanup_strbuf struct strbuf list = STRBUF_INIT;

	if (session_names(&names, err) < 0)
		return NULL;
	if (names.count == 1)
		return str_dup(names.items[0], err);
	if (!names.count) {
		error_set(err, ERROR_NOT_FOUND, "you have no session");
		error_hint(err, "start one with `uml-lab up LAB`; `uml-lab list` shows the labs");
		return NULL;
	}
	if (sessions_here(&names, &here, err) < 0)
		return NULL;
	if (here.count == 1)
		return str_dup(here.items[0], err);
	join_names(&list, here.count ? &here : &names);
	error_set(err, ERROR_USAGE, "you have several sessions, name one of: %s", list.data ?: "");
	return NULL;
}

static int no_such_session(const char *name, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_strbuf struct strbuf list = STRBUF_INIT;

	error_set(err, ERROR_NOT_FOUND, "there is no session %s", name);
	if (session_names(&names, NULL) < 0 || !names.count)
		return error_hint(err, "start one with `uml-lab up LAB`; `uml-lab list` shows the labs");
	join_names(&list, &names);
	return error_hint(err, "your sessions are: %s", list.data ?: "");
}

/* The sessions of the lab that LAB names. */
static int sessions_of(const char *lab, struct strv *out, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;
	struct lab *loaded = lab_load(lab, NULL, err);
	int result = loaded ? session_names(&names, err) : -1;

	for (size_t i = 0; result == 0 && i < names.count; i++) {
		cleanup_session struct session *s = session_load(names.items[i], NULL);

		if (s && str_eq(s->lab_file, loaded->file))
			result = strv_add(out, s->name, err);
	}
	lab_free(loaded);
	return result;
}

char *session_of_lab(const char *operand, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_strbuf struct strbuf list = STRBUF_INIT;
	struct error unknown = ERROR_INIT;
	char *name = NULL;

	if (!operand || session_resolve(operand, &name, NULL, false, &unknown) == 0)
		return operand ? name : the_session(err);
	if (sessions_of(operand, &names, err) < 0) {
		/* Neither: a name without a slash was more likely meant as a session. */
		if (err && err->kind == ERROR_NOT_FOUND && !strchr(operand, '/'))
			*err = unknown;
		return NULL;
	}
	if (names.count == 1)
		return str_dup(names.items[0], err);
	join_names(&list, &names);
	if (names.count) {
		error_set(err, ERROR_USAGE, "lab %s has several sessions, name one of: %s", operand, list.data ?: "");
		return NULL;
	}
	error_set(err, ERROR_NOT_FOUND, "lab %s has no session", operand);
	error_hint(err, "start one with `uml-lab up %s`", operand);
	return NULL;
}

/* Chooses the machine: the one named, or the only one. */
static char *the_machine(const char *session, const char *wanted, struct error *err)
{
	cleanup_session struct session *s = session_load(session, err);
	cleanup_strbuf struct strbuf list = STRBUF_INIT;

	if (!s)
		return NULL;
	if (wanted && session_find_machine(s, wanted))
		return str_dup(wanted, err);
	if (!wanted && s->machine_count == 1)
		return str_dup(s->machines[0].name, err);
	for (size_t i = 0; i < s->machine_count; i++)
		strbuf_printf(&list, "%s%s/%s", i ? ", " : "", session, s->machines[i].name);
	if (wanted)
		error_set(err, ERROR_NOT_FOUND, "session %s has no machine %s; it has: %s", session, wanted,
			  list.data ?: "none");
	else
		error_set(err, ERROR_USAGE, "session %s has several machines, name one of: %s", session,
			  list.data ?: "none");
	return NULL;
}

int session_resolve(const char *operand, char **session, char **machine, bool machine_needed, struct error *err)
{
	cleanup_free char *name = NULL, *chosen = NULL, *root = NULL, *folder = NULL;
	const char *slash = operand ? strchr(operand, '/') : NULL;

	if (operand && !*operand)
		return error_set(err, ERROR_USAGE, "an empty name of a session");
	if (slash && !machine_needed && machine == NULL)
		return error_set(err, ERROR_USAGE, "'%s' names a machine, but a session is meant here", operand);
	name = !operand ? the_session(err)
	     : slash	? str_printf(err, "%.*s", (int)(slash - operand), operand)
			: str_dup(operand, err);
	if (!name)
		return -1;
	if (!str_is_name(name, SESSION_NAME_MAX))
		return error_set(err, ERROR_NOT_FOUND, "'%s' cannot be the name of a session (a-z, 0-9, -)", name);
	root = session_root(err);
	folder = root ? str_printf(err, "%s/%s/session.yml", root, name) : NULL;
	if (!folder)
		return -1;
	if (!file_exists(folder))
		return no_such_session(name, err);
	if (machine && (machine_needed || slash)) {
		chosen = the_machine(name, slash ? slash + 1 : NULL, err);
		if (!chosen)
			return -1;
	}
	*session = steal_ptr(&name);
	if (machine)
		*machine = steal_ptr(&chosen);
	return 0;
}

int session_connect(const char *operand, struct error *err)
{
	cleanup_free char *name = NULL, *machine = NULL, *runtime = NULL;
	cleanup_session struct session *s = NULL;
	int fd;

	if (session_resolve(operand, &name, &machine, true, err) < 0)
		return -1;
	runtime = session_runtime(name, machine, err);
	if (!runtime)
		return -1;
	fd = machine_connect(runtime, err);
	if (fd >= 0 || (err && err->kind != ERROR_STATE))
		return fd;
	s = session_load(name, NULL);
	error_set(err, ERROR_STATE, "machine %s of session %s is not running", machine, name);
	if (s && s->machines && session_find_machine(s, machine)->cause)
		error_set(err, ERROR_STATE, "machine %s of session %s is not running: %s", machine, name,
			  session_find_machine(s, machine)->cause);
	error_hint(err, "start it with `uml-lab up %s`", s && s->lab ? s->lab->name : name);
	return -1;
}
