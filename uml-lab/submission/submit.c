/*
 * From a session to a file: copies of the disks (session/export.c), what is to be known of them, the archive.
 *
 * The file has no name until it is whole and on the disk (O_TMPFILE, fsync, link), so nothing is left of one
 * that was interrupted, however it was. Where the file system has no such files, a temporary name is used,
 * and removed after any failure but SIGKILL.
 */
#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/pack.h"

/* ---- the output ---- */

struct output {
	char *path, *folder;
	char *temporary; /* NULL: it has no name yet */
	int fd;
};

static void output_drop(struct output *o)
{
	int saved = errno;

	if (o->temporary)
		unlink(o->temporary);
	if (o->fd >= 0)
		close(o->fd);
	free(o->temporary);
	free(o->path);
	free(o->folder);
	errno = saved;
}

static int check_output(const char *path, bool replace, struct error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return 0;
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "%s is there and is no file", path);
	if (replace)
		return 0;
	error_set(err, ERROR_FAILED, "%s is there already", path);
	return error_hint(err, "choose another name, or say --replace");
}

static int open_named(struct output *o, struct error *err)
{
	o->temporary = str_printf(err, "%s.tmp-XXXXXX", o->path);
	if (!o->temporary)
		return -1;
	o->fd = mkostemp(o->temporary, O_CLOEXEC);
	if (o->fd < 0) {
		free(steal_ptr(&o->temporary));
		return error_errno(err, errno, "cannot write %s", o->path);
	}
	return 0;
}

static int output_open(struct output *o, const char *path, struct error *err)
{
	cleanup_free char *copy = str_dup(path, err);

	*o = (struct output){.path = str_dup(path, err), .fd = -1};
	o->folder = copy ? str_dup(dirname(copy), err) : NULL;
	if (!o->path || !o->folder)
		return -1;
	o->fd = open(o->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	if (o->fd >= 0)
		return 0;
	/* EISDIR: a kernel or file system that does not know O_TMPFILE (open(2)). */
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)
		return open_named(o, err);
	return error_errno(err, errno, "cannot write into %s", o->folder);
}

/* Gives a file without a name the temporary one: link() cannot replace, rename() can. */
static int name_it(struct output *o, const char *name, struct error *err)
{
	char self[40];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0
		       ? error_errno(err, errno, "cannot make %s", name)
		       : 0;
}

static int sync_folder(const char *folder, struct error *err)
{
	cleanup_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? error_errno(err, errno, "cannot write %s", folder) : 0;
}

static int output_publish(struct output *o, bool replace, struct error *err)
{
	if (fsync(o->fd) < 0)
		return error_errno(err, errno, "cannot write %s", o->path);
	if (!o->temporary && !replace)
		return name_it(o, o->path, err) < 0 ? -1 : sync_folder(o->folder, err);
	if (!o->temporary) {
		cleanup_free char *name = str_printf(err, "%s.tmp-%d", o->path, getpid());

		if (!name || name_it(o, name, err) < 0)
			return -1;
		o->temporary = steal_ptr(&name);
	}
	if (renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->path, replace ? 0 : RENAME_NOREPLACE) < 0)
		return error_errno(err, errno, "cannot make %s", o->path);
	free(steal_ptr(&o->temporary));
	return sync_folder(o->folder, err);
}

/* ---- the manifest ---- */

static char *login_name(struct error *err)
{
	const struct passwd *entry = getpwuid(getuid());

	return entry && entry->pw_name && *entry->pw_name ? str_dup(entry->pw_name, err)
							  : str_printf(err, "%u", (unsigned)getuid());
}

/* Not cow_file_digest(), which would note it beside the file. */
char *submission_lab_digest(const char *path)
{
	cleanup_free char *text = NULL;
	struct cow_digester digester = {.hash = {0}};
	char digest[COW_DIGEST_MAX];
	size_t length;

	if (!path || file_read_all(path, COW_DIGEST_CHUNK, &text, &length, NULL) < 0)
		return NULL;
	cow_digester_add(&digester, 0, text, length);
	cow_digester_end(&digester, length, digest);
	return str_dup(digest, NULL);
}

static int copy_check(const struct session_last_check *from, struct session_last_check *to, struct error *err)
{
	*to = (struct session_last_check){.passed = from->passed,
					  .failed = from->failed,
					  .skipped = from->skipped,
					  .points = from->points,
					  .points_of = from->points_of};
	if (!from->time)
		return 0;
	to->time = str_dup(from->time, err);
	to->stage = from->stage ? str_dup(from->stage, err) : NULL;
	if (!to->time || (from->stage && !to->stage))
		return -1;
	for (size_t i = 0; i < from->verdicts.count; i++)
		if (strv_add(&to->verdicts, from->verdicts.items[i], err) < 0)
			return -1;
	return 0;
}

static int describe_disk(const struct submission_machine *m, size_t disk, const char *folder,
			 struct submission_disk *out, struct error *err)
{
	cleanup_free char *name = submission_disk_name(m, disk, err),
			  *path = name ? file_join(err, folder, name) : NULL;
	char digest[COW_DIGEST_MAX];
	struct stat st;

	if (!path || cow_file_digest(path, digest, err) < 0)
		return -1;
	if (stat(path, &st) < 0)
		return error_errno(err, errno, "cannot look at %s", path);
	out->size = (uint64_t)st.st_size;
	out->digest = str_dup(digest, err);
	return out->digest ? 0 : -1;
}

static int describe_base(const struct session_machine *m, struct submission_machine *out, struct error *err)
{
	cleanup_image struct image image = IMAGE_INIT;
	char digest[COW_DIGEST_MAX];

	if (image_find(m->base, &image, err) < 0 || cow_file_digest(image.path, digest, err) < 0)
		return error_prefix(err, "the base image of machine %s", m->name);
	out->base = str_dup(image.name ?: image.path, err);
	out->base_digest = str_dup(digest, err);
	out->base_size = image.size;
	return out->base && out->base_digest ? 0 : -1;
}

static int describe_machine(const struct session *s, const struct lab_machine *lm, const char *folder,
			    struct submission_machine *out, struct error *err)
{
	const struct session_machine *m = session_find_machine((struct session *)s, lm->name);

	out->name = str_dup(lm->name, err);
	out->set_up = m->set_up;
	out->disks = calloc(lm->disk_count + 1, sizeof(*out->disks));
	if (!out->name || !out->disks)
		return error_oom(err);
	if (describe_base(m, out, err) < 0)
		return -1;
	for (; out->disk_count <= lm->disk_count; out->disk_count++)
		if (describe_disk(out, out->disk_count, folder, &out->disks[out->disk_count], err) < 0)
			return -1;
	return 0;
}

static int describe_all(const struct session *s, const char *folder, struct submission *out,
			struct error *err)
{
	out->machines = calloc(s->lab->machine_count, sizeof(*out->machines));
	if (!out->machines)
		return error_oom(err);
	for (size_t i = 0; i < s->lab->machine_count; i++)
		if (describe_machine(s, &s->lab->machines[i], folder, &out->machines[out->machine_count++],
				     err) < 0)
			return -1;
	for (size_t i = 0; i < s->params.count; i++)
		if (strv_add(&out->params, s->params.items[i], err) < 0)
			return -1;
	return copy_check(&s->last_check, &out->check, err);
}

static char *time_now(struct error *err)
{
	char text[40];
	time_t at = time(NULL);
	struct tm tm;

	localtime_r(&at, &tm);
	strftime(text, sizeof(text), "%FT%T%z", &tm);
	return str_dup(text, err);
}

static struct submission *describe(const struct session *s, const char *folder, struct error *err)
{
	cleanup_submission struct submission *out = calloc(1, sizeof(*out));

	if (!out) {
		error_oom(err);
		return NULL;
	}
	for (size_t i = 0; i < s->machine_count; i++)
		out->running |= session_machine_runs(&s->machines[i]);
	out->lab = str_dup(s->lab->name, err);
	out->lab_digest = submission_lab_digest(s->lab_file);
	out->student = login_name(err);
	out->session = str_dup(s->name, err);
	out->time = time_now(err);
	out->seed = str_dup(s->seed ?: "", err);
	if (!out->lab || !out->student || !out->session || !out->time || !out->seed ||
	    describe_all(s, folder, out, err) < 0)
		return NULL;
	return steal_ptr(&out);
}

/* ---- the whole ---- */

static int write_file(const struct session *s, const char *folder, const struct submission *what,
		      const struct submission_submit_options *o, uint64_t *bytes, struct error *err)
{
	cleanup_strbuf struct strbuf lab = STRBUF_INIT;
	cleanup_with(output_drop) struct output out = {.fd = -1};
	struct stat st;

	if (lab_write_effective(s->lab, &lab, err) < 0 || output_open(&out, o->output, err) < 0)
		return -1;
	if (submission_pack(out.fd, what, lab.data, lab.length, folder, o->cancel, err) < 0)
		return error_prefix(err, "cannot write %s", o->output);
	if (fstat(out.fd, &st) < 0)
		return error_errno(err, errno, "cannot write %s", o->output);
	*bytes = (uint64_t)st.st_size;
	return output_publish(&out, o->replace, err);
}

int submission_submit(struct session *session, const struct submission_submit_options *options,
		      struct submission **out, uint64_t *bytes, struct error *err)
{
	cleanup_submission struct submission *what = NULL;
	char *folder = NULL;
	int result = -1;

	if (session->origin.file)
		return error_set(err, ERROR_STATE, "session %s is itself an opened submission, that of %s",
				 session->name, session->origin.student);
	if (check_output(options->output, options->replace, err) < 0)
		return -1;
	if (session_export(session, &folder, err) == 0)
		what = describe(session, folder, err);
	if (what)
		result = write_file(session, folder, what, options, bytes, err);
	session_export_end(folder);
	if (result == 0)
		*out = steal_ptr(&what);
	return result;
}
