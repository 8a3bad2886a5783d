/*
 * Scope-bound cleanup: `cleanup_free char *p = NULL;` is freed when p leaves
 * scope; steal_ptr(&p) and steal_fd(&fd) hand it over on success. All of them
 * keep errno.
 */
#ifndef UML_LAB_BASE_CLEANUP_H
#define UML_LAB_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_fn(void *p)
{
	int saved = errno;

	free(*(void **)p);
	errno = saved;
}

static inline void cleanup_close_fn(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_file_fn(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	errno = saved;
}

static inline void cleanup_dir_fn(DIR **d)
{
	int saved = errno;

	if (*d)
		closedir(*d);
	errno = saved;
}

static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define cleanup_free __attribute__((cleanup(cleanup_free_fn)))
#define cleanup_close __attribute__((cleanup(cleanup_close_fn)))
#define cleanup_file __attribute__((cleanup(cleanup_file_fn)))
#define cleanup_dir __attribute__((cleanup(cleanup_dir_fn)))
#define cleanup_with(fn) __attribute__((cleanup(fn)))

/* Hands a pointer over: the variable becomes NULL, its old value is the result. */
#define steal_ptr(pp) ({ __typeof__(*(pp)) taken_ = *(pp); *(pp) = NULL; taken_; })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
