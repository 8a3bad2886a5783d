/*
 * libext2fs over a chain: an io_manager whose blocks come from cow_chain_read().
 *
 * libext2fs opens by name; the chain to open is handed over in a thread-local
 * variable around ext2fs_open(). Blocks are cached by size of a few hundred, since
 * inode tables and folders are read piecemeal.
 */
#include <ext2fs/ext2fs.h>
#include <string.h>

#include "cow/fs_internal.h"

#define CACHE_SLOTS    512 /* power of two */
#define READ_PIECE     (256u * 1024)
#define LINK_MAX_BYTES 4096

static _Thread_local struct cow_chain *opening;
static struct struct_io_manager manager;

/* ---- io_manager ---- */

struct channel {
	struct cow_chain *chain;
	uint64_t *numbers; /* block in each slot, plus one; 0: none */
	uint8_t *blocks;
};

static void drop_cache(struct channel *c)
{
	free(c->numbers);
	free(c->blocks);
	c->numbers = NULL;
	c->blocks = NULL;
}

static errcode_t io_set_blksize(io_channel io, int size)
{
	struct channel *c = io->private_data;

	if (size < 1024 || size > 65536)
		return EXT2_ET_UNEXPECTED_BLOCK_SIZE;
	drop_cache(c);
	c->numbers = calloc(CACHE_SLOTS, sizeof(*c->numbers));
	c->blocks = malloc((size_t)CACHE_SLOTS * (size_t)size);
	io->block_size = size;
	return c->numbers && c->blocks ? 0 : EXT2_ET_NO_MEMORY;
}

static errcode_t io_open(const char *name, int flags, io_channel *out)
{
	io_channel io = calloc(1, sizeof(*io));
	struct channel *c = calloc(1, sizeof(*c));

	(void)name;
	(void)flags;
	if (!io || !c) {
		free(io);
		free(c);
		return EXT2_ET_NO_MEMORY;
	}
	c->chain = opening;
	io->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	io->manager = &manager;
	io->private_data = c;
	io->refcount = 1;
	io->name = strdup("disk");
	if (!io->name || io_set_blksize(io, 1024)) {
		drop_cache(c);
		free(io->name);
		free(io);
		free(c);
		return EXT2_ET_NO_MEMORY;
	}
	*out = io;
	return 0;
}

static errcode_t io_close(io_channel io)
{
	struct channel *c = io->private_data;

	if (--io->refcount > 0)
		return 0;
	drop_cache(c);
	free(c);
	free(io->name);
	free(io);
	return 0;
}

static errcode_t read_bytes(const struct channel *c, uint64_t at, size_t n, void *buf)
{
	return cow_chain_read(c->chain, buf, n, at) ? EXT2_ET_SHORT_READ : 0;
}

/* count < 0: that many bytes, else blocks. */
static errcode_t io_read_blk64(io_channel io, unsigned long long block, int count, void *buf)
{
	struct channel *c = io->private_data;
	size_t size = (size_t)io->block_size;
	uint64_t at;
	size_t slot = (size_t)(block % CACHE_SLOTS);

	if (__builtin_mul_overflow((uint64_t)block, (uint64_t)size, &at))
		return EXT2_ET_SHORT_READ;
	if (count != 1)
		return read_bytes(c, at, count < 0 ? (size_t) - (int64_t)count : (size_t)count * size, buf);
	if (c->numbers[slot] != block + 1) {
		errcode_t code = read_bytes(c, at, size, c->blocks + slot * size);

		if (code) {
			c->numbers[slot] = 0;
			return code;
		}
		c->numbers[slot] = block + 1;
	}
	memcpy(buf, c->blocks + slot * size, size);
	return 0;
}

static errcode_t io_read_blk(io_channel io, unsigned long block, int count, void *buf)
{
	return io_read_blk64(io, block, count, buf);
}

static errcode_t io_write_blk64(io_channel io, unsigned long long block, int count, const void *buf)
{
	(void)io;
	(void)block;
	(void)count;
	(void)buf;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t io_write_blk(io_channel io, unsigned long block, int count, const void *buf)
{
	return io_write_blk64(io, block, count, buf);
}

static errcode_t io_flush(io_channel io)
{
	(void)io;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "uml-cow chain",
	.open = io_open,
	.close = io_close,
	.set_blksize = io_set_blksize,
	.read_blk = io_read_blk,
	.write_blk = io_write_blk,
	.flush = io_flush,
	.read_blk64 = io_read_blk64,
	.write_blk64 = io_write_blk64,
};

/* ---- The file system ---- */

int cow_fs_error(struct error *err, errcode_t code, const char *what)
{
	return error_set(err, ERROR_FAILED, "%s: %s", what, error_message(code));
}

struct cow_fs *cow_fs_open(struct cow_chain *chain, size_t skip, struct error *err)
{
	struct cow_fs *fs = calloc(1, sizeof(*fs));
	errcode_t code;

	if (!fs) {
		error_oom(err);
		return NULL;
	}
	initialize_ext2_error_table();
	fs->view = cow_chain_below(chain, skip);
	opening = &fs->view;
	code = ext2fs_open("disk", EXT2_FLAG_64BITS, 0, 0, &manager, &fs->ext2);
	opening = NULL;
	if (code) {
		cow_fs_error(err, code, fs->view.files[0]->path);
		error_hint(err, "files can be looked at in ext2, ext3 and ext4 without a partition table");
		free(fs);
		return NULL;
	}
	return fs;
}

void cow_fs_close(struct cow_fs *fs)
{
	if (!fs)
		return;
	ext2fs_close_free(&fs->ext2);
	free(fs);
}

bool cow_fs_needs_recovery(const struct cow_fs *fs)
{
	return ext2fs_has_feature_journal_needs_recovery(fs->ext2->super);
}

void cow_fs_fill(struct cow_fs_stat *out, uint32_t inode, const struct ext2_inode *in)
{
	*out = (struct cow_fs_stat){
		.inode = inode,
		.generation = in->i_generation,
		.mode = in->i_mode,
		.uid = inode_uid(*in),
		.gid = inode_gid(*in),
		.links = in->i_links_count,
		.size = LINUX_S_ISREG(in->i_mode) || LINUX_S_ISLNK(in->i_mode) ? EXT2_I_SIZE(in) : 0,
		.mtime = (int32_t)in->i_mtime,
	};
	if (LINUX_S_ISCHR(in->i_mode) || LINUX_S_ISBLK(in->i_mode))
		out->device = in->i_block[0] ? in->i_block[0] : in->i_block[1];
}

int cow_fs_stat(struct cow_fs *fs, uint32_t inode, struct cow_fs_stat *out, struct error *err)
{
	struct ext2_inode in;
	errcode_t code = ext2fs_read_inode(fs->ext2, inode, &in);

	if (code)
		return cow_fs_error(err, code, "cannot read an inode");
	cow_fs_fill(out, inode, &in);
	return 0;
}

int cow_fs_lookup(struct cow_fs *fs, const char *path, struct cow_fs_stat *out, struct error *err)
{
	ext2_ino_t inode;
	errcode_t code = ext2fs_namei(fs->ext2, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode);

	if (code == EXT2_ET_FILE_NOT_FOUND)
		return error_set(err, ERROR_NOT_FOUND, "there is no %s on the disk", path);
	if (code)
		return cow_fs_error(err, code, path);
	return cow_fs_stat(fs, inode, out, err);
}

struct listing {
	cow_fs_entry_fn fn;
	void *arg;
	struct error *err;
	int ret;
};

static int list_entry(ext2_ino_t dir, int entry, struct ext2_dir_entry *d, int offset, int block_size,
		      char *buf, void *arg)
{
	struct listing *l = arg;
	char name[EXT2_NAME_LEN + 1];
	int n = ext2fs_dirent_name_len(d);

	(void)dir;
	(void)offset;
	(void)block_size;
	(void)buf;
	if (entry != DIRENT_OTHER_FILE)
		return 0;
	memcpy(name, d->name, (size_t)n);
	name[n] = '\0';
	/* such names can't be made by a kernel, and would lead astray who builds paths of them */
	if (n == 0 || strchr(name, '/') || (size_t)n != strlen(name))
		return 0;
	l->ret = l->fn(l->arg, name, d->inode, ext2fs_dirent_file_type(d) == EXT2_FT_DIR, l->err);
	return l->ret ? DIRENT_ABORT : 0;
}

int cow_fs_list(struct cow_fs *fs, uint32_t folder, cow_fs_entry_fn fn, void *arg, struct error *err)
{
	struct listing l = {.fn = fn, .arg = arg, .err = err};
	errcode_t code = ext2fs_dir_iterate2(fs->ext2, folder, 0, NULL, list_entry, &l);

	if (l.ret)
		return l.ret;
	return code ? cow_fs_error(err, code, "cannot read a folder") : 0;
}

int cow_fs_read(struct cow_fs *fs, uint32_t inode, cow_fs_data_fn fn, void *arg, struct error *err)
{
	cleanup_free uint8_t *buffer = malloc(READ_PIECE);
	unsigned int n = 0;
	ext2_file_t file;
	errcode_t code;
	int ret = 0;

	if (!buffer)
		return error_oom(err);
	code = ext2fs_file_open(fs->ext2, inode, 0, &file);
	if (code)
		return cow_fs_error(err, code, "cannot read a file");
	do {
		code = ext2fs_file_read(file, buffer, READ_PIECE, &n);
		ret = code ? cow_fs_error(err, code, "cannot read a file") : n ? fn(arg, buffer, n, err) : 0;
	} while (n > 0 && !ret);
	ext2fs_file_close(file);
	return ret;
}

struct link_text {
	char text[LINK_MAX_BYTES + 1];
	size_t n;
};

static int add_link_text(void *arg, const void *data, size_t n, struct error *err)
{
	struct link_text *l = arg;

	if (n > LINK_MAX_BYTES - l->n)
		return error_set(err, ERROR_FAILED, "a symbolic link is longer than any can be");
	memcpy(l->text + l->n, data, n);
	l->n += n;
	return 0;
}

char *cow_fs_readlink(struct cow_fs *fs, uint32_t inode, struct error *err)
{
	struct link_text l = {.n = 0};
	struct ext2_inode in;
	errcode_t code = ext2fs_read_inode(fs->ext2, inode, &in);

	if (code) {
		cow_fs_error(err, code, "cannot read an inode");
		return NULL;
	}
	if (ext2fs_is_fast_symlink(&in)) {
		size_t n = in.i_size < sizeof(in.i_block) ? in.i_size : sizeof(in.i_block);

		memcpy(l.text, in.i_block, n);
	} else if (cow_fs_read(fs, inode, add_link_text, &l, err)) {
		return NULL;
	}
	return str_dup(l.text, err);
}

char *cow_fs_mode_text(uint32_t mode, char *text)
{
	static const char types[] = "?pc?d?b?-?l?s???";
	static const char bits[] = "rwxrwxrwx";

	text[0] = types[mode >> 12 & 15];
	for (int i = 0; i < 9; i++)
		text[1 + i] = mode >> (8 - i) & 1 ? bits[i] : '-';
	if (mode & 04000)
		text[3] = mode & 0100 ? 's' : 'S';
	if (mode & 02000)
		text[6] = mode & 0010 ? 's' : 'S';
	if (mode & 01000)
		text[9] = mode & 0001 ? 't' : 'T';
	text[10] = '\0';
	return text;
}
