# An idle machine costs the host's processors nothing: none of our processes wakes up while its guest does nothing.
# timeout: 120
. tests/cases/lib.sh

lab idle <<-END
	lab: idle
	base: tiny
	machines:
	  m:
	    memory: 64M
	    interfaces:
	      - {slirp: true, forward: ["auto:80"]}
END
up "$T/labs/idle"
expect 0 uml-lab status --json idle
supervisor=$(json "$T/out" "d['machines'][0]['supervisor_pid']")

# descendants PID: the process and all below it
descendants() {
	local p
	echo "$1"
	for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do descendants "$p"; done
}

# ours: those of them that are programs of ours; the guest's run the kernel
ours() {
	local p
	for p in $(descendants "$supervisor"); do
		case $(readlink "/proc/$p/exe") in "$UML_LAB_BUILD"/*) echo "$p" ;; esac
	done
}

# wakeups PID…: how often they went to sleep so far, all threads: "PID COUNT NAME" each
wakeups() {
	local p
	for p; do
		echo "$p $(cat /proc/"$p"/task/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }') $(
			tr '\0' ' ' <"/proc/$p/cmdline" | cut -c1-70)"
	done
}

mapfile -t pids < <(ours)
[ ${#pids[@]} -ge 3 ] || fail "only ${#pids[@]} processes of ours: supervisor, keeper and plug were expected"

# What comes after a boot, or once in minutes (router advertisements), may be in one of the windows, not in all of them.
for window in 1 2 3 4 5; do
	wakeups "${pids[@]}" >"$T/before"
	sleep 10
	wakeups "${pids[@]}" >"$T/after"
	cmp -s "$T/before" "$T/after" && break
	diff "$T/before" "$T/after" >"$T/woke.$window"
done
cmp -s "$T/before" "$T/after" || { cat "$T"/woke.*; fail "in each of $window times 10 seconds a process of ours woke up"; }

# What the disk server once read into the guest's memory is not its own for long.
pss_kib() { awk '/^Pss:/ { print $2 }' "/proc/$1/smaps_rollup"; }
server=$(for p in "${pids[@]}"; do tr '\0' ' ' <"/proc/$p/cmdline" | grep -q 'uml-cow[a-z-]* serve' && echo "$p"; done)
expect 0 timeout -k 5 30 uml-lab exec idle/m -- sh -c 'cat /dev/vda >/dev/null'
before=$(pss_kib "$server")
is_lean() { [ "$(pss_kib "$server")" -lt 4096 ]; }
wait_until 30 is_lean
echo "the disk server: $before KiB PSS, idle $(pss_kib "$server")"
expect 0 timeout -k 5 30 uml-lab exec idle/m -- md5sum /bin/busybox
