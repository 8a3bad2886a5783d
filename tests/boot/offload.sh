# Virtio network devices: whatever super-frames the guests make of it, TCP arrives whole both ways, over SLIRP and between guests,
# by IPv4 and IPv6, also while plugs are killed and a link goes down and up. On the network itself segments have its size, and
# right checksums.
# timeout: 300
. tests/cases/lib.sh
need python3 tshark md5sum curl
SIZE=12000000

mkdir -p "$T/www"
head -c $SIZE /dev/urandom >"$T/www/big"
head -c 300000 /dev/urandom >"$T/www/piece"
sum_of() { md5sum | cut -c1-32; }
SUM=$(sum_of <"$T/www/big")
serve_folder "$T/www"

in_guest() { timeout -k 5 60 uml-lab exec "offload/$1" -- sh -c "$2"; }
plug_of() {
	uml-lab status --json offload >"$T/status.json"
	json "$T/status.json" "d['machines'][$1]['plug_pid']"
}
fetched() { same "$(in_guest a "wget -q -O - $1 | md5sum" | cut -c1-32)" "$SUM"; }

# Both plugs, one after the other, while bytes flow.
kill_plugs() {
	local i plug
	for i in 0 1 0 1; do
		plug=$(plug_of $i)
		kill -9 "$plug"
		new_plug() { [ "$(plug_of $i)" != "$plug" ] && [ "$(plug_of $i)" != None ]; }
		wait_until 15 new_plug
	done
}

try_offload() { # KERNEL
	lab offload <<-END
		lab: offload
		base: tiny
		networks: {lan: {}}
		machines:
		  a:
		    kernel: "$1"
		    interfaces: [{slirp: true, host: true, forward: ["auto:80"]}, {network: lan, address: [10.6.0.1/24, "fd00:6::1/64"]}]
		  b:
		    kernel: "$1"
		    interfaces: [{network: lan, address: [10.6.0.2/24, "fd00:6::2/64"]}]
		    startup: mkdir -p /www; httpd -h /www
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/offload"
	# the lab file's IPv6 addresses are good at once, not after a second of looking for duplicates
	expect 0 in_guest a 'ping -6 -c 1 -W 10 fd00:6::2'
	for m in a b; do
		expect 0 in_guest $m 'readlink /sys/class/net/eth0/device/driver'
		says virtio_net
	done
	expect 0 in_guest a 'cat /sys/class/net/eth1/mtu'
	says 1500
	# SLIRP: in, and out again
	expect 0 in_guest a "mkdir -p /www; httpd -h /www; wget -q -O /www/big http://10.0.2.2:$PORT/big; md5sum /www/big"
	says "$SUM"
	expect 0 uml-lab status --json offload
	same "$(curl -s -m 60 "http://127.0.0.1:$(json "$T/out" 'd["machines"][0]["forwards"][0]' | cut -d: -f2)/big" | sum_of)" "$SUM"
	# a packet as long as the interface takes them, and its answer
	expect 0 in_guest a 'ping -c 1 -W 10 -s 60000 10.0.2.2'
	# between guests, both ways
	expect 0 uml-lab copy "$T/www/big" offload/b:/www/big
	fetched http://10.6.0.2/big
	fetched 'http://[fd00:6::2]/big'
	same "$(in_guest b 'wget -q -O - http://10.6.0.1/big | md5sum' | cut -c1-32)" "$SUM"
	# a slow line, so that there is time for what happens to it
	expect 0 uml-lab net offload lan --rate 20M
	fetched http://10.6.0.2/big &
	local fetching=$!
	kill_plugs
	expect 0 in_guest b 'ip link set eth0 down; ip link set eth0 up'
	wait "$fetching" || fail "what came while plugs were killed is not what was sent"
	expect 0 uml-lab net offload lan --rate 0
}

# Many short flows from the host, eight at a time: none stands still. (With segments of 32 KiB each thirtieth did, until a timer of
# 5 seconds helped it on.)
short_flows() {
	expect 0 in_guest a "one() { wget -q -O /dev/null http://10.0.2.2:$PORT/piece && cut -d ' ' -f 1 /proc/uptime; }
		for i in 1 2 3 4 5 6 7 8 9 10; do cut -d ' ' -f 1 /proc/uptime
			for j in 1 2 3 4 5 6 7 8; do one & done; wait; done"
	same "$(wc -l <"$T/out")" 90
	awk 'NR > 1 && $1 - last > 4 { print "stood still for " $1 - last " s"; bad = 1 } { last = $1 } END { exit bad }' "$T/out" >"$T/still" ||
		fail "a flow $(head -1 "$T/still")"
}

# What is on the network: no frame is longer than it carries, no checksum wrong.
look_at_network() {
	uml-lab capture offload/lan -w "$T/lan.pcapng" >/dev/null 2>&1 &
	local capturing=$!
	sleep_until_captured() { in_guest a 'ping -c 1 -W 1 10.6.0.2' >/dev/null && [ -s "$T/lan.pcapng" ]; }
	wait_until 15 sleep_until_captured
	in_guest a 'wget -q -O /dev/null http://10.6.0.2/big'
	kill -INT "$capturing"
	wait "$capturing" || true
	tshark -r "$T/lan.pcapng" -Y tcp -T fields -e frame.len -o tcp.check_checksum:TRUE -o ip.check_checksum:TRUE \
		-e tcp.checksum.status -e ip.checksum.status 2>/dev/null >"$T/frames"
	[ "$(wc -l <"$T/frames")" -gt 1000 ] || fail "only $(wc -l <"$T/frames") frames were seen"
	awk '$1 > 1514 || $2 != 1 || $3 != 1' "$T/frames" >"$T/wrong"
	[ ! -s "$T/wrong" ] || fail "too long, or a wrong checksum (length, TCP, IP): $(sed 5q "$T/wrong")"
}

for k in $(kernels); do
	echo "== $k"
	try_offload "$k"
	if [ "$k" = "$(kernels | head -1)" ]; then
		short_flows
		look_at_network
	fi
	expect 0 uml-lab down offload
done
