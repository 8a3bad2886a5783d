/*
 * What POSIX and Linux promise of a file system, tried as root in the current
 * folder: chmod, chown, link, mkdir, mkfifo, mknod, open, rename, rmdir, symlink,
 * truncate, unlink, utimensat, and what follows from them (owners of new files, sticky
 * and set-group-id folders, set-id bits, times, unlinked files that are open, locks,
 * mappings, holes, extended attributes). The cases are those that pjdfstest
 * thinks of, written anew.
 *
 *	posix_suite [PATTERN]
 *
 * Prints each failure with its line, then how many of how many; exit status 1 if any.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define USER  65534
#define OTHER 65533

static int total, failed;
static const char *group;

static void result(int ok, int line, const char *what, const char *fmt, ...)
{
	va_list ap;

	total++;
	if (ok)
		return;
	failed++;
	printf("FAILED %s, line %d: %s: ", group, line, what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static const char *name_of(int error)
{
	return error ? strerrorname_np(error) : "success";
}

static void check_errno(int wanted, long got, int error, int line, const char *what)
{
	int seen = got < 0 ? error : 0;

	result(seen == wanted, line, what, "%s, not %s", name_of(seen), name_of(wanted));
}

/* The call ends with this errno, 0 for success. */
#define IS(wanted, call)                                                                                     \
	do {                                                                                                 \
		errno = 0;                                                                                   \
		long got_ = (call);                                                                          \
		check_errno(wanted, got_, errno, __LINE__, #call);                                           \
	} while (0)
#define TRUE(condition) result(!!(condition), __LINE__, #condition, "no")
#define SAME(a, b)                                                                                           \
	do {                                                                                                 \
		long long a_ = (long long)(a), b_ = (long long)(b);                                          \
		result(a_ == b_, __LINE__, #a " == " #b, "%lld is not %lld", a_, b_);                        \
	} while (0)

/* As another user, in this process: file system checks go by these (setfsuid(2)). */
static void become(uid_t uid, gid_t gid)
{
	IS(0, seteuid(0));
	IS(0, setegid(gid));
	IS(0, setgroups(0, NULL));
	IS(0, seteuid(uid));
}

static struct stat look(const char *path)
{
	struct stat st = {0};

	lstat(path, &st);
	return st;
}

static mode_t mode_of(const char *path)
{
	return look(path).st_mode & 07777;
}

static int make(const char *path, mode_t mode)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, mode);

	if (fd < 0)
		return -1;
	return close(fd);
}

static int open_close(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	return fd < 0 ? -1 : close(fd);
}

static char long_name[256], too_long_name[257];

/* ---- what each call promises ---- */

static void t_chmod(void)
{
	IS(0, make("f", 0644));
	for (mode_t m = 0; m <= 07777; m += 0111 + 01000) {
		IS(0, chmod("f", m));
		SAME(mode_of("f"), m & 07777);
	}
	IS(0, chmod("f", 0));
	IS(0, open_close("f", O_RDWR)); /* root may */
	IS(0, mkdir("d", 0755));
	IS(0, chmod("d", 0));
	IS(0, make("d/f", 0600));
	IS(0, unlink("d/f"));
	IS(0, chmod("d", 07777));
	SAME(mode_of("d"), 07777);
	IS(ENOENT, chmod("none", 0644));
	IS(ENOENT, chmod("none/f", 0644));
	IS(ENOTDIR, chmod("f/x", 0644));
	IS(ENAMETOOLONG, chmod(too_long_name, 0644));
	IS(0, symlink("loop", "loop"));
	IS(ELOOP, chmod("loop", 0644));
	IS(0, chown("f", USER, USER));
	become(OTHER, OTHER);
	IS(EPERM, chmod("f", 0644));
	become(USER, USER);
	IS(0, chmod("f", 0640));
	become(0, 0);
	SAME(mode_of("f"), 0640);
	/* Not in the file's group: no set-group-id bit. */
	IS(0, chown("f", USER, OTHER));
	become(USER, USER);
	IS(0, chmod("f", 02755));
	become(0, 0);
	SAME(mode_of("f"), 0755);
	struct timespec before = look("f").st_ctim, after;
	usleep(20000);
	IS(0, chmod("f", 0600));
	after = look("f").st_ctim;
	TRUE(after.tv_sec > before.tv_sec || (after.tv_sec == before.tv_sec && after.tv_nsec > before.tv_nsec));
	IS(0, unlink("loop"));
	IS(0, unlink("f"));
	IS(0, rmdir("d"));
}

static void t_chown(void)
{
	IS(0, make("f", 06755));
	SAME(look("f").st_uid, 0);
	IS(0, chmod("f", 06755));
	IS(0, chown("f", USER, OTHER));
	SAME(look("f").st_uid, USER);
	SAME(look("f").st_gid, OTHER);
	SAME(mode_of("f"), 0755); /* set-id bits go */
	IS(0, chown("f", (uid_t)-1, 123));
	SAME(look("f").st_uid, USER);
	SAME(look("f").st_gid, 123);
	IS(0, chown("f", 3000000000u, (gid_t)-1));
	SAME(look("f").st_uid, 3000000000u);
	IS(0, symlink("f", "l"));
	IS(0, lchown("l", 5, 6));
	SAME(look("l").st_uid, 5);
	SAME(look("l").st_gid, 6);
	SAME(look("f").st_uid, 3000000000u);
	IS(0, chown("l", 7, 8));
	SAME(look("f").st_uid, 7);
	SAME(look("l").st_uid, 5);
	IS(0, rename("l", "l2"));
	SAME(look("l2").st_uid, 5);
	IS(0, mkdir("d", 0755));
	IS(0, chown("d", USER, USER));
	SAME(look("d").st_uid, USER);
	IS(0, chown("f", USER, USER));
	become(USER, USER);
	IS(EPERM, chown("f", OTHER, (gid_t)-1));
	IS(EPERM, chown("f", (uid_t)-1, OTHER));
	IS(0, chown("f", USER, USER));
	become(OTHER, OTHER);
	IS(EPERM, chown("f", OTHER, OTHER));
	become(0, 0);
	IS(ENOENT, chown("none", 1, 1));
	IS(ENOTDIR, chown("f/x", 1, 1));
	IS(0, unlink("f"));
	IS(0, unlink("l2"));
	IS(0, rmdir("d"));
}

static void t_link(void)
{
	IS(0, make("a", 0644));
	IS(0, link("a", "b"));
	SAME(look("a").st_nlink, 2);
	SAME(look("a").st_ino, look("b").st_ino);
	IS(0, chmod("b", 0600));
	SAME(mode_of("a"), 0600);
	IS(0, chown("a", 11, 12));
	SAME(look("b").st_uid, 11);
	IS(EEXIST, link("a", "b"));
	IS(0, mkdir("d", 0755));
	IS(EPERM, link("d", "e"));
	IS(ENOENT, link("none", "c"));
	IS(ENOENT, link("a", "none/c"));
	IS(ENOTDIR, link("a", "b/c"));
	IS(ENAMETOOLONG, link("a", too_long_name));
	IS(0, link("a", "d/c"));
	IS(0, unlink("a"));
	SAME(look("b").st_nlink, 2);
	IS(0, symlink("b", "s"));
	IS(0, link("s", "t")); /* the link itself */
	SAME(look("s").st_nlink, 2);
	IS(0, unlink("s"));
	IS(0, unlink("t"));
	IS(0, mkfifo("p", 0644));
	IS(0, link("p", "q"));
	TRUE(S_ISFIFO(look("q").st_mode));
	IS(0, unlink("p"));
	IS(0, unlink("q"));
	IS(0, chmod("b", 0666)); /* where fs.protected_hardlinks is set another's file must be writable */
	become(USER, USER);
	IS(EACCES, link("b", "d/x"));
	become(0, 0);
	IS(0, unlink("d/c"));
	SAME(look("b").st_nlink, 1);
	IS(0, unlink("b"));
	IS(0, rmdir("d"));
}

static void t_mkdir(void)
{
	IS(0, mkdir("d", 0755));
	SAME(mode_of("d"), 0755);
	TRUE(S_ISDIR(look("d").st_mode));
	IS(EEXIST, mkdir("d", 0755));
	IS(0, mkdir("e", 0151));
	SAME(mode_of("e"), 0151);
	umask(077);
	IS(0, mkdir("u", 0777));
	SAME(mode_of("u"), 0700);
	umask(0);
	IS(ENOENT, mkdir("none/d", 0755));
	IS(0, make("f", 0644));
	IS(ENOTDIR, mkdir("f/d", 0755));
	IS(EEXIST, mkdir("f", 0755));
	IS(ENAMETOOLONG, mkdir(too_long_name, 0755));
	IS(0, mkdir(long_name, 0755));
	IS(0, rmdir(long_name));
	IS(0, chmod("d", 0777));
	become(USER, USER);
	IS(0, mkdir("d/u", 0755));
	IS(EACCES, mkdir("e/u", 0755));
	IS(0, make("d/u/f", 0644));
	become(0, 0);
	SAME(look("d/u").st_uid, USER);
	SAME(look("d/u").st_gid, USER);
	SAME(look("d/u/f").st_uid, USER);
	/* A set-group-id folder hands down its group, and to folders the bit. */
	IS(0, chown("e", 0, 77));
	IS(0, chmod("e", 02777));
	become(USER, USER);
	IS(0, mkdir("e/g", 0755));
	IS(0, make("e/h", 0644));
	become(0, 0);
	SAME(look("e/g").st_gid, 77);
	SAME(look("e/h").st_gid, 77);
	SAME(look("e/h").st_uid, USER);
	SAME(mode_of("e/g"), 02755);
	IS(0, unlink("e/h"));
	IS(0, rmdir("e/g"));
	IS(0, unlink("d/u/f"));
	IS(0, rmdir("d/u"));
	IS(0, rmdir("d"));
	IS(0, rmdir("e"));
	IS(0, rmdir("u"));
	IS(0, unlink("f"));
}

static void t_mknod(void)
{
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
	char c = 0;

	IS(0, mknod("c", S_IFCHR | 0640, makedev(1, 5)));
	TRUE(S_ISCHR(look("c").st_mode));
	SAME(mode_of("c"), 0640);
	SAME(look("c").st_rdev, makedev(1, 5));
	IS(0, mknod("b", S_IFBLK | 0600, makedev(250, 70000)));
	TRUE(S_ISBLK(look("b").st_mode));
	SAME(look("b").st_rdev, makedev(250, 70000));
	int zero = open("c", O_RDONLY);
	SAME(read(zero, &c, 1), 1); /* it is the guest's /dev/zero */
	close(zero);
	IS(0, chmod("c", 0666));
	SAME(mode_of("c"), 0666);
	TRUE(S_ISCHR(look("c").st_mode));
	IS(0, chown("c", 3, 4));
	SAME(look("c").st_uid, 3);
	TRUE(S_ISCHR(look("c").st_mode));
	IS(0, rename("c", "c2"));
	TRUE(S_ISCHR(look("c2").st_mode));
	IS(0, mkfifo("p", 0644));
	TRUE(S_ISFIFO(look("p").st_mode));
	IS(EEXIST, mkfifo("p", 0644));
	IS(ENXIO, open_close("p", O_WRONLY | O_NONBLOCK));
	if (fork() == 0) {
		int w = open("p", O_WRONLY);
		_exit(write(w, "x", 1) == 1 ? 0 : 1);
	}
	int r = open("p", O_RDONLY);
	SAME(read(r, &c, 1), 1);
	SAME(c, 'x');
	close(r);
	wait(NULL);
	IS(0, bind(listener, (struct sockaddr *)&address, sizeof(address)));
	TRUE(S_ISSOCK(look("sock").st_mode));
	IS(0, listen(listener, 1));
	IS(0, connect(client, (struct sockaddr *)&address, sizeof(address)));
	IS(0, mknod("r", S_IFREG | 0600, 0));
	TRUE(S_ISREG(look("r").st_mode));
	IS(0, chmod(".", 0777));
	become(USER, USER);
	IS(EPERM, mknod("uc", S_IFCHR | 0600, makedev(1, 3)));
	IS(0, mkfifo("up", 0600));
	become(0, 0);
	SAME(look("up").st_uid, USER);
	IS(ENOENT, mkfifo("none/p", 0600));
	IS(ENAMETOOLONG, mkfifo(too_long_name, 0600));
	close(listener);
	close(client);
	IS(0, unlink("c2"));
	IS(0, unlink("b"));
	IS(0, unlink("p"));
	IS(0, unlink("up"));
	IS(0, unlink("sock"));
	IS(0, unlink("r"));
}

static void t_open(void)
{
	int fd;

	IS(0, make("f", 0644));
	IS(EEXIST, make("f", 0644));
	IS(0, open_close("f", O_CREAT | O_RDWR));
	IS(ENOENT, open_close("none", O_RDONLY));
	IS(ENOENT, open_close("none/f", O_CREAT | O_RDWR));
	IS(ENOTDIR, open_close("f/x", O_CREAT | O_RDWR));
	IS(ENOTDIR, open_close("f", O_DIRECTORY));
	IS(0, mkdir("d", 0755));
	IS(EISDIR, open_close("d", O_WRONLY));
	IS(EISDIR, open_close("d", O_RDWR | O_CREAT));
	IS(0, symlink("f", "l"));
	IS(ELOOP, open_close("l", O_RDONLY | O_NOFOLLOW));
	IS(EEXIST, open_close("l", O_CREAT | O_EXCL | O_RDWR));
	IS(0, symlink("new", "dangling"));
	IS(EEXIST, open_close("dangling", O_CREAT | O_EXCL | O_RDWR));
	IS(0, open_close("dangling", O_CREAT | O_RDWR));
	TRUE(S_ISREG(look("new").st_mode));
	IS(ENAMETOOLONG, open_close(too_long_name, O_CREAT | O_RDWR));
	IS(0, open_close(long_name, O_CREAT | O_RDWR));
	IS(0, unlink(long_name));
	umask(022);
	fd = open("u", O_CREAT | O_RDWR, 0666);
	umask(0);
	SAME(mode_of("u"), 0644);
	close(fd);
	/* One may write by the descriptor that made a file which nobody may write. */
	IS(0, chmod("d", 0777));
	become(USER, USER);
	fd = open("d/ro", O_CREAT | O_RDWR, 0400);
	TRUE(fd >= 0);
	SAME(write(fd, "x", 1), 1);
	close(fd);
	IS(EACCES, open_close("d/ro", O_WRONLY));
	IS(0, open_close("d/ro", O_RDONLY));
	become(OTHER, OTHER);
	IS(EACCES, open_close("d/ro", O_RDONLY));
	IS(EACCES, open_close("f", O_WRONLY));
	IS(EACCES, open_close("f", O_RDONLY | O_TRUNC));
	become(0, 0);
	SAME(look("d/ro").st_uid, USER);
	fd = open("f", O_WRONLY | O_TRUNC);
	SAME(write(fd, "hello", 5), 5);
	close(fd);
	fd = open("f", O_WRONLY | O_APPEND);
	SAME(write(fd, " you", 4), 4);
	close(fd);
	SAME(look("f").st_size, 9);
	IS(0, open_close("f", O_WRONLY | O_TRUNC));
	SAME(look("f").st_size, 0);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	TRUE(fd >= 0 || errno == EOPNOTSUPP);
	if (fd >= 0)
		close(fd);
	IS(0, unlink("d/ro"));
	IS(0, rmdir("d"));
	IS(0, unlink("f"));
	IS(0, unlink("l"));
	IS(0, unlink("dangling"));
	IS(0, unlink("new"));
	IS(0, unlink("u"));
}

static long exchange(const char *a, const char *b, unsigned int flags)
{
	return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, flags);
}

static void t_rename(void)
{
	ino_t ino;

	IS(0, make("a", 0644));
	ino = look("a").st_ino;
	IS(0, rename("a", "b"));
	SAME(look("b").st_ino, ino);
	IS(ENOENT, rename("a", "c"));
	IS(0, make("a", 0600));
	IS(0, rename("a", "b"));
	SAME(mode_of("b"), 0600);
	IS(0, mkdir("d", 0755));
	IS(0, mkdir("e", 0755));
	IS(EISDIR, rename("b", "d"));
	IS(ENOTDIR, rename("d", "b"));
	IS(0, rename("d", "e")); /* over an empty one */
	IS(0, make("e/f", 0644));
	IS(0, mkdir("d", 0755));
	IS(ENOTEMPTY, rename("d", "e"));
	IS(EINVAL, rename("e", "e/x"));
	IS(0, rename("b", "d/b"));
	IS(0, rename("d", "g"));
	IS(0, open_close("g/b", O_RDONLY));
	IS(ENOENT, open_close("d/b", O_RDONLY));
	IS(0, link("g/b", "g/c"));
	IS(0, rename("g/b", "g/c")); /* two names of one file: both stay */
	SAME(look("g/b").st_nlink, 2);
	IS(0, unlink("g/c"));
	IS(EEXIST, exchange("g/b", "e/f", 1));
	IS(0, exchange("g/b", "g/n", 1));
	IS(0, exchange("g/n", "e/f", 2));
	SAME(mode_of("e/f"), 0600);
	SAME(mode_of("g/n"), 0644);
	IS(0, exchange("g", "e", 2));
	SAME(mode_of("g/f"), 0600);
	IS(ENOENT, exchange("g", "none", 2));
	IS(ENAMETOOLONG, rename("g", too_long_name));
	IS(0, symlink("x", "s"));
	IS(0, rename("s", "t"));
	TRUE(S_ISLNK(look("t").st_mode));
	IS(0, unlink("t"));
	/* Sticky folders. */
	IS(0, chmod("g", 01777));
	IS(0, make("g/mine", 0666));
	become(USER, USER);
	IS(EPERM, rename("g/mine", "g/yours"));
	IS(EPERM, unlink("g/mine"));
	IS(0, make("g/u", 0644));
	IS(0, rename("g/u", "g/v"));
	become(OTHER, OTHER);
	IS(EPERM, unlink("g/v"));
	become(0, 0);
	IS(0, unlink("g/v"));
	IS(0, unlink("g/mine"));
	IS(0, unlink("g/f"));
	IS(0, unlink("e/n"));
	IS(0, rmdir("g"));
	IS(0, rmdir("e"));
}

static void t_rmdir(void)
{
	int fd;

	IS(0, mkdir("d", 0755));
	IS(0, mkdir("d/e", 0755));
	IS(ENOTEMPTY, rmdir("d"));
	IS(0, rmdir("d/e"));
	IS(0, make("d/f", 0644));
	IS(ENOTEMPTY, rmdir("d"));
	IS(ENOTDIR, rmdir("d/f"));
	IS(ENOTDIR, rmdir("d/f/x"));
	IS(ENOENT, rmdir("none"));
	IS(EINVAL, rmdir("d/."));
	IS(0, symlink("d", "l"));
	IS(ENOTDIR, rmdir("l"));
	IS(0, unlink("l"));
	IS(0, unlink("d/f"));
	/* A link whose owner is kept beside it does not keep the folder. */
	IS(0, symlink("x", "d/s"));
	IS(0, lchown("d/s", 9, 9));
	IS(0, unlink("d/s"));
	fd = open("d", O_RDONLY | O_DIRECTORY);
	IS(0, rmdir("d"));
	IS(ENOENT, openat(fd, "x", O_CREAT | O_RDWR, 0644));
	struct stat st;
	IS(0, fstat(fd, &st));
	close(fd);
	become(USER, USER);
	IS(EACCES, mkdir("u", 0755) == 0 ? rmdir("u") : -1);
	become(0, 0);
}

static void t_symlink(void)
{
	char text[PATH_MAX + 1], target[PATH_MAX];
	ssize_t n;

	IS(0, symlink("target", "l"));
	n = readlink("l", text, sizeof(text));
	SAME(n, 6);
	TRUE(n == 6 && memcmp(text, "target", 6) == 0);
	SAME(look("l").st_size, 6);
	TRUE(S_ISLNK(look("l").st_mode));
	IS(EEXIST, symlink("x", "l"));
	IS(ENOENT, symlink("x", "none/l"));
	memset(target, 'a', sizeof(target));
	target[4000] = '\0';
	IS(0, symlink(target, "long"));
	SAME(readlink("long", text, sizeof(text)), 4000);
	IS(0, make("f", 0644));
	IS(EINVAL, readlink("f", text, sizeof(text)));
	IS(0, symlink("/etc/passwd", "abs")); /* the guest's */
	IS(0, open_close("abs", O_RDONLY));
	IS(0, chmod(".", 0777));
	become(USER, USER);
	IS(0, symlink("x", "mine"));
	become(0, 0);
	SAME(look("mine").st_uid, USER);
	IS(0, unlink("mine"));
	IS(0, unlink("abs"));
	IS(0, unlink("long"));
	IS(0, unlink("l"));
	IS(0, unlink("f"));
}

static void t_truncate(void)
{
	int fd = open("f", O_CREAT | O_RDWR, 0644);
	char buf[16] = {0};

	IS(0, ftruncate(fd, 100));
	SAME(look("f").st_size, 100);
	SAME(pwrite(fd, "abcdef", 6, 0), 6);
	IS(0, truncate("f", 3));
	IS(0, truncate("f", 6));
	SAME(pread(fd, buf, 6, 0), 6);
	TRUE(memcmp(buf, "abc\0\0\0", 6) == 0);
	IS(EINVAL, ftruncate(fd, -1));
	IS(0, truncate("f", 1LL << 40));
	SAME(look("f").st_size, 1LL << 40);
	SAME(look("f").st_blocks < 100, 1);
	close(fd);
	IS(0, mkdir("d", 0755));
	IS(EISDIR, truncate("d", 1));
	IS(ENOENT, truncate("none", 1));
	IS(ENOTDIR, truncate("f/x", 1));
	become(USER, USER);
	IS(EACCES, truncate("f", 1));
	become(0, 0);
	IS(0, chmod("f", 06777));
	become(USER, USER);
	IS(0, truncate("f", 5));
	become(0, 0);
	SAME(mode_of("f"), 0777); /* set-id bits go */
	IS(0, unlink("f"));
	IS(0, rmdir("d"));
}

static void t_unlink(void)
{
	char buf[8] = {0};
	struct stat st;
	int fd;

	IS(ENOENT, unlink("none"));
	IS(0, mkdir("d", 0755));
	IS(EISDIR, unlink("d"));
	IS(0, make("d/f", 0644));
	IS(ENOTDIR, unlink("d/f/x"));
	become(USER, USER);
	IS(EACCES, unlink("d/f"));
	become(0, 0);
	/* Open and without a name. */
	fd = open("d/f", O_RDWR);
	IS(0, unlink("d/f"));
	IS(ENOENT, open_close("d/f", O_RDONLY));
	SAME(write(fd, "still", 5), 5);
	SAME(pread(fd, buf, 5, 0), 5);
	IS(0, fstat(fd, &st));
	SAME(st.st_nlink, 0);
	SAME(st.st_size, 5);
	IS(0, fchmod(fd, 0400));
	IS(0, ftruncate(fd, 2));
	IS(0, fstat(fd, &st));
	SAME(st.st_size, 2);
	SAME(st.st_mode & 07777, 0400);
	IS(0, make("d/f", 0644)); /* another */
	SAME(look("d/f").st_size, 0);
	close(fd);
	/* Replaced by a rename while open. */
	fd = open("d/f", O_RDWR);
	IS(0, make("d/g", 0600));
	IS(0, rename("d/g", "d/f"));
	SAME(write(fd, "x", 1), 1);
	SAME(look("d/f").st_size, 0);
	IS(0, fstat(fd, &st));
	SAME(st.st_nlink, 0);
	close(fd);
	IS(0, unlink("d/f"));
	IS(0, rmdir("d"));
}

static void t_utimensat(void)
{
	struct timespec times[2] = {{1234567890, 123456789}, {987654321, 987654321}};
	struct stat st;

	IS(0, make("f", 0644));
	IS(0, utimensat(AT_FDCWD, "f", times, 0));
	st = look("f");
	SAME(st.st_atim.tv_sec, 1234567890);
	SAME(st.st_atim.tv_nsec, 123456789);
	SAME(st.st_mtim.tv_sec, 987654321);
	SAME(st.st_mtim.tv_nsec, 987654321);
	times[0].tv_nsec = UTIME_OMIT;
	times[1] = (struct timespec){4000000000LL, 5};
	IS(0, utimensat(AT_FDCWD, "f", times, 0));
	st = look("f");
	SAME(st.st_atim.tv_sec, 1234567890);
	SAME(st.st_mtim.tv_sec, 4000000000LL);
	SAME(st.st_mtim.tv_nsec, 5);
	IS(0, symlink("f", "l"));
	times[1].tv_sec = 77;
	IS(0, utimensat(AT_FDCWD, "l", times, AT_SYMLINK_NOFOLLOW));
	SAME(look("l").st_mtim.tv_sec, 77);
	SAME(look("f").st_mtim.tv_sec, 4000000000LL);
	become(USER, USER);
	IS(EPERM, utimensat(AT_FDCWD, "f", times, 0));
	IS(EACCES, utimensat(AT_FDCWD, "f", NULL, 0));
	become(0, 0);
	IS(0, chmod("f", 0666));
	become(USER, USER);
	IS(0, utimensat(AT_FDCWD, "f", NULL, 0));
	become(0, 0);
	TRUE(look("f").st_mtim.tv_sec != 4000000000LL);
	IS(ENOENT, utimensat(AT_FDCWD, "none", times, 0));
	IS(0, unlink("f"));
	IS(0, unlink("l"));
}

/* ---- what follows ---- */

static void t_setid(void)
{
	int fd;

	IS(0, make("f", 0777));
	IS(0, chmod("f", 06777));
	become(USER, USER);
	fd = open("f", O_WRONLY);
	SAME(write(fd, "x", 1), 1);
	close(fd);
	become(0, 0);
	SAME(mode_of("f"), 0777);
	IS(0, chmod("f", 06755));
	fd = open("f", O_WRONLY);
	SAME(write(fd, "x", 1), 1); /* root keeps them */
	close(fd);
	SAME(mode_of("f"), 06755);
	IS(0, unlink("f"));
}

static void t_locks(void)
{
	struct flock whole = {.l_type = F_WRLCK};
	int fd = open("f", O_CREAT | O_RDWR, 0644), status;

	IS(0, fcntl(fd, F_SETLK, &whole));
	if (fork() == 0) {
		int other = open("f", O_RDWR);
		_exit(fcntl(other, F_SETLK, &whole) < 0 && errno == EAGAIN ? 0 : 1);
	}
	wait(&status);
	SAME(status, 0);
	int second = open("f", O_RDWR);
	IS(0, flock(fd, LOCK_EX));
	IS(EWOULDBLOCK, flock(second, LOCK_EX | LOCK_NB));
	close(second);
	close(fd);
	IS(0, unlink("f"));
}

static void t_mmap(void)
{
	int fd = open("f", O_CREAT | O_RDWR, 0644);
	char buf[8] = {0}, *map;

	IS(0, ftruncate(fd, 100000));
	map = mmap(NULL, 100000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TRUE(map != MAP_FAILED);
	if (map == MAP_FAILED)
		return;
	memcpy(map + 70000, "mapped", 6);
	IS(0, msync(map, 100000, MS_SYNC));
	SAME(pread(fd, buf, 6, 70000), 6);
	TRUE(memcmp(buf, "mapped", 6) == 0);
	SAME(pwrite(fd, "written", 7, 5000), 7);
	TRUE(memcmp(map + 5000, "written", 7) == 0);
	munmap(map, 100000);
	close(fd);
	IS(0, unlink("f"));
}

static void t_holes(void)
{
	int fd = open("f", O_CREAT | O_RDWR, 0644);

	SAME(pwrite(fd, "x", 1, 10 << 20), 1);
	SAME(lseek(fd, 0, SEEK_DATA), 10 << 20);
	SAME(lseek(fd, 0, SEEK_HOLE), 0);
	IS(0, fallocate(fd, 0, 0, 1 << 20));
	TRUE(look("f").st_blocks >= 2048);
	IS(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
	TRUE(look("f").st_blocks < 2048);
	close(fd);
	IS(0, unlink("f"));
}

static void t_xattrs(void)
{
	char value[64], names[256];

	IS(0, make("f", 0644));
	IS(0, setxattr("f", "user.colour", "blue", 4, XATTR_CREATE));
	IS(EEXIST, setxattr("f", "user.colour", "red", 3, XATTR_CREATE));
	SAME(getxattr("f", "user.colour", value, sizeof(value)), 4);
	IS(ERANGE, getxattr("f", "user.colour", value, 2));
	IS(ENODATA, getxattr("f", "user.none", value, sizeof(value)));
	IS(0, setxattr("f", "trusted.t", "1", 1, 0));
	IS(0, setxattr("f", "security.capability",
		       "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0));
	SAME(getxattr("f", "security.capability", value, sizeof(value)), 20);
	ssize_t n = listxattr("f", names, sizeof(names));
	TRUE(n > 0 && memmem(names, (size_t)n, "user.colour", 12));
	TRUE(n > 0 && memmem(names, (size_t)n, "security.capability", 20));
	TRUE(n > 0 && !memmem(names, (size_t)n, "virtfs", 6));
	IS(0, chown("f", 1, 1)); /* file capabilities go with the owner */
	IS(ENODATA, getxattr("f", "security.capability", value, sizeof(value)));
	n = listxattr("f", names, sizeof(names));
	TRUE(n > 0 && !memmem(names, (size_t)n, "virtfs", 6));
	IS(EPERM, setxattr("f", "user.virtfs.uid", "\0\0\0\0", 4, 0));
	SAME(look("f").st_uid, 1);
	IS(0, removexattr("f", "user.colour"));
	IS(ENODATA, removexattr("f", "user.colour"));
	IS(0, unlink("f"));
}

static void t_listing(void)
{
	enum { MANY = 1500 };
	char name[32];
	struct dirent *e;
	int seen = 0, dots = 0;
	long middle = 0;
	DIR *d;

	IS(0, mkdir("d", 0755));
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "d/file-%d", i);
		if (make(name, 0644) < 0)
			result(0, __LINE__, name, "%s", strerror(errno));
	}
	d = opendir("d");
	while ((e = readdir(d))) {
		dots += e->d_name[0] == '.';
		seen += e->d_name[0] == 'f';
		if (seen == MANY / 2)
			middle = telldir(d);
	}
	SAME(seen, MANY);
	SAME(dots, 2);
	seekdir(d, middle);
	for (seen = 0; readdir(d);)
		seen++;
	TRUE(seen >= MANY / 2 - 1 && seen <= MANY / 2 + 2);
	rewinddir(d);
	for (seen = 0; (e = readdir(d));)
		if (e->d_name[0] == 'f') {
			snprintf(name, sizeof(name), "d/%.20s", e->d_name);
			seen += unlink(name) == 0;
		}
	closedir(d);
	SAME(seen, MANY);
	IS(0, rmdir("d"));
}

static const struct {
	const char *name;
	void (*run)(void);
} groups[] = {
	{"chmod", t_chmod},       {"chown", t_chown},         {"link", t_link},     {"mkdir", t_mkdir},
	{"mknod", t_mknod},       {"open", t_open},           {"rename", t_rename}, {"rmdir", t_rmdir},
	{"symlink", t_symlink},   {"truncate", t_truncate},   {"unlink", t_unlink}, {"utimensat", t_utimensat},
	{"set-id", t_setid},      {"locks", t_locks},         {"mmap", t_mmap},     {"holes", t_holes},
	{"xattrs", t_xattrs},     {"listing", t_listing},
};

int main(int argc, char **argv)
{
	memset(long_name, 'n', 255);
	memset(too_long_name, 'n', 256);
	umask(0);
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		group = groups[i].name;
		if (argc > 1 && !strstr(group, argv[1]))
			continue;
		/* A folder of its own: what a failed case leaves disturbs no other. */
		if (mkdir(group, 0755) < 0 || chdir(group) < 0) {
			printf("cannot make a folder for %s: %s\n", group, strerror(errno));
			return 2;
		}
		groups[i].run();
		if (chdir("..") < 0)
			return 2;
		if (rmdir(group) < 0)
			result(0, __LINE__, group, "leaves something behind: %s", strerror(errno));
	}
	printf("%d of %d failed\n", failed, total);
	return failed != 0;
}
