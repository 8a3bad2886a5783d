/*
 * The disks of a session as files that can be carried away: one a disk, with what it holds beyond the base,
 * no sector that is equal to the base's, holes where there is nothing, and no name of anything on this host.
 *
 * Of machines that run, a snapshot is copied, so that all disks are of one moment; it goes away again as soon
 * as that is done. One that a killed verb left is removed by the next.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "cow/ops.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

#define SNAPSHOT "being-submitted"

/* The file that holds the disk as it is to be copied: what the snapshot froze, else the present one.
 * malloc'ed. */
static char *source_of(const struct session *s, const char *machine, size_t disk, struct error *err)
{
	const struct session_snapshot *snapshot = session_find_snapshot(s, SNAPSHOT);
	const struct session_frozen *f = snapshot ? session_find_frozen(snapshot, machine) : NULL;
	const char *now = layer_present_name(session_find_machine((struct session *)s, machine), disk);

	if (f && disk < f->layer_count)
		return str_dup(f->layers[disk].file, err);
	return now ? str_dup(now, err) : layer_first_name(disk, err);
}

static int export_disk(const struct session *s, const char *machine, size_t disk, const char *folder,
		       struct error *err)
{
	cleanup_free char *from = source_of(s, machine, disk, err), *name = layer_first_name(disk, err);
	cleanup_free char *out = name ? file_join(err, folder, name) : NULL;

	if (!from || !out || layers_copy(s, machine, from, out, err) < 0 ||
	    cow_compact(out, NULL, NULL, err) < 0)
		return -1;
	return disk ? 0 : cow_detach(out, err);
}

static int export_machine(const struct session *s, const struct lab_machine *lm, const char *folder,
			  struct error *err)
{
	cleanup_free char *own = file_join(err, folder, lm->name);

	if (!own)
		return -1;
	if (mkdir(own, 0700) < 0)
		return error_errno(err, errno, "cannot make the folder %s", own);
	for (size_t i = 0; i <= lm->disk_count; i++)
		if (export_disk(s, lm->name, i, own, err) < 0)
			return error_prefix(err, "cannot copy disk %zu of machine %s", i, lm->name);
	return 0;
}

/* That its files could not be merged yet is no failure: the next verb tries again. */
static int remove_snapshot(struct session *s, struct error *err)
{
	struct error why = ERROR_INIT;

	if (!session_find_snapshot(s, SNAPSHOT) || session_snapshot_remove(s, SNAPSHOT, &why) == 0)
		return 0;
	if (session_reload(s, err) == 0 && !session_find_snapshot(s, SNAPSHOT))
		return 0;
	error_copy(err, &why);
	return -1;
}

static int export_all(struct session *s, const char *folder, struct error *err)
{
	struct session_snapshot_result ignored;

	if (session_settle(s, err) < 0 || remove_snapshot(s, err) < 0 || layers_repair(s, err) < 0 ||
	    session_make_disks(s, err) < 0 ||
	    (session_runs(s) && session_snapshot_create(s, SNAPSHOT, &ignored, err) < 0))
		return -1;
	for (size_t i = 0; i < s->lab->machine_count; i++)
		if (export_machine(s, &s->lab->machines[i], folder, err) < 0)
			return -1;
	return 0;
}

int session_export(struct session *session, char **folder, struct error *err)
{
	cleanup_free char *path = file_join(err, session->folder, SESSION_EXPORT);
	int result;

	if (!path || file_remove_tree(path, err) < 0)
		return -1;
	if (mkdir(path, 0700) < 0)
		return error_errno(err, errno, "cannot make the folder %s", path);
	result = export_all(session, path, err);
	/* One that stays for now is only in the way of nobody. */
	remove_snapshot(session, NULL);
	*folder = steal_ptr(&path);
	return result;
}

void session_export_end(char *folder)
{
	if (folder)
		file_remove_tree(folder, NULL);
	free(folder);
}
