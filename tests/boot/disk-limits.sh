# limits.disk, limits.time, and a host whose own disk is full: what the guest sees, what status says, and the way back.
# timeout: 120
. tests/cases/lib.sh
at_exit end_sessions
# The newest kernel: nothing of this depends on it.
KERNEL=$(kernels | tail -n 1)

# ---- limits.disk: the session's, over all its machines ----

lab quota <<-END
	lab: quota
	base: tiny
	limits: {disk: 24M}
	machines:
	  a: {memory: 64M, kernel: "$KERNEL", disks: [{size: 64M}]}
	  b: {memory: 64M, kernel: "$KERNEL", disks: [{size: 64M}]}
END
in_a() { uml-lab exec quota/a -- "$@"; }
in_b() { uml-lab exec quota/b -- "$@"; }
up "$T/labs/quota"
expect 0 uml-lab status quota
says "of 24 MiB (limits.disk)"
says_not "writes fail"
# A file system hears of it in time, and lives on.
run in_a dd if=/dev/urandom of=/root/big bs=1M count=40 conv=fsync
[ "$STATUS" != 0 ] || fail "40M went into 24M"
says "No space left on device"
expect 0 in_a sh -c 'rm /root/big && sync && dd if=/dev/urandom of=/root/big bs=1M count=8 conv=fsync'
# Who writes to a disk itself meets the wall.
run in_a dd if=/dev/urandom of=/dev/vdb bs=1M count=40 conv=fsync
[ "$STATUS" != 0 ] || fail "40M went into 24M"
expect 0 uml-lab status quota
says "quota/a: disk: the session's disks take"
expect 0 uml-lab status --json quota
case $(json "$T/out" "d['machines'][0]['disk_problem']") in *limits.disk*) ;; *) fail "not in --json" ;; esac
# The other machine shares the limit; both can still read.
run in_b dd if=/dev/urandom of=/dev/vdb bs=1M count=10 conv=fsync
[ "$STATUS" != 0 ] || fail "the other machine has a limit of its own"
expect 0 in_a md5sum /bin/busybox
expect 0 in_b md5sum /bin/busybox
used=$(du -cB1 "$HOME"/.local/state/uml-lab/sessions/quota/*/*.cow "$HOME"/.local/state/uml-lab/sessions/quota/*/*.img | tail -n 1 | cut -f 1)
[ "$used" -le $((25 << 20)) ] || fail "the session took $used bytes of the host's disk"
# Space given back lets both go on.
expect 0 in_a sh -c 'rm /root/big && sync && blkdiscard /dev/vdb'
expect 0 in_b sh -c 'blkdiscard /dev/vdb && dd if=/dev/urandom of=/root/fits bs=1M count=5 conv=fsync'
expect 0 in_a dd if=/dev/urandom of=/root/fits bs=1M count=5 conv=fsync
expect 0 uml-lab status quota
says_not "writes fail"
# What a snapshot froze still counts, and so do the tops that it began, for either machine.
expect 0 uml-lab snapshot create quota frozen
run in_a dd if=/dev/urandom of=/dev/vdb bs=1M count=16 conv=fsync
[ "$STATUS" != 0 ] || fail "a snapshot made room for 16M"
run in_b dd if=/dev/urandom of=/dev/vdb bs=1M count=8 conv=fsync
[ "$STATUS" != 0 ] || fail "the other machine does not count the new top of the first"
used=$(du -cB1 "$HOME"/.local/state/uml-lab/sessions/quota/*/*.cow "$HOME"/.local/state/uml-lab/sessions/quota/*/*.img | tail -n 1 | cut -f 1)
[ "$used" -le $((25 << 20)) ] || fail "with a snapshot the session took $used bytes of the host's disk"
expect 0 in_a blkdiscard /dev/vdb
expect 0 in_b blkdiscard /dev/vdb
expect 0 uml-lab snapshot remove quota frozen
expect 0 in_a sh -c 'sync && md5sum /root/fits'
expect 0 uml-lab status --json quota
cp "$T/out" "$T/status"
expect 0 uml-lab down quota
for m in 0 1; do e2fsck_overlay quota "machine $m" "$(json "$T/status" "d['machines'][$m]['disks'][0]")"; done

# ---- the host's own disk is full ----

mkdir "$T/state"
lab full <<-END
	lab: full
	base: tiny
	machines: {m: {memory: 64M, kernel: "$KERNEL", disks: [{size: 250M}]}}
END
cat >"$T/full" <<'END'
uml-lab up "$1" || exit 1
uml-lab exec full -- dd if=/dev/zero of=/dev/vdb bs=1M count=200 conv=fsync && exit 1
uml-lab status full
uml-lab exec full -- sh -c 'blkdiscard /dev/vdb && dd if=/dev/zero of=/root/fits bs=1M count=5 conv=fsync' || exit 1
uml-lab down full
END
# The kernel's modules and images lie elsewhere: only the session is on the small file system.
expect 0 unshare --user --map-root-user --mount sh -c "mount -t tmpfs -o size=150M none '$T/state' && XDG_STATE_HOME='$T/state' sh '$T/full' '$T/labs/full'"
says "full/m: disk: disk 1:"
says "No space left on device"

# ---- limits.time ----

lab short <<-END
	lab: short
	base: tiny
	limits: {time: 6s}
	machines: {m: {memory: 64M, kernel: "$KERNEL", restart: always}}
END
up "$T/labs/short"
expect 0 uml-lab status short
says "short: its time (limits.time) is over at"
stopped() { uml-lab status short | grep -q stopped; }
wait_until 20 stopped
expect 0 uml-lab status short
says "the session's time was over (limits.time)"
expect 0 uml-lab log short
says "the session's time is over in"
e2fsck_overlay short m
# Another start has its time again.
up "$T/labs/short"
expect 0 uml-lab down --force short
same "$(find "$XDG_RUNTIME_DIR/uml-lab" -mindepth 1 2>/dev/null)" "" "left in the runtime folder"
