/* The subcommands of uml-cow, one per file cmd_NAME.c; main.c lists them. */
#ifndef COW_CMD_H
#define COW_CMD_H

#include <jansson.h>

#include "cow/cow.h"
#include "uml-lab/base/cli.h"

extern const struct cli_command cow_cmd_create, cow_cmd_info, cow_cmd_map, cow_cmd_diff, cow_cmd_commit,
	cow_cmd_flatten, cow_cmd_merge, cow_cmd_rebase, cow_cmd_convert, cow_cmd_compact, cow_cmd_check,
	cow_cmd_mount, cow_cmd_umount, cow_cmd_files, cow_cmd_cat, cow_cmd_diff_files,
	cow_cmd_serve;

/* main() of a program that has these subcommands of uml-cow (NULL-terminated). */
int cow_cmd_main(const struct cli_command *const *commands, int argc, char **argv);

/* Options of every subcommand that opens a chain: first member of its option struct. */
struct cow_cmd_chain {
	struct strv allow;
	bool allow_any;
};

#define COW_CMD_CHAIN_OPTIONS                                                                                \
	{"allow",  0,                                                                                        \
	 CLI_LIST, offsetof(struct cow_cmd_chain, allow),                                                    \
	 "FOLDER", "also open backing files in this folder, and look there for those that moved"},           \
	{                                                                                                    \
		"allow-any", 0, CLI_FLAG, offsetof(struct cow_cmd_chain, allow_any), NULL,                   \
			"open backing files wherever the disk says (only for disks you trust)"               \
	}

/* What to open a chain with, as the options say; the folders stay theirs. */
struct cow_open_options cow_cmd_open_options(const struct cow_cmd_chain *o);

/* Prints a JSON document with a newline, and drops it. A NULL document is out of memory. */
int cow_cmd_print_json(json_t *doc, struct error *err);

/* Adds a row, which it takes over, to a list. A NULL row is out of memory. */
int cow_cmd_json_add(json_t *list, json_t *row, struct error *err);
/* Prints a list, which stays the caller's; nothing when it is NULL, since then the rows were told as they came. */
int cow_cmd_print_list(json_t *list, struct error *err);

/* A string for JSON. Names are bytes: in one that is not UTF-8, each byte from 0x80 on becomes "\\xNN". NULL:
 * no memory. */
json_t *cow_cmd_json_text(const char *text);

/* A struct cow_chain * that is closed with its scope. */
static inline void cow_cmd_chain_cleanup(struct cow_chain **chain)
{
	cow_chain_close(*chain);
}
#define cleanup_cow_chain __attribute__((cleanup(cow_cmd_chain_cleanup)))

/* A json_t * that is dropped with its scope. */
static inline void cow_cmd_json_cleanup(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json __attribute__((cleanup(cow_cmd_json_cleanup)))

#endif
