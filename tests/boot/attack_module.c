/*
 * What a guest's root makes the UML process do: code without any library, flat and position independent, that attack_module.py puts
 * in place of a module's init function. In a UML kernel a "syscall" instruction is one of the host's.
 *
 * Each attempt is told on descriptor 1, which ends in supervisor.log: "attack: NAME RESULT", RESULT being the host's answer.
 * SECRET, CONTROL, PORT and STUDENT are given by the compiler's -D: a file, a socket, a TCP port and a process of the student's.
 */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/in.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/un.h>

#define AF_UNIX	    1
#define AF_INET	    2
#define SOCK_STREAM 1
#define SIGKILL	    9

static long call(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static void tell(const char *name, long result)
{
	char line[80] = "attack: ";
	unsigned long rest = result < 0 ? (unsigned long)-result : (unsigned long)result;
	char digits[24];
	int n = 8, k = 0;

	while (*name && n < 40)
		line[n++] = *name++;
	line[n++] = ' ';
	if (result < 0)
		line[n++] = '-';
	do {
		digits[k++] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	while (k)
		line[n++] = digits[--k];
	line[n++] = '\n';
	call(__NR_write, 1, (long)line, n, 0, 0);
}

static long open_file(const char *path, int flags)
{
	long fd = call(__NR_open, (long)path, flags, 0600, 0, 0);

	if (fd >= 0)
		call(__NR_close, fd, 0, 0, 0, 0);
	return fd;
}

static long connect_to(int family, const void *address, int size)
{
	long fd = call(__NR_socket, family, SOCK_STREAM, 0, 0, 0), result;

	if (fd < 0)
		return fd;
	result = call(__NR_connect, fd, (long)address, size, 0, 0);
	call(__NR_close, fd, 0, 0, 0, 0);
	return result;
}

static void copy(char *to, const char *from)
{
	while ((*to++ = *from++))
		;
}

static void try_sockets(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET};

	copy(un.sun_path, CONTROL);
	tell("control-socket", connect_to(AF_UNIX, &un, sizeof(un)));
	copy(un.sun_path, "../control");
	tell("control-socket-relative", connect_to(AF_UNIX, &un, sizeof(un)));
	copy(un.sun_path + 1, "attack-abstract");
	un.sun_path[0] = '\0';
	tell("abstract-socket", connect_to(AF_UNIX, &un, 2 + 1 + 15));
	in.sin_port = (unsigned short)((PORT >> 8) | (PORT << 8));
	in.sin_addr.s_addr = 0x0100007f;
	tell("tcp", connect_to(AF_INET, &in, sizeof(in)));
}

__attribute__((section(".text.entry"), used)) int attack(void)
{
#ifdef SUICIDE
	/* Guest processes, which are traced, would go on natively if only this one ended. */
	call(__NR_kill, call(__NR_getpid, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0);
#endif
	tell("open-secret", open_file(SECRET, O_RDONLY));
	tell("open-passwd", open_file("/etc/passwd", O_RDONLY));
	tell("open-up", open_file("../../../../../../etc/passwd", O_RDONLY));
	tell("write-secret", open_file(SECRET, O_WRONLY));
	tell("make-file", open_file("/tmp/attack-was-here", O_WRONLY | O_CREAT));
	tell("proc-mem", open_file("/proc/self/mem", O_RDWR));
	try_sockets();
	tell("ptrace", call(__NR_ptrace, PTRACE_ATTACH, STUDENT, 0, 0, 0));
	tell("ptrace-keeper", call(__NR_ptrace, PTRACE_ATTACH, 1, 0, 0, 0));
	tell("signal", call(__NR_kill, STUDENT, 0, 0, 0, 0));
	tell("signal-keeper", call(__NR_kill, call(__NR_getppid, 0, 0, 0, 0, 0), 0, 0, 0, 0));
	tell("unshare", call(__NR_unshare, CLONE_NEWUSER, 0, 0, 0, 0));
	tell("mount", call(__NR_mount, (long)"x", (long)"/", (long)"tmpfs", 0, 0));
	tell("bpf", call(__NR_bpf, 0, 0, 0, 0, 0));
	tell("io-uring", call(__NR_io_uring_setup, 1, 0, 0, 0, 0));
	tell("end", -1);
	return -1; /* the module is not kept */
}
