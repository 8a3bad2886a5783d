/* What the files of hostfs/ share. */
#ifndef HOSTFS_INTERNAL_H
#define HOSTFS_INTERNAL_H

#include <linux/fuse.h>
#include <linux/stat.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "hostfs/hostfs.h"

#define SIDECAR_FOLDER ".virtfs_metadata"
#define SIDECAR_ROOT   ".virtfs_metadata_root"
#define STATX_WANTED   (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
#define CACHE_MS       700 /* how long the guest may believe a name or an attribute: with its own timers under a second */

/* An open share. */
struct source {
	const struct hostfs_share *share;
	int root;	    /* O_PATH; -1: not there (any more) */
	uint64_t mount;	    /* the mount it lies on, 0: the kernel does not tell */
	bool xattrs;	    /* its file system stores user.* attributes */
	bool counted;	    /* `used` is known */
	int64_t counted_ms; /* when, loop_now_ms() */
	uint64_t used;	    /* bytes its files take */
	bool told_gone;
	int64_t looked_ms;  /* when it was looked for at its path last */
};

struct handle;

/* A file or folder that the guest knows by number. */
struct node {
	struct node *hash_next, *parent;
	char *name;		/* in the parent; NULL: the root, or it has no name any more */
	struct source *source;	/* NULL: the root of a tree */
	struct handle *handles; /* open ones */
	struct lock_holder *holders;
	uint64_t dev, ino, lookups;
	struct statx_timestamp born;
	uint32_t index, generation;
	uint32_t children;	/* nodes whose parent this is */
	mode_t mode;		/* as last shown to the guest */
	bool has_capability;	/* a security.capability was seen */
	int64_t shown_ms;	/* when; 0: never */
	int orphan;		/* O_PATH, of what lost its name; -1 */
	int file;		/* open for reading or writing by requests without a handle; -1 */
	bool file_writes;
	struct node *older, *newer; /* of those with an open file */
	bool nameless;		/* it had a name once */
	bool unlinked;		/* its last name went while the guest knew it: off the quota when it is forgotten */
};

struct handle {
	struct handle *next; /* of the node */
	struct node *node;
	uint32_t index, generation;
	int fd;
	bool folder;
	bool writes;
	char *entries; /* of a folder: what getdents64() gave, not told yet */
	size_t at, length;
	uint64_t position;
};

struct lock_range {
	uint64_t start, end; /* both included */
	bool write;
};

/* A descriptor for one owner's locks on a file (locks.c). */
struct lock_holder {
	struct lock_holder *next; /* of the node */
	uint64_t owner;
	bool flock; /* locks of flock(2), else of fcntl(2): the two know nothing of each other */
	int fd;
	struct lock_range *ranges; /* of fcntl(2): what it has, for finding deadlocks */
	size_t range_count;
};

/* A request for a lock that somebody else has. */
struct lock_wait {
	bool used, interrupted;
	struct fuse_in_header in;
	struct fuse_lk_in lock;
	int64_t until_ms;
};

/* A folder that requests named lately (kept.c). */
#define FOLDERS_KEPT 8
struct kept_folder {
	struct node *node; /* NULL: none */
	int fd;
	int64_t opened_ms;
	bool plain; /* it has no default access control list */
};

struct table {
	void **items;	       /* NULL: free */
	uint32_t *generations;
	uint32_t size, first_free;
};

struct hostfs {
	struct source *sources;
	size_t source_count;
	bool tree;
	bool ready; /* INIT was answered */
	bool no_open; /* the guest's kernel needs no OPEN and RELEASE */
	struct node *oldest, *newest; /* nodes with an open file */
	unsigned int file_count;
	struct kept_folder folders[FOLDERS_KEPT];
	unsigned int next_folder;
	int64_t now_ms; /* when the request at hand came, loop_now_ms() */
	struct node **buckets;
	size_t bucket_count, node_count;
	struct table nodes, handles;
	struct node *root;
	struct node **share_roots; /* of a tree */
	uint32_t generation;
	hostfs_note_fn note;
	void *note_arg;
	unsigned int holder_count;
	bool may_wait;
	struct lock_wait waits[HOSTFS_WAITS_MAX];
	_Atomic uint64_t interrupts[HOSTFS_WAITS_MAX]; /* of hostfs_interrupt(): numbers of requests; 0: none */
	_Atomic unsigned int interrupt_next;
	int waits_last;
	uint8_t *args; /* HOSTFS_ARGS_MAX + 1: the request at hand, copied */
};

/* A request at hand. Functions that act on it return bytes put into the answer after its header, or -errno. */
struct request {
	struct hostfs *fs;
	struct fuse_in_header in;
	const uint8_t *args; /* a copy; NUL after its end */
	size_t length;
	const char *name, *name2; /* the strings behind the fixed part, checked */
	struct node *node;	  /* of in.nodeid */
	const struct hostfs_request *io;
	size_t in_bytes; /* room for the answer, header included */
	size_t data_at;	 /* FUSE_WRITE: where the data begins in io->out */
	size_t data_length;
};

#define WAITS 1 /* given by op_setlkw, which has no data to answer with: the answer comes later */
#define ARGS(rq, type) ((const struct type *)(rq)->args)

/* What attributes of our own say of a file, beyond what the host does. */
struct ids {
	bool has_uid, has_gid, has_mode, has_rdev;
	bool any; /* there is any attribute or sidecar */
	bool has_capability, has_acl;
	uint32_t uid, gid, mode;
	uint64_t rdev;
};

/* ---- request.c ---- */
size_t iov_bytes(const struct iovec *iov, int count);
/* Copies up to n bytes from `at` on. How many. */
size_t iov_read(const struct iovec *iov, int count, size_t at, void *to, size_t n);
size_t iov_write(const struct iovec *iov, int count, size_t at, const void *from, size_t n);
/* The pieces of [at, at + n) into out (at most max pieces). How many. */
int iov_slice(const struct iovec *iov, int count, size_t at, size_t n, struct iovec *out, int max);
/* Puts data after the answer's header. */
int reply(struct request *rq, const void *data, size_t n);

/* ---- source.c ---- */
int source_open(struct source *s, const struct hostfs_share *share, struct error *err);
void source_close(struct source *s);
/* Opens what lies at a path within the share ("" for its root), following nothing. Descriptor or -errno. */
int source_resolve(struct source *s, const char *path, int flags);
/* Whether a name is hidden: by the share's patterns, or because it is ours. */
bool source_hides(const struct source *s, const char *name);
/*
 * What opening the root gave, a descriptor or -errno: notices that the folder is gone (removed:
 * it has no link any more; or moved: its path does not lead there), or back. Returns it, or the error to give
 * instead.
 */
int source_alive(struct hostfs *fs, struct source *s, int fd);

/* ---- quota.c ---- */
/* Whether `more` bytes may be taken; -EDQUOT otherwise. */
int quota_check(struct source *s, uint64_t more);
/* Whether writing [offset, offset + n) is within the limits. -EFBIG, -EDQUOT. */
int quota_check_write(struct source *s, int fd, uint64_t offset, uint64_t n);
void quota_add(struct source *s, int64_t bytes);
/* Bytes a file takes; 0 where there is no quota to be kept. */
uint64_t quota_size(struct source *s, int fd);
void quota_statfs(struct source *s, struct fuse_kstatfs *st);

/* ---- node.c ---- */
void *table_get(struct table *t, uint64_t id);
/* The index; -1 when memory is out. */
int64_t table_add(struct table *t, void *item);
void table_remove(struct table *t, uint32_t index);
uint64_t table_id(const struct table *t, uint32_t index);
void table_free(struct table *t);

int nodes_init(struct hostfs *fs, struct error *err);
/* Forgets all nodes but the roots, and closes all handles. */
void nodes_reset(struct hostfs *fs);
void nodes_free(struct hostfs *fs);
struct node *node_get(struct hostfs *fs, uint64_t nodeid);
uint64_t node_id(const struct hostfs *fs, const struct node *node);
struct node *node_find(struct hostfs *fs, struct source *s, const struct statx *st);
/* The node of what was found at parent/name, with one lookup more. NULL when memory is out. */
struct node *node_intern(struct hostfs *fs, struct node *parent, const char *name, const struct statx *st);
/* The same for a file that never had a name; its orphan is another descriptor of what fd is of. */
struct node *node_intern_nameless(struct hostfs *fs, struct source *s, int fd, const struct statx *st);
void node_forget(struct hostfs *fs, struct node *node, uint64_t lookups);
/* It has another name now; NULL parent: none any more. */
int node_move(struct hostfs *fs, struct node *node, struct node *parent, const char *name);
/* Opens it. Descriptor or -errno (-ESTALE: something else is at its place). */
int node_open(struct hostfs *fs, struct node *node, int flags);
/* Its path within the share into buf of PATH_MAX bytes. 0 or -errno. */
int node_path(const struct node *node, char *buf);

struct handle *handle_get(struct hostfs *fs, uint64_t fh);
/* Takes over fd. NULL when memory is out; fd is closed then. */
struct handle *handle_new(struct hostfs *fs, struct node *node, int fd, bool folder);
void handle_close(struct hostfs *fs, struct handle *h);

/* ---- kept.c ---- */
/*
 * A descriptor of the node's file for a request that names no handle: it is kept open
 * with the node, one of FILES_MAX. The node owns it. Descriptor or -errno.
 */
int node_file(struct hostfs *fs, struct node *node, bool writes);
/* Takes over a descriptor as that. */
void node_keep_file(struct hostfs *fs, struct node *node, int fd, bool writes);
/*
 * An O_PATH descriptor of a folder. It stays open at least until FOLDERS_KEPT - 1 others were asked for in
 * this request. Or -errno.
 */
int node_folder(struct hostfs *fs, struct node *node);
/* Whether a folder is known to have no default list, to be read and set; NULL: the folder isn't kept. */
bool *node_folder_plain(struct hostfs *fs, const struct node *node);
/* The node has changed, or goes: nothing of it is kept. */
void kept_drop_folder(struct hostfs *fs, const struct node *node);
void kept_drop(struct hostfs *fs, struct node *node);
/* Closes what may be the last of a removed file, soon: before kept_end() of the last who said kept_begin(). */
void kept_close_later(int fd);
void kept_begin(void);
void kept_end(void);

/* ---- ids.c ---- */
/* A place: name in the folder dir; or name NULL: what dir itself is a descriptor of. */
struct place {
	int dir;
	const char *name;
	bool root;     /* the second kind, the share's root */
	bool borrowed; /* dir is node_folder()'s */
};
/* The place of a node; dir is to be closed (place_close()). 0 or -errno; what is there is what the node was. */
int node_place(struct hostfs *fs, struct node *node, struct place *place, struct statx *st);
void place_close(struct place *place);
#define cleanup_place __attribute__((cleanup(place_close)))
#define PLACE_INIT {.dir = -1}
/* 0, or -1 with errno. */
int place_stat(const struct place *p, struct statx *st);
void ids_read(const struct source *s, const struct place *p, mode_t host_mode, struct ids *ids);
/* Writes what differs: each of wanted's that is set; those equal to what is shown without are removed. 0 or -errno. */
int ids_write(const struct source *s, const struct place *p, mode_t host_mode, const struct ids *wanted);
/* File capabilities, if there are any, go. */
void ids_drop_capability(const struct place *p, const struct ids *ids);
/* What the guest sees. */
void ids_show(const struct source *s, const struct statx *st, const struct ids *ids, struct fuse_attr *attr);
/* The permissions that the host's file gets when the guest's has `mode`, and perhaps a list of its own (acl.c). */
mode_t ids_host_mode(mode_t mode, bool has_acl);
bool ids_use_sidecar(const struct source *s, mode_t host_mode);
/* "N/NAME" or "N": how attributes are reached, below /proc/self/fd, which is the working folder. */
#define PLACE_PATH_MAX (HOSTFS_NAME_MAX + 16)
const char *place_path(const struct place *p, char path[PLACE_PATH_MAX]);
/* Sidecars go with their files. */
void sidecar_remove(int dir, const char *name);
void sidecar_rename(int from, const char *name, int to, const char *new_name);
void sidecar_copy(int from, const char *name, int to, const char *new_name);
/* Empties a folder's metadata folder if nothing else is left in it. True: it did. */
bool sidecar_clear(int dir);

/* ---- locks.c ---- */
/* An owner's locks on a file, of one kind, go; or all locks of all that the guest has on it. */
void locks_drop(struct hostfs *fs, struct node *node, uint64_t owner, bool flock);
void locks_drop_all(struct hostfs *fs, struct node *node);

/* ---- acl.c ---- */
#define ACL_BYTES_MAX	4096 /* of a list: what the guest's kernel takes */
#define ACL_ENTRIES_MAX 511
struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};
struct acl {
	size_t count; /* 0: there is none */
	struct acl_entry list[ACL_ENTRIES_MAX];
};
/* Whether an attribute of the guest's is an access control list. */
bool acl_is_name(const char *name, bool *is_default);
/* The guest's name for an attribute of the host that is a list; NULL: it is none. */
const char *acl_guest_name(const char *host_name);
/* Whether a list of attributes' names (llistxattr(2)) has that of a file's own list. */
bool acl_is_listed(const char *names, size_t size);
/* On the node of the request, which lies at the place (a descriptor). 0 or -errno; bytes or -errno. */
int acl_set(struct request *rq, const struct place *p, bool is_default, const void *data, size_t size);
int acl_remove(struct request *rq, const struct place *p, bool is_default);
ssize_t acl_get(struct request *rq, const struct place *p, bool is_default, uint8_t data[ACL_BYTES_MAX]);
/* What a file made in the folder dir gets: its mode, by the folder's default list or else the umask, and that list. */
mode_t acl_inherit(struct hostfs *fs, const struct node *folder, int dir, mode_t mode, mode_t umask, struct acl *acl);
/* Whether a file keeps a list when it is made with this. */
bool acl_says_more(const struct acl *acl);
/* Gives it to the file that was made. 0 or -errno. */
int acl_give(const struct place *p, mode_t mode, const struct acl *inherited);

/* ---- the operations: attr.c names.c files.c folders.c xattrs.c locks.c ---- */
typedef int (*operation)(struct request *rq);
int op_lookup(struct request *rq);
int op_getattr(struct request *rq);
int op_setattr(struct request *rq);
int op_readlink(struct request *rq);
int op_statfs(struct request *rq);
int op_symlink(struct request *rq);
int op_mknod(struct request *rq);
int op_mkdir(struct request *rq);
int op_create(struct request *rq);
int op_tmpfile(struct request *rq);
int op_unlink(struct request *rq);
int op_rmdir(struct request *rq);
int op_rename(struct request *rq);
int op_rename2(struct request *rq);
int op_link(struct request *rq);
int op_open(struct request *rq);
int op_read(struct request *rq);
int op_write(struct request *rq);
int op_release(struct request *rq);
int op_fsync(struct request *rq);
int op_fallocate(struct request *rq);
int op_lseek(struct request *rq);
int op_copy_file_range(struct request *rq);
int op_syncfs(struct request *rq);
int op_opendir(struct request *rq);
int op_readdir(struct request *rq);
int op_readdirplus(struct request *rq);
int op_releasedir(struct request *rq);
int op_fsyncdir(struct request *rq);
int op_getlk(struct request *rq);
int op_setlk(struct request *rq);
int op_setlkw(struct request *rq);
int op_flush(struct request *rq);
int op_interrupt(struct request *rq);
int op_setxattr(struct request *rq);
int op_getxattr(struct request *rq);
int op_listxattr(struct request *rq);
int op_removexattr(struct request *rq);

/* Shared by operations. */
/*
 * Finds name in the folder dir and fills the entry, with one lookup more for its node. ids: what is known of
 * it, as it was just made;
 * NULL: to be read. 0 or -errno.
 */
int entry_fill(struct hostfs *fs, struct node *parent, int dir, const char *name, const struct ids *ids,
	       struct fuse_entry_out *out, struct node **found);
/* The same for the file without a name that fd is of. */
int entry_fill_nameless(struct hostfs *fs, struct source *s, int fd, struct fuse_entry_out *out, struct node **found);
/* -EROFS on a share that may not be written, and for the root of a tree. */
int may_write(const struct node *node);
/* -ENOENT or -EPERM for what is hidden, -EACCES for a name that can't be. */
int may_name(const struct node *parent, const char *name, bool create);
/* Opens a file of the student's own whose host permissions are in the way, by giving them. Descriptor or -errno. */
int open_with_force(struct hostfs *fs, struct node *node, int flags);
/* Clears set-id bits and file capabilities, as a write by somebody without privilege does. */
void drop_privileges_of(struct hostfs *fs, struct node *node, int fd, bool set_ids);
/* Gives a file the mode `wanted`; shown is what the guest saw before. 0 or -errno. */
int change_mode(struct source *s, const struct place *p, const struct statx *st, const struct ids *ids, mode_t shown,
		mode_t wanted);

#endif
