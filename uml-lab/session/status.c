/* What is known of a session: session.yml, verified against live processes, with what supervisors tell of now. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define LIVE_STATUS_MS 1000	/* a supervisor that is busy longer is shown as session.yml has it */

static void set_text(json_t *object, const char *key, const char *text)
{
	json_object_set_new(object, key, text ? json_string(text) : json_null());
}

static json_t *process_json(const struct process_id *id)
{
	return id->pid && process_alive(id) ? json_integer(id->pid) : json_null();
}

/* Bytes the overlay takes on the host's disk; 0 when there is none. */
static json_int_t overlay_bytes(const struct session *s, const char *machine)
{
	cleanup_free char *overlay = session_overlay(s, machine, NULL);
	struct stat st;

	return overlay && stat(overlay, &st) == 0 ? (json_int_t)st.st_blocks * 512 : 0;
}

/* The files that the machine writes. */
static json_t *disks_json(const struct session *s, const struct lab_machine *lm)
{
	json_t *disks = json_array();

	for (size_t i = 0; i <= lm->disk_count; i++) {
		cleanup_free char *path = session_disk(s, lm->name, i, NULL);

		json_array_append_new(disks, json_string(path));
	}
	return disks;
}

/* Bytes that all files of the machine's folder take: overlay, extra disks, snapshots, logs. */
static json_int_t folder_bytes(const struct session *s, const char *machine)
{
	cleanup_free char *folder = session_machine_folder(s, machine, NULL);
	cleanup_dir DIR *dir = folder ? opendir(folder) : NULL;
	json_int_t bytes = 0;
	struct dirent *entry;
	struct stat st;

	while (dir && (entry = readdir(dir)))
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			bytes += (json_int_t)st.st_blocks * 512;
	return bytes;
}

/* Asks the machine's supervisor; NULL when it does not answer. */
static json_t *live_status(const struct session *s, const struct session_machine *m)
{
	cleanup_free char *runtime = session_runtime(s->name, m->name, NULL), *text = NULL;
	cleanup_close int control = -1;

	if (!runtime || !session_machine_runs(m))
		return NULL;
	control = machine_connect(runtime, NULL);
	text = control >= 0 ? machine_status_json(control, LIVE_STATUS_MS, NULL) : NULL;
	return text ? json_loads(text, 0, NULL) : NULL;
}

static json_t *machine_json(const struct session *s, const struct session_machine *m)
{
	const struct lab_machine *lm = lab_find_machine(s->lab, m->name);
	json_t *object = json_object(), *forwards = json_array(), *live = live_status(s, m);

	set_text(object, "name", m->name);
	set_text(object, "state", m->ever_started ? machine_state_name(m->state) : "new");
	set_text(object, "cause", m->cause);
	set_text(object, "started", m->started);
	set_text(object, "changed", m->changed);
	set_text(object, "kernel", m->kernel);
	set_text(object, "sandbox", m->sandbox);
	set_text(object, "base", m->base);
	set_text(object, "snapshot", m->snapshot);
	json_object_set_new(object, "disks", disks_json(s, lm));
	json_object_set_new(object, "memory", json_integer((json_int_t)lm->memory));
	json_object_set_new(object, "overlay_bytes", json_integer(overlay_bytes(s, m->name)));
	json_object_set_new(object, "disk_bytes", json_integer(folder_bytes(s, m->name)));
	json_object_set_new(object, "supervisor_pid", process_json(&m->supervisor));
	json_object_set_new(object, "kernel_pid", process_json(&m->kernel_process));
	json_object_set_new(object, "plug_pid", process_json(&m->plug));
	json_object_set_new(object, "disk_pid", process_json(&m->disk_server));
	json_object_set_new(object, "hostfs_pid", process_json(&m->hostfs));
	json_object_set_new(object, "set_up", json_boolean(m->set_up));
	json_object_set_new(object, "ready_ms", json_integer(m->ready_ms));
	json_object_set_new(object, "restarts", json_integer(m->restarts));
	for (size_t i = 0; session_machine_runs(m) && i < m->forwards.count; i++)
		json_array_append_new(forwards, json_string(m->forwards.items[i]));
	json_object_set_new(object, "forwards", forwards);
	if (live) {
		/* What the supervisor says of now is newer than the file: the state, and why, of one moment. */
		const char *state = json_string_value(json_object_get(live, "state"));
		const char *cause = json_string_value(json_object_get(live, "cause"));

		if (state) {
			set_text(object, "state", state);
			set_text(object, "cause", cause && *cause ? cause : NULL);
		}
		json_object_set(object, "disk_problem", json_object_get(json_object_get(live, "disks"), "problem"));
		json_object_set_new(object, "live", live);
	}
	return object;
}

/* What was checked last; null when nothing was since the last reset. */
static json_t *check_json(const struct session_last_check *last)
{
	json_t *object, *verdicts = json_array();

	for (size_t i = 0; i < last->verdicts.count; i++)
		json_array_append_new(verdicts, json_string(last->verdicts.items[i]));
	object = json_pack("{s:s?, s:s?, s:i, s:i, s:i, s:i, s:i, s:o}", "time", last->time, "stage", last->stage,
			   "passed", last->passed, "failed", last->failed, "skipped", last->skipped, "points",
			   last->points, "points_of", last->points_of, "verdicts", verdicts);
	if (last->time)
		return object;
	json_decref(object);
	return json_null();
}

/* Whose work it is, when it is not one's own. */
static json_t *origin_json(const struct session_origin *origin)
{
	if (!origin->file)
		return json_null();
	return json_pack("{s:s?, s:s?, s:s?, s:b, s:b}", "file", origin->file, "student", origin->student, "time", origin->time,
			 "network", origin->network, "weak", origin->weak);
}

json_t *session_status(struct session *session, struct error *err)
{
	json_t *object, *machines;
	int running = 0;

	if (session_settle_killed(session, err) < 0)
		return NULL;
	object = json_object();
	machines = json_array();
	set_text(object, "session", session->name);
	set_text(object, "lab", session->lab->name);
	set_text(object, "title", session->lab->title);
	set_text(object, "lab_file", session->lab_file);
	set_text(object, "created", session->created);
	set_text(object, "ends", session->ends);
	set_text(object, "folder", session->folder);
	for (size_t i = 0; i < session->machine_count; i++) {
		running += session_machine_runs(&session->machines[i]);
		json_array_append_new(machines, machine_json(session, &session->machines[i]));
	}
	set_text(object, "state", running ? "running" : "stopped");
	json_object_set_new(object, "machines", machines);
	json_object_set_new(object, "network_keeper_pid", process_json(&session->network_keeper));
	json_object_set_new(object, "networks", session_networks_status(session, machines));
	json_object_set_new(object, "check", check_json(&session->last_check));
	json_object_set_new(object, "submission", origin_json(&session->origin));
	if (!machines) {
		json_decref(object);
		error_oom(err);
		return NULL;
	}
	return object;
}
