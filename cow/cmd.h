/* The subcommands of uml-cow, one per file cmd_NAME.c; main.c lists them. */
#ifndef COW_CMD_H
#define COW_CMD_H

#include "uml-lab/base/cli.h"

extern const struct cli_command cow_cmd_create;

#endif
