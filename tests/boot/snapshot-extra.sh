# Extra disks, which are raw files: when a snapshot that froze one is removed, what was written since goes back into the raw file, under
# a guest that writes, under a later snapshot, and while the session is stopped; the disk server killed in the middle.
# timeout: 180
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need python3 mke2fs e2fsck
PATH=$PATH:/usr/sbin:/sbin

S=$HOME/.local/state/uml-lab/sessions/extra
kernel=$(kernels | tail -n 1)
lab extra <<-END
	lab: extra
	base: tiny
	machines:
	  a: {memory: 64M, kernel: "$kernel", disks: [{size: 256M}]}
END
on() { expect 0 timeout -k 5 90 uml-lab exec extra/a -- sh -c "$*"; }
start() {
	run uml-lab down --force extra # whatever is left of a machine that failed
	up "$T/labs/extra" -q
	on 'mount /dev/vdb /mnt'
}
# fill NAME COUNT: files of 4 MB on the extra disk, and their sums
fill() { on "for i in \$(seq $2); do dd if=/dev/urandom of=/mnt/$1\$i bs=1M count=4 2>/dev/null; done; md5sum /mnt/$1* >/mnt/$1.sum; sync"; }
whole() { on 'echo 3 >/proc/sys/vm/drop_caches; cat /mnt/*.sum | md5sum -c >/tmp/checked || { cat /tmp/checked; exit 1; }'; }
files() { find "$S/a" -name 'disk1*' | wc -l; }

up "$T/labs/extra" -q
expect 0 uml-lab down extra
mke2fs -q -t ext4 "$S/a/disk1.img" || fail "mke2fs"
start
fill a 6
expect 0 uml-lab snapshot create extra one
fill b 6

# Under a guest that writes all the time.
uml-lab exec extra/a -- sh -c 'i=0; until [ -e /tmp/stop ]; do dd if=/dev/urandom of=/mnt/w$((i % 8)) bs=16k count=8 2>/dev/null; md5sum /mnt/w$((i % 8)) >/mnt/w$((i % 8)).sum; sync; i=$((i + 1)); done; echo $i' >"$T/writer" 2>&1 &
writer=$!
same "$(files)" 2 "files under the snapshot"
expect 0 uml-lab snapshot remove extra one
same "$(files)" 1 "files after it"
on 'touch /tmp/stop'
wait $writer || { cat "$T/writer"; fail "the writer failed"; }
whole

# Under a later snapshot, which shows what it did.
expect 0 uml-lab snapshot create extra two
fill c 4
expect 0 uml-lab snapshot create extra three
fill d 4
same "$(files)" 3 "files of two snapshots"
expect 0 uml-lab snapshot remove extra two
same "$(files)" 2 "files of one snapshot"
whole
on 'umount /mnt'
expect 0 uml-lab snapshot restore extra three
on 'mount /dev/vdb /mnt; ls /mnt/c4 && ! ls /mnt/d1'
whole
expect 0 uml-lab snapshot remove extra three
same "$(files)" 1 "files without a snapshot"
whole

# The verb killed, the server still at it: who wants a snapshot then waits for that, before the guest stands still.
expect 0 uml-lab snapshot create extra busy
fill f 12
uml-lab snapshot remove extra busy >"$T/busy" 2>&1 &
victim=$!
wait_until 10 grep -qs uml-lab "/proc/$victim/comm"
sleep 0.2
kill -KILL $victim
wait $victim
expect 0 uml-lab snapshot create extra next
whole
run uml-lab snapshot remove extra busy
expect 0 uml-lab snapshot remove extra next
same "$(files)" 1 "files without a snapshot"
on 'rm -f /mnt/f*'
whole

# Killed in the middle: the machine ends, its disk holds all that was synced, and the next start completes it. Whether the moment is
# met depends on whose turn it is on the host: so several tries.
cut=0
for round in $(seq 15); do
	[ $cut -lt 3 ] || break
	expect 0 uml-lab snapshot create extra dying
	fill e 12
	uml-lab status --json extra >"$T/status"
	rm -f "$T/kill" # it says "looking" once it is python, not a copy of this shell with its traps
	python3 - "$S/a" "$(json "$T/status" "d['machines'][0]['disk_pid']")" "0.0$((cut * 15))" <<-'END' >"$T/kill" 2>&1 &
		import os, signal, sys, time
		folder, pid, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
		files = [os.open(f"{folder}/{name}", os.O_RDONLY) for name in os.listdir(folder) if name.startswith("disk1")]
		def under_way():
		    for fd in files:
		        try: os.getxattr(fd, "user.uml-cow.commit")
		        except OSError: continue
		        return True
		print("looking", flush=True)
		while not under_way():
		    pass
		time.sleep(delay)
		os.kill(pid, signal.SIGKILL)
	END
	killer=$!
	at_exit "kill $killer 2>/dev/null"
	wait_until 30 grep -q looking "$T/kill"
	run uml-lab snapshot remove extra dying
	kill $killer 2>/dev/null
	wait $killer 2>/dev/null
	if [ "$STATUS" != 0 ] || ! timeout -k 5 20 uml-lab exec extra/a -- true 2>/dev/null; then
		cut=$((cut + 1))
		start
	fi
	same "$(files)" 1 "files after round $round"
	whole
	on 'rm /mnt/e*'
done
[ $cut -gt 0 ] || fail "the server was never killed in the middle"
echo "killed in the middle: $cut of $round"

# Stopped.
on 'umount /mnt'
expect 0 uml-lab down extra
expect 0 uml-lab snapshot create extra stopped
start
fill f 4
on 'umount /mnt'
expect 0 uml-lab down extra
expect 0 uml-lab snapshot remove extra stopped
same "$(files)" 1 "files of a stopped session"
disk=$(find "$S/a" -name 'disk1*')
expect 0 uml-cow info --json "$disk"
same "$(json "$T/out" "d['chain'][0]['format']")" raw "format of $disk"
e2fsck -fn "$disk" >"$T/check" 2>&1 || { cat "$T/check"; fail "the file system is not clean"; }
start
whole
expect 0 uml-lab down extra
expect 0 uml-lab reset extra --yes
same "$(files)" 1 "files after a reset"
same "$(find "$S/a" -name 'disk1*')" "$S/a/disk1.img" "the fresh disk"
