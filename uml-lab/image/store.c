/* Images that are there: finding, listing, removing them. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow/cow.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/image_internal.h"

#define META_SIZE_MAX (1024 * 1024)

void image_release(struct image *image)
{
	free(image->name);
	free(image->path);
	json_decref(image->meta);
	*image = (struct image)IMAGE_INIT;
}

void image_list_release(struct image_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		image_release(&list->items[i]);
	free(list->items);
	*list = (struct image_list)IMAGE_LIST_INIT;
}

const char *image_meta(const struct image *image, const char *key)
{
	const char *text = json_string_value(json_object_get(image->meta, key));

	return text ? text : "";
}

/* COW files of all versions begin with this word, whose byte order differs in version 1 (uml-facts.md, "COW
 * file"). */
static bool is_cow(const unsigned char *start, size_t length)
{
	return length >= 4 && (!memcmp(start, "OOOM", 4) || !memcmp(start, "MOOO", 4));
}

static json_t *read_meta(const char *image_path)
{
	cleanup_free char *path = NULL, *text = NULL;
	json_t *meta = NULL;
	size_t length;

	if (str_ends(image_path, ".img"))
		path = str_printf(NULL, "%.*s.json", (int)(strlen(image_path) - strlen(".img")), image_path);
	if (path && !file_read_all(path, META_SIZE_MAX, &text, &length, NULL))
		meta = json_loadb(text, length, 0, NULL);
	if (json_is_object(meta))
		return meta;
	json_decref(meta);
	return json_object();
}

/* "debian-12" of "/x/debian-12.img"; NULL when the file is not called like an image. */
static char *name_of(const char *path)
{
	const char *base = strrchr(path, '/');
	cleanup_free char *name = str_dup(base ? base + 1 : path, NULL);

	if (!name || !str_ends(name, ".img"))
		return NULL;
	name[strlen(name) - strlen(".img")] = '\0';
	return str_is_name(name, IMAGE_NAME_MAX) ? steal_ptr(&name) : NULL;
}

/* Of the disk a layer holds; 0 when its header can't be read. */
static uint64_t disk_size(int fd)
{
	cleanup_free struct cow_header *h = malloc(sizeof(*h));

	return h && cow_header_read(fd, h, NULL) == 1 ? h->size : 0;
}

/* Fills in what the file at a path tells. */
static int load(const char *path, struct image *out, struct error *err)
{
	cleanup_image struct image image = IMAGE_INIT;
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	unsigned char start[4];
	struct stat st;
	ssize_t got;

	if (fd < 0 && errno == ENOENT)
		return error_set(err, ERROR_NOT_FOUND, "no such image: %s", path);
	if (fd < 0 || fstat(fd, &st))
		return error_errno(err, errno, "image %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "image %s: no regular file", path);
	got = file_pread_full(fd, start, sizeof(start), 0);
	if (got < 0)
		return error_errno(err, errno, "image %s", path);
	image.path = file_absolute(path, false, err);
	if (!image.path)
		return -1;
	image.name = name_of(path);
	image.meta = read_meta(path);
	if (!image.meta)
		return error_oom(err);
	image.is_layer = is_cow(start, (size_t)got);
	image.size = image.is_layer ? disk_size(fd) : (uint64_t)st.st_size;
	image.allocated = (uint64_t)st.st_blocks * 512;
	image.mtime = st.st_mtim;
	*out = image;
	image = (struct image)IMAGE_INIT;
	return 0;
}

static bool is_listed(const struct image_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (str_eq(list->items[i].name, name))
			return true;
	return false;
}

static int list_folder(const char *folder, struct image_list *list, struct error *err)
{
	cleanup_dir DIR *dir = opendir(folder);
	struct dirent *entry;
	struct image *items;

	while (dir && (entry = readdir(dir))) {
		cleanup_free char *name = name_of(entry->d_name),
				  *path = file_join(err, folder, entry->d_name);

		if (!path)
			return -1;
		if (!name || is_listed(list, name))
			continue;
		items = realloc(list->items, (list->count + 1) * sizeof(*items));
		if (!items)
			return error_oom(err);
		list->items = items;
		/* One that cannot be read, or went away meanwhile, is none to offer. */
		if (!load(path, &list->items[list->count], NULL))
			list->count++;
	}
	return 0;
}

static int by_name(const void *left, const void *right)
{
	return strcmp(((const struct image *)left)->name, ((const struct image *)right)->name);
}

int image_collect(struct image_list *out, struct error *err)
{
	cleanup_image_list struct image_list list = IMAGE_LIST_INIT;
	cleanup_strv struct strv folders = STRV_INIT;

	if (dirs_images(&folders, err))
		return -1;
	for (size_t i = 0; i < folders.count; i++)
		if (list_folder(folders.items[i], &list, err))
			return -1;
	if (list.count)
		qsort(list.items, list.count, sizeof(*list.items), by_name);
	*out = list;
	list = (struct image_list)IMAGE_LIST_INIT;
	return 0;
}

int image_list(struct image_list *out, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;

	if (dirs_images(&folders, err))
		return -1;
	if (file_is_dir(folders.items[0]))
		image_sweep(folders.items[0]);
	return image_collect(out, err);
}

static int hint_nearest(const char *name, struct error *err)
{
	cleanup_image_list struct image_list list = IMAGE_LIST_INIT;
	cleanup_free const char **names = NULL;
	const char *nearest;

	if (image_collect(&list, NULL))
		return -1;
	names = calloc(list.count + 1, sizeof(*names));
	for (size_t i = 0; names && i < list.count; i++)
		names[i] = list.items[i].name;
	nearest = names ? str_nearest(name, names) : NULL;
	if (nearest)
		return error_hint(err, "did you mean %s?", nearest);
	return error_hint(err,
			  "uml-lab image list shows the images there are, uml-lab image build makes one");
}

int image_find(const char *what, struct image *out, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;

	if (strchr(what, '/'))
		return load(what, out, err);
	if (dirs_images(&folders, err))
		return -1;
	for (size_t i = 0; str_is_name(what, IMAGE_NAME_MAX) && i < folders.count; i++) {
		cleanup_free char *path = str_printf(err, "%s/%s.img", folders.items[i], what);

		if (!path)
			return -1;
		if (file_exists(path))
			return load(path, out, err);
	}
	error_set(err, ERROR_NOT_FOUND, "no such image: %s", what);
	return hint_nearest(what, err);
}

json_t *image_to_json(const struct image *image, struct error *err)
{
	json_t *object = json_copy(image->meta);

	if (!object || (image->name && json_object_set_new(object, "name", json_string(image->name))) ||
	    json_object_set_new(object, "path", json_string(image->path)) ||
	    json_object_set_new(object, "layer", json_boolean(image->is_layer)) ||
	    json_object_set_new(object, "size", json_integer((json_int_t)image->size)) ||
	    json_object_set_new(object, "allocated", json_integer((json_int_t)image->allocated))) {
		json_decref(object);
		error_oom(err);
		return NULL;
	}
	return object;
}

int image_check_unused(const char *path, const char *what, image_users_fn users, void *arg, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_strbuf struct strbuf all = STRBUF_INIT;

	if ((users && users(arg, path, &names, err)) || image_layers_on(path, &names, err))
		return -1;
	if (!names.count)
		return 0;
	for (size_t i = 0; i < names.count; i++)
		strbuf_printf(&all, "%s%s", i ? ", " : "", names.items[i]);
	if (strbuf_check(&all, err))
		return -1;
	return error_set(err, ERROR_STATE, "image %s is in use by %s", what, all.data);
}

int image_remove(const char *name, image_users_fn users, void *users_arg, struct error *err)
{
	cleanup_image struct image image = IMAGE_INIT;
	cleanup_free char *folder = image_own_folder(err), *path = NULL, *meta = NULL;
	cleanup_close int lock = folder ? image_lock(folder, err) : -1;

	if (lock < 0)
		return -1;
	if (!str_is_name(name, IMAGE_NAME_MAX))
		return error_set(err, ERROR_NOT_FOUND, "no such image: %s", name);
	path = str_printf(err, "%s/%s.img", folder, name);
	meta = str_printf(err, "%s/%s.json", folder, name);
	if (!path || !meta)
		return -1;
	if (!file_exists(path)) {
		if (image_find(name, &image, err))
			return -1;
		return error_set(err, ERROR_FAILED, "image %s is not yours: it lies in %s", name, image.path);
	}
	if (load(path, &image, err) || image_check_unused(image.path, name, users, users_arg, err))
		return -1;
	if (unlink(path))
		return error_errno(err, errno, "removing %s", path);
	if (unlink(meta) && errno != ENOENT)
		return error_errno(err, errno, "removing %s", meta);
	return 0;
}
