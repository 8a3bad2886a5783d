/*
 * How it works: elf.h. Only what a loader reads is read: the program headers, PT_INTERP, and of PT_DYNAMIC
 * the names of libraries and the folders to look in (elf(5)). Addresses in PT_DYNAMIC are found in the file
 * through the PT_LOADs.
 */
#include "uml-lab/machine/elf.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define HEADERS_MAX 64   /* program headers; real programs have a dozen */
#define DYNAMIC_MAX 1024 /* entries of PT_DYNAMIC */
#define FILES_MAX   32   /* libraries of one program */

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#else
#error "user-mode Linux of 64 bits runs on x86-64 only"
#endif

/* Where Debian's, Fedora's, Arch's and Alpine's loaders look last. */
static const char *const usual_folders[] = {"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64",
					    "/lib", "/usr/lib"};

struct elf {
	int fd;
	Elf64_Ehdr header;
	Elf64_Phdr segments[HEADERS_MAX];
	uint64_t strings; /* offset of the dynamic string table in the file, 0: none */
	struct strv needed;
	char *folders; /* DT_RUNPATH or DT_RPATH, NULL: none */
};

static void elf_close(struct elf *elf)
{
	if (elf->fd >= 0)
		close(elf->fd);
	strv_free(&elf->needed);
	free(elf->folders);
}

static int damaged(const char *path, struct error *err)
{
	return error_set(err, ERROR_FAILED, "%s is damaged: its ELF headers make no sense", path);
}

static int read_header(struct elf *elf, const char *path, struct error *err)
{
	Elf64_Ehdr *h = &elf->header;
	ssize_t size;

	if (file_pread_full(elf->fd, h, sizeof(*h), 0) != sizeof(*h) ||
	    memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 ||
	    h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != MACHINE)
		return error_set(err, ERROR_FAILED, "%s is no program for this machine (ELF, x86-64)", path);
	if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum > HEADERS_MAX || h->e_phoff > INT64_MAX / 2)
		return damaged(path, err);
	size = (ssize_t)(h->e_phnum * sizeof(Elf64_Phdr));
	if (file_pread_full(elf->fd, elf->segments, (size_t)size, (off_t)h->e_phoff) != size)
		return damaged(path, err);
	return 0;
}

static const Elf64_Phdr *segment(const struct elf *elf, uint32_t type)
{
	for (int i = 0; i < elf->header.e_phnum; i++)
		if (elf->segments[i].p_type == type && elf->segments[i].p_offset < INT64_MAX / 2)
			return &elf->segments[i];
	return NULL;
}

/* Where an address lies in the file; 0 when it does not. */
static uint64_t offset_of(const struct elf *elf, uint64_t address)
{
	for (int i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *s = &elf->segments[i];

		if (s->p_type == PT_LOAD && address >= s->p_vaddr && address - s->p_vaddr < s->p_filesz &&
		    s->p_offset < INT64_MAX / 2 && address - s->p_vaddr < INT64_MAX / 2)
			return s->p_offset + (address - s->p_vaddr);
	}
	return 0;
}

/* A text of at most PATH_MAX bytes at an offset; NULL + err. */
static char *text_at(const struct elf *elf, uint64_t offset, const char *path, struct error *err)
{
	char text[PATH_MAX];
	ssize_t got = offset < INT64_MAX ? file_pread_full(elf->fd, text, sizeof(text), (off_t)offset) : -1;

	if (got <= 0 || !memchr(text, '\0', (size_t)got)) {
		damaged(path, err);
		return NULL;
	}
	return str_dup(text, err);
}

static int add_needed(struct elf *elf, uint64_t name, const char *path, struct error *err)
{
	cleanup_free char *text = text_at(elf, elf->strings + name, path, err);

	if (!text)
		return -1;
	if (!*text || strlen(text) > NAME_MAX)
		return damaged(path, err);
	return strv_add(&elf->needed, text, err);
}

static int read_entries(struct elf *elf, const Elf64_Dyn *entries, size_t count, const char *path,
			struct error *err)
{
	uint64_t folders = 0;

	for (size_t i = 0; i < count && entries[i].d_tag != DT_NULL; i++) {
		if (entries[i].d_tag == DT_STRTAB)
			elf->strings = offset_of(elf, entries[i].d_un.d_ptr);
		else if (entries[i].d_tag == DT_RUNPATH || (entries[i].d_tag == DT_RPATH && !folders))
			folders = entries[i].d_un.d_val;
	}
	if (!elf->strings)
		return 0;
	if (folders && !(elf->folders = text_at(elf, elf->strings + folders, path, err)))
		return -1;
	for (size_t i = 0; i < count && entries[i].d_tag != DT_NULL; i++)
		if (entries[i].d_tag == DT_NEEDED && add_needed(elf, entries[i].d_un.d_val, path, err) < 0)
			return -1;
	return 0;
}

static int read_dynamic(struct elf *elf, const char *path, struct error *err)
{
	const Elf64_Phdr *s = segment(elf, PT_DYNAMIC);
	Elf64_Dyn entries[DYNAMIC_MAX];
	size_t size;

	if (!s)
		return 0;
	size = s->p_filesz < sizeof(entries) ? s->p_filesz : sizeof(entries);
	if (file_pread_full(elf->fd, entries, size, (off_t)s->p_offset) != (ssize_t)size)
		return damaged(path, err);
	return read_entries(elf, entries, size / sizeof(*entries), path, err);
}

static int elf_open(struct elf *elf, const char *path, struct error *err)
{
	*elf = (struct elf){.fd = open(path, O_RDONLY | O_CLOEXEC)};
	if (elf->fd < 0)
		return error_errno(err, errno, "cannot open %s", path);
	if (read_header(elf, path, err) == 0 && read_dynamic(elf, path, err) == 0)
		return 0;
	elf_close(elf);
	return -1;
}

static bool is_library(const char *path)
{
	struct elf elf = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
	bool is = elf.fd >= 0 && read_header(&elf, path, NULL) == 0 && elf.header.e_type == ET_DYN;

	elf_close(&elf);
	return is;
}

/* FOLDER/NAME, $ORIGIN being the folder of `of`; NULL: it is not there. */
static char *try_folder(const char *folder, const char *of, const char *name)
{
	cleanup_strbuf struct strbuf path = STRBUF_INIT;
	const char *slash = strrchr(of, '/');

	for (const char *p = folder; *p;) {
		size_t word = str_starts(p, "$ORIGIN") ? 7 : str_starts(p, "${ORIGIN}") ? 9 : 0;

		if (word)
			strbuf_add(&path, of, (size_t)(slash - of));
		else
			strbuf_putc(&path, *p);
		p += word ? word : 1;
	}
	strbuf_printf(&path, "/%s", name);
	return !path.failed && path.data[0] == '/' && is_library(path.data) ? strbuf_steal(&path, NULL) : NULL;
}

static char *find_library(const struct elf *elf, const char *of, const char *name)
{
	cleanup_strv struct strv folders = STRV_INIT;
	char *found = NULL;

	if (elf->folders && strv_split(&folders, elf->folders, ':', NULL) < 0)
		return NULL;
	for (size_t i = 0; !found && i < folders.count; i++)
		found = try_folder(folders.items[i], of, name);
	for (size_t i = 0; !found && i < ARRAY_SIZE(usual_folders); i++)
		found = try_folder(usual_folders[i], of, name);
	return found;
}

/* By name: the loader takes a library that is loaded for all that ask for that name. */
static bool is_known(const struct strv *files, size_t first, const char *name)
{
	for (size_t i = first; i < files->count; i++)
		if (str_eq(strrchr(files->items[i], '/') + 1, name))
			return true;
	return false;
}

/* What glibc itself opens later: pthread_cancel(), which UML 7.2 calls at power-off, aborts the program without it. */
static int add_late(const struct elf *elf, const char *of, size_t first, struct strv *files, struct error *err)
{
	static const char name[] = "libgcc_s.so.1";
	cleanup_free char *found = NULL;

	if (is_known(files, first, name) || !is_known(files, first, "libc.so.6"))
		return 0;
	found = find_library(elf, of, name);
	return found ? strv_add(files, found, err) : 0;
}

static int add_libraries(const struct elf *elf, const char *of, size_t first, struct strv *files,
			 struct error *err)
{
	for (size_t i = 0; i < elf->needed.count; i++) {
		const char *name = elf->needed.items[i];
		cleanup_free char *found = NULL;

		if (is_known(files, first, name))
			continue;
		if (files->count - first >= FILES_MAX)
			return error_set(err, ERROR_FAILED, "%s needs more than %d libraries", of, FILES_MAX);
		found = strchr(name, '/') ? NULL : find_library(elf, of, name);
		if (!found)
			return error_set(err, ERROR_FAILED, "%s needs the library %s, which was not found", of, name);
		if (strv_add(files, found, err) < 0)
			return -1;
	}
	return 0;
}

static int add_interpreter(const struct elf *elf, const char *path, struct strv *files, struct error *err)
{
	const Elf64_Phdr *s = segment(elf, PT_INTERP);
	cleanup_free char *interpreter = NULL;

	if (!s)
		return 0;
	interpreter = text_at(elf, s->p_offset, path, err);
	if (!interpreter)
		return -1;
	if (interpreter[0] != '/' || interpreter[1] == '\0')
		return damaged(path, err);
	return strv_add(files, interpreter, err);
}

int elf_needs(const char *program, struct strv *files, struct error *err)
{
	size_t first = files->count;
	struct elf elf;
	int result;

	if (elf_open(&elf, program, err) < 0)
		return -1;
	result = add_interpreter(&elf, program, files, err);
	if (result == 0)
		result = add_libraries(&elf, program, first, files, err);
	if (result == 0)
		result = add_late(&elf, program, first, files, err);
	elf_close(&elf);
	/* The list grows while it is walked: libraries need libraries. */
	for (size_t i = first; result == 0 && i < files->count; i++) {
		cleanup_free char *path = str_dup(files->items[i], err);

		if (!path || elf_open(&elf, path, err) < 0)
			return -1;
		result = add_libraries(&elf, path, first, files, err);
		elf_close(&elf);
	}
	return result;
}
