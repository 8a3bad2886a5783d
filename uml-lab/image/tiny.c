/*
 * The tiny image: the host's static busybox, a link per applet, and the few
 * files a small system needs (tiny_files.c). Everything belongs to root, and
 * all times are those of the busybox program, so that one busybox gives one
 * image, byte for byte.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/image/files.h"
#include "uml-lab/image/image_internal.h"

#define TINY_SIZE          (64 * IMAGE_MIB)
#define BUSYBOX_PACKAGE    "busybox-static"
#define BUSYBOX_SIZE_MAX   (16 * IMAGE_MIB)
#define BUSYBOX_TIMEOUT_MS 10000
#define APPLETS_TEXT_MAX   65536

struct busybox {
	char *path;
	void *program; /* mapped */
	size_t size;
	time_t mtime;
	struct strv applets; /* "usr/bin/awk" */
};

static void busybox_release(struct busybox *b)
{
	if (b->program)
		munmap(b->program, b->size);
	free(b->path);
	strv_free(&b->applets);
}

/* Whether it is a 64-bit ELF program that needs no dynamic loader. */
static bool is_static(const void *program, size_t size)
{
	const Elf64_Ehdr *header = program;
	Elf64_Phdr segment;

	if (size < sizeof(*header) || memcmp(header->e_ident, ELFMAG, SELFMAG) ||
	    header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_phentsize != sizeof(segment) ||
	    header->e_phoff > size || (size - header->e_phoff) / sizeof(segment) < header->e_phnum)
		return false;
	for (size_t i = 0; i < header->e_phnum; i++) {
		memcpy(&segment, (const char *)program + header->e_phoff + i * sizeof(segment),
		       sizeof(segment));
		if (segment.p_type == PT_INTERP)
			return false;
	}
	return true;
}

static int map_busybox(struct busybox *b, struct error *err)
{
	cleanup_close int fd = open(b->path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *program;

	if (fd < 0 || fstat(fd, &st))
		return error_errno(err, errno, "%s", b->path);
	if (!S_ISREG(st.st_mode) || !st.st_size || (uint64_t)st.st_size > BUSYBOX_SIZE_MAX)
		return error_set(err, ERROR_FAILED, "%s: this is no busybox", b->path);
	program = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (program == MAP_FAILED)
		return error_errno(err, errno, "%s", b->path);
	b->program = program;
	b->size = (size_t)st.st_size;
	b->mtime = st.st_mtime;
	if (is_static(program, b->size))
		return 0;
	error_set(err, ERROR_FAILED, "%s is not a static program, which the tiny image needs", b->path);
	return error_hint(err, "apt install " BUSYBOX_PACKAGE);
}

static int list_applets(struct busybox *b, struct error *err)
{
	const char *const argv[] = {b->path, "--list-full", NULL};
	struct child_spec spec = {.argv = argv, .null_stdin = true, .death_signal = SIGKILL};
	cleanup_free char *text = NULL;
	char how[64];
	int status;

	if (child_capture(&spec, BUSYBOX_TIMEOUT_MS, APPLETS_TEXT_MAX, false, &text, &status, err))
		return -1;
	if (status)
		return error_set(err, ERROR_FAILED, "%s --list-full %s", b->path,
				 child_describe_status(status, how, sizeof(how)));
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!str_eq(line, "bin/busybox") && strv_add(&b->applets, line, err))
			return -1;
	return 0;
}

static int fill(struct image_fs *fs, const struct busybox *b, const struct image_options *options,
		struct error *err)
{
	static const struct image_file program = IMAGE_FILE("bin/busybox", 0755, "");

	for (size_t i = 0; i < tiny_file_count; i++)
		if (image_file_add(fs, &tiny_files[i], b->mtime, err))
			return -1;
	if (image_file_add(fs, &program, b->mtime, err) || image_fs_write(fs, 0, b->program, b->size, err))
		return -1;
	for (size_t i = 0; i < b->applets.count; i++) {
		struct image_file applet = IMAGE_LINK(b->applets.items[i], "/bin/busybox");

		if (image_file_add(fs, &applet, b->mtime, err))
			return -1;
	}
	return image_check_cancel(options, err) ? -1 : image_fs_finish(fs, err);
}

static int write_image(struct image_draft *draft, const struct busybox *b, json_t *meta, struct error *err)
{
	struct image_fs *fs = image_fs_open(draft->path, b->mtime, err);
	int result = -1;

	if (fs && !fill(fs, b, draft->options, err))
		result = image_describe(fs, meta, err);
	image_fs_close(fs);
	return result;
}

int image_build_tiny(const char *name, const struct image_options *options, struct error *err)
{
	cleanup_draft struct image_draft draft = IMAGE_DRAFT_INIT;
	cleanup_with(busybox_release) struct busybox b = {0};
	cleanup_json json_t *meta = NULL;

	b.path = image_program("busybox", BUSYBOX_PACKAGE, err);
	if (!b.path || map_busybox(&b, err) || list_applets(&b, err))
		return -1;
	meta = json_pack("{s:s, s:s}", "kind", "tiny", "source", b.path);
	if (!meta)
		return error_oom(err);
	if (image_draft_begin(&draft, name, TINY_SIZE, b.mtime, options, err) ||
	    write_image(&draft, &b, meta, err))
		return -1;
	return image_draft_publish(&draft, meta, err);
}
