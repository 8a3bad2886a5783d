/*
 * An empty ext4 in a sparse file, through mke2fs.
 *
 * The features are named one by one, so that the host's mke2fs.conf cannot
 * choose some that an older guest kernel lacks. Inode tables are not left for
 * the guest to initialise later: that would write all of them into a machine's
 * overlay. In a sparse file a zeroed table costs nothing. For the same reason
 * the journal is small.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"
#include "uml-lab/image/fs.h"
#include "uml-lab/image/image_internal.h"

#define MKE2FS_TIMEOUT_MS 120000
#define MIB               (1024 * 1024ull)

/* The parent's environment, with the time mke2fs takes for now, if one was asked for. */
static int environment(struct strv *env, time_t now, struct error *err)
{
	for (char **e = environ; *e; e++)
		if (!str_starts(*e, "E2FSPROGS_FAKE_TIME=") && !str_starts(*e, "MKE2FS_") &&
		    strv_add(env, *e, err))
			return -1;
	return now ? strv_addf(env, err, "E2FSPROGS_FAKE_TIME=%lld", (long long)now) : 0;
}

static int arguments(struct strv *argv, const char *program, const char *path, uint64_t size, time_t now,
		     struct error *err)
{
	/* With a fixed time, equal content shall give equal images: fixed identifiers too. */
	static const char fixed[] = "8a0a53d6-4d1f-4f0c-9c05-0b6c6a1f2e11";
	const char *const common[] = {
		program,
		"-q",
		"-F",
		"-t",
		"ext4",
		"-O",
		"none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
		"large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
		"-b",
		"4096",
		"-I",
		"256",
		"-i",
		"8192",
		"-m",
		"1",
		"-L",
		"root",
		"-U",
		now ? fixed : "random",
	};

	for (size_t i = 0; i < ARRAY_SIZE(common); i++)
		if (strv_add(argv, common[i], err))
			return -1;
	if (strv_add(argv, "-E", err) ||
	    strv_addf(argv, err, "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0%s%s",
		      now ? ",hash_seed=" : "", now ? fixed : "") ||
	    strv_add(argv, "-J", err) || strv_addf(argv, err, "size=%d", size <= 512 * MIB ? 4 : 16) ||
	    strv_add(argv, path, err))
		return -1;
	return strv_addf(argv, err, "%lluk", (unsigned long long)(size / 1024));
}

int image_fs_format(const char *path, uint64_t size, time_t now, struct error *err)
{
	cleanup_strv struct strv argv = STRV_INIT, env = STRV_INIT;
	cleanup_free char *program = image_program("mke2fs", "e2fsprogs", err), *output = NULL;
	struct child_spec spec = {.null_stdin = true, .death_signal = SIGKILL};
	char how[64];
	int status;

	if (!program || arguments(&argv, program, path, size, now, err) || environment(&env, now, err))
		return -1;
	if (truncate(path, (off_t)size))
		return error_errno(err, errno, "%s: making a sparse file of %llu bytes", path,
				   (unsigned long long)size);
	spec.argv = (const char *const *)argv.items;
	spec.env = (const char *const *)env.items;
	if (child_capture(&spec, MKE2FS_TIMEOUT_MS, 2048, true, &output, &status, err))
		return error_prefix(err, "mke2fs");
	if (status)
		return error_set(err, ERROR_FAILED, "mke2fs %s: %s",
				 child_describe_status(status, how, sizeof(how)), output);
	return 0;
}
