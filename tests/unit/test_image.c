/* The parts of uml-lab/image that need no program and no disk: apt's sources, the tree of names, quoting. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/apt.h"
#include "uml-lab/image/fs.h"
#include "uml-lab/image/tree.h"

/* An apt configuration folder; the texts may be NULL. Removed by drop(). */
static char *make_folder(const char *list, const char *sources)
{
	static char path[] = "/tmp/test-image-XXXXXX";
	char file[128];

	memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(path));
	snprintf(file, sizeof(file), "%s/sources.list", path);
	if (list)
		CU_ASSERT_EQUAL(file_write_atomic(file, list, strlen(list), 0644, NULL), 0);
	snprintf(file, sizeof(file), "%s/sources.list.d", path);
	CU_ASSERT_EQUAL(mkdir(file, 0755), 0);
	snprintf(file, sizeof(file), "%s/sources.list.d/x.sources", path);
	if (sources)
		CU_ASSERT_EQUAL(file_write_atomic(file, sources, strlen(sources), 0644, NULL), 0);
	return path;
}

/* What is found for a suite, as lines; "" when nothing is. */
static void check_sources(const char *list, const char *sources, const char *host, const char *suite,
			  bool shared, const char *expected)
{
	cleanup_apt_sources struct apt_sources found = APT_SOURCES_INIT;
	cleanup_strbuf struct strbuf lines = STRBUF_INIT;
	struct error err = ERROR_INIT;
	char *folder = make_folder(list, sources);

	CU_ASSERT_EQUAL(apt_sources_find(&found, folder, host, suite, &err), *expected ? 0 : -1);
	CU_ASSERT_EQUAL(apt_sources_print(&found, shared, &lines, &err), 0);
	CU_ASSERT_STRING_EQUAL(lines.data ? lines.data : "", expected);
	CU_ASSERT_EQUAL(file_remove_tree(folder, NULL), 0);
}

static void test_one_line_form(void)
{
	static const char list[] =
		"# deb http://m.test/debian bookworm main\n"
		"deb [arch=amd64 signed-by=/k.gpg] http://m.test/debian/ bookworm main contrib # x\n"
		"deb\thttp://m.test/debian-security\tbookworm-security  main\n"
		"deb-src http://src.test/debian bookworm main\n"
		"deb http://m.test/debian bookworm-backports main\n"
		"deb http://other.test/linux/debian bookworm stable\n"
		"deb http://other.test/prod bookworm main\n"
		"deb cdrom:[x]/ bookworm main\n"
		"deb [signed-by=/broken http://m.test/debian bookworm main\n"
		"deb\n";

	check_sources(list, NULL, "bookworm", "bookworm", false,
		      "deb [signed-by=/k.gpg] http://m.test/debian/ bookworm main contrib \n"
		      "deb http://m.test/debian-security bookworm-security main\n");
	check_sources(list, NULL, "bookworm", "trixie", true,
		      "deb http://m.test/debian/ trixie main contrib \n"
		      "deb http://m.test/debian-security trixie-security main\n");
	check_sources(list, NULL, NULL, "trixie", true, "");
}

static void test_deb822_form(void)
{
	static const char sources[] =
		"# a comment\nTypes: deb deb-src\n# another\nURIs: http://m.test/x\n"
		"Suites: bookworm\n bookworm-updates\nComponents: main\n"
		"Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\n"
		"Types: deb\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main\n"
		"Enabled: no\n\n"
		"types: deb\nuris: http://m.test/debian-security\nsuites: bookworm-security\n"
		"components: main\nsigned-by:\n -----BEGIN PGP\n .\n abc";

	check_sources(NULL, sources, "bookworm", "bookworm", false,
		      "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.test/x "
		      "bookworm main\n"
		      "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.test/x "
		      "bookworm-updates main\n"
		      "deb http://m.test/debian-security bookworm-security main\n");
	check_sources(NULL, "Types", "bookworm", "bookworm", false, "");
	check_sources(NULL, ":\n:\n\n \n:", "bookworm", "bookworm", false, "");
}

static void test_wanted_suite_wins(void)
{
	static const char list[] =
		"deb http://a.test/debian bookworm main\ndeb http://b.test/debian trixie main\n";

	check_sources(list, NULL, "bookworm", "trixie", false, "deb http://b.test/debian trixie main\n");
	check_sources(list, NULL, "bookworm", "sid", false, "deb http://a.test/debian sid main\n");
}

static void test_credentials_stay(void)
{
	static const char list[] = "deb https://me:p@ss@m.test/debian bookworm main\n";

	check_sources(list, NULL, "bookworm", "bookworm", false,
		      "deb https://me:p@ss@m.test/debian bookworm main\n");
	check_sources(list, NULL, "bookworm", "bookworm", true, "deb https://m.test/debian bookworm main\n");
}

static void test_mirror(void)
{
	cleanup_apt_sources struct apt_sources found = APT_SOURCES_INIT;
	struct error err = ERROR_INIT;

	CU_ASSERT_EQUAL(apt_sources_of_mirror(&found, "http://m.test/debian bookworm", "bookworm", &err), -1);
	CU_ASSERT_EQUAL(err.kind, ERROR_USAGE);
	CU_ASSERT_EQUAL(apt_sources_of_mirror(&found, "m.test", "bookworm", &err), -1);
	CU_ASSERT_EQUAL(found.count, 0);
	CU_ASSERT_EQUAL(apt_sources_of_mirror(&found, "http://m.test/debian", "sid", &err), 0);
	CU_ASSERT_EQUAL(found.count, 1);
}

static void test_tree(void)
{
	struct image_tree tree;
	struct image_node *folder, *node;
	struct error err = ERROR_INIT;
	char name[16];
	unsigned int seen = 0;

	CU_ASSERT_EQUAL_FATAL(image_tree_init(&tree, 2, 2, &err), 0);
	folder = image_tree_add(&tree, tree.root, "folder", 6, 3, 2, &err);
	for (unsigned int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		CU_ASSERT_PTR_NOT_NULL(image_tree_add(&tree, folder, name, strlen(name), 100 + i, 1, &err));
	}
	node = image_tree_find(&tree, folder, "n4999", 5);
	CU_ASSERT_PTR_NOT_NULL_FATAL(node);
	CU_ASSERT_EQUAL(node->inode, 5099);
	CU_ASSERT_PTR_NULL(image_tree_find(&tree, tree.root, "n4999", 5));
	CU_ASSERT_PTR_NULL(image_tree_find(&tree, folder, "n4999x", 6));
	for (unsigned int i = 0; i < 5000; i += 2) {
		snprintf(name, sizeof(name), "n%u", i);
		image_tree_remove(&tree, image_tree_find(&tree, folder, name, strlen(name)));
	}
	/* Folders before what they hold, children in the order they came. */
	node = image_tree_next(image_tree_next(tree.root));
	CU_ASSERT_EQUAL(node->inode, 101);
	for (node = tree.root; node; node = image_tree_next(node))
		seen++;
	CU_ASSERT_EQUAL(seen, 2502);
	CU_ASSERT_EQUAL(tree.count, 2501);
	image_tree_free(&tree);
}

static void test_quote(void)
{
	char text[16];

	CU_ASSERT_STRING_EQUAL(image_quote("a\nb\033", text, sizeof(text)), "a\\012b\\033");
	image_quote("aaaaaaaaaaaaaaaaaaaaaaaaa", text, sizeof(text));
	CU_ASSERT(strlen(text) < sizeof(text));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "…"));
}

UNIT_MAIN("image", UNIT_CASE(test_one_line_form), UNIT_CASE(test_deb822_form),
	  UNIT_CASE(test_wanted_suite_wins), UNIT_CASE(test_credentials_stay), UNIT_CASE(test_mirror),
	  UNIT_CASE(test_tree), UNIT_CASE(test_quote))
