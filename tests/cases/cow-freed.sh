#!/bin/bash
# The space of an overlay that commit or create -f replaces is freed by the kernel while nobody waits: it comes back, no process,
# name or lock stays, and where io_uring is forbidden it is back when the command ends. On a file system of its own, to count.
. "$(dirname "$0")/lib.sh"
need unshare strace python3
if [ -z "${INSIDE:-}" ]; then
	INSIDE=1 unshare --user --map-root-user --mount --pid --fork --mount-proc --kill-child "$0" 2>"$T/err" && exit 0
	cat "$T/err"
	grep -q '^unshare:' "$T/err" && skip "user namespaces are forbidden here"
	fail "inside"
fi
mkdir "$T/fs"
mount -t tmpfs -o size=300m tmpfs "$T/fs" || fail "tmpfs"
cd "$T/fs" || exit 1

used() { echo $((($(stat -f -c '%b - %f' .)) * $(stat -f -c %S .) / 1048576)); } # MiB
few() { [ "$(used)" -le "$1" ]; }
only_us() { ! readlink /proc/[0-9]*/exe | grep -q uml-cow; }

truncate -s 64M base
touch -d 2020-02-02 base
full() { # o.cow with 40 MiB of 64 KiB pieces that don't touch
	rm -f o.cow
	uml-cow create -b base o.cow
	python3 - <<'P'
bits = bytearray(64 << 20 >> 12)
with open("o.cow", "r+b") as f:
    for at in range(0, 64 << 20, 1 << 16):
        if at >> 16 & 7 > 2:
            f.seek(8192 + len(bits) + at)
            f.write(b"x" * 65536)
            bits[at >> 12:(at >> 12) + 16] = b"\xff" * 16
    f.seek(8192)
    f.write(bits)
P
	few 41 && ! few 39 || fail "$(used) MiB"
}

full
cp --sparse=always o.cow spare.cow
exec 7<o.cow # somebody reads it: what was replaced stays with them alone
expect 0 uml-cow create -f -b base o.cow
only_us || fail "a process is left"
[ "$(ls -A)" = $'base\no.cow\nspare.cow' ] || fail "names: $(ls -A)"
! few 79 || fail "freed under its reader"
exec 7<&-
wait_until 10 few 41
rm spare.cow

# freed behind the command, by whatever verb; the disk can be used at once
full
expect 0 strace -f -o "$T/trace" -e trace=io_uring_setup,io_uring_register uml-cow create -f -b base o.cow
grep -q 'REGISTER_FILES.* = 0' "$T/trace" || fail "not handed to the kernel: $(cat "$T/trace")"
expect 0 uml-cow check o.cow
wait_until 10 few 1
full
expect 0 uml-cow flatten o.cow flat
ln o.cow other-name.cow
expect 0 uml-cow commit o.cow
cmp base flat || fail "commit"
expect 1 uml-cow check other-name.cow # it has a name yet: neither freed nor locked
says "was modified since"
rm other-name.cow o.cow flat base
wait_until 10 few 0

# not to be had: freed before the command ends
truncate -s 64M base
touch -d 2020-02-02 base
full
expect 0 strace -f -o "$T/trace" -e trace=io_uring_setup -e inject=io_uring_setup:error=EPERM uml-cow create -f -b base o.cow
grep -q INJECTED "$T/trace" || fail "$(cat "$T/trace")"
few 1 || fail "$(used) MiB when the command had ended"
cd /
unmounted() { umount "$T/fs"; }
wait_until 10 unmounted
