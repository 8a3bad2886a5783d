# The disks of a machine, on every kernel: what ubd reads wrongly our server reads right; what a guest syncs reaches the host;
# chains of layers, reboots, extra disks that give space back.
# timeout: 240
. tests/cases/lib.sh
need cc
cc -O1 -static -o "$T/disk_mixed" tests/boot/disk_mixed.c || fail "cannot build disk_mixed"

SPARE=$((4 << 20)) # bytes of random data behind the file system of the base image

tiny=$(uml-lab image show --json tiny | python3 -c 'import json,sys; print(json.load(sys.stdin)["path"])')
cp --sparse=always "$tiny" "$T/spare.img"
chmod 644 "$T/spare.img"
END_OF_FS=$(stat -c %s "$T/spare.img")
head -c $SPARE /dev/urandom >>"$T/spare.img"
chmod 444 "$T/spare.img"

# disk INDEX FIELD: a counter of the disk server
disk() { uml-lab status --json disk >"$T/status.json" && json "$T/status.json" "d['machines'][0]['live']['disks']['list'][$1]['$2']"; }

# write_lab KERNEL BASE DRIVER. Restarted: a reboot kills what forks, and 6.12 panics by that now and then (kernel_faults.c).
write_lab() {
	lab disk <<-END
		lab: disk
		base: $2
		machines: {m: {memory: 64M, kernel: "$1", restart: on-failure, disk: $3, disks: [{size: 32M}]}}
	END
}

# mixed DEVICE STATUS: runs disk_mixed in the spare part of the root disk
mixed() {
	expect 0 uml-lab copy "$T/disk_mixed" disk/m:/root/disk_mixed
	expect "$2" uml-lab exec disk -- /root/disk_mixed "$1" "$END_OF_FS" $SPARE 1
	cat "$T/out"
}

wrong_with_ubd() { # KERNEL
	write_lab "$1" "$T/spare.img" ubd
	up "$T/labs/disk"
	mixed /dev/ubda 1
	expect 0 uml-lab down --force disk
	rm -rf "$HOME/.local/state"
}

right_with_ours() { # KERNEL
	local before
	write_lab "$1" "$T/spare.img" auto
	up "$T/labs/disk"
	mixed /dev/vda 0
	# A sync of the guest is a flush of the server, and the data is in the overlay then.
	before=$(disk 0 flushes)
	expect 0 uml-lab exec disk -- dd if=/dev/zero of=/root/synced bs=4k count=1 conv=fsync
	[ "$(disk 0 flushes)" -gt "$before" ] || fail "fsync did not reach the host"
	same "$(disk 0 depth)" 2
	expect 0 uml-lab exec disk -- cat /sys/block/vdb/size
	same "$(cat "$T/out")" 65536
}

boot_id() { uml-lab exec disk -- cat /proc/sys/kernel/random/boot_id 2>/dev/null; }
another_boot() { local now; now=$(boot_id) && [ -n "$now" ] && [ "$now" != "$1" ]; }

# A guest that reboots finds its disks again, served by the same server.
reboots() {
	local id server
	id=$(boot_id)
	server=$(json "$T/status.json" "d['machines'][0]['disk_pid']")
	run uml-lab exec disk -- reboot
	wait_until 20 another_boot "$id"
	disk 0 depth >/dev/null
	same "$(json "$T/status.json" "d['machines'][0]['disk_pid']")" "$server"
	expect 0 uml-lab exec disk -- test -s /root/synced
}

# Space that the guest gives back is free on the host.
discards() {
	local full
	expect 0 uml-lab exec disk -- sh -c 'head -c 8388608 /dev/urandom > /dev/vdb && sync'
	full=$(stat -c %b "$HOME/.local/state/uml-lab/sessions/disk/m/disk1.img")
	[ "$full" -ge 16384 ] || fail "only $full sectors were written"
	expect 0 uml-lab exec disk -- sh -c 'blkdiscard /dev/vdb && sync'
	full=$(stat -c %b "$HOME/.local/state/uml-lab/sessions/disk/m/disk1.img")
	[ "$full" -lt 2048 ] || fail "$full sectors are still taken after a discard"
}

# layers KERNEL: what was written becomes a layer, and another layer comes over it.
layers() {
	expect 0 uml-lab exec disk -- sh -c 'echo below > /root/below; sync'
	expect 0 uml-lab down disk
	e2fsck_overlay disk m
	cp --sparse=always "$HOME/.local/state/uml-lab/sessions/disk/m/root.cow" "$T/layer1.cow"
	expect 0 uml-cow create -b "$T/layer1.cow" "$T/layer2.cow"
	rm -rf "$HOME/.local/state"
	write_lab "$1" "$T/layer2.cow" ubd
	expect 1 uml-lab up "$T/labs/disk"
	says "uml-cow flatten"
	expect 3 uml-lab validate "$T/labs/disk"
	says "uml-cow flatten"
	write_lab "$1" "$T/layer2.cow" auto
	up "$T/labs/disk"
	expect 0 uml-lab exec disk -- cat /root/below
	same "$(cat "$T/out")" below
	same "$(disk 0 depth)" 4
	expect 0 uml-lab down disk
	rm -rf "$HOME/.local/state" "$T"/layer?.cow
}

for k in $(kernels); do
	echo "== $k"
	wrong_with_ubd "$k"
	right_with_ours "$k"
	reboots
	discards
	layers "$k"
done
same "$(find "$XDG_RUNTIME_DIR/uml-lab" -mindepth 1 2>/dev/null)" "" "left in the runtime folder"
