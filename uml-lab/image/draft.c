/*
 * An image in the making.
 *
 * The file grows as .NAME.XXXXXX.tmp beside its final place, and its builder
 * holds a flock on it, which the kernel drops when the builder dies, however
 * that happens. So who comes later can tell: a temporary that can be locked is
 * nobody's and is removed. Making and sweeping temporaries, and putting an
 * image in place, happen under the folder's own lock (.lock), held shortly.
 * Work folders of a builder are called like its temporary with ".work" added.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/image_internal.h"

#define FOLDER_LOCK_MS 10000
#define TEMPORARY      ".tmp"
#define WORK           ".work"

char *image_own_folder(struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;

	if (dirs_images(&folders, err) || file_mkdir_p(folders.items[0], 0755, err))
		return NULL;
	return str_dup(folders.items[0], err);
}

int image_lock(const char *folder, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, ".lock");

	return path ? file_lock(path, true, FOLDER_LOCK_MS, err) : -1;
}

/* Whether nobody holds the temporary: then it is ours to remove. */
static bool is_abandoned(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return errno == ENOENT;
	return !flock(fd, LOCK_EX | LOCK_NB);
}

static void sweep_entry(const char *folder, const char *name)
{
	cleanup_free char *path = file_join(NULL, folder, name), *work = NULL;

	if (!path || name[0] != '.')
		return;
	if (str_ends(name, TEMPORARY WORK)) {
		work = str_dup(path, NULL);
		path[strlen(path) - strlen(WORK)] = '\0';
	} else if (str_ends(name, TEMPORARY)) {
		work = str_printf(NULL, "%s%s", path, WORK);
	}
	if (work && is_abandoned(path)) {
		file_remove_tree(work, NULL);
		unlink(path);
	}
}

static void sweep_locked(const char *folder)
{
	cleanup_dir DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		sweep_entry(folder, entry->d_name);
}

void image_sweep(const char *folder)
{
	cleanup_close int lock = image_lock(folder, NULL);

	if (lock >= 0)
		sweep_locked(folder);
}

static char *final_path(const struct image_draft *draft, const char *suffix, struct error *err)
{
	return str_printf(err, "%s/%s%s", draft->folder, draft->name, suffix);
}

/* The image may be made: none is there, or it may be replaced. Under the folder's lock. */
static int check_free(const struct image_draft *draft, struct error *err)
{
	cleanup_free char *path = final_path(draft, ".img", err), *resolved = NULL;

	if (!path)
		return -1;
	if (!file_exists(path))
		return 0;
	if (!draft->options->replace) {
		error_set(err, ERROR_FAILED, "there is an image %s already", draft->name);
		return error_hint(err, "--replace replaces it");
	}
	resolved = file_absolute(path, false, err);
	if (!resolved)
		return -1;
	return image_check_unused(resolved, draft->name, draft->options->users, draft->options->users_arg,
				  err);
}

static int make_temporary(struct image_draft *draft, struct error *err)
{
	cleanup_free char *path = str_printf(err, "%s/.%s.XXXXXX" TEMPORARY, draft->folder, draft->name);
	cleanup_close int lock = image_lock(draft->folder, err);
	cleanup_close int fd = -1;

	if (!path || lock < 0)
		return -1;
	sweep_locked(draft->folder);
	if (check_free(draft, err))
		return -1;
	fd = mkostemps(path, strlen(TEMPORARY), O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, errno, "%s: making a file", draft->folder);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		error_errno(err, errno, "%s: locking", path);
		unlink(path);
		return -1;
	}
	draft->path = steal_ptr(&path);
	draft->lock = steal_fd(&fd);
	return 0;
}

static int check_size(uint64_t size, struct error *err)
{
	if (size >= IMAGE_SIZE_LEAST && size <= IMAGE_SIZE_MOST)
		return 0;
	return error_set(err, ERROR_USAGE, "an image of %llu bytes cannot be made; allowed: 16M to 8T",
			 (unsigned long long)size);
}

int image_draft_begin_file(struct image_draft *draft, const char *name, const struct image_options *options,
			   struct error *err)
{
	if (!str_is_name(name, IMAGE_NAME_MAX))
		return error_set(err, ERROR_USAGE,
				 "'%s' cannot be the name of an image; allowed: 1 to %d of a-z, 0-9 and '-'",
				 name, IMAGE_NAME_MAX);
	draft->options = options;
	draft->name = str_dup(name, err);
	draft->folder = draft->name ? image_own_folder(err) : NULL;
	return draft->folder ? make_temporary(draft, err) : -1;
}

int image_draft_begin(struct image_draft *draft, const char *name, uint64_t size, time_t now,
		      const struct image_options *options, struct error *err)
{
	uint64_t wanted = options->size ? options->size : size;

	if (check_size(wanted, err) || image_draft_begin_file(draft, name, options, err))
		return -1;
	draft->size = (wanted + IMAGE_MIB - 1) / IMAGE_MIB * IMAGE_MIB;
	return image_fs_format(draft->path, draft->size, now, err);
}

char *image_draft_work_folder(const struct image_draft *draft, struct error *err)
{
	cleanup_free char *path = str_printf(err, "%s%s", draft->path, WORK);

	if (!path || file_mkdir_p(path, 0700, err))
		return NULL;
	return steal_ptr(&path);
}

/* What every image's metadata has. */
static int complete_meta(const struct image_draft *draft, json_t *meta, struct error *err)
{
	char created[32];
	time_t now = time(NULL);
	struct tm tm;

	strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	if (json_object_set_new(meta, "name", json_string(draft->name)) ||
	    json_object_set_new(meta, "size", json_integer((json_int_t)draft->size)) ||
	    json_object_set_new(meta, "created", json_string(created)) ||
	    json_object_set_new(meta, "uml_lab", json_string(UML_LAB_VERSION)))
		return error_oom(err);
	return 0;
}

static void remove_work_folder(const struct image_draft *draft)
{
	cleanup_free char *work = str_printf(NULL, "%s%s", draft->path, WORK);

	if (work)
		file_remove_tree(work, NULL);
}

/* `from`: the file that becomes the image; another than the temporary lies in the work folder. */
static int put_in_place(struct image_draft *draft, const char *from, const char *text, struct error *err)
{
	cleanup_free char *image = final_path(draft, ".img", err), *meta = final_path(draft, ".json", err);
	cleanup_close int lock = image_lock(draft->folder, err);

	if (!image || !meta || lock < 0 || check_free(draft, err))
		return -1;
	if (rename(from, image))
		return error_errno(err, errno, "%s: putting the image in place", image);
	remove_work_folder(draft);
	if (from != draft->path)
		unlink(draft->path);
	free(steal_ptr(&draft->path));
	/* An image without its description is still good; the reverse would describe the one that was
	 * replaced. */
	return file_write_atomic(meta, text, strlen(text), 0644, err);
}

/* What lies beside the image, malloc'ed. NULL + err. */
static char *description(struct image_draft *draft, json_t *meta, struct error *err)
{
	char *text;

	if (complete_meta(draft, meta, err))
		return NULL;
	text = json_dumps(meta, JSON_INDENT(2));
	if (!text)
		error_oom(err);
	return text;
}

int image_draft_publish(struct image_draft *draft, json_t *meta, struct error *err)
{
	cleanup_free char *text = description(draft, meta, err);

	if (!text)
		return -1;
	if (fchmod(draft->lock, 0444) || fsync(draft->lock))
		return error_errno(err, errno, "%s: writing the image", draft->path);
	if (image_check_cancel(draft->options, err))
		return -1;
	return put_in_place(draft, draft->path, text, err);
}

int image_draft_publish_file(struct image_draft *draft, const char *path, json_t *meta, struct error *err)
{
	cleanup_free char *text = description(draft, meta, err);

	if (!text)
		return -1;
	if (chmod(path, 0444))
		return error_errno(err, errno, "%s", path);
	if (image_check_cancel(draft->options, err))
		return -1;
	return put_in_place(draft, path, text, err);
}

void image_draft_drop(struct image_draft *draft)
{
	if (draft->path) {
		remove_work_folder(draft);
		unlink(draft->path);
	}
	if (draft->lock >= 0)
		close(draft->lock);
	free(draft->path);
	free(draft->folder);
	free(draft->name);
	*draft = (struct image_draft)IMAGE_DRAFT_INIT;
}
