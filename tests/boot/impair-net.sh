# Bad lines between guests on a VDE network: from lab.yml for a network and for one interface of it, and while running. Delays by
# the quickest of several pings, a rate by the bytes that a line took in seconds, loss by counting thousands of frames: each within 5 %.
# What a frame meets is measured finer in tests/unit/test_netplug_line.c.
# timeout: 180
. tests/cases/lib.sh
need gcc vde_switch python3

lab bad <<-'END'
	lab: bad
	base: tiny
	networks:
	  lan: {delay: 20ms}
	  slow: {switch: true, rate: 4M}
	  cut: {down: true}
	machines:
	  a:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: lan, address: 10.1.0.1/24}, {network: slow, address: 10.2.0.1/24}, {network: cut, address: 10.3.0.1/24}]
	  b:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: lan, address: 10.1.0.2/24, delay: 60ms}, {network: slow, address: 10.2.0.2/24}, {network: cut, address: 10.3.0.2/24}]
	    startup: |
	      mkdir -p /www; dd if=/dev/zero of=/www/data bs=1000 count=2500 2>/dev/null; httpd -h /www
END
up "$T/labs/bad"
in_a() { timeout -k 5 60 uml-lab exec bad/a -- "$@"; }
line() { uml-lab net bad "$@"; }
wait_until 10 in_a ping -c 1 -W 1 10.1.0.2
wait_until 10 in_a ping -c 1 -W 1 10.2.0.2
within() { # VALUE WANTED SLACK WHAT
	python3 -c 'import sys; v, w, s = map(float, sys.argv[1:4]); sys.exit(not w * .95 <= v <= w * 1.05 + s)' "$1" "$2" "$3" ||
		fail "$4: $1 is not within 5 % of $2"
}
times() { in_a ping -c "$1" -i 0.1 10.1.0.2 | sed -n 's/.*seq=[1-9][0-9]*.*time=\([0-9.]*\) ms.*/\1/p' | sort -n; }
# A loaded host makes some of them late, none early.
least() { times 12 | head -n 1; }
counter() { # MACHINE:INTERFACE COUNTER
	line "$1" --json >"$T/net.json"
	json "$T/net.json" "d[0]['counters']['$2']"
}

# ---- delay: the sender's, so a's and b's own in a round trip ----
within "$(least)" 80 1 "20ms of the network there, 60ms of the interface back"
expect 0 line lan --delay 50ms
within "$(least)" 100 1 "50ms on each interface of the network"
expect 0 line b:eth0 --clear
within "$(least)" 50 1 "50ms on one interface"
expect 0 line
says "delay=50ms"

# ---- jitter varies both ways, and keeps the order ----
expect 0 line a:eth0 --delay 40ms --jitter 30ms
times 40 >"$T/times"
python3 - "$T/times" <<-'END' || fail "no jitter: $(tr '\n' ' ' <"$T/times")"
	import sys
	t = [float(x) for x in open(sys.argv[1])]
	sys.exit(not (len(t) > 30 and min(t) >= 10 and t[0] < 30 and t[-1] > 50 and sum(x < 40 for x in t) > 4 and sum(x > 40 for x in t) > 4))
END

# ---- loss: a's echo requests; 5 % of a half are five standard deviations ----
expect 0 line a:eth0 --clear --loss 50%
sent=$(counter a:eth0 in_frames)
in_a ping -q -c 12000 -i 0.0005 -W 1 10.1.0.2 >"$T/out" 2>&1
sent=$(($(counter a:eth0 in_frames) - sent))
[ "$sent" -gt 8000 ] || fail "only $sent pings were sent: $(cat "$T/out")"
within "$(counter a:eth0 lost)" "$((sent / 2))" 0 "lost of $sent"

# ---- twice, late ----
expect 0 line a:eth0 --clear --duplicate 100%
expect 0 in_a ping -c 3 -i 0.1 10.1.0.2
says "DUP"
expect 0 line a:eth0 --clear --reorder 50%
in_a ping -q -c 400 -i 0.002 -W 1 10.1.0.2 >/dev/null
late=$(counter a:eth0 reordered)
[ "$late" -gt 130 ] && [ "$late" -lt 270 ] || fail "$late of 400 reordered, not about half"	# 7 standard deviations

# ---- rate: bytes that come out of b's line within seconds, while it sends all it can ----
came() { # the time in ms, and the bytes
	line a:eth1 --json >"$T/net.json"
	echo "$(($(date +%s%N) / 1000000)) $(json "$T/net.json" "d[0]['counters']['out_bytes']")"
}
gcc -static -O1 -o "$T/flood" tests/boot/flood.c || fail "cannot compile"
expect 0 uml-lab copy "$T/flood" bad/b:/tmp/flood
mac=$(in_a cat /sys/class/net/eth1/address)
expect 0 uml-lab exec bad/b -- sh -c "/tmp/flood eth1 $mac >/dev/null 2>&1 & echo \$! >/tmp/pid"
full() { [ "$(counter b:eth1 queue_dropped)" -gt 0 ]; }
wait_until 10 full
read -r begin first <<<"$(came)"
sleep 3
read -r end last <<<"$(came)"
within "$(((last - first) * 8 / (end - begin)))" 4000 0 "bits in a millisecond, $((last - first)) bytes in $((end - begin)) ms"
expect 0 uml-lab exec bad/b -- sh -c 'kill $(cat /tmp/pid)'
expect 0 line slow --rate 0
begin=$(date +%s%N)
expect 0 in_a wget -q -O /dev/null http://10.2.0.2/data
[ $((($(date +%s%N) - begin) / 1000000)) -lt 2500 ] || fail "the rate is still limited"

# ---- a pulled cable: of a network from lab.yml on, of one machine, of one interface ----
expect 1 in_a ping -c 1 -W 1 10.3.0.2
expect 0 line --up cut
expect 0 in_a ping -c 1 -W 3 10.3.0.2
expect 0 line --down cut
expect 1 in_a ping -c 1 -W 1 10.3.0.2
expect 0 line --clear
expect 0 line --down b:eth0
expect 1 in_a ping -c 1 -W 1 10.1.0.2
expect 0 in_a ping -c 1 -W 3 10.2.0.2
expect 0 line --down b
expect 1 in_a ping -c 1 -W 1 10.2.0.2
expect 0 line --up b
expect 0 in_a ping -c 1 -W 3 10.1.0.2
expect 0 in_a ping -c 1 -W 3 10.2.0.2
expect 0 uml-lab down bad
