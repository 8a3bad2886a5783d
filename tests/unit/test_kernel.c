/* Finding kernels, among programs that only say they are one. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/kernel.h"

static char folder[] = "/tmp/test-kernel.XXXXXX";

/* FOLDER/NAME/linux.uml that answers --version so; modules beside it when wanted. */
static void fake(const char *name, const char *answer, bool modules)
{
	cleanup_free char *dir = str_printf(NULL, "%s/%s/modules/%s", folder, name, answer);
	cleanup_free char *path = str_printf(NULL, "%s/%s/linux.uml", folder, name);
	cleanup_free char *dep = str_printf(NULL, "%s/modules.dep", dir);
	cleanup_free char *text = str_printf(NULL, "#!/bin/sh\necho '%s'\n", answer);

	CU_ASSERT_EQUAL(file_mkdir_p(dir, 0755, NULL), 0);
	CU_ASSERT_EQUAL(file_write_atomic(path, text, strlen(text), 0755, NULL), 0);
	if (modules)
		CU_ASSERT_EQUAL(file_write_atomic(dep, "", 0, 0644, NULL), 0);
}

static void check(const char *wanted, const char *release)
{
	struct error err = ERROR_INIT;
	struct kernel k;

	if (kernel_find(wanted, &k, &err) < 0) {
		CU_ASSERT_PTR_NULL(release);
		CU_ASSERT_EQUAL(err.kind, ERROR_NOT_FOUND);
		CU_ASSERT_PTR_NOT_NULL(strstr(err.message, wanted));
		CU_ASSERT(err.hint[0] != '\0');
		return;
	}
	CU_ASSERT_PTR_NOT_NULL_FATAL(release);
	CU_ASSERT_STRING_EQUAL(k.release, release);
	kernel_free(&k);
}

/* How often the kernel of counting() was asked: it leaves a byte each time. */
static size_t asked(void)
{
	cleanup_free char *path = str_printf(NULL, "%s/asked", folder), *text = NULL;
	size_t length = 0;

	return file_read_all(path, 4096, &text, &length, NULL) < 0 ? 0 : length;
}

static void counting(const char *answer)
{
	cleanup_free char *path = str_printf(NULL, "%s/counting/linux.uml", folder);
	cleanup_free char *text = str_printf(NULL, "#!/bin/sh\nprintf x >>%s/asked\necho %s\n", folder, answer);

	CU_ASSERT_EQUAL(file_write_atomic(path, text, strlen(text), 0755, NULL), 0);
}

/* Each kernel is asked once, whatever number of processes look for it, and again when it was replaced. */
static void test_asked_once(void)
{
	cleanup_free char *dir = str_printf(NULL, "%s/counting", folder);
	int status;
	pid_t pid;

	CU_ASSERT_EQUAL(file_mkdir_p(dir, 0755, NULL), 0);
	counting("98.1.1");
	pid = fork();
	if (pid == 0) {
		struct kernel k;

		_exit(kernel_find("98", &k, NULL) < 0);
	}
	CU_ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
	CU_ASSERT_EQUAL(asked(), 1);
	check("98", "98.1.1");
	check("98", "98.1.1");
	CU_ASSERT_EQUAL(asked(), 1);
	counting("98.2.2");
	check("98", "98.2.2");
	CU_ASSERT_EQUAL(asked(), 2);
	CU_ASSERT_EQUAL(file_remove_tree(dir, NULL), 0);
}

static void test_versions(void)
{
	check("6.1", "6.1.9000");
	check("6.1.9000", "6.1.9000");
	check("6.12", "6.12.9000");
	check("99", "99.10.1");
	check("99.9", "99.9.3");
	check("6.1.90", NULL);
	check("6.", NULL);
	check("nonsense", NULL);
	check("/no/such/linux.uml", NULL);
}

static void test_auto(void)
{
	check("auto", "99.10.1");
	setenv("UML_LAB_KERNEL", "6.12.9000", 1);
	check("auto", "6.12.9000");
	unsetenv("UML_LAB_KERNEL");
}

static void test_modules(void)
{
	struct kernel k;
	struct error err;

	CU_ASSERT_EQUAL_FATAL(kernel_find("6.12.9000", &k, &err), 0);
	CU_ASSERT(k.major == 6 && k.minor == 12 && str_ends(k.modules, "/b/modules/6.12.9000"));
	kernel_free(&k);
	CU_ASSERT_EQUAL_FATAL(kernel_find("99.9.3", &k, &err), 0);
	CU_ASSERT_PTR_NULL(k.modules);
	kernel_free(&k);
}

static void test_no_kernel(void)
{
	cleanup_free char *path = str_printf(NULL, "%s/liar/linux.uml", folder);
	struct kernel *list = NULL;
	struct error err = ERROR_INIT;
	struct kernel k;
	size_t count, i;

	CU_ASSERT(kernel_find(path, &k, &err) < 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "no user-mode Linux kernel"));
	CU_ASSERT_EQUAL_FATAL(kernel_list(&list, &count, &err), 0);
	CU_ASSERT(count >= 4);
	for (i = 0; i < count; i++) {
		CU_ASSERT_PTR_NULL(strstr(list[i].path, "/liar/"));
		kernel_free(&list[i]);
	}
	free(list);
}

static void test_remove(void)
{
	CU_ASSERT_EQUAL(file_remove_tree(folder, NULL), 0);
}

static void test_prepare(void)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	setenv("UML_LAB_KERNELS", folder, 1);
	setenv("XDG_CACHE_HOME", folder, 1);
	unsetenv("UML_LAB_KERNEL");
	fake("a", "6.1.9000", true);
	fake("b", "6.12.9000", true);
	fake("c", "99.9.3", false);
	fake("d", "99.10.1", true);
	fake("old", "4.19.9000", true);
	fake("liar", "GNU linux.uml (coreutils) 9.1", true);
}

UNIT_MAIN("kernel", UNIT_CASE(test_prepare), UNIT_CASE(test_asked_once), UNIT_CASE(test_versions), UNIT_CASE(test_auto), UNIT_CASE(test_modules),
	  UNIT_CASE(test_no_kernel), UNIT_CASE(test_remove))
