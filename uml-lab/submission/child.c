/*
 * The process that reads a submission: uml-lab started again as `uml-lab __read-submission`, which gives up
 * everything before the first byte is read. It can open no file, start no program, reach no network, no other
 * process; it has the submission and the empty files it is to fill, a bound of memory, of processor time and
 * of how far those files may reach, and standard output, on which it tells what it found as JSON.
 *
 * That is parsed here with the same bounds once more: a reader that was taken over can lie about one
 * submission, its own.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/submission.h"

#define FILE_FD    3
#define OUTPUTS_FD 4
#define READ_MS    600000
#define READ_CPU_S 600
#define MEMORY_MAX (768ull << 20) /* zstd's window takes 128M at most, the manifest as JSON some 30M */
#define ANSWER_MAX (16u << 20)    /* manifest and lab.yml, escaped */

int submission_open_file(const char *path, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return error_set(err, ERROR_NOT_FOUND, "there is no file %s", path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot open %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "%s is not a regular file", path);
	return steal_fd(&fd);
}

/* ---- the child ---- */

static int limit(int resource, uint64_t value, struct error *err)
{
	const struct rlimit both = {value, value};

	return setrlimit((__rlimit_resource_t)resource, &both) < 0
		       ? error_errno(err, errno, "cannot set a limit")
		       : 0;
}

static int confine(struct error *err)
{
	static const char *const calls[] = {"ftruncate", NULL};
	const struct confine_spec spec = {.calls = calls, .max_processes = 0};
	char walls[CONFINE_WALLS_MAX];

	/* AddressSanitizer's shadow is larger than any bound. */
#ifndef __SANITIZE_ADDRESS__
	if (limit(RLIMIT_AS, MEMORY_MAX, err) < 0)
		return -1;
#endif
	if (limit(RLIMIT_CPU, READ_CPU_S, err) < 0 || limit(RLIMIT_FSIZE, SUBMISSION_DISK_MAX, err) < 0)
		return -1;
	return confine_self(&spec, walls, err);
}

static json_t *content_json(const struct submission_content *c, const struct submission_read_options *o)
{
	json_t *data = json_array();

	for (size_t i = 0; !o->head_only && i < submission_disk_count(c->manifest); i++)
		json_array_append_new(data, json_integer((json_int_t)c->data[i]));
	return json_pack("{s:s, s:s, s:o, s:I}", "manifest", c->manifest_text, "lab", c->lab_text, "data",
			 data, "total", (json_int_t)c->total);
}

static json_t *failure_json(const struct error *why)
{
	cleanup_strbuf struct strbuf message = STRBUF_INIT, hint = STRBUF_INIT;

	strbuf_puts(&message, why->message);
	strbuf_puts(&hint, why->hint);
	str_clean(&message);
	str_clean(&hint);
	return json_pack("{s:s, s:s, s:i, s:i}", "error", message.data ?: "", "hint", hint.data ?: "", "kind",
			 (int)why->kind, "errno", why->sys_errno);
}

int submission_reader_main(const struct submission_read_options *options, struct error *err)
{
	struct submission_read_options o = *options;
	struct submission_content content = {0};
	struct error why = ERROR_INIT;
	int outputs[SUBMISSION_DISKS_MAX];
	cleanup_free char *text = NULL;
	json_t *answer;

	if (o.output_count > SUBMISSION_DISKS_MAX)
		return error_set(err, ERROR_USAGE, "too many outputs");
	for (size_t i = 0; i < o.output_count; i++)
		outputs[i] = OUTPUTS_FD + (int)i;
	o.outputs = o.output_count ? outputs : NULL;
	if (confine(err) < 0)
		return -1;
	answer = submission_read(FILE_FD, &o, &content, &why) == 0 ? content_json(&content, &o)
								   : failure_json(&why);
	submission_content_free(&content);
	if (!answer)
		return error_set(err, ERROR_FAILED, "its texts are not UTF-8");
	text = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	if (!text)
		return error_oom(err);
	return file_write_full(STDOUT_FILENO, text, strlen(text)) < 0
		       ? error_errno(err, errno, "cannot tell what is in it")
		       : 0;
}

/* ---- the parent ---- */

static int take_failure(json_t *answer, struct error *err)
{
	const char *hint = json_string_value(json_object_get(answer, "hint"));
	cleanup_strbuf struct strbuf message = STRBUF_INIT;

	strbuf_puts(&message, json_string_value(json_object_get(answer, "error")) ?: "it cannot be read");
	str_clean(&message);
	error_set(err, ERROR_FAILED, "%.1000s", message.data ?: "");
	return hint && *hint ? error_hint(err, "%.300s", hint) : -1;
}

static int take_data(json_t *answer, struct submission_content *c, struct error *err)
{
	json_t *data = json_object_get(answer, "data");
	size_t count = submission_disk_count(c->manifest);

	c->data = calloc(count, sizeof(*c->data));
	if (!c->data)
		return error_oom(err);
	for (size_t i = 0; i < count; i++)
		c->data[i] = (uint64_t)json_integer_value(json_array_get(data, i));
	c->total = (uint64_t)json_integer_value(json_object_get(answer, "total"));
	return 0;
}

static int take_answer(json_t *answer, struct submission_content *c, struct error *err)
{
	const char *manifest = json_string_value(json_object_get(answer, "manifest"));
	const char *lab = json_string_value(json_object_get(answer, "lab"));

	if (!manifest || !lab)
		return take_failure(answer, err);
	c->manifest = submission_parse(manifest, strlen(manifest), err);
	c->manifest_text = str_dup(manifest, err);
	c->lab_text = str_dup(lab, err);
	c->lab_length = strlen(lab);
	return c->manifest && c->manifest_text && c->lab_text ? take_data(answer, c, err) : -1;
}

static int build_argv(const struct submission_read_options *o, struct strv *argv, struct error *err)
{
	cleanup_free char *program = file_absolute("/proc/self/exe", false, err);

	if (!program || strv_add(argv, program, err) < 0 || strv_add(argv, "__read-submission", err) < 0 ||
	    (o->data_max && strv_addf(argv, err, "--max-size=%llu", (unsigned long long)o->data_max) < 0) ||
	    (o->head_only && strv_add(argv, "--head", err) < 0))
		return -1;
	return o->output_count ? strv_addf(argv, err, "--outputs=%zu", o->output_count) : 0;
}

static int run_child(int fd, const struct submission_read_options *o, int timeout_ms, char **output,
		     struct error *err)
{
	cleanup_strv struct strv argv = STRV_INIT;
	struct child_fd fds[1 + SUBMISSION_DISKS_MAX] = {{fd, FILE_FD}};
	struct child_spec spec = {.cwd = "/",
				  .fds = fds,
				  .fd_count = 1 + o->output_count,
				  .null_stdin = true,
				  .death_signal = SIGKILL,
				  .no_new_privs = true};
	cleanup_free char *text = NULL;
	char how[64];
	int status;

	if (build_argv(o, &argv, err) < 0)
		return -1;
	for (size_t i = 0; i < o->output_count; i++)
		fds[1 + i] = (struct child_fd){o->outputs[i], OUTPUTS_FD + (int)i};
	spec.argv = (const char *const *)argv.items;
	if (child_capture(&spec, timeout_ms ?: READ_MS, ANSWER_MAX, false, &text, &status, err) < 0)
		return -1;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return error_set(err, ERROR_FAILED, "the process that read it %s",
				 child_describe_status(status, how, sizeof(how)));
	*output = steal_ptr(&text);
	return 0;
}

int submission_read_confined(int fd, const struct submission_read_options *options, const char *expect,
			     int timeout_ms, struct submission_content *out, struct error *err)
{
	struct submission_content content = {0};
	cleanup_free char *text = NULL;
	json_t *answer;
	int result;

	if (options->output_count > SUBMISSION_DISKS_MAX)
		return error_set(err, ERROR_FAILED, "it has too many disks");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(err, errno, "cannot read it");
	if (run_child(fd, options, timeout_ms, &text, err) < 0)
		return -1;
	answer = json_loads(text, 0, NULL);
	result = answer ? take_answer(answer, &content, err)
			: error_set(err, ERROR_FAILED, "it cannot be read");
	json_decref(answer);
	/* What was read first is what was decided on. */
	if (result == 0 && expect && !str_eq(expect, content.manifest_text))
		result = error_set(err, ERROR_FAILED, "the file changed while it was read");
	if (result == 0)
		*out = content;
	else
		submission_content_free(&content);
	return result;
}
