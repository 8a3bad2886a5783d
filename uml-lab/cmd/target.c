/* The session and machines that a verb works on. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/cmd/cmd.h"

int cmd_target_choose(struct cmd_target *target, const struct strv *operands, struct error *err)
{
	char *machine = NULL;
	int result;

	if (session_resolve(cmd_operand(operands, 0), &target->name, &machine, false, err) < 0)
		return -1;
	result = machine ? strv_add(&target->only, machine, err) : 0;
	free(machine);
	for (size_t i = 1; result == 0 && i < operands->count; i++)
		result = strv_add(&target->only, operands->items[i], err);
	return result;
}

int cmd_target_take(struct cmd_target *target, struct error *err)
{
	target->lock = session_lock(target->name, SESSION_LOCK_MS, err);
	if (target->lock < 0)
		return -1;
	target->session = session_load(target->name, err);
	target->progress = target->session ? progress_new(target->session, &target->only, err) : NULL;
	return target->progress ? 0 : -1;
}

void cmd_target_release(struct cmd_target *target)
{
	int saved = errno;

	if (target->lock >= 0)
		close(target->lock);
	progress_free(target->progress);
	session_free(target->session);
	strv_free(&target->only);
	free(target->name);
	errno = saved;
}

struct session_start_options cmd_target_start(struct cmd_target *target, int64_t timeout_ms)
{
	return (struct session_start_options){
		.only = &target->only,
		.wait = SESSION_WAIT_READY,
		.timeout_ms = timeout_ms ? timeout_ms : CMD_READY_MS,
		.progress = progress_tell,
		.progress_arg = target->progress,
		.cancel = cmd_catch_signals(),
	};
}
