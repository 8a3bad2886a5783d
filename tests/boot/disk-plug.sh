# Extra disks put into a running machine and taken out of it: what was synced is there again, what is asked of one that is out
# fails and disturbs nobody else, on every kernel; not with the kernel's own driver.
# timeout: 120
. tests/cases/lib.sh

# write_lab KERNEL DRIVER THIRD: with what stands in the lab of them. Restarted: see boot/disk.
write_lab() {
	lab plug <<-END
		lab: plug
		base: tiny
		machines: {m: {memory: 64M, kernel: "$1", restart: on-failure, $2 disks: [{size: 16M}, {size: 32M$3}]}}
	END
}
in_m() { timeout -k 5 30 uml-lab exec plug/m -- sh -c "$1"; }
guest() { expect "$1" in_m "$2"; }
sectors() { in_m "cat /sys/block/$1/size"; }
disk() { expect "$1" uml-lab disk plug/m "${@:2}"; }
is() { uml-lab disk plug/m --json >"$T/disks"; json "$T/disks" "[(d['disk'], d['inserted']) for d in d]"; }

one_kernel() {
	write_lab "$1" "" ", ejected: true"
	rm -rf "$HOME/.local/state"
	up "$T/labs/plug"
	same "$(is)" "[('vda', True), ('vdb', True), ('vdc', False)]"
	same "$(sectors vdb) $(sectors vdc)" "32768 0"

	# One that is new to the machine.
	disk 0 insert vdc
	same "$(sectors vdc)" 65536
	guest 0 'mke2fs /dev/vdc >/dev/null 2>&1 && mkdir -p /c && mount -t ext4 /dev/vdc /c && echo kept >/c/f && sync'
	disk 5 insert vdc
	says "in already"

	# Taken out in the middle of writing: errors there, nowhere else.
	in_m 'i=0; while dd if=/dev/urandom of=/c/big bs=64k count=32 conv=fsync 2>/dev/null; do i=$((i + 1)); done; echo failed' >"$T/writer" 2>&1 &
	writer=$!
	wait_until 10 in_m 'test -s /c/big'
	disk 0 eject vdc
	wait $writer
	same "$(tail -n 1 "$T/writer")" failed "the writer"
	same "$(sectors vdc)" 0
	guest 0 'echo fine >/root/f && sync && cat /root/f; umount /c; head -c 512 /dev/vdc | wc -c'
	same "$(tail -n 1 "$T/out")" 0 "bytes of a disk that is out"
	disk 5 eject vdc
	says "out already"
	expect 5 uml-lab snapshot create plug s
	says "uml-lab disk"
	expect 0 uml-lab status plug

	# And in again; what was synced is there. It stays so when the guest reboots.
	disk 0 insert /dev/vdc
	guest 0 'mount -t ext4 /dev/vdc /c && cat /c/f && umount /c'
	same "$(cat "$T/out")" kept
	expect 0 uml-lab snapshot create plug s
	disk 0 eject vdb
	id=$(in_m 'cat /proc/sys/kernel/random/boot_id')
	run in_m reboot
	rebooted() { local now; now=$(in_m 'cat /proc/sys/kernel/random/boot_id') && [ -n "$now" ] && [ "$now" != "$id" ]; }
	wait_until 20 rebooted
	same "$(is)" "[('vda', True), ('vdb', False), ('vdc', True)]" "after a reboot"
	same "$(sectors vdb) $(sectors vdc)" "0 65536" "after a reboot"

	# The next start is as the lab says.
	expect 0 uml-lab down plug
	up "$T/labs/plug"
	same "$(is)" "[('vda', True), ('vdb', True), ('vdc', False)]"
	disk 0 insert vdc
	guest 0 'mount -t ext4 /dev/vdc /c && cat /c/f'
	same "$(cat "$T/out")" kept
}

for k in $(kernels); do
	echo "== $k"
	one_kernel "$k"
	[ "$k" = 7.2 ] || expect 0 uml-lab down --force plug
done
disk 5 eject vda
disk 4 eject vdd
disk 2 eject sda
disk 2 eject
disk 2 swap vdb
expect 0 uml-lab down plug
expect 5 uml-lab disk plug/m eject vdb
rm -rf "$HOME/.local/state"
write_lab 7.2 "disk: ubd," ""
up "$T/labs/plug"
disk 5 eject vdb
says "disk: ubd"
expect 0 uml-lab down --force plug
write_lab 7.2 "disk: ubd," ", ejected: true"
expect 3 uml-lab validate "$T/labs/plug"
says "ejected: true"
