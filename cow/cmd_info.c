/* uml-cow info: the chain of a disk, and what each file of it holds and takes. */
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "cow/cmd.h"
#include "uml-lab/base/cleanup.h"

struct options {
	struct cow_cmd_chain chain;
	bool json;
};

/* Whether another program holds a lock that a writer would run into. */
static bool in_use(int fd)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

/* Bytes taken by the top file, and by those it shares with other disks. */
static void count_bytes(const struct cow_chain *chain, uint64_t *own, uint64_t *shared)
{
	cleanup_free struct cow_file_info *f = malloc(sizeof(*f));

	*own = *shared = 0;
	for (size_t i = 0; f && i < cow_chain_depth(chain); i++) {
		cow_chain_file(chain, i, f);
		*(i == 0 ? own : shared) += f->allocated;
	}
}

static json_t *file_json(const struct cow_file_info *f)
{
	bool is_cow = f->header.format != COW_RAW;
	json_t *j = json_pack("{s:o, s:s, s:I, s:I, s:I, s:b}", "path", cow_cmd_json_text(f->path), "format",
			      cow_format_name(f->header.format), "size", (json_int_t)f->header.size,
			      "allocated", (json_int_t)f->allocated, "owned_sectors",
			      (json_int_t)f->owned_sectors, "in_use", in_use(f->fd));

	if (!j || !is_cow)
		return j;
	if (json_object_update_new(j, json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "backing",
						cow_cmd_json_text(f->header.backing), "backing_mtime",
						(json_int_t)f->header.mtime, "alignment",
						(json_int_t)f->header.alignment, "bitmap_offset",
						(json_int_t)f->header.bitmap_offset, "bitmap_length",
						(json_int_t)f->header.bitmap_length, "data_offset",
						(json_int_t)f->header.data_offset))) {
		json_decref(j);
		return NULL;
	}
	return j;
}

static int print_json(const struct cow_chain *chain, struct error *err)
{
	cleanup_free struct cow_file_info *f = malloc(sizeof(*f));
	const struct error *problem = cow_chain_problem(chain);
	json_t *files = json_array();
	uint64_t own, shared;

	for (size_t i = 0; f && i < cow_chain_depth(chain); i++) {
		cow_chain_file(chain, i, f);
		if (json_array_append_new(files, file_json(f))) {
			json_decref(files);
			return error_oom(err);
		}
	}
	count_bytes(chain, &own, &shared);
	return cow_cmd_print_json(json_pack("{s:I, s:I, s:I, s:o, s:o}", "size",
					    (json_int_t)cow_chain_size(chain), "own_bytes", (json_int_t)own,
					    "shared_bytes", (json_int_t)shared, "chain", files, "problem",
					    problem ? cow_cmd_json_text(problem->message) : json_null()),
				  err);
}

static int add_row(struct cli_table *t, size_t index, const struct cow_file_info *f, struct error *err)
{
	char number[24], disk[16], stored[16], taken[16], when[32] = "-";
	bool is_cow = f->header.format != COW_RAW;
	time_t mtime = (time_t)f->header.mtime;
	struct tm tm;

	snprintf(number, sizeof(number), "%zu", index);
	if (is_cow && localtime_r(&mtime, &tm))
		strftime(when, sizeof(when), "%F %T", &tm);
	const char *cells[] = {
		number,
		cow_format_name(f->header.format),
		str_human_size(f->header.size, disk, sizeof(disk)),
		is_cow ? str_human_size(f->owned_sectors << COW_SECTOR_SHIFT, stored, sizeof(stored)) : NULL,
		str_human_size(f->allocated, taken, sizeof(taken)),
		in_use(f->fd) ? "yes" : "no",
		when,
		f->path,
	};
	return cli_table_row(t, cells, err);
}

static void print_totals(const struct cow_chain *chain)
{
	const struct error *problem = cow_chain_problem(chain);
	char own_text[16], shared_text[16];
	uint64_t own, shared;

	count_bytes(chain, &own, &shared);
	printf("takes %s of its own, shares %s\n", str_human_size(own, own_text, sizeof(own_text)),
	       str_human_size(shared, shared_text, sizeof(shared_text)));
	if (!problem)
		return;
	printf("problem: %s\n", problem->message);
	if (problem->hint[0])
		printf("  %s\n", problem->hint);
}

static int print_table(const struct cow_chain *chain, struct error *err)
{
	static const char *const headers[] = {"#",      "FORMAT",       "DISK", "STORED", "ALLOCATED",
					      "IN USE", "BACKING TIME", "FILE", NULL};
	cleanup_free struct cow_file_info *f = malloc(sizeof(*f));
	struct cli_table *t = cli_table_new(err, headers);
	int ret = f && t ? 0 : error_oom(err);

	for (size_t i = 0; !ret && i < cow_chain_depth(chain); i++) {
		cow_chain_file(chain, i, f);
		ret = add_row(t, i, f, err);
	}
	if (!ret) {
		cli_table_print(t, stdout);
		print_totals(chain);
	}
	cli_table_free(t);
	return ret;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *chain = NULL;

	open.no_lock = open.partial = true;
	chain = cow_chain_open(operands->items[0], &open, err);
	if (!chain)
		return -1;
	if (o->json ? print_json(chain, err) : print_table(chain, err))
		return -1;
	return cow_chain_problem(chain) ? ERROR_FAILED : 0;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"json", 0, CLI_FLAG, offsetof(struct options, json), NULL, "tell it as JSON"},
	{NULL},
};

const struct cli_command cow_cmd_info = {
	.name = "info",
	.operands = "FILE",
	.summary = "Show the chain of a disk, and what each of its files stores and takes",
	.help = "Takes no locks, so it can be asked about a disk in use. When the chain is broken, what can "
		"be seen of it is\n"
		"shown, then what is wrong, and the exit status is 1.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
