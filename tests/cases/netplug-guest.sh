#!/bin/bash
# A real guest: DHCP with its host name, a file from the host's loopback as 10.0.2.2, a forward into it, its link taken down and up.
# timeout: 300
. "${UML_LAB_SOURCE:-.}/tests/cases/lib.sh"
. "$UML_LAB_SOURCE/tests/cases/netplug-guest.bash"
need python3 busybox linux.uml

fetch="wget -q -O - http://10.0.2.2"
dhcp="udhcpc -q -n -t 10 -T 1 -i eth0 -s /bin/dhcp"

try_kernel() {
	plug_start --host --hostname guest-1 --domain lab.test --forward auto:80
	guest_start "$2" "$T/plug.sock" 16384
	guest 20 "ip link set eth0 up && $dhcp"
	says "DHCP 10.0.2.15 guest-1 lab.test"
	guest 30 "$fetch:$PORT/noise | sha256sum"
	says "$SUM"
	guest 10 "ping -c 1 -W 5 10.0.2.2"

	guest 10 "head -c 3000000 /dev/urandom >/www/page; httpd -h /www; sha256sum </www/page"
	same "$(wget -nv -T 20 -t 1 -O - "http://127.0.0.1:$(forwarded 1)/page" | sha256sum)" "$(grep -a ' -$' "$T/out")"

	for _ in 1 2 3; do
		guest 10 "ip link set eth0 down && ip link set eth0 up"
		guest 20 "$dhcp"
		guest 30 "$fetch:$PORT/noise | sha256sum"
		says "$SUM"
	done
	guest_stop
	kill "$PLUG"
	wait "$PLUG"
	same "$?" 0 "the plug's exit status"
	[ ! -e "$T/plug.sock" ] || fail "the plug left its socket"
}

host_files
guest_image
netplug_kernels >/dev/null
while read -r version path; do
	echo "kernel $version"
	try_kernel "$version" "$path"
done <"$T/kernels"
