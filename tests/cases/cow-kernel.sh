#!/bin/bash
# timeout: 180
# COW files and the real kernel, Debian's own and those that tests/kernels fetched: what we make a guest boots from and writes to, what it makes we read; and disks of every
# version read by both sides are the same, sector by sector.
. "$(dirname "$0")/lib.sh"
need linux.uml cc mke2fs
cd "$T" || exit 1

# The guest's init: leaves a file, copies ubdb… to ubdg…, and powers off. Reads are 4 KiB and direct: longer ones run
# into the driver's bug with mixed bits (ubd_kern.c, do_io).
cat >init.c <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>
static void copy(char from, char to)
{
	char in[16], out[16];
	void *buf;
	int a, b;
	ssize_t n;
	if (posix_memalign(&buf, 4096, 4096))
		return;
	snprintf(in, sizeof(in), "/dev/ubd%c", from);
	snprintf(out, sizeof(out), "/dev/ubd%c", to);
	a = open(in, O_RDONLY | O_DIRECT);
	b = open(out, O_WRONLY);
	while (a >= 0 && b >= 0 && (n = read(a, buf, 4096)) > 0)
		if (write(b, buf, n) != n)
			break;
	if (b >= 0)
		fsync(b);
}
int main(void)
{
	int fd;
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	fd = open("/written", O_WRONLY | O_CREAT, 0640);
	if (fd < 0 || write(fd, "by the guest\n", 13) != 13)
		return 1;
	close(fd);
	for (int i = 0; i < 5; i++)
		copy('b' + i, 'g' + i);
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	sync();
	reboot(RB_POWER_OFF);
}
C
cc -static -O1 -o init init.c 2>cc.log || { cat cc.log; skip "no static libc"; }
mkdir -p tree/dev tree/etc
cp init tree/init
echo unchanged >tree/etc/motd

# No process of an earlier guest of this folder: its helpers may outlive its first process for a moment, with its locks.
nobody_here() {
	local p
	for p in /proc/[0-9]*; do
		[ "$(readlink "$p/cwd" 2>/dev/null)" = "$PWD" ] && [ "$(readlink "$p/exe" 2>/dev/null)" = "$uml" ] && return 1
	done
	return 0
}

# boot ARGS…: bounded, its console kept. Without address randomisation: its gap would cost the small guest its memory.
boot() {
	wait_until 10 nobody_here
	timeout 60 setarch -R "$uml" mem=128M con=null con0=null,fd:1 ssl=null rw init=/init root=/dev/ubda rootfstype=ext4 panic=1 \
		"$@" >console.log 2>&1 </dev/null
	grep -q "reboot: Power down\|reboot: System halted" console.log && return
	grep -i "ubd\|vfs\|lock\|panic" console.log
	tail -20 console.log
	fail "the guest did not power off"
}

# All of it with one kernel, in a folder of its own.
round() {
	mke2fs -q -t ext4 -d ../tree root.img 16M >/dev/null 2>&1 || fail "mke2fs"
	# base.img of the golden files: byte = 0x80 + sector, 41 sectors, mtime 1000000000
	python3 -c 'import sys; sys.stdout.buffer.write(b"".join(bytes([0x80 + s]) * 512 for s in range(41)))' >base.img
	touch -d @1000000000 base.img
	cp "$UML_LAB_SOURCE"/tests/fuzz/cow/corpus/v[123]-*.cow "$UML_LAB_SOURCE"/tests/fuzz/cow/corpus/v[23].cow .
	rm -f v3-ext4.cow
	goldens=(v1-le v2 v3 v3-broken ours)
	expect 0 uml-cow convert v1-be.cow ours.cow	# the kernel does not swap a V1 header: our V3 of it stands in
	args=() i=1
	for g in "${goldens[@]}"; do
		truncate -s 20992 "out-$g"
		args+=("ubd$i=$g.cow" "ubd$((i + 5))=out-$g")
		i=$((i + 1))
	done

	expect 0 uml-cow create -b root.img made-by-us.cow
	boot ubd0=made-by-us.cow "${args[@]}"
	for g in "${goldens[@]}"; do
		expect 0 uml-cow flatten -f "$g.cow" flat
		cmp "out-$g" flat || fail "$g.cow: the kernel reads other bytes than we"
	done
	expect 0 uml-cow check made-by-us.cow
	expect 0 uml-cow cat made-by-us.cow /written
	says "by the guest"
	expect 0 uml-cow diff-files made-by-us.cow
	says "A -rw-r----- /written"
	says_not motd

	# the other way round
	boot ubd0=made-by-kernel.cow,root.img
	expect 0 uml-cow check made-by-kernel.cow
	expect 0 uml-cow cat made-by-kernel.cow /written
	says "by the guest"
	expect 0 uml-cow create -b root.img fresh.cow
	# all but the bytes after the path's end, which the kernel leaves to chance
	cmp -n $((32 + ${#PWD} + 10)) fresh.cow made-by-kernel.cow || fail "the kernel writes another header"
	same "$(stat -c %s fresh.cow)" "$(stat -c %s made-by-kernel.cow)" "apparent size"

	# through all that changes files, and booted again
	expect 0 uml-cow compact made-by-us.cow
	expect 0 uml-cow flatten -f made-by-us.cow before.img
	boot ubd0=made-by-us.cow
	cp --preserve=all root.img copy.img
	expect 0 uml-cow rebase -b copy.img made-by-us.cow
	boot ubd0=made-by-us.cow
	expect 0 uml-cow commit made-by-us.cow
	expect 0 uml-cow cat copy.img /written
	says "by the guest"
	boot ubd0=made-by-us.cow
	boot ubd0=copy.img
	expect 0 uml-cow check made-by-kernel.cow
}

for uml in "$(command -v linux.uml)" "${UML_LAB_KERNELS:-/var/cache/uml-lab-kernels}"/*/linux.uml; do
	[ -x "$uml" ] || continue
	rm -rf round
	mkdir round
	cd round || exit 1
	echo "with $uml"
	round
	cd ..
done
