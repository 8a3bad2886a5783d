#!/bin/bash
# The FUSE view: programs that know raw images read and write a chain through it.
. "$(dirname "$0")/lib.sh"
need fusermount3 debugfs mke2fs e2fsck fuse2fs qemu-io qemu-img python3
[ -w /dev/fuse ] || skip "/dev/fuse is not accessible"
[ -e /etc/mtab ] || skip "there is no /etc/mtab, which fusermount3 needs"
cd "$T" || exit 1

mkdir m tree
seq 1 100 >tree/numbers
mke2fs -q -t ext4 -d tree base.img 16M >/dev/null 2>&1
sum=$(cksum <base.img)
uml-cow create -b base.img layer.cow
uml-cow create -b layer.cow o.cow
at_exit "fusermount3 -u -z $T/m 2>/dev/null"

expect 0 uml-cow mount o.cow m
same "$(cksum <m/disk)" "$sum" "content"
# page-cached: what was read is not read from us again (unless the host let go of it meanwhile)
server=$(python3 -c 'import os; print(os.getxattr("m", "user.uml-cow.pid").decode())')
taken() { sed -n 's/^syscr: //p' "/proc/$server/io"; }
cached() {
	local before
	before=$(taken)
	same "$(cksum <m/disk)" "$sum" "content"
	[ $(($(taken) - before)) -lt 20 ]
}
wait_until 10 cached
expect 1 dd if=/dev/zero of=m/disk bs=512 count=1 conv=notrunc
expect 5 uml-cow commit o.cow
expect 0 uml-cow umount m
expect 5 uml-cow umount m

# into the file itself
expect 0 uml-cow mount --write o.cow m
debugfs -w -R "write tree/numbers copy" m/disk >/dev/null 2>&1
expect 0 e2fsck -fn m/disk
expect 5 uml-cow check o.cow
expect 0 uml-cow umount m
expect 0 uml-cow check o.cow
expect 0 uml-cow cat o.cow /copy
cmp "$T/out" tree/numbers || fail "not what was written"
same "$(cksum <base.img)" "$sum" "the base changed"

# fuse2fs and qemu, into an overlay of its own; qemu around the page cache too
mkdir f
at_exit "fusermount3 -u -z $T/f 2>/dev/null"
expect 0 uml-cow mount --overlay other.cow o.cow m
expect 0 fuse2fs m/disk f -o fakeroot
same "$(tail -n 1 f/numbers)" 100
seq 1 20000 >f/more
mkdir f/folder
expect 0 fusermount3 -u f
clean() { e2fsck -fn m/disk; } # fuse2fs writes its last after that
wait_until 20 clean
for cache in writeback none; do
	expect 0 qemu-io -f raw -t $cache -c 'read 0 64k' -c 'write -P 7 12M 1M' -c 'read -P 7 12M 1M' -c flush m/disk
	says_not "failed"
done
expect 0 uml-cow umount m
expect 0 uml-cow diff-files other.cow
same "$(sed 's/ (.*//' "$T/out" | sort)" $'A -rw-r--r-- /more\nA drwxr-xr-x /folder'
expect 0 uml-cow cat other.cow /more
seq 1 20000 | cmp - "$T/out" || fail "what fuse2fs wrote"
expect 0 uml-cow convert other.cow other.qcow2
expect 0 uml-cow flatten other.cow other.raw
expect 0 qemu-img compare -f raw -F qcow2 other.raw other.qcow2

# into an overlay of its own; all sizes and places of writes
expect 0 uml-cow flatten o.cow model
expect 0 uml-cow mount --overlay extra.cow o.cow m
RANDOM=1
for _ in $(seq 1 60); do
	n=$((RANDOM % 9000 + 1)) at=$(((RANDOM * 32768 + RANDOM) % 16700000))
	head -c $n /dev/urandom >piece
	for f in model m/disk; do
		dd if=piece of=$f bs=9001 seek=$at oflag=seek_bytes conv=notrunc status=none || fail "dd to $f"
	done
done
sync m/disk
cmp model m/disk || fail "what was written is not read"
expect 0 uml-cow umount m
expect 0 uml-cow flatten extra.cow flat
cmp model flat || fail "what was written did not stay"
expect 1 uml-cow diff extra.cow nowhere
expect 0 uml-cow check extra.cow

# a server that is killed loses nothing that was synced
expect 0 uml-cow mount --write extra.cow m
head -c 100000 /dev/urandom >piece
for f in model m/disk; do dd if=piece of=$f bs=100000 seek=5000000 oflag=seek_bytes conv=notrunc,fsync status=none; done
pid=$(python3 -c 'import os; print(os.getxattr("m", "user.uml-cow.pid").decode())')
kill -9 "$pid"
gone() { ! kill -0 "$pid"; }
wait_until 10 gone
fusermount3 -u -z m
expect 0 uml-cow check extra.cow
expect 0 uml-cow flatten -f extra.cow flat
cmp model flat || fail "synced data was lost"
