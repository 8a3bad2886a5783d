/* The text of a share, as it stands on the command line. */
#include <stdlib.h>
#include <string.h>

#include "hostfs/hostfs.h"
#include "uml-lab/base/cleanup.h"

void hostfs_share_free(struct hostfs_share *share)
{
	free(share->name);
	free(share->path);
	strv_free(&share->hide);
	*share = (struct hostfs_share){0};
}

/* Takes one word up to a comma, backslashes removed; *text points behind the comma, or at the end. */
static char *take_word(const char **text, struct error *err)
{
	cleanup_strbuf struct strbuf word = STRBUF_INIT;
	const char *p = *text;

	for (; *p && *p != ','; p++) {
		if (*p == '\\' && p[1])
			p++;
		strbuf_putc(&word, *p);
	}
	*text = *p ? p + 1 : p;
	return strbuf_steal(&word, err);
}

static int set_owner(struct hostfs_share *share, const char *value, struct error *err)
{
	cleanup_free char *user = NULL;
	const char *colon = strchr(value, ':');
	int64_t uid, gid;

	share->owner_host = str_eq(value, "host");
	share->uid = share->gid = 0;
	if (share->owner_host || str_eq(value, "root"))
		return 0;
	user = colon ? strndup(value, (size_t)(colon - value)) : NULL;
	if (!user || str_to_i64(user, 0, UINT32_MAX - 1, &uid) < 0 ||
	    str_to_i64(colon + 1, 0, UINT32_MAX - 1, &gid) < 0)
		return error_set(err, ERROR_USAGE, "owner=%s is not root, host or UID:GID", value);
	share->uid = (uint32_t)uid;
	share->gid = (uint32_t)gid;
	return 0;
}

static int set_option(struct hostfs_share *share, const char *word, struct error *err)
{
	if (str_eq(word, "ro") || str_eq(word, "rw")) {
		share->writable = word[1] == 'w';
		return 0;
	}
	if (str_eq(word, "locks=local") || str_eq(word, "locks=shared")) {
		share->shared_locks = str_eq(word, "locks=shared");
		return 0;
	}
	if (str_starts(word, "owner="))
		return set_owner(share, word + strlen("owner="), err);
	if (str_starts(word, "hide=") && word[strlen("hide=")])
		return strv_add(&share->hide, word + strlen("hide="), err);
	if (str_starts(word, "quota=") && str_to_size(word + strlen("quota="), &share->quota) == 0)
		return 0;
	if (str_starts(word, "max-file-size=") &&
	    str_to_size(word + strlen("max-file-size="), &share->max_file_size) == 0)
		return 0;
	return error_set(err, ERROR_USAGE,
			 "'%s' is not ro, rw, locks=local, locks=shared, owner=, quota=BYTES, max-file-size=BYTES or "
			 "hide=PATTERN", word);
}

/* Names appear in the guest as the tag of a file system and in paths. */
static bool good_name(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n <= HOSTFS_SHARE_NAME_MAX && name[0] != '.' && !strpbrk(name, "/\n\t ");
}

static int parse(struct hostfs_share *share, const char *text, struct error *err)
{
	const char *rest = strchr(text, '=');

	if (!rest)
		return error_set(err, ERROR_USAGE, "no NAME= at its beginning");
	share->name = strndup(text, (size_t)(rest - text));
	rest++;
	share->path = share->name ? take_word(&rest, err) : NULL;
	if (!share->path)
		return error_oom(err);
	if (!good_name(share->name))
		return error_set(err, ERROR_USAGE, "its name must be 1 to %d characters without slash or blank",
				 HOSTFS_SHARE_NAME_MAX);
	if (share->path[0] != '/')
		return error_set(err, ERROR_USAGE, "its path %s is not absolute", share->path);
	while (*rest) {
		cleanup_free char *word = take_word(&rest, err);

		if (!word || set_option(share, word, err) < 0)
			return -1;
	}
	return 0;
}

int hostfs_share_parse(struct hostfs_share *share, const char *text, struct error *err)
{
	struct hostfs_share built = {0};

	if (parse(&built, text, err) < 0) {
		hostfs_share_free(&built);
		return error_prefix(err, "share %s", text);
	}
	*share = built;
	return 0;
}

static void put_escaped(struct strbuf *out, const char *text)
{
	for (; *text; text++) {
		if (*text == ',' || *text == '\\')
			strbuf_putc(out, '\\');
		strbuf_putc(out, *text);
	}
}

char *hostfs_share_format(const struct hostfs_share *share, struct error *err)
{
	cleanup_strbuf struct strbuf out = STRBUF_INIT;

	strbuf_printf(&out, "%s=", share->name);
	put_escaped(&out, share->path);
	strbuf_printf(&out, ",%s", share->writable ? "rw" : "ro");
	if (share->shared_locks)
		strbuf_puts(&out, ",locks=shared");
	if (share->owner_host)
		strbuf_puts(&out, ",owner=host");
	else if (share->uid || share->gid)
		strbuf_printf(&out, ",owner=%u:%u", share->uid, share->gid);
	if (share->quota)
		strbuf_printf(&out, ",quota=%llu", (unsigned long long)share->quota);
	if (share->max_file_size)
		strbuf_printf(&out, ",max-file-size=%llu", (unsigned long long)share->max_file_size);
	for (size_t i = 0; i < share->hide.count; i++) {
		strbuf_puts(&out, ",hide=");
		put_escaped(&out, share->hide.items[i]);
	}
	return strbuf_steal(&out, err);
}
