/*
 * tmpfile FOLDER NAME: a file without a name (open(2), O_TMPFILE) of user 7 with mode 0640, written, read
 * again, then given a name.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	static const char text[] = "text of a file without a name\n";
	char back[sizeof(text)] = "", path[40];
	struct stat st;
	int fd = argc == 3 ? open(argv[1], O_TMPFILE | O_RDWR, 0640) : -1;

	if (fd < 0)
		return failed("open");
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) < 0)
		return failed("write");
	if (pread(fd, back, strlen(text), 0) < 0 || strcmp(back, text) != 0)
		return failed("read");
	if (fstat(fd, &st) < 0 || st.st_nlink != 0 || st.st_size != (off_t)strlen(text))
		return failed("fstat");
	if (fchown(fd, 7, 7) < 0)
		return failed("fchown");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (chdir(argv[1]) < 0 || linkat(AT_FDCWD, path, AT_FDCWD, argv[2], AT_SYMLINK_FOLLOW) < 0)
		return failed("linkat");
	close(fd);
	/* One that is never named goes away. */
	fd = open(argv[1], O_TMPFILE | O_RDWR | O_EXCL, 0600);
	return fd < 0 || write(fd, text, 1) != 1 ? failed("open") : 0;
}
