/* Files: whole reads and writes, atomic replacement, trees, locks. Paths are NUL-terminated, names relative to the cwd. */
#ifndef UML_LAB_BASE_FILE_H
#define UML_LAB_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "uml-lab/base/error.h"

/* Reads until n bytes or end of file; EINTR is retried. Bytes read, or -1 with errno. */
ssize_t file_read_full(int fd, void *buf, size_t n);
/* Writes all n bytes or fails; EINTR is retried. n, or -1 with errno. */
ssize_t file_write_full(int fd, const void *buf, size_t n);
ssize_t file_pread_full(int fd, void *buf, size_t n, off_t at);
ssize_t file_pwrite_full(int fd, const void *buf, size_t n, off_t at);

/*
 * Reads a whole file of at most max bytes; a NUL is added after its end.
 * *data is owned by the caller. A longer file is an error, not cut.
 */
int file_read_all(const char *path, size_t max, char **data, size_t *length, struct error *err);

/*
 * Replaces a file so that a reader, also after a crash, sees the old or the
 * new content and nothing between: temporary file in the same folder, fsync,
 * rename, fsync of the folder.
 */
int file_write_atomic(const char *path, const void *data, size_t length, mode_t mode, struct error *err);

/*
 * The same without waiting for the folder: whoever reads sees the old or the new content, but after a crash of the host the
 * old one may be back. For what is written often, or can be made again.
 */
int file_replace(const char *path, const void *data, size_t length, mode_t mode, struct error *err);

/* Makes a folder and its missing parents; one that is there is fine. */
int file_mkdir_p(const char *path, mode_t mode, struct error *err);

/* Removes a file or a folder with all in it, following no symbolic link; a missing one is fine. */
int file_remove_tree(const char *path, struct error *err);

/* Whether the path exists (following symbolic links). */
bool file_exists(const char *path);
bool file_is_dir(const char *path);

/* "a/b" from "a" and "b", one slash between. malloc'ed; NULL + err when memory is out. */
char *file_join(struct error *err, const char *a, const char *b);

/* The absolute path, symbolic links resolved; the last component may be missing when `missing_ok`. */
char *file_absolute(const char *path, bool missing_ok, struct error *err);

/*
 * Takes a lock (flock on the open file description, made if missing) and
 * returns its descriptor, close-on-exec: closing it, also by dying, releases
 * it. Waits at most timeout_ms (0: does not wait, -1: not allowed). A lock held
 * by another is ERROR_STATE for timeout 0, ERROR_TIMEOUT otherwise.
 */
int file_lock(const char *path, bool exclusive, int timeout_ms, struct error *err);

/*
 * Closes a file that was opened for writing. If that is the end of one that has no name any more, the kernel frees its
 * space on its own time (which takes 0.1 ms and more for each extent where that is told to the disk), and nobody waits for
 * that: neither a process nor a name is left behind, and if the host crashes meanwhile, its file system completes it. Where
 * that can't be had, as close(). What locks the descriptor held are gone at once. errno is kept.
 */
void file_close_behind(int fd);

/* FNV-1a, 64 bits: for cache keys and short names, not for security. */
uint64_t file_hash(const void *data, size_t length);

#endif
