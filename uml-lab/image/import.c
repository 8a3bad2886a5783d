/* Images of root file system archives. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/files.h"
#include "uml-lab/image/image_internal.h"

#define RELEASE_SIZE_MAX 8192

/* What a kernel, or our stage-0, would start. */
static const char *const inits[] = {"/sbin/init", "/etc/init", "/bin/init", "/init", "/bin/sh"};

/* The value of KEY="…" in an os-release file, cut at `size`; "" when it is not there. */
static void release_value(const char *text, const char *key, char *value, size_t size)
{
	size_t length = strlen(key), n;

	*value = '\0';
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) || line[length] != '=')
			continue;
		line += length + 1;
		line += *line == '"' || *line == '\'';
		n = strcspn(line, "\"'\n");
		snprintf(value, size, "%.*s", (int)(n < size ? n : size - 1), line);
		return;
	}
}

int image_file_add(struct image_fs *fs, const struct image_file *file, time_t now, struct error *err)
{
	struct image_entry entry = {
		.path = file->path,
		.mode = file->mode,
		.target = S_ISLNK(file->mode) ? file->content : NULL,
		.device_major = file->device_major,
		.device_minor = file->device_minor,
		.mtime.tv_sec = now,
		.atime.tv_sec = now,
	};

	if (image_fs_add(fs, &entry, err))
		return -1;
	return S_ISREG(file->mode) ? image_fs_write(fs, 0, file->content, strlen(file->content), err) : 0;
}

int image_describe(struct image_fs *fs, json_t *meta, struct error *err)
{
	cleanup_free char *release = image_fs_read_file(fs, "/etc/os-release", RELEASE_SIZE_MAX);
	char system[128] = "", quoted[256];
	const char *init = NULL;

	for (size_t i = 0; !init && i < ARRAY_SIZE(inits); i++)
		if (image_fs_has_file(fs, inits[i]))
			init = inits[i];
	if (init && json_object_set_new(meta, "init", json_string(init)))
		return error_oom(err);
	if (release)
		release_value(release, "PRETTY_NAME", system, sizeof(system));
	/* An archive can say anything: text that is not UTF-8 is left out. */
	image_quote(system, quoted, sizeof(quoted));
	if (*quoted)
		json_object_set_new(meta, "system", json_string(quoted));
	return 0;
}

/* Compressed archives unpack to some four times their size; twice that again is for working in. Sparse, so
 * free. */
static uint64_t choose_size(int fd)
{
	struct stat st;
	uint64_t content = 0;

	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size < IMAGE_SIZE_MOST / 16)
		content = (uint64_t)st.st_size * 8;
	return 2 * IMAGE_GIB + content / IMAGE_GIB * IMAGE_GIB;
}

static int import_fd(struct image_draft *draft, int fd, const char *source, json_t *meta, struct error *err)
{
	struct image_fs *fs = image_fs_open(draft->path, 0, err);
	int result = -1;

	if (fs && !image_archive_extract_fd(fd, source, fs, draft->options, err))
		result = image_fs_finish(fs, err) ? error_prefix(err, "%s", source)
						  : image_describe(fs, meta, err);
	image_fs_close(fs);
	return result;
}

static int open_archive(const char *archive, struct error *err)
{
	int fd = str_eq(archive, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
				      : open(archive, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return error_set(err, ERROR_NOT_FOUND, "no such archive: %s", archive);
	return fd < 0 ? error_errno(err, errno, "%s", archive) : fd;
}

int image_import(const char *name, const char *archive, const struct image_options *options,
		 struct error *err)
{
	cleanup_draft struct image_draft draft = IMAGE_DRAFT_INIT;
	cleanup_json json_t *meta = NULL;
	cleanup_close int fd = open_archive(archive, err);
	bool is_stdin = str_eq(archive, "-");
	const char *base = strrchr(archive, '/');

	if (fd < 0)
		return -1;
	meta = json_pack("{s:s, s:s}", "kind", "import", "source",
			 is_stdin ? "standard input"
			 : base   ? base + 1
				  : archive);
	if (!meta)
		return error_set(err, ERROR_FAILED, "%s: the name is not UTF-8", archive);
	if (image_draft_begin(&draft, name, choose_size(fd), 0, options, err) ||
	    import_fd(&draft, fd, is_stdin ? "standard input" : archive, meta, err))
		return -1;
	return image_draft_publish(&draft, meta, err);
}
