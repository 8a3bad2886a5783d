/*
 * The mirror a person's own machine uses is the one to build images from: it
 * is near, it works, and it is trusted already. So sources.list and its
 * companions are read, in both of apt's forms (sources.list(5)), and what is
 * Debian's own archive is taken over with another suite.
 *
 * What is Debian's archive: the component main, and either the archive's
 * keyring or a path that ends as all mirrors' do ("debian",
 * "debian-security"). Others' repositories use Debian's suite names, too.
 */
#include "uml-lab/image/apt.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define SOURCES_FILE_MAX (256 * 1024)

/* One entry as it is written: each field is a list of words. */
struct stanza {
	char *types, *uris, *suites, *components, *signed_by;
	bool disabled;
};

struct search {
	struct apt_sources *out;
	const char *from; /* the suite whose entries are taken */
	const char *to;   /* the suite they are taken for */
	struct error *err;
};

void apt_sources_free(struct apt_sources *sources)
{
	for (size_t i = 0; i < sources->count; i++) {
		free(sources->items[i].uri);
		free(sources->items[i].suite);
		free(sources->items[i].components);
		free(sources->items[i].signed_by);
	}
	free(sources->items);
	*sources = (struct apt_sources)APT_SOURCES_INIT;
}

static int add_source(struct apt_sources *out, const char *uri, const char *suite, const char *components,
		      const char *signed_by, struct error *err)
{
	struct apt_source *items, source;

	for (size_t i = 0; i < out->count; i++)
		if (str_eq(out->items[i].uri, uri) && str_eq(out->items[i].suite, suite))
			return 0;
	items = realloc(out->items, (out->count + 1) * sizeof(*items));
	if (!items)
		return error_oom(err);
	out->items = items;
	source.uri = str_dup(uri, err);
	source.suite = str_dup(suite, err);
	source.components = str_dup(components, err);
	source.signed_by = signed_by ? str_dup(signed_by, err) : NULL;
	items[out->count++] = source;
	return source.uri && source.suite && source.components && (source.signed_by || !signed_by) ? 0 : -1;
}

static bool has_word(const char *words, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = words; at && (at = strstr(at, word)); at += length)
		if ((at == words || strchr(" \t\n", at[-1])) && strchr(" \t\n", at[length]))
			return true;
	return false;
}

static bool is_debian(const char *uri, const char *signed_by)
{
	cleanup_free char *path = str_dup(uri, NULL);
	size_t length = path ? strlen(path) : 0;

	if (!str_starts(uri, "http://") && !str_starts(uri, "https://"))
		return false;
	if (signed_by && strstr(signed_by, "debian-archive"))
		return true;
	while (length && path[length - 1] == '/')
		path[--length] = '\0';
	return path && (str_ends(path, "/debian") || str_ends(path, "/debian-security"));
}

/* "bookworm-updates" for "trixie": "trixie-updates". NULL when it is no suite of `from`, or one not wanted.
 */
static char *map_suite(const char *suite, const char *from, const char *to)
{
	static const char *const parts[] = {"", "-updates", "-security"};
	size_t length = strlen(from);

	if (strncmp(suite, from, length))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (str_eq(suite + length, parts[i]))
			return str_printf(NULL, "%s%s", to, parts[i]);
	return NULL;
}

/* Only a path can be handed on; deb822 may have a whole key in the field. */
static const char *keyring_path(const char *signed_by)
{
	return signed_by && signed_by[0] == '/' && !strpbrk(signed_by, " \t\n,]") ? signed_by : NULL;
}

static int take_uri(const struct search *s, const struct stanza *z, const char *uri)
{
	cleanup_free char *suites = str_dup(z->suites, s->err);
	char *save = NULL;

	if (!suites)
		return -1;
	for (char *word = strtok_r(suites, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
		cleanup_free char *suite = map_suite(word, s->from, s->to);

		if (suite &&
		    add_source(s->out, uri, suite, z->components, keyring_path(z->signed_by), s->err))
			return -1;
	}
	return 0;
}

static int take_stanza(const struct search *s, const struct stanza *z)
{
	cleanup_free char *uris = NULL;
	char *save = NULL;

	if (z->disabled || !z->types || !z->uris || !z->suites || !has_word(z->types, "deb") ||
	    !has_word(z->components, "main"))
		return 0;
	uris = str_dup(z->uris, s->err);
	if (!uris)
		return -1;
	for (char *uri = strtok_r(uris, " \t\n", &save); uri; uri = strtok_r(NULL, " \t\n", &save))
		if (is_debian(uri, z->signed_by) && take_uri(s, z, uri))
			return -1;
	return 0;
}

/* ---- "deb [options] URI SUITE COMPONENT…" ---- */

static int take_line(const struct search *s, char *line)
{
	struct stanza z = {0};
	char *options, *end, *save = NULL;

	line[strcspn(line, "#")] = '\0';
	z.types = line + strspn(line, " \t");
	if (strncmp(z.types, "deb", 3) || !z.types[3] || !strchr(" \t", z.types[3]))
		return 0;
	line = z.types + 3;
	*line++ = '\0';
	options = line + strspn(line, " \t");
	if (*options == '[') {
		end = strchr(options, ']');
		if (!end)
			return 0;
		*end = '\0';
		line = end + 1;
		z.signed_by = strstr(options, "signed-by=");
		if (z.signed_by) {
			z.signed_by += strlen("signed-by=");
			z.signed_by[strcspn(z.signed_by, " \t")] = '\0';
		}
	}
	z.uris = strtok_r(line, " \t", &save);
	z.suites = strtok_r(NULL, " \t", &save);
	z.components = save ? save + strspn(save, " \t") : NULL;
	return take_stanza(s, &z);
}

static int read_one_line_form(const struct search *s, char *text)
{
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (take_line(s, line))
			return -1;
	return 0;
}

/* ---- deb822: paragraphs of "Field: value", continued on lines that begin with a blank ---- */

static void set_field(struct stanza *z, const char *field, char *value)
{
	const struct {
		const char *name;
		char **value;
	} fields[] = {
		{"Types", &z->types},           {"URIs", &z->uris},           {"Suites", &z->suites},
		{"Components", &z->components}, {"Signed-By", &z->signed_by},
	};

	value += strspn(value, " \t\n");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (!strcasecmp(field, fields[i].name))
			*fields[i].value = value;
	if (!strcasecmp(field, "Enabled"))
		z->disabled = !strncasecmp(value, "no", 2) || !strncasecmp(value, "false", 5);
}

/* Ends the field that `line` begins before the next one, which is returned; NULL at the end. */
static char *split_field(char *line)
{
	char *end = strchr(line, '\n');

	while (end && (end[1] == ' ' || end[1] == '\t'))
		end = strchr(end + 1, '\n');
	if (!end)
		return NULL;
	*end = '\0';
	return end + 1;
}

static int take_paragraph(const struct search *s, char *text)
{
	struct stanza z = {0};
	char *next, *colon;

	for (char *line = text; line; line = next) {
		next = split_field(line);
		colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = '\0';
		set_field(&z, line, colon + 1);
	}
	return take_stanza(s, &z);
}

/* Drops comment lines, wherever they stand. */
static void drop_comments(char *text)
{
	char *to = text, *end;

	for (char *line = text; *line; line = end) {
		end = line + strcspn(line, "\n");
		end += *end == '\n';
		if (*line == '#')
			continue;
		memmove(to, line, (size_t)(end - line));
		to += end - line;
	}
	*to = '\0';
}

static int read_deb822_form(const struct search *s, char *text)
{
	char *end;

	drop_comments(text);
	for (; text; text = end) {
		text += strspn(text, "\n");
		end = strstr(text, "\n\n");
		if (end) {
			*end = '\0';
			end += 2;
		}
		if (take_paragraph(s, text))
			return -1;
	}
	return 0;
}

/* ---- */

/* A file that cannot be read (it may hold somebody's password) is as if it were not there. */
static int read_file(const struct search *s, const char *path)
{
	cleanup_free char *text = NULL;
	size_t length;

	if (file_read_all(path, SOURCES_FILE_MAX, &text, &length, NULL))
		return 0;
	return str_ends(path, ".sources") ? read_deb822_form(s, text) : read_one_line_form(s, text);
}

static int read_folder(const struct search *s, const char *folder)
{
	cleanup_free char *list = file_join(s->err, folder, "sources.list"), *parts = NULL;
	struct dirent **entries = NULL;
	int count, result = -1;

	if (!list || read_file(s, list))
		return -1;
	parts = file_join(s->err, folder, "sources.list.d");
	if (!parts)
		return -1;
	count = scandir(parts, &entries, NULL, alphasort);
	result = 0;
	for (int i = 0; i < count; i++) {
		cleanup_free char *path = file_join(s->err, parts, entries[i]->d_name);

		if (!path)
			result = -1;
		else if (!result && (str_ends(path, ".list") || str_ends(path, ".sources")))
			result = read_file(s, path);
		free(entries[i]);
	}
	free(entries);
	return result;
}

int apt_sources_find(struct apt_sources *out, const char *folder, const char *host_suite, const char *suite,
		     struct error *err)
{
	struct search s = {.out = out, .from = suite, .to = suite, .err = err};

	if (read_folder(&s, folder))
		return -1;
	s.from = host_suite;
	if (!out->count && host_suite && read_folder(&s, folder))
		return -1;
	if (out->count)
		return 0;
	error_set(err, ERROR_FAILED, "the apt sources in %s name no Debian mirror to build %s from", folder,
		  suite);
	return error_hint(err, "name one with --mirror URI");
}

int apt_sources_of_mirror(struct apt_sources *out, const char *uri, const char *suite, struct error *err)
{
	cleanup_free char *updates = str_printf(err, "%s-updates", suite);

	if (strpbrk(uri, " \t\r\n[]#") || !strstr(uri, "://"))
		return error_set(err, ERROR_USAGE, "'%s' is no URI of a mirror", uri);
	if (!updates || add_source(out, uri, suite, "main", NULL, err))
		return -1;
	return str_eq(suite, "sid") ? 0 : add_source(out, uri, updates, "main", NULL, err);
}

/* "http://user:secret@host/x" without what stands before the "@". */
static void print_uri(struct strbuf *out, const char *uri)
{
	const char *authority = strstr(uri, "://"), *at, *slash;

	authority = authority ? authority + 3 : uri;
	slash = authority + strcspn(authority, "/");
	at = memrchr(authority, '@', (size_t)(slash - authority));
	strbuf_add(out, uri, (size_t)(authority - uri));
	strbuf_puts(out, at ? at + 1 : authority);
}

int apt_sources_print(const struct apt_sources *sources, bool shared, struct strbuf *out, struct error *err)
{
	for (size_t i = 0; i < sources->count; i++) {
		const struct apt_source *s = &sources->items[i];
		bool keyring = s->signed_by && !shared;

		strbuf_printf(out, "deb %s%s%s", keyring ? "[signed-by=" : "", keyring ? s->signed_by : "",
			      keyring ? "] " : "");
		if (shared)
			print_uri(out, s->uri);
		else
			strbuf_puts(out, s->uri);
		strbuf_printf(out, " %s ", s->suite);
		for (const char *c = s->components; *c; c++)
			strbuf_putc(out, *c == '\n' || *c == '\t' ? ' ' : *c);
		strbuf_putc(out, '\n');
	}
	return strbuf_check(out, err);
}

char *apt_host_suite(void)
{
	static const char key[] = "\nVERSION_CODENAME=";
	cleanup_free char *text = NULL;
	size_t length;
	char *at;

	if (file_read_all("/etc/os-release", SOURCES_FILE_MAX, &text, &length, NULL) ||
	    !strstr(text, "\nID=debian\n"))
		return NULL;
	at = strstr(text, key);
	if (!at)
		return NULL;
	at += strlen(key);
	at[strcspn(at, "\n")] = '\0';
	return str_dup(at, NULL);
}
