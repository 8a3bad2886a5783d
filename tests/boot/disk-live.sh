# Snapshots, merges and a disk that comes and goes, under a real guest that writes all the time (disk-live.py).
# timeout: 180
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need mke2fs e2fsck busybox truncate setarch python3
PATH=$PATH:/usr/sbin:/sbin
kernel() { uml-lab doctor --json | grep -oE "[0-9.]+ \([^)]*\)" | sed -nE "s/^${1//./\\.}\.[0-9]+ \((.*)\)$/\1/p" | head -n 1; }
module() { find "/usr/lib/uml/modules/$("$1" --version)" "$(dirname "$1")/modules/" -name virtio_blk.ko 2>/dev/null | head -n 1; }

cat >"$T/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir /proc /sys /mnt
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b insmod /virtio_blk.ko
$b mount -t devtmpfs none /dev
$b mount -t ext4 /dev/vda /mnt
size() { $b cat /sys/block/vdb/size; }
$b head -c 2000000 /dev/urandom >/mnt/sample
echo writing
(
	i=0
	while [ ! -e /done ]; do
		$b cp /mnt/sample /mnt/copy$((i % 8))
		$b sync
		i=$((i + 1))
	done
) &
while [ "$(size)" = 0 ]; do $b sleep 0.1; done
echo "found the second disk: $(size)"
$b dd if=/mnt/sample of=/dev/vdb bs=1000000 count=1 conv=fsync 2>/dev/null && echo wrote the second disk
while [ "$(size)" != 0 ]; do $b sleep 0.1; done
echo lost the second disk
: >/done
wait
echo 3 >/proc/sys/vm/drop_caches
for f in /mnt/copy*; do $b cmp $f /mnt/sample || exit 1; done
$b umount /mnt && echo all is as written
$b poweroff -f
INIT
chmod +x "$T/init"
truncate -s 64M "$T/base"
mke2fs -q -t ext4 "$T/base"

for k in $(kernels); do
	linux=$(kernel "$k")
	tests/initramfs "$T/initrd" init="$T/init" bin/busybox="$(command -v busybox)" virtio_blk.ko="$(module "$linux")" || fail "initramfs"
	rm -f "$T"/top* "$T/extra"
	uml-cow create -b "$T/base" "$T/top"
	uml-cow create -b "$T/base" "$T/extra"
	python3 tests/boot/disk-live.py "$linux" "$T/initrd" "$T" || fail "on $k"
	# what is left: top, and top4, which stands on it
	expect 0 uml-cow check "$T/top4"
	expect 0 uml-cow flatten "$T/top4" "$T/flat.img"
	e2fsck -fn "$T/flat.img" >"$T/e2fsck" 2>&1 || { cat "$T/e2fsck"; fail "the file system on $k"; }
	rm -f "$T/flat.img"
	[ "$(uml-cow info --json "$T/top4" | grep -o '"path"' | wc -l)" -ge 3 ] || fail "the chain on $k"
done
