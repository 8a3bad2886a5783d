# Power cuts of the host under a real guest's ext4, on uml-cow serve: what the guest synced is there, the file system is sound.
# timeout: 240
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need mke2fs e2fsck debugfs busybox truncate setarch
PATH=$PATH:/usr/sbin:/sbin
test=$UML_LAB_BUILD/tests/test_cow_serve_power
[ -x "$test" ] || fail "$test is not built: make unit-tests"

# kernel VERSION: its path, as doctor finds it: "7.2.7 (/path/linux.uml), …"
kernel() { uml-lab doctor --json | grep -oE "[0-9.]+ \([^)]*\)" | sed -nE "s/^${1//./\\.}\.[0-9]+ \((.*)\)$/\1/p" | head -n 1; }
module() { find "/usr/lib/uml/modules/$("$1" --version)" "$(dirname "$1")/modules/" -name virtio_blk.ko 2>/dev/null | head -n 1; }

cat >"$T/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir /proc /mnt
$b mount -t proc none /proc
$b insmod /virtio_blk.ko
$b mount -t devtmpfs none /dev
$b mount -t ext4 -o discard /dev/vda /mnt
i=1
while [ $i -le 40 ]; do
	# what ext4 has to write besides
	$b dd if=/dev/zero of=/mnt/big bs=4096 count=$((i * 7 % 50)) 2>/dev/null
	[ $((i % 5)) = 0 ] && $b rm /mnt/big
	echo $i | $b dd of=/mnt/f$i conv=fsync 2>/dev/null
	$b printf '%08d' $i | $b dd of=/dev/vdb bs=512 conv=sync,fsync 2>/dev/null
	i=$((i + 1))
done
echo all written
$b poweroff -f
INIT
chmod +x "$T/init"

for k in $(kernels); do
	[ "$k" = 7.2 ] || [ -n "${UML_LAB_TEST_KERNELS:-}" ] || continue
	linux=$(kernel "$k")
	tests/initramfs "$T/initrd" init="$T/init" bin/busybox="$(command -v busybox)" virtio_blk.ko="$(module "$linux")" || fail "initramfs"
	cd "$T" || exit 1
	truncate -s 32M base
	mke2fs -q -t ext4 base
	truncate -s 1M base.marks
	uml-cow create -b base top
	uml-cow create -b base.marks marks
	"$test" guest >out 2>&1 &
	server=$!
	at_exit "kill $server 2>/dev/null"
	wait_until 20 grep -q ready out
	# its session is its own: timeout's signal ends it
	timeout -k 5 60 setarch -R "$linux" mem=128M initrd=initrd con=null con0=null,fd:1 console=tty0 ssl=null quiet noreboot \
		initcall_blacklist=raid6_select_algo,raid6_init "virtio_uml.device=$T/s0:2" "virtio_uml.device=$T/s1:2" </dev/null 2>&1 | cat >log
	grep -q 'all written' log || { tail -n 20 log; fail "the guest on $k"; }
	wait $server || { tail -n 20 out; fail "power cuts on $k"; }
	tail -n 1 out
	cd "$OLDPWD" || exit 1
done
