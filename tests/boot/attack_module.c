/*
 * What a guest's root makes the UML process do: code without any library, flat and position independent, that attack_module.py puts
 * in place of a module's init function. In a UML kernel a "syscall" instruction is one of the host's.
 *
 * Each attempt is told on descriptor 1, which ends in supervisor.log: "attack: NAME RESULT", RESULT being the host's answer.
 * SECRET, CONTROL, PORT and STUDENT are given by the compiler's -D: a file, a socket, a TCP port and a process of the student's.
 * With -DSUICIDE it only kills the kernel; with -DNONSENSE it only writes nonsense into all rings and sockets of the devices.
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
#define SIGSTOP	    19
#define FORKS_MAX   20000	    /* more than any limit allows */
#define FILL_MAX    (1L << 30)	    /* more than /dev/shm of a small machine holds */
#define FILL_FILE   (8L << 20)	    /* within RLIMIT_FSIZE */
#define GUEST_BYTES (64UL << 20)
#define PR_PDEATHSIG 1

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

/* Children that stand still, made by one that takes them along when it dies. Its last error, or how many there were. */
static void fork_without_end(void)
{
	long maker = call(__NR_fork, 0, 0, 0, 0, 0), child = 0, made = 0;

	while (maker == 0 && made < FORKS_MAX) {
		child = call(__NR_fork, 0, 0, 0, 0, 0);
		if (child < 0)
			break;
		made++;
		while (child == 0) {
			call(__NR_prctl, PR_PDEATHSIG, SIGKILL, 0, 0, 0);
			call(__NR_kill, call(__NR_getpid, 0, 0, 0, 0, 0), SIGSTOP, 0, 0, 0);
		}
	}
	if (maker == 0) {
		tell("fork-without-end", child < 0 ? child : made);
		call(__NR_kill, call(__NR_getpid, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0);
	}
	call(__NR_wait4, maker, 0, 0, 0, 0);
}

/* Files in /dev/shm until it is full, or cannot be written. The last error, or the bytes written. */
static long fill_shm(void)
{
	char path[] = "/dev/shm/attack-was-here-000", block[1024] = {0};
	long all = 0, result = 0;

	for (int file = 0; result >= 0 && all < FILL_MAX; file++) {
		long fd;

		path[26] = (char)('0' + file / 10 % 10);
		path[27] = (char)('0' + file % 10);
		path[25] = (char)('0' + file / 100);
		fd = result = call(__NR_open, (long)path, O_WRONLY | O_CREAT, 0600, 0, 0);
		for (long n = 0; fd >= 0 && result >= 0 && n < FILL_FILE; n += result, all += result)
			result = call(__NR_write, fd, (long)block, sizeof(block), 0, 0);
		if (fd >= 0)
			call(__NR_close, fd, 0, 0, 0, 0);
	}
	for (int file = 0; file < 200; file++) {
		path[26] = (char)('0' + file / 10 % 10);
		path[27] = (char)('0' + file % 10);
		path[25] = (char)('0' + file / 100);
		call(__NR_unlink, (long)path, 0, 0, 0, 0);
	}
	return result < 0 ? result : all;
}

/*
 * A child, so that the kernel stands still meanwhile, writes random bytes all over the guest's memory, which it shares: rings, and
 * what they point to, lie in it. Then it kicks whoever waits for them, and says the same nonsense on every socket. getrandom()
 * refuses addresses that are not there.
 */
static void nonsense(void)
{
	long child = call(__NR_fork, 0, 0, 0, 0, 0);
	unsigned long here = (unsigned long)__builtin_frame_address(0), at;

	for (int round = 0; child == 0 && round < 400; round++) {
		unsigned char words[64];

		for (int i = 0; i < 200; i++) {
			call(__NR_getrandom, (long)&at, sizeof(at), 0, 0, 0);
			at = here - GUEST_BYTES + (at % (2 * GUEST_BYTES) & ~15UL);
			if (at > here - 16384 && at < here + 16384)
				continue;
			call(__NR_getrandom, (long)at, 32, 0, 0, 0);
		}
		call(__NR_getrandom, (long)words, sizeof(words), 0, 0, 0);
		words[0] &= 63; /* often a request that exists */
		words[1] = words[2] = words[3] = 0;
		for (int fd = 3; fd < 128; fd++) {
			long one = 1;

			if (call(__NR_write, fd, (long)&one, sizeof(one), 0, 0) > 0 && round % 8 == 7)
				call(__NR_sendto, fd, (long)words, 12 + round % 52, 0x4040 /* MSG_DONTWAIT, MSG_NOSIGNAL */, 0);
		}
	}
	if (child == 0)
		call(__NR_kill, call(__NR_getpid, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0);
	call(__NR_wait4, child, 0, 0, 0, 0);
	tell("nonsense-was-said", -1);
}

__attribute__((section(".text.entry"), used)) int attack(void)
{
#ifdef NONSENSE
	nonsense();
	return -1;
#endif
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
	tell("fill-shm", fill_shm());
	fork_without_end();
	tell("end", -1);
	return -1; /* the module is not kept */
}
