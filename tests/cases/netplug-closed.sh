#!/bin/bash
# What must not get through, tried by a real guest's root: the host's loopback without --host, anything but forwards with --restrict.
# timeout: 120
. "${UML_LAB_SOURCE:-.}/tests/cases/lib.sh"
. "$UML_LAB_SOURCE/tests/cases/netplug-guest.bash"
need python3 busybox linux.uml

# closed COMMAND: ends with a failure in the guest
closed() {
	tell "$1"
	told 20
	[ "$STATUS" != 0 ] || fail "got through: $1"
}

host_files
guest_image
for option in --no-ipv6 --restrict; do
	plug_start "$option" --forward auto:80
	guest_start "$(command -v linux.uml)" "$T/plug.sock" 16384
	guest 20 "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2"
	closed "timeout 5 wget -q -O - http://10.0.2.2:$PORT/noise"
	# Root can send to 127.0.0.1 over the wire.
	guest 5 "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 10.0.2.2"
	closed "timeout 5 wget -q -O - http://127.0.0.1:$PORT/noise"
	guest 10 "echo through >/www/page; httpd -h /www"
	same "$(wget -nv -T 20 -t 1 -O - "http://127.0.0.1:$(forwarded 1)/page")" through "the forward"
	guest_stop
	kill "$PLUG"
	wait "$PLUG"
done
! grep -q GET "$T/http" || fail "the host's server was asked: $(cat "$T/http")"
