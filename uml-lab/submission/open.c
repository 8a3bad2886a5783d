/*
 * From a file to a session.
 *
 * The file is read twice, by a process that can do nothing else (child.c): first what it says it is, then,
 * when its lab and images are found and its sizes fit them, the disks, into empty files that were opened
 * here. Here nothing of a disk is looked at but its digest and its header, which has to be the one that
 * submit writes and is then written anew with the image that was found; and an extra disk must not begin like
 * a COW file, which the disk server would follow.
 *
 * What a parameter of the submission changes is only what runs in the guest: kernel, its command line,
 * memory, limits and folders to be copied are those of the lab as it is without them.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cow/cow.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/sandbox.h"
#include "uml-lab/submission/pack.h"

#define NOWHERE   "/nonexistent" /* the folder of a lab that came with a submission */
#define ALIGNMENT 4096           /* of the COW files that submit writes */

struct opening {
	const struct submission_open_options *options;
	struct submission_content content;
	int fd;
	char *file; /* absolute */
	struct lab *lab;
	bool own;            /* it is the instructor's */
	struct image *bases; /* one a machine, in the lab's order */
	struct strv *notes;
};

static void opening_free(struct opening *o)
{
	int saved = errno;

	for (size_t i = 0; o->bases && i < o->content.manifest->machine_count; i++)
		image_release(&o->bases[i]);
	free(o->bases);
	submission_content_free(&o->content);
	lab_free(o->lab);
	free(o->file);
	if (o->fd >= 0)
		close(o->fd);
	errno = saved;
}

/* ---- may it run here ---- */

static int check_sandbox(const struct submission_open_options *o, struct error *err)
{
	char reason[256] = "UML_LAB_SANDBOX=process-group";

	if (o->weak || (!str_eq(getenv("UML_LAB_SANDBOX"), "process-group") &&
			sandbox_namespaces_work(reason, sizeof(reason))))
		return 0;
	error_set(err, ERROR_FAILED,
		  "a submission is opened where there are user namespaces only, and there are none here: %s",
		  reason);
	return error_hint(
		err, "see `uml-lab doctor`; --weak opens it without that wall, if you trust who made it");
}

/* ---- the lab ---- */

/* The lab.yml of the instructor's lab of that name: never a folder that just happens to lie here. malloc'ed;
 * NULL: none. */
static char *find_lab(const char *name, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;

	if (dirs_labs(&folders, err) < 0)
		return NULL;
	for (size_t i = 0; i < folders.count; i++) {
		cleanup_free char *file = str_printf(err, "%s/%s/lab.yml", folders.items[i], name);

		if (!file || file_exists(file))
			return steal_ptr(&file);
	}
	return NULL;
}

/* Those of the submission's parameters that the lab has. */
static int choose_params(const struct lab *lab, const struct strv *given, struct strv *out, struct error *err)
{
	for (size_t i = 0; i < given->count; i++) {
		size_t n = strcspn(given->items[i], "=");
		bool known = false;

		for (size_t j = 0; j < lab->param_count; j++)
			known |= strlen(lab->params[j].name) == n &&
				 strncmp(lab->params[j].name, given->items[i], n) == 0;
		if (known && strv_add(out, given->items[i], err) < 0)
			return -1;
	}
	return 0;
}

static void swap_text(char **a, char **b)
{
	char *c = *a;

	*a = *b;
	*b = c;
}

/* What the host sees of a machine is as in the lab without the submission's parameters. */
static void keep_host_side(struct lab *lab, struct lab *plain)
{
	for (size_t i = 0; i < lab->machine_count; i++) {
		struct lab_machine *m = &lab->machines[i], *p = &plain->machines[i];
		struct strv args = m->kernel_args;

		swap_text(&m->kernel, &p->kernel);
		swap_text(&m->files, &p->files);
		swap_text(&m->base, &p->base);
		m->kernel_args = p->kernel_args;
		p->kernel_args = args;
		m->memory = p->memory;
	}
	lab->limits = plain->limits;
}

/* What a teacher should know who judges by a lab that is not quite the student's. */
static int note_differences(struct opening *o, struct error *err)
{
	const struct submission *s = o->content.manifest;
	cleanup_free char *digest = submission_lab_digest(o->lab->file);

	if (!str_eq(o->lab->name, s->lab))
		return strv_addf(o->notes, err, "it was made in lab %s, and runs as lab %s", s->lab,
				 o->lab->name);
	if (s->lab_digest && !str_eq(digest, s->lab_digest))
		return strv_addf(o->notes, err, "your lab %s is not the same as the student's was", s->lab);
	return 0;
}

static int load_own(struct opening *o, const char *path, struct error *err)
{
	const struct submission *s = o->content.manifest;
	struct lab_load_options options = {.skip_paths = true, .random_seed = s->seed, .user = s->student};
	struct lab *plain = lab_load(path, &options, err);
	cleanup_strv struct strv params = STRV_INIT;

	if (!plain)
		return -1;
	options.params = &params;
	if (choose_params(plain, &s->params, &params, err) == 0)
		o->lab = lab_load(path, &options, err);
	/* A file that is being written at this very moment. */
	if (o->lab && o->lab->machine_count != plain->machine_count)
		lab_free(steal_ptr(&o->lab)),
			error_set(err, ERROR_FAILED, "%s changed while it was read", path);
	if (o->lab)
		keep_host_side(o->lab, plain);
	lab_free(plain);
	o->own = o->lab != NULL;
	return o->lab ? note_differences(o, err) : -1;
}

static int load_submitted(struct opening *o, struct error *err)
{
	const struct submission *s = o->content.manifest;
	const struct lab_load_options options = {
		.skip_paths = true, .random_seed = s->seed, .user = s->student};

	o->lab = lab_load_text(o->content.lab_text, o->content.lab_length,
			       SUBMISSION_LAB " of the submission", NOWHERE, &options, err);
	if (!o->lab)
		return -1;
	if (!str_eq(o->lab->name, s->lab))
		return error_set(err, ERROR_FAILED,
				 "its " SUBMISSION_LAB " is of another lab than its manifest says");
	return strv_addf(o->notes, err, "it runs as the lab that it came with, made harmless%s",
			 o->options->as_submitted ? "" : ", since you have none of that name");
}

static int choose_lab(struct opening *o, struct error *err)
{
	cleanup_free char *found = NULL;

	if (o->options->lab)
		return load_own(o, o->options->lab, err);
	if (!o->options->as_submitted)
		found = find_lab(o->content.manifest->lab, err);
	return found ? load_own(o, found, err) : load_submitted(o, err);
}

/* ---- does it fit ---- */

static const struct submission_machine *find_machine(const struct submission *s, const char *name)
{
	for (size_t i = 0; i < s->machine_count; i++)
		if (str_eq(s->machines[i].name, name))
			return &s->machines[i];
	return NULL;
}

static int check_machines(const struct opening *o, struct error *err)
{
	const struct submission *s = o->content.manifest;
	bool fits = o->lab->machine_count == s->machine_count;

	for (size_t i = 0; fits && i < o->lab->machine_count; i++) {
		const struct submission_machine *m = find_machine(s, o->lab->machines[i].name);

		fits = m && m->disk_count == o->lab->machines[i].disk_count + 1;
	}
	if (fits)
		return 0;
	error_set(err, ERROR_FAILED, "it does not have the machines and disks of lab %s", o->lab->name);
	return o->own ? error_hint(err, "if the lab is another one now: --as-submitted runs it as the lab "
					"that it came with")
		      : -1;
}

/* The size of an overlay follows from that of its base, that of an extra disk from the lab. */
static int check_sizes(const struct opening *o, size_t index, struct error *err)
{
	const struct lab_machine *lm = &o->lab->machines[index];
	const struct submission_machine *m = find_machine(o->content.manifest, lm->name);

	if (m->base_size != o->bases[index].size)
		return error_set(err, ERROR_FAILED, "machine %s: its base image has another size", m->name);
	for (size_t i = 1; i < m->disk_count; i++)
		if (m->disks[i].size > lm->disks[i - 1].size)
			return error_set(err, ERROR_FAILED, "machine %s: disk %zu is larger than the lab's",
					 m->name, i);
	return 0;
}

static int choose_base(struct opening *o, size_t index, struct error *err)
{
	struct lab_machine *lm = &o->lab->machines[index];
	const struct submission_machine *m = find_machine(o->content.manifest, lm->name);
	struct image *image = &o->bases[index];
	cleanup_image struct image of_lab = IMAGE_INIT;

	if (submission_find_base(m, o->own ? lm->base : NULL, image, err) < 0 ||
	    check_sizes(o, index, err) < 0)
		return -1;
	if (o->own && (image_find(lm->base, &of_lab, NULL) < 0 || !str_eq(of_lab.path, image->path)) &&
	    strv_addf(o->notes, err, "machine %s stands on %s, and the lab's base is now %s", m->name,
		      image->name ?: image->path, lm->base) < 0)
		return -1;
	free(lm->base);
	lm->base = str_dup(image->path, err);
	return lm->base ? 0 : -1;
}

static int choose_bases(struct opening *o, struct error *err)
{
	o->bases = calloc(o->lab->machine_count, sizeof(*o->bases));
	if (!o->bases)
		return error_oom(err);
	for (size_t i = 0; i < o->lab->machine_count; i++)
		if (choose_base(o, i, err) < 0)
			return -1;
	free(steal_ptr(&o->lab->base));
	return 0;
}

/* ---- the disks ---- */

struct outputs {
	int fds[SUBMISSION_DISKS_MAX];
	size_t count;
};

static void outputs_close(struct outputs *out)
{
	int saved = errno;

	for (size_t i = 0; i < out->count; i++)
		close(out->fds[i]);
	errno = saved;
}

/* Empty files in the order of the manifest, in folders of machines of the lab: their names are ours. */
static int make_outputs(const struct opening *o, const char *folder, struct outputs *out, struct error *err)
{
	const struct submission *s = o->content.manifest;

	for (size_t i = 0; i < s->machine_count; i++) {
		cleanup_free char *own = file_join(err, folder, s->machines[i].name);

		if (!own || file_mkdir_p(own, 0700, err) < 0)
			return -1;
		for (size_t j = 0; j < s->machines[i].disk_count; j++) {
			cleanup_free char *name = submission_disk_name(&s->machines[i], j, err);
			cleanup_free char *path = name ? file_join(err, folder, name) : NULL;
			int fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)
				      : -1;

			if (fd < 0)
				return path ? error_errno(err, errno, "cannot make %s", path) : -1;
			out->fds[out->count++] = fd;
		}
	}
	return 0;
}

static int check_header(int fd, size_t disk, uint64_t base_size, struct error *err)
{
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	int is_cow;

	if (!h)
		return error_oom(err);
	is_cow = cow_header_read(fd, h, err);
	if (is_cow < 0)
		return -1;
	if (disk)
		return is_cow ? error_set(err, ERROR_FAILED, "it is a COW file, where a plain disk should be")
			      : 0;
	if (!is_cow || h->format != COW_V3 || h->alignment != ALIGNMENT || h->size != base_size)
		return error_set(err, ERROR_FAILED, "it is no overlay over that base image");
	if (!str_eq(h->backing, COW_DETACHED))
		return error_set(err, ERROR_FAILED,
				 "its header names a backing file, which no submission's does");
	return 0;
}

static int settle_disk(const struct submission_machine *m, size_t disk, const char *path, int fd,
		       const struct image *base, struct error *err)
{
	char digest[COW_DIGEST_MAX];
	struct stat st;

	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != m->disks[disk].size)
		return error_set(err, ERROR_FAILED, "it has not the size that the manifest says");
	if (cow_file_digest(path, digest, err) < 0)
		return -1;
	if (!str_eq(digest, m->disks[disk].digest))
		return error_set(err, ERROR_FAILED, "its digest is another than the manifest's");
	if (check_header(fd, disk, base->size, err) < 0)
		return -1;
	return disk ? 0 : cow_rebase(path, base->path, true, NULL, err);
}

static const struct image *base_of(const struct opening *o, const char *machine)
{
	for (size_t i = 0; i < o->lab->machine_count; i++)
		if (str_eq(o->lab->machines[i].name, machine))
			return &o->bases[i];
	return NULL;
}

static int settle_disks(struct opening *o, const char *folder, const struct outputs *out, struct error *err)
{
	const struct submission *s = o->content.manifest;
	size_t index = 0;

	for (size_t i = 0; i < s->machine_count; i++)
		for (size_t j = 0; j < s->machines[i].disk_count; j++) {
			cleanup_free char *name = submission_disk_name(&s->machines[i], j, err);
			cleanup_free char *path = name ? file_join(err, folder, name) : NULL;
			struct stat st;

			if (!path || settle_disk(&s->machines[i], j, path, out->fds[index++],
						 base_of(o, s->machines[i].name), err) < 0)
				return error_prefix(err, "%s", name ?: "a disk");
			/* limits.disk is what it may write beyond what it came with. */
			if (stat(path, &st) == 0)
				o->lab->limits.disk += (uint64_t)st.st_blocks * 512;
		}
	return 0;
}

static int unpack(struct opening *o, const char *folder, struct error *err)
{
	cleanup_with(outputs_close) struct outputs out = {.count = 0};
	struct submission_content again = {0};
	struct submission_read_options how = {.data_max = o->options->data_max, .outputs = out.fds};

	if (make_outputs(o, folder, &out, err) < 0)
		return -1;
	how.output_count = out.count;
	if (submission_read_confined(o->fd, &how, o->content.manifest_text, 0, &again, err) < 0)
		return -1;
	submission_content_free(&again);
	return settle_disks(o, folder, &out, err);
}

/* ---- the session ---- */

static int describe_machines(struct opening *o, struct session *s, struct error *err)
{
	if (session_add_machines(s, err) < 0)
		return -1;
	for (size_t i = 0; i < s->machine_count; i++) {
		struct session_machine *m = &s->machines[i];

		m->base = str_dup(o->bases[i].path, err);
		if (!m->base)
			return -1;
		m->base_size = o->bases[i].size;
		m->base_mtime = o->bases[i].mtime.tv_sec;
		m->set_up = find_machine(o->content.manifest, m->name)->set_up;
	}
	return 0;
}

static struct session *describe(struct opening *o, const char *name, struct error *err)
{
	const struct submission *what = o->content.manifest;
	cleanup_session struct session *s = calloc(1, sizeof(*s));

	if (!s) {
		error_oom(err);
		return NULL;
	}
	s->origin.file = str_dup(o->file, err);
	s->origin.student = str_dup(what->student, err);
	s->origin.time = str_dup(what->time, err);
	s->origin.network = o->options->network;
	s->origin.weak = o->options->weak;
	s->name = str_dup(name, err);
	s->seed = str_dup(what->seed, err);
	s->lab_file = o->own ? str_dup(o->lab->file, err) : NULL;
	s->lab = steal_ptr(&o->lab);
	if (!s->origin.file || !s->origin.student || !s->origin.time || !s->name || !s->seed ||
	    (o->own && !s->lab_file) || choose_params(s->lab, &what->params, &s->params, err) < 0 ||
	    describe_machines(o, s, err) < 0)
		return NULL;
	return steal_ptr(&s);
}

/* "LAB-STUDENT", as a session may be called. malloc'ed. */
static char *default_name(const struct submission *s, struct error *err)
{
	char *name = str_printf(err, "%s-%s", s->lab, s->student);

	for (char *p = name; p && *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-", *p))
			*p = '-';
	}
	if (name && strlen(name) > SESSION_NAME_MAX)
		name[SESSION_NAME_MAX] = '\0';
	return name;
}

static int prepare(struct opening *o, struct error *err)
{
	const struct submission_read_options head = {.head_only = true};
	struct submission_trust trust = {.network = o->options->network};

	o->fd = submission_open_file(o->options->file, err);
	o->file = o->fd < 0 ? NULL : file_absolute(o->options->file, false, err);
	if (!o->file || submission_read_confined(o->fd, &head, NULL, 0, &o->content, err) < 0 ||
	    choose_lab(o, err) < 0 || check_machines(o, err) < 0)
		return -1;
	trust.own = o->own;
	return choose_bases(o, err) < 0 ? -1 : submission_make_safe(o->lab, &trust, err);
}

static struct session *make_session(struct opening *o, const char *name, int *lock, struct error *err)
{
	cleanup_session struct session *s = NULL;
	cleanup_close int held = -1;
	char *folder = NULL;

	if (session_adopt_begin(name, &folder, &held, err) < 0)
		return NULL;
	if (unpack(o, folder, err) == 0 && (s = describe(o, name, err)) &&
	    session_adopt_finish(s, folder, SUBMISSION_SNAPSHOT, err) == 0) {
		free(folder);
		*lock = steal_fd(&held);
		return steal_ptr(&s);
	}
	session_adopt_abort(folder);
	return NULL;
}

struct session *submission_open(const struct submission_open_options *options, struct strv *notes, int *lock,
				struct error *err)
{
	cleanup_with(opening_free) struct opening o = {.options = options, .fd = -1, .notes = notes};
	cleanup_free char *name = NULL;
	struct session *s;

	if (check_sandbox(options, err) < 0)
		return NULL;
	if (prepare(&o, err) < 0) {
		error_prefix(err, "%s", options->file);
		return NULL;
	}
	name = options->name ? str_dup(options->name, err) : default_name(o.content.manifest, err);
	s = name ? make_session(&o, name, lock, err) : NULL;
	if (!s)
		error_prefix(err, "cannot open %s", options->file);
	return s;
}
