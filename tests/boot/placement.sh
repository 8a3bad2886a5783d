# A guest's processes stay together on one of the host's processors, move when somebody else works there; only the disk's thread
# joins them, while that is worth it.
# timeout: 240
. tests/cases/lib.sh
need taskset

lab placed <<-END
	lab: placed
	base: tiny
	machines: {m: {interfaces: [{slirp: true}]}}
END
in_guest() { timeout -k 5 60 uml-lab exec placed/m -- sh -c "$1"; }
allowed() { sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$1/status" 2>/dev/null; }
all=$(allowed self)
pid_of() { json "$T/out" "d['machines'][0]['$1']"; }
# guest_allowed KERNEL: where its processes and threads may run, each once
guest_allowed() { for p in $(ls "/proc/$1/task") $(cat "/proc/$1/task/$1/children"); do allowed "$p"; done | sort -u; }

up "$T/labs/placed"
expect 0 uml-lab status --json placed
kernel=$(pid_of kernel_pid)
if [ "$(nproc)" = 1 ]; then
	same "$(guest_allowed "$kernel")" "$all"
else
	# on a busy host it may have been set free
	together() { [[ $(guest_allowed "$kernel") =~ ^[0-9]+$ ]]; }
	wait_until 60 together
	# programs that begin later, too
	in_guest 'sleep 100 & sleep 100 & sleep 100 & wait' &
	several() { [ "$(wc -w <"/proc/$kernel/task/$kernel/children")" -ge 5 ]; }
	wait_until 15 several
	wait_until 60 together
	for p in supervisor_pid plug_pid disk_pid; do same "$(allowed "$(pid_of $p)")" "$all"; done

	# The disk's thread comes to the guest while it asks for small things, and goes for large ones.
	disk=$(pid_of disk_pid)
	disk_allowed() { for t in /proc/"$disk"/task/*; do allowed "$disk/task/${t##*/}"; done | sort -u | tr '\n' ' '; }
	beside() { [[ $(disk_allowed) == *"$(guest_allowed "$kernel")"\ * && $(disk_allowed) != "$all " ]]; }
	in_guest 'touch /go; while [ -e /go ]; do dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct 2>/dev/null; done' &
	reader=$!
	wait_until 15 beside
	in_guest 'rm /go'
	wait "$reader"
	in_guest 'dd if=/dev/vda of=/dev/null bs=1M count=20 iflag=direct 2>/dev/null'
	same "$(disk_allowed)" "$all "

	# Somebody who computes without end on its processor: it goes elsewhere, all of it, and stays together when there is room.
	wait_until 60 together
	place=$(guest_allowed "$kernel")
	in_guest 'while :; do /bin/busybox true; done' &
	while :; do taskset -cp "$place" $BASHPID >/dev/null; while :; do :; done; done &
	hog=$!
	moved() { [ "$(guest_allowed "$kernel")" != "$place" ]; }
	wait_until 40 moved
	kill "$hog"
	wait "$hog" 2>/dev/null || true
	wait_until 90 together
fi
expect 0 uml-lab down placed

UML_LAB_PLACEMENT=none up "$T/labs/placed"
expect 0 uml-lab status --json placed
same "$(guest_allowed "$(pid_of kernel_pid)")" "$all"
expect 0 uml-lab down placed
wait
