# File systems, partitions, RAID and LVM on extra disks, and fio's own verification on the overlay: made on the host or in the
# guest, filled and read back in the guest, checked on the host.
# timeout: 300
. tests/cases/lib.sh
need mke2fs e2fsck mkfs.xfs xfs_repair mkfs.vfat fsck.vfat mkfs.btrfs btrfs fio mdadm lvm

# Host programs for the guest, with their libraries, on a disk of their own: t PROGRAM… runs one there.
mkdir -p "$T/tools/bin" "$T/tools/lib"
for p in fio mdadm lvm; do
	cp "$(command -v $p)" "$T/tools/bin/"
	ldd "$(command -v $p)" | awk '$3 ~ "^/" { print $3 }' | xargs -I{} cp -Ln {} "$T/tools/lib/"
done
cp -L "$(ldd "$(command -v fio)" | awk '/ld-linux/ { print $1 }')" "$T/tools/ld.so"
cat >"$T/tools/t" <<'END'
#!/bin/sh
p=$1
shift
exec /t/ld.so --library-path /t/lib /t/bin/$p "$@"
END
# fill DIR: files of many sizes, their sums; check DIR: whether all is as it was
cat >"$T/tools/fill" <<'END'
#!/bin/sh -e
cd "$1"
mkdir -p a/b
for i in 1 511 512 513 4095 4097 65537 1000003; do
	dd if=/dev/urandom of=a/f$i bs=$i count=1 2>/dev/null
	dd if=/dev/urandom of=a/b/f$i bs=512 count=$((i / 512 + 1)) 2>/dev/null
done
# Pieces of a sector in the midst of others.
for i in 3 17 200 1001; do dd if=/dev/urandom of=a/f1000003 bs=512 seek=$i count=1 conv=notrunc 2>/dev/null; done
find a -type f -exec md5sum {} + > sums
END
cat >"$T/tools/verify" <<'END'
#!/bin/sh -e
cd "$1"
test -s sums
md5sum -c sums | grep -v ': OK$' && exit 1
test "$(find a -type f | wc -l)" = 16
END
# try DEVICE TYPE: twice, with all caches dropped between
cat >"$T/tools/try" <<'END'
#!/bin/sh -e
mkdir -p /m
mount -t "$2" "$1" /m
/t/fill /m
umount /m
echo 3 > /proc/sys/vm/drop_caches
mount -t "$2" "$1" /m
/t/verify /m
rm -r /m/a/b
fstrim /m 2>/dev/null || true
umount /m
END
chmod 755 "$T/tools"/*

folder=$HOME/.local/state/uml-lab/sessions/fs/m

# The disks as the guest will see them: vdb, vdc, …
make_disks() {
	mke2fs -qF -t ext4 -m 0 -d "$T/tools" "$folder/disk1.img" || fail "tools"
	mkfs.xfs -q -f "$folder/disk2.img" || fail "xfs"
	mkfs.vfat "$folder/disk3.img" >/dev/null || fail "vfat"
	mkfs.btrfs -q -f "$folder/disk4.img" >/dev/null 2>&1 || fail "btrfs"
	mke2fs -qF -t ext4 -b 1024 "$folder/disk5.img" || fail "ext4 with 1K blocks"
	# A partition that begins at an odd sector, as DOS had it.
	python3 - "$folder/disk6.img" <<-'END' || fail "partition table"
		import struct, sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(446)
		    f.write(struct.pack("<B3sB3sII", 0, b"\xfe" * 3, 0x83, b"\xfe" * 3, 63, 65536 - 63))
		    f.seek(510)
		    f.write(b"\x55\xaa")
	END
	mke2fs -qF -t ext4 -E offset=$((63 * 512)) "$folder/disk6.img" 30M || fail "ext4 in a partition"
}

check_disks() {
	xfs_repair -n "$folder/disk2.img" >"$T/out" 2>&1 || { cat "$T/out"; fail "xfs"; }
	fsck.vfat -n "$folder/disk3.img" >"$T/out" 2>&1 || { cat "$T/out"; fail "vfat"; }
	btrfs check "$folder/disk4.img" >"$T/out" 2>&1 || { cat "$T/out"; fail "btrfs"; }
	e2fsck -fn "$folder/disk5.img" >"$T/out" 2>&1 || { cat "$T/out"; fail "ext4 with 1K blocks"; }
	e2fsck -fn "$folder/disk6.img?offset=$((63 * 512))" >"$T/out" 2>&1 || { cat "$T/out"; fail "ext4 in a partition"; }
}

# in_guest COMMAND: what the disk server says is shown when it fails
in_guest() {
	run timeout -k 5 60 uml-lab exec fs -- sh -c "$1"
	[ "$STATUS" = 0 ] && return
	tail -n 40 "$T/out" "$T/err"
	uml-lab status fs
	fail "in the guest: $1 ended with $STATUS"
}

one_kernel() { # KERNEL
	lab fs <<-END
		lab: fs
		base: tiny
		machines:
		  m:
		    memory: 256M
		    kernel: "$1"
		    disks:
		      - {size: 192M}
		      - {size: 320M}
		      - {size: 40M}
		      - {size: 128M}
		      - {size: 32M}
		      - {size: 32M}
		      - {size: 32M}
		      - {size: 32M}
		      - {size: 32M}
		      - {size: 32M}
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/fs" --wait none
	expect 0 uml-lab down --force fs
	make_disks
	up "$T/labs/fs"
	in_guest 'mkdir /t && mount -o ro /dev/vdb /t'
	in_guest 'for m in xfs vfat nls_cp437 nls_ascii btrfs raid1 dm-mod; do modprobe $m || exit 1; done'
	in_guest '/t/try /dev/vdc xfs'
	in_guest '/t/try /dev/vdd vfat'
	in_guest '/t/try /dev/vde btrfs'
	in_guest '/t/try /dev/vdf ext4'
	in_guest '/t/try /dev/vdg1 ext4'
	in_guest '/t/t mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 /dev/vdh /dev/vdi &&
		mke2fs -F /dev/md0 && /t/try /dev/md0 ext2 && /t/t mdadm --stop /dev/md0'
	in_guest 'l() { c=$1; shift; /t/t lvm $c --config "activation{udev_sync=0 udev_rules=0} devices{obtain_device_list_from_udev=0}" "$@"; }
		mkdir -p /run/lock/lvm && l pvcreate /dev/vdj /dev/vdk && l vgcreate v /dev/vdj /dev/vdk &&
		l lvcreate -y -Wn -Zn -i 2 -L 40M -n s v && mke2fs -F /dev/mapper/v-s && /t/try /dev/mapper/v-s ext2 && l vgchange -an v'
	in_guest '/t/t fio --name=v --filename=/root/v --size=12M --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --direct=1 \
		--ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --randrepeat=1 --norandommap=0 --minimal'
	expect 0 uml-lab down fs
	check_disks
	e2fsck_overlay fs m
}

for k in $(kernels); do
	echo "== $k"
	one_kernel "$k"
done
