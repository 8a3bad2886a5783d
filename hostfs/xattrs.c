/*
 * Extended attributes. The guest's user.* are the host's, but not those that hold
 * owners and modes (ids.c), which the guest neither sees nor sets. Its security.* and
 * trusted.*, which the student's account may not set on the host, are kept as
 * user.virtfs.security.* and user.virtfs.trusted.*: file capabilities survive there,
 * and mean nothing to the host. POSIX ACLs are acl.c's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define OURS	  "user.virtfs."
#define VALUE_MAX (64u << 10)

/* The name on the host. 0 or -errno. */
static int host_name(const char *name, char out[HOSTFS_NAME_MAX + 1])
{
	bool mapped = str_starts(name, "security.") || str_starts(name, "trusted.");

	if (!mapped && !str_starts(name, "user."))
		return -EOPNOTSUPP;
	if (str_starts(name, OURS))
		return -EPERM;
	if (snprintf(out, HOSTFS_NAME_MAX + 1, "%s%s", mapped ? OURS : "", name) > HOSTFS_NAME_MAX)
		return -ERANGE;
	return 0;
}

/* The guest's name of an attribute on the host; NULL: it has none. */
static const char *guest_name(const char *name)
{
	if (!str_starts(name, "user."))
		return NULL;
	if (!str_starts(name, OURS))
		return name;
	if (acl_guest_name(name))
		return acl_guest_name(name);
	name += strlen(OURS);
	return str_starts(name, "security.") || str_starts(name, "trusted.") ? name : NULL;
}

/* Opens the node. Links have no attributes. */
static int open_node(struct request *rq, struct place *p)
{
	if (!rq->node->source || !rq->node->source->xattrs || S_ISLNK(rq->node->mode))
		return -EOPNOTSUPP;
	p->dir = node_open(rq->fs, rq->node, O_PATH);
	return p->dir < 0 ? p->dir : 0;
}

/* And names the attribute. */
static int prepare(struct request *rq, struct place *p, char host[HOSTFS_NAME_MAX + 1], char path[PLACE_PATH_MAX])
{
	int result = host ? host_name(rq->name, host) : 0;

	if (result == 0)
		result = open_node(rq, p);
	if (result == 0)
		place_path(p, path);
	return result;
}

/* An access control list: data to be set, or NULL. */
static int change_list(struct request *rq, bool is_default, const void *data, size_t size)
{
	cleanup_place struct place p = PLACE_INIT;
	int result = open_node(rq, &p);

	if (result < 0)
		return result;
	kept_drop_folder(rq->fs, rq->node);
	return data ? acl_set(rq, &p, is_default, data, size) : acl_remove(rq, &p, is_default);
}

int op_setxattr(struct request *rq)
{
	const struct fuse_setxattr_in *in = ARGS(rq, fuse_setxattr_in);
	char host[HOSTFS_NAME_MAX + 1], path[PLACE_PATH_MAX];
	cleanup_place struct place p = PLACE_INIT;
	size_t at = FUSE_COMPAT_SETXATTR_IN_SIZE + strlen(rq->name) + 1;
	int result = may_write(rq->node);
	bool is_default;

	if (result < 0)
		return result;
	if (in->size > rq->length - at || in->size > VALUE_MAX)
		return -E2BIG;
	result = quota_check(rq->node->source, in->size);
	if (result == 0 && acl_is_name(rq->name, &is_default))
		return change_list(rq, is_default, rq->args + at, in->size);
	if (result == 0)
		result = prepare(rq, &p, host, path);
	if (result < 0)
		return result;
	if (setxattr(path, host, rq->args + at, in->size, (int)in->flags) < 0)
		return -errno;
	if (str_eq(rq->name, "security.capability"))
		rq->node->has_capability = true;
	return 0;
}

/* Answers with the size, or with the data if it fits in what was asked for. */
static int answer_sized(struct request *rq, uint32_t asked, const void *data, size_t n)
{
	struct fuse_getxattr_out out = {.size = (uint32_t)n};

	if (!asked)
		return reply(rq, &out, sizeof(out));
	return n > asked ? -ERANGE : reply(rq, data, n);
}

static int get_list(struct request *rq, bool is_default)
{
	cleanup_place struct place p = PLACE_INIT;
	uint8_t data[ACL_BYTES_MAX];
	ssize_t n = open_node(rq, &p);

	if (n == 0)
		n = acl_get(rq, &p, is_default, data);
	/* There can be none. Any other error is what whoever opens a file gets, but its owner (fs/fuse/acl.c, fuse_get_acl()). */
	if (n == -EOPNOTSUPP)
		n = -ENODATA;
	return n < 0 ? (int)n : answer_sized(rq, ARGS(rq, fuse_getxattr_in)->size, data, (size_t)n);
}

/* A guest's kernel asks for this before the first write after each look at a file, and was just told all else of it. */
static bool knows_no_capability(const struct request *rq)
{
	const struct node *node = rq->node;

	return str_eq(rq->name, "security.capability") && node->shown_ms && !node->has_capability &&
	       rq->fs->now_ms - node->shown_ms < CACHE_MS;
}

int op_getxattr(struct request *rq)
{
	const struct fuse_getxattr_in *in = ARGS(rq, fuse_getxattr_in);
	char host[HOSTFS_NAME_MAX + 1], path[PLACE_PATH_MAX];
	cleanup_place struct place p = PLACE_INIT;
	cleanup_free char *value = NULL;
	bool is_default;
	ssize_t n;
	int result;

	if (acl_is_name(rq->name, &is_default))
		return get_list(rq, is_default);
	if (knows_no_capability(rq))
		return -ENODATA;
	result = prepare(rq, &p, host, path);
	if (result < 0)
		return result == -EPERM ? -ENODATA : result;
	value = malloc(VALUE_MAX);
	if (!value)
		return -ENOMEM;
	n = getxattr(path, host, value, VALUE_MAX);
	return n < 0 ? -errno : answer_sized(rq, in->size, value, (size_t)n);
}

int op_listxattr(struct request *rq)
{
	const struct fuse_getxattr_in *in = ARGS(rq, fuse_getxattr_in);
	cleanup_place struct place p = PLACE_INIT;
	cleanup_free char *names = NULL;
	char path[PLACE_PATH_MAX];
	size_t used = 0;
	ssize_t n;
	int result = prepare(rq, &p, NULL, path);

	if (result == -EOPNOTSUPP)
		return answer_sized(rq, in->size, "", 0);
	if (result < 0)
		return result;
	names = malloc(VALUE_MAX + 1);
	if (!names)
		return -ENOMEM;
	n = listxattr(path, names, VALUE_MAX);
	if (n < 0)
		return -errno;
	names[n] = '\0';
	for (char *name = names, *next; name < names + n; name = next) {
		const char *seen = guest_name(name);

		next = name + strlen(name) + 1;
		if (!seen)
			continue;
		memmove(names + used, seen, strlen(seen) + 1);
		used += strlen(names + used) + 1;
	}
	return answer_sized(rq, in->size, names, used);
}

int op_removexattr(struct request *rq)
{
	char host[HOSTFS_NAME_MAX + 1], path[PLACE_PATH_MAX];
	cleanup_place struct place p = PLACE_INIT;
	int result = may_write(rq->node);
	bool is_default;

	if (result == 0 && acl_is_name(rq->name, &is_default))
		return change_list(rq, is_default, NULL, 0);
	if (result == 0)
		result = prepare(rq, &p, host, path);
	if (result < 0)
		return result;
	return removexattr(path, host) < 0 ? -errno : 0;
}
