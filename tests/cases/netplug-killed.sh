#!/bin/bash
# The plug is killed while a guest transfers; the next one gets the same connection, and the guest goes on without a hand laid on it.
# timeout: 300
. "${UML_LAB_SOURCE:-.}/tests/cases/lib.sh"
. "$UML_LAB_SOURCE/tests/cases/netplug-guest.bash"
need python3 busybox linux.uml

current() { sed -n 's/^plug //p' "$T/supervisor" | tail -n 1; }
replaced() { [ "$(current)" != "$1" ]; }
requests() { grep -c GET "$T/http"; }
more_requests() { [ "$(requests)" -gt "$1" ]; }
through() { [ "$(wget -nv -T 5 -t 1 -O - "http://127.0.0.1:$(forwarded 1)/page")" = through ]; }
ended() { ! kill -0 "$1"; }

try_kernel() {
	local old before
	python3 "$UML_LAB_SOURCE/tests/cases/netplug-supervisor.py" "$T/super.sock" auto:80 >"$T/supervisor" 2>&1 &
	SUPERVISOR=$!
	at_exit "kill $SUPERVISOR 2>/dev/null"
	wait_until 10 grep -q ^forward "$T/supervisor"
	sed -n '/^forward/p' "$T/supervisor" >"$T/plug"
	guest_start "$1" "$T/super.sock" 16384
	guest 20 "ip link set eth0 up && udhcpc -q -n -t 10 -T 1 -i eth0 -s /bin/dhcp"
	guest 10 "echo through >/www/page; httpd -h /www"
	for _ in 1 2 3 4 5; do
		old=$(current)
		before=$(requests)
		tell "for i in 1 2 3 4 5 6 7 8; do timeout 3 wget -q -O /dev/null http://10.0.2.2:$PORT/noise; done; true"
		wait_until 10 more_requests "$before"
		kill -KILL "$old"
		wait_until 10 replaced "$old"
		told 60
		guest 30 "timeout 10 wget -q -O - http://10.0.2.2:$PORT/noise | sha256sum"
		says "$SUM"
		wait_until 20 through
	done
	# A guest that spins takes all of a processor: 100 ticks a second.
	before=$(guest_ticks)
	sleep 2
	[ $(($(guest_ticks) - before)) -lt 50 ] || fail "the guest spins: $(($(guest_ticks) - before)) ticks in 2 s"
	guest 20 "ip link set eth0 down && ip link set eth0 up && udhcpc -q -n -t 10 -T 1 -i eth0 -s /bin/dhcp"
	guest 30 "timeout 10 wget -q -O - http://10.0.2.2:$PORT/noise | sha256sum"
	says "$SUM"

	# The supervisor dies: so does the plug, also with the guest still there.
	old=$(current)
	kill -KILL "$SUPERVISOR"
	wait_until 5 ended "$old"
	guest_stop
	rm -f "$T/super.sock"
}

host_files
guest_image
netplug_kernels >/dev/null
while read -r version path; do
	echo "kernel $version"
	try_kernel "$path"
done <"$T/kernels"
