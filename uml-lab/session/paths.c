#include <inttypes.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

char *session_root(struct error *err)
{
	cleanup_free char *state = dirs_state(err), *root = NULL;

	root = state ? file_join(err, state, "sessions") : NULL;
	if (!root || file_mkdir_p(root, 0700, err) < 0)
		return NULL;
	return steal_ptr(&root);
}

char *session_runtime(const char *session, const char *machine, struct error *err)
{
	cleanup_free char *root = session_root(err), *runtime = NULL, *key = NULL;

	if (!root)
		return NULL;
	runtime = dirs_runtime(err);
	/* Two state folders of one user may hold sessions of the same name: the folder is part of the key. */
	key = runtime ? str_printf(err, "%s/%s/%s", root, session, machine) : NULL;
	if (!key)
		return NULL;
	return str_printf(err, "%s/%016" PRIx64, runtime, file_hash(key, strlen(key)));
}

char *session_machine_folder(const struct session *session, const char *machine, struct error *err)
{
	return file_join(err, session->folder, machine);
}

char *session_disk(const struct session *session, const char *machine, size_t index, struct error *err)
{
	const struct session_machine *m = session_find_machine((struct session *)session, machine);
	const char *now = m ? layer_present_name(m, index) : NULL;
	cleanup_free char *first = now ? NULL : layer_first_name(index, err);

	return now || first ? layer_path(session, machine, now ?: first, err) : NULL;
}

char *session_overlay(const struct session *session, const char *machine, struct error *err)
{
	return session_disk(session, machine, 0, err);
}

int session_lock(const char *name, int timeout_ms, struct error *err)
{
	cleanup_free char *root = session_root(err), *path = NULL;
	int fd;

	path = root ? str_printf(err, "%s/.%s.lock", root, name) : NULL;
	if (!path)
		return -1;
	fd = file_lock(path, true, timeout_ms, err);
	if (fd < 0 && err && (err->kind == ERROR_TIMEOUT || err->kind == ERROR_STATE)) {
		error_prefix(err, "another uml-lab command is at work on session %s", name);
		error_hint(err, "wait until it has ended, then repeat this");
	}
	return fd;
}
