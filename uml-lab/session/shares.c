/* The shares of a machine, as its supervisor hands them to uml-hostfs. */
#include <stdio.h>
#include <stdlib.h>

#include "hostfs/hostfs.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/session/session_internal.h"

/* "root", "host" or "UID:GID", which the lab's loader has checked. */
static void set_owner(struct hostfs_share *share, const char *owner)
{
	share->owner_host = str_eq(owner, "host");
	if (owner && sscanf(owner, "%u:%u", &share->uid, &share->gid) != 2)
		share->uid = share->gid = 0;
}

static int fill_share(const struct lab_share *in, struct machine_share *out, struct error *err)
{
	/* The texts stay the lab's. */
	struct hostfs_share share = {
		.name = in->name,
		.path = in->path,
		.writable = in->writable,
		.shared_locks = in->shared_locks,
		.quota = in->quota,
		.max_file_size = in->max_file_size,
		.hide = in->hide,
	};

	set_owner(&share, in->owner);
	out->writable = in->writable;
	out->name = str_dup(in->name, err);
	out->mount = in->mount ? str_dup(in->mount, err) : str_printf(err, "/mnt/%s", in->name);
	out->text = hostfs_share_format(&share, err);
	return out->name && out->mount && out->text ? 0 : -1;
}

int session_fill_shares(const struct session *s, const struct lab_machine *m, struct machine_spec *spec,
			struct error *err)
{
	if (!m->shares.count)
		return 0;
	spec->shares = calloc(m->shares.count, sizeof(*spec->shares));
	if (!spec->shares)
		return error_oom(err);
	spec->share_count = m->shares.count;
	for (size_t i = 0; i < m->shares.count; i++)
		if (fill_share(lab_find_share(s->lab, m->shares.items[i]), &spec->shares[i], err) < 0)
			return -1;
	return 0;
}
