/*
 * Submissions: whatever the bytes are, they are read as the manifest allows or refused, and nothing is
 * written beyond the files meant for it. The first byte says what the rest is: 'm' a manifest, 'l' a lab.yml
 * that came along, else a tar archive, which is put into zstd here (raw blocks), so that mutations reach it.
 */
#include <endian.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/tar_mutator.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/submission.h"

#define BLOCK    (128u << 10) /* RFC 8878, 3.1.1.2.4 */
#define DATA_MAX (4u << 20)
#define OUTPUTS  4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was accepted can be told again, and is the same then. */
static void check_manifest(const uint8_t *data, size_t size)
{
	struct error err = ERROR_INIT;
	cleanup_submission struct submission *s = submission_parse((const char *)data, size, &err),
					     *again = NULL;
	cleanup_free char *text = NULL, *same = NULL;
	json_t *json;

	if (!s) {
		if (!err.message[0])
			abort();
		return;
	}
	json = submission_to_json(s, &err);
	text = json_dumps(json, 0);
	json_decref(json);
	again = submission_parse(text, strlen(text), &err);
	json = again ? submission_to_json(again, &err) : NULL;
	same = json ? json_dumps(json, 0) : NULL;
	json_decref(json);
	if (!same || !str_eq(text, same))
		abort();
}

static void check_safe(const struct lab *lab)
{
	for (size_t i = 0; i < lab->network_count; i++)
		if (lab->networks[i].vde)
			abort();
	for (size_t i = 0; i < lab->machine_count; i++) {
		const struct lab_machine *m = &lab->machines[i];

		if (m->shares.count || m->kernel_args.count || m->files || strchr(m->kernel, '/') ||
		    m->memory > 512u << 20)
			abort();
		for (size_t j = 0; j < m->interface_count; j++)
			if (m->interfaces[j].forward_count || m->interfaces[j].host ||
			    m->interfaces[j].allow.count ||
			    (m->interfaces[j].slirp && !m->interfaces[j].restricted))
				abort();
	}
	if (lab->share_count || !lab->limits.time_ms || !lab->limits.memory || !lab->limits.disk)
		abort();
}

/* A lab is made harmless, and stays so when its session is read again. */
static void check_lab(const uint8_t *data, size_t size)
{
	const struct lab_load_options options = {.skip_paths = true, .random_seed = "seed", .user = "anna"};
	struct error err = ERROR_INIT;
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	struct lab *lab = lab_load_text((const char *)data, size, "lab.yml", "/nonexistent", &options, &err),
		   *again;

	if (lab && submission_make_safe(lab, &(struct submission_trust){0}, &err) == 0) {
		check_safe(lab);
		if (lab_write_effective(lab, &text, &err) < 0)
			abort();
		again = lab_load_text(text.data, text.length, "session.yml", "/nonexistent", &options, &err);
		if (again)
			check_safe(again);
		lab_free(again);
	}
	lab_free(lab);
}

/* One frame without a content size, window of 1 MiB, raw blocks. */
static int compress(const uint8_t *data, size_t size)
{
	static const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 10 << 3};
	int fd = memfd_create("submission", MFD_CLOEXEC);

	if (fd < 0 || file_write_full(fd, head, sizeof(head)) < 0)
		abort();
	do {
		size_t n = size < BLOCK ? size : BLOCK;
		uint32_t block = htole32((uint32_t)(n << 3) | (n == size));

		if (file_write_full(fd, &block, 3) < 0 || file_write_full(fd, data, n) < 0)
			abort();
		data += n;
		size -= n;
	} while (size);
	return fd;
}

static void check_archive(const uint8_t *data, size_t size)
{
	cleanup_close int fd = compress(data, size);
	struct submission_read_options options = {.data_max = DATA_MAX};
	struct submission_content content = {0};
	struct error err = ERROR_INIT;
	int outputs[OUTPUTS];

	if (submission_read(fd, &options, &content, &err) == 0 &&
	    submission_disk_count(content.manifest) <= OUTPUTS) {
		size_t count = submission_disk_count(content.manifest);

		submission_content_free(&content);
		for (size_t i = 0; i < count; i++)
			outputs[i] = memfd_create("disk", MFD_CLOEXEC);
		options.outputs = outputs;
		options.output_count = count;
		/* What was fine once is fine again, and fills files of the sizes told. */
		if (submission_read(fd, &options, &content, &err) < 0)
			abort();
		for (size_t i = 0, at = 0; i < content.manifest->machine_count; i++)
			for (size_t j = 0; j < content.manifest->machines[i].disk_count; j++, at++) {
				struct stat st;

				if (fstat(outputs[at], &st) < 0 ||
				    (uint64_t)st.st_size != content.manifest->machines[i].disks[j].size)
					abort();
			}
		for (size_t i = 0; i < count; i++)
			close(outputs[i]);
	} else if (!content.manifest && !err.message[0]) {
		abort();
	}
	submission_content_free(&content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (*data == 'm')
		check_manifest(data + 1, size - 1);
	else if (*data == 'l')
		check_lab(data + 1, size - 1);
	else
		check_archive(data + 1, size - 1);
	return 0;
}
