/* The part of session.yml that tells what `uml-lab check` found last. */
#include <stdlib.h>

#include "uml-lab/session/session_internal.h"

void last_check_free(struct session_last_check *last)
{
	free(last->time);
	free(last->stage);
	strv_free(&last->verdicts);
	*last = (struct session_last_check){0};
}

int last_check_read(yaml_document_t *document, yaml_node_t *node, struct session_last_check *last, struct error *err)
{
	last->passed = (int)yaml_get_number(document, node, "passed", 0);
	last->failed = (int)yaml_get_number(document, node, "failed", 0);
	last->skipped = (int)yaml_get_number(document, node, "skipped", 0);
	last->points = (int)yaml_get_number(document, node, "points", 0);
	last->points_of = (int)yaml_get_number(document, node, "points-of", 0);
	if (yaml_copy_text(document, node, "time", &last->time, err) < 0 ||
	    yaml_copy_text(document, node, "stage", &last->stage, err) < 0)
		return -1;
	return yaml_copy_list(document, node, "verdicts", &last->verdicts, err);
}

void last_check_write(struct yaml_out *out, const struct session_last_check *last)
{
	if (!last->time)
		return;
	yaml_out_map(out, "check", false);
	yaml_out_text(out, "time", last->time);
	yaml_out_text(out, "stage", last->stage);
	yaml_out_number(out, "passed", last->passed);
	yaml_out_number(out, "failed", last->failed);
	yaml_out_number(out, "skipped", last->skipped);
	yaml_out_number(out, "points", last->points);
	yaml_out_number(out, "points-of", last->points_of);
	yaml_out_list(out, "verdicts");
	for (size_t i = 0; i < last->verdicts.count; i++)
		yaml_out_text(out, NULL, last->verdicts.items[i]);
	yaml_out_close_list(out);
	yaml_out_close_map(out);
}
