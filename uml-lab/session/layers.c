/*
 * The files of a machine's folder: which are needed, and how they go away.
 *
 * Disks are chains: the file a machine writes stands on frozen ones, those on
 * others, the last on the base. session.yml names the files that are written
 * (`disks:`) and those that snapshots froze; all that these stand on is needed too,
 * as the COW headers tell. A verb makes new files under new names, then
 * rewrites session.yml, which is the one moment of change, then tidies up here. Killed
 * before that moment it leaves files that nothing names, after it files that
 * nothing names any more; the next verb removes both.
 *
 * A frozen file that no snapshot names, and that only one other file stands on,
 * is merged into that one: what the guest sees stays, one file less is opened. Raw
 * files (extra disks) stay raw, as the lowest of their chain: such a one takes in what the other stores, and then the
 * other's name. So a file's name says which disk it is of, not what it is: disk1-2.cow may be raw.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cow/ops.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

#define GENERATIONS_MAX 1000000

/* ---- names ---- */

char *layer_first_name(size_t disk, struct error *err)
{
	return disk ? str_printf(err, "disk%zu.img", disk) : str_dup("root.cow", err);
}

char *layer_path(const struct session *session, const char *machine, const char *file, struct error *err)
{
	return str_printf(err, "%s/%s/%s", session->folder, machine, file);
}

const char *layer_present_name(const struct session_machine *machine, size_t disk)
{
	return disk < machine->disks.count ? machine->disks.items[disk] : NULL;
}

char *layer_new_name(const struct session *session, const char *machine, size_t disk, bool raw, struct error *err)
{
	cleanup_free char *stem = disk ? str_printf(err, "disk%zu", disk) : str_dup("root", err);
	cleanup_free char *first = layer_first_name(disk, err), *first_path = NULL;

	first_path = first ? layer_path(session, machine, first, err) : NULL;
	if (!first_path)
		return NULL;
	if (raw == (disk > 0) && !file_exists(first_path))
		return steal_ptr(&first);
	for (int n = 2; stem && n < GENERATIONS_MAX; n++) {
		cleanup_free char *cow = str_printf(err, "%s-%d.cow", stem, n), *img = str_printf(err, "%s-%d.img", stem, n);
		cleanup_free char *cow_path = cow ? layer_path(session, machine, cow, err) : NULL;
		cleanup_free char *img_path = img ? layer_path(session, machine, img, err) : NULL;

		if (!cow_path || !img_path)
			return NULL;
		if (!file_exists(cow_path) && !file_exists(img_path))
			return raw ? steal_ptr(&img) : steal_ptr(&cow);
	}
	if (stem)
		error_set(err, ERROR_FAILED, "machine %s has too many files of disk %zu", machine, disk);
	return NULL;
}

int layers_set_disks(struct session_machine *m, struct strv *disks, struct error *err)
{
	bool as_at_first = true;

	for (size_t i = 0; i < disks->count; i++) {
		cleanup_free char *first = layer_first_name(i, err);

		if (!first)
			return -1;
		as_at_first &= str_eq(disks->items[i], first);
	}
	strv_free(&m->disks);
	strv_free(&m->next_disks);
	if (as_at_first)
		return 0;
	m->disks = *disks;
	*disks = (struct strv)STRV_INIT;
	return 0;
}

/* "root.cow", "root-3.cow", "disk1.img", "disk1-3.cow" and the like; *disk tells which. */
static bool is_layer_name(const char *name, size_t *disk, bool *first)
{
	char *end = (char *)name + 4;

	*disk = 0;
	if (str_starts(name, "disk") && isdigit((unsigned char)name[4]))
		*disk = strtoul(name + 4, &end, 10);
	else if (!str_starts(name, "root"))
		return false;
	*first = *end != '-';
	if (*end == '-' && isdigit((unsigned char)end[1]))
		strtoul(end + 1, &end, 10);
	return str_eq(end, ".cow") || str_eq(end, ".img");
}

size_t layer_disk(const char *name)
{
	size_t disk = 0;
	bool first;

	is_layer_name(name, &disk, &first);
	return disk;
}

/* What a killed process leaves of a file it was making: ".NAME.uml-cow-XXXXXX" (libcow), "NAME.new" (extra disks). */
static bool is_unfinished(const char *name)
{
	return (name[0] == '.' && strstr(name, ".uml-cow-") && !str_ends(name, ".uml-cow-notes")) || str_ends(name, ".img.new");
}

/* ---- who stands on whom ---- */

struct layer_node {
	char *name;
	char *below;			/* the file of this folder that it stands on, NULL: none */
	bool raw, named, needed;	/* named: by session.yml */
	size_t children;		/* needed files that stand on it */
	uint64_t allocated;
};

struct layer_graph {
	struct layer_node *nodes;
	size_t count;
	char *folder, *real;		/* real: symbolic links resolved, as headers have it */
};

static void graph_free(struct layer_graph *g)
{
	for (size_t i = 0; i < g->count; i++) {
		free(g->nodes[i].name);
		free(g->nodes[i].below);
	}
	free(g->nodes);
	free(g->folder);
	free(g->real);
	*g = (struct layer_graph){0};
}

static struct layer_node *graph_find(const struct layer_graph *g, const char *name)
{
	for (size_t i = 0; name && i < g->count; i++)
		if (str_eq(g->nodes[i].name, name))
			return &g->nodes[i];
	return NULL;
}

/* The name in this folder of what a file stands on. A folder that was moved keeps its files' names. */
static char *name_below(const struct layer_graph *g, const struct cow_header *h, struct error *err)
{
	cleanup_free char *a = str_dup(h->backing, err), *b = str_dup(h->backing, err);

	if (!a || !b)
		return NULL;
	if (!str_eq(dirname(a), g->real) && file_exists(h->backing))
		return NULL;
	return str_dup(basename(b), err);
}

static int read_node(const struct layer_graph *g, struct layer_node *node, struct error *err)
{
	cleanup_free char *path = file_join(err, g->folder, node->name);
	cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	struct stat st;
	int is_cow;

	if (!h)
		return error_oom(err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot open %s", path);
	node->allocated = (uint64_t)st.st_blocks * 512;
	is_cow = cow_header_of(fd, path, h, err);
	if (is_cow < 0)
		return error_prefix(err, "%s", path);
	node->raw = is_cow == 0;
	node->below = is_cow ? name_below(g, h, err) : NULL;
	return 0;
}

static int add_node(struct layer_graph *g, const char *name, struct error *err)
{
	struct layer_node *nodes = reallocarray(g->nodes, g->count + 1, sizeof(*nodes));

	if (!nodes)
		return error_oom(err);
	g->nodes = nodes;
	nodes[g->count] = (struct layer_node){.name = str_dup(name, err)};
	return nodes[g->count].name ? read_node(g, &nodes[g->count++], err) : -1;
}

static void name_all(const struct layer_graph *g, const struct strv *names)
{
	for (size_t i = 0; i < names->count; i++) {
		struct layer_node *node = graph_find(g, names->items[i]);

		if (node)
			node->named = true;
	}
}

/* Marks what session.yml names. */
static void mark_named(const struct layer_graph *g, const struct session *s, const char *machine)
{
	const struct session_machine *m = session_find_machine((struct session *)s, machine);

	if (m) {
		name_all(g, &m->disks);
		name_all(g, &m->next_disks);
	}
	for (size_t i = 0; i < g->count; i++) {
		bool first;
		size_t disk;

		/* A disk without an entry is called as at first: also one that the lab lacks for the moment. */
		if (is_layer_name(g->nodes[i].name, &disk, &first) && first && !(m && layer_present_name(m, disk)))
			g->nodes[i].named = true;
	}
	for (size_t i = 0; i < s->snapshot_count; i++) {
		struct session_frozen *f = session_find_frozen(&s->snapshots[i], machine);

		for (size_t j = 0; f && j < f->layer_count; j++) {
			struct layer_node *node = graph_find(g, f->layers[j].file);

			if (node)
				node->named = true;
		}
	}
}

static void mark_needed(const struct layer_graph *g)
{
	for (size_t i = 0; i < g->count; i++) {
		struct layer_node *node = g->nodes[i].named ? &g->nodes[i] : NULL;

		/* Down the chain, as far as nobody was before. A cycle ends there too. */
		while (node && !node->needed) {
			struct layer_node *below = graph_find(g, node->below);

			node->needed = true;
			if (below)
				below->children++;
			node = below;
		}
	}
}

static int graph_load(struct layer_graph *g, const struct session *s, const char *machine, struct error *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *entry;

	*g = (struct layer_graph){.folder = session_machine_folder(s, machine, err)};
	if (!g->folder)
		return -1;
	dir = opendir(g->folder);
	if (!dir)
		return errno == ENOENT ? 0 : error_errno(err, errno, "cannot read %s", g->folder);
	g->real = file_absolute(g->folder, false, err);
	if (!g->real)
		return -1;
	while ((entry = readdir(dir))) {
		size_t disk;
		bool first;

		if (is_layer_name(entry->d_name, &disk, &first) && add_node(g, entry->d_name, err) < 0)
			return -1;
	}
	mark_named(g, s, machine);
	mark_needed(g);
	return 0;
}

/* ---- tidying ---- */

/* Whether nobody holds it: libcow locks what it is making. */
static bool is_abandoned(const char *path)
{
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

int layers_unneeded(const struct session *session, const char *machine, struct strv *out, struct error *err)
{
	struct layer_graph g;
	int result = graph_load(&g, session, machine, err);
	cleanup_dir DIR *dir = result == 0 ? opendir(g.folder) : NULL;
	struct dirent *entry;

	for (size_t i = 0; result == 0 && i < g.count; i++)
		if (!g.nodes[i].needed)
			result = strv_addf(out, err, "%s/%s", g.folder, g.nodes[i].name);
	while (result == 0 && dir && (entry = readdir(dir))) {
		cleanup_free char *path = is_unfinished(entry->d_name) ? file_join(err, g.folder, entry->d_name) : NULL;

		if (path && is_abandoned(path))
			result = strv_add(out, path, err);
	}
	graph_free(&g);
	return result;
}

static int remove_file(const char *folder, const char *name, uint64_t *freed, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);
	struct stat st;

	if (!path)
		return -1;
	if (lstat(path, &st) < 0)
		return 0;
	if (unlink(path) < 0)
		return error_errno(err, errno, "cannot remove %s", path);
	if (freed)
		*freed += (uint64_t)st.st_blocks * 512;
	return 0;
}

static int remove_unfinished(const char *folder, uint64_t *freed, struct error *err)
{
	cleanup_dir DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		cleanup_free char *path = NULL;

		if (!is_unfinished(entry->d_name))
			continue;
		path = file_join(err, folder, entry->d_name);
		if (!path || (is_abandoned(path) && remove_file(folder, entry->d_name, freed, err) < 0))
			return -1;
	}
	return 0;
}

/* Whether a file is to go, and only one other stands on it. */
static bool is_between(const struct layer_node *lower)
{
	return lower->needed && !lower->named && lower->children == 1;
}

/* Makes one file of one and the only one that stands on it. 1: done, 0: there is none that can be. */
static int merge_one(const struct layer_graph *g)
{
	for (size_t i = 0; i < g->count; i++) {
		const struct layer_node *upper = &g->nodes[i], *lower = graph_find(g, upper->below);
		cleanup_free char *upper_path = NULL, *lower_path = NULL;

		if (!upper->needed || !lower || !is_between(lower))
			continue;
		upper_path = file_join(NULL, g->folder, upper->name);
		lower_path = file_join(NULL, g->folder, lower->name);
		/* In use, or no room: the chain is right as it is, and the next verb tries again. */
		if (upper_path && lower_path &&
		    (lower->raw ? cow_fold(upper_path, NULL, NULL) : cow_merge(upper_path, lower_path, NULL, NULL, NULL)) == 0)
			return 1;
	}
	return 0;
}

int layers_tidy(const struct session *session, const char *machine, uint64_t *freed, struct error *err)
{
	int result = 0, again = 1;

	while (result == 0 && again) {
		struct layer_graph g;

		again = 0;
		result = graph_load(&g, session, machine, err);
		for (size_t i = 0; result == 0 && i < g.count; i++)
			if (!g.nodes[i].needed)
				result = remove_file(g.folder, g.nodes[i].name, freed, err);
		if (result == 0)
			result = remove_unfinished(g.folder, freed, err);
		if (result == 0)
			again = merge_one(&g);
		graph_free(&g);
	}
	return result;
}

int layers_between(const struct session *session, const char *machine, char **name, bool *raw, struct error *err)
{
	struct layer_graph g;
	int result = graph_load(&g, session, machine, err);
	const struct layer_node *found = NULL;

	*name = NULL;
	/* a raw one first: what is merged into the one above it before has to be copied twice */
	for (size_t i = 0; result == 0 && i < g.count; i++)
		if (is_between(&g.nodes[i]) && (!found || g.nodes[i].raw))
			found = &g.nodes[i];
	if (found) {
		*raw = found->raw;
		*name = str_dup(found->name, err);
		result = *name ? 1 : -1;
	}
	graph_free(&g);
	return result;
}

/* ---- repair ---- */

/* Whether the guest wrote to the file it was being switched to. */
static bool holds_anything(const char *path)
{
	struct cow_chain *chain = cow_chain_open(path, &(struct cow_open_options){.no_lock = true, .partial = true}, NULL);
	struct cow_file_info info = {0};

	if (chain)
		cow_chain_file(chain, 0, &info);
	cow_chain_close(chain);
	return info.owned_sectors > 0;
}

/*
 * Which file is the disk's after a switch of which nobody told how it went. The server makes the new file at the moment it
 * switches, and removes it when it cannot. When it is over: an empty file shows what the one below shows.
 */
static bool was_switched(const struct session *s, const struct session_machine *m, size_t disk)
{
	cleanup_free char *path = layer_path(s, m->name, m->next_disks.items[disk], NULL);

	return path && file_exists(path) && (session_machine_runs(m) || holds_anything(path));
}

static int decide(struct session *s, struct session_machine *m, struct error *err)
{
	cleanup_strv struct strv decided = STRV_INIT;

	for (size_t i = 0; i < m->next_disks.count; i++) {
		const char *now = layer_present_name(m, i);
		cleanup_free char *first = layer_first_name(i, err);

		if (!first || strv_add(&decided, was_switched(s, m, i) ? m->next_disks.items[i] : now ?: first, err) < 0)
			return -1;
	}
	return layers_set_disks(m, &decided, err);
}

static int decide_all(struct session *s, void *arg, struct error *err)
{
	(void)arg;
	for (size_t i = 0; i < s->machine_count; i++)
		if (s->machines[i].next_disks.count && decide(s, &s->machines[i], err) < 0)
			return -1;
	return 0;
}

int layers_repair(struct session *session, struct error *err)
{
	bool undecided = false;

	for (size_t i = 0; i < session->machine_count; i++)
		undecided |= session->machines[i].next_disks.count > 0;
	if (undecided && (session_update(session->name, decide_all, NULL, err) < 0 || session_reload(session, err) < 0))
		return -1;
	/* What cannot be tidied up (a damaged file) does no harm where it is. */
	for (size_t i = 0; i < session->machine_count; i++)
		layers_tidy(session, session->machines[i].name, NULL, NULL);
	return 0;
}
