/* Finding kernels, among programs that only say they are one. */
#include <fcntl.h>
#include <stdio.h>
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

#define ANSWER_SIZE 200 /* bytes at the end of a program that is told what to answer */

static char folder[] = "/tmp/test-kernel.XXXXXX";

/*
 * A program that answers --version so: this one, with the answer at its end. "spy PATH ANSWER" reads PATH before, and says 66.6.6
 * when it can; "hang" never answers.
 */
static void write_program(const char *path, const char *answer)
{
	cleanup_free char *data = NULL;
	size_t length = 0;
	char *longer;

	CU_ASSERT_EQUAL_FATAL(file_read_all("/proc/self/exe", 256 << 20, &data, &length, NULL), 0);
	longer = realloc(data, length + ANSWER_SIZE);
	CU_ASSERT_PTR_NOT_NULL_FATAL(longer);
	data = longer;
	memset(data + length, 0, ANSWER_SIZE);
	snprintf(data + length, ANSWER_SIZE, "%s", answer);
	CU_ASSERT_EQUAL(file_write_atomic(path, data, length + ANSWER_SIZE, 0755, NULL), 0);
}

static int answer_main(const char *self)
{
	cleanup_close int fd = open(self, O_RDONLY);
	char text[ANSWER_SIZE], path[ANSWER_SIZE], answer[ANSWER_SIZE];

	if (fd < 0 || lseek(fd, -ANSWER_SIZE, SEEK_END) < 0 || read(fd, text, sizeof(text)) != sizeof(text))
		return 1;
	while (str_eq(text, "hang"))
		pause();
	if (sscanf(text, "spy %199s %199s", path, answer) == 2)
		snprintf(text, sizeof(text), "%s", open(path, O_RDONLY) >= 0 ? "66.6.6" : answer);
	puts(text);
	fflush(stdout);
	_exit(0); /* a sanitizer's work at exit needs more than a sandbox has */
}

/* FOLDER/NAME/linux.uml that answers --version so; modules beside it when wanted. */
static void fake(const char *name, const char *answer, bool modules)
{
	cleanup_free char *dir = str_printf(NULL, "%s/%s/modules/%s", folder, name, answer);
	cleanup_free char *path = str_printf(NULL, "%s/%s/linux.uml", folder, name);
	cleanup_free char *dep = str_printf(NULL, "%s/modules.dep", dir);

	CU_ASSERT_EQUAL(file_mkdir_p(dir, 0755, NULL), 0);
	write_program(path, answer);
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

static void put_kernel(const char *answer)
{
	cleanup_free char *path = str_printf(NULL, "%s/once/linux.uml", folder);

	write_program(path, answer);
}

/* What the cache says of it from now on. */
static void lie(const char *answer, const char *other)
{
	cleanup_free char *path = str_printf(NULL, "%s/uml-lab/kernel-releases", folder), *text = NULL;
	size_t length;
	char *at;

	CU_ASSERT_EQUAL_FATAL(file_read_all(path, 65536, &text, &length, NULL), 0);
	at = strstr(text, answer);
	CU_ASSERT_PTR_NOT_NULL_FATAL(at);
	memcpy(at, other, strlen(other));
	CU_ASSERT_EQUAL(file_write_atomic(path, text, length, 0600, NULL), 0);
}

/* Finds it in a process that has not looked at the cache yet. */
static int find_apart(const char *wanted, const char *release)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct kernel k;

		_exit(kernel_find(wanted, &k, NULL) == 0 && str_eq(k.release, release) ? 0 : 1);
	}
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* Each kernel is asked once, whatever number of processes look for it, and again when it was replaced. */
static void test_asked_once(void)
{
	cleanup_free char *dir = str_printf(NULL, "%s/once", folder);

	CU_ASSERT_EQUAL(file_mkdir_p(dir, 0755, NULL), 0);
	put_kernel("98.1.1");
	CU_ASSERT_EQUAL(find_apart("98", "98.1.1"), 0);
	lie("98.1.1", "98.7.7");
	CU_ASSERT_EQUAL(find_apart("98", "98.7.7"), 0);
	check("98", "98.7.7");
	put_kernel("98.2.2");
	check("98", "98.2.2");
	CU_ASSERT_EQUAL(file_remove_tree(dir, NULL), 0);
}

/* It is a program of who knows whom: it reaches nothing, and has a few seconds. With and without namespaces. */
static void test_hostile(void)
{
	cleanup_free char *dir = str_printf(NULL, "%s/hostile", folder), *path = str_printf(NULL, "%s/linux.uml", dir);
	cleanup_free char *secret = str_printf(NULL, "%s/secret", folder), *answer = str_printf(NULL, "spy %s 97.1.1", secret);
	struct error err = ERROR_INIT;
	struct kernel k;

	CU_ASSERT_EQUAL(file_write_atomic(secret, "x", 1, 0600, NULL), 0);
	CU_ASSERT_EQUAL(file_mkdir_p(dir, 0755, NULL), 0);
	write_program(path, answer);
	check(path, "97.1.1");
	setenv("UML_LAB_SANDBOX", "process-group", 1);
	write_program(path, answer);
	check(path, "97.1.1");
	unsetenv("UML_LAB_SANDBOX");
	write_program(path, "hang");
	CU_ASSERT_EQUAL(kernel_find(path, &k, &err), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "did not tell its version"));
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

int main(int argc, char **argv)
{
	static const struct unit_case cases[] = {
		UNIT_CASE(test_prepare), UNIT_CASE(test_asked_once), UNIT_CASE(test_hostile), UNIT_CASE(test_versions),
		UNIT_CASE(test_auto), UNIT_CASE(test_modules), UNIT_CASE(test_no_kernel), UNIT_CASE(test_remove)};

	if (argc == 2 && str_eq(argv[1], "--version"))
		return answer_main(argv[0]);
	return unit_run("kernel", cases, ARRAY_SIZE(cases));
}
