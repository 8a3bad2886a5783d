# TCP of a guest to the host with more under way than libslirp's window (netplug/stretch.h): nothing is lost or stands still when
# either end stops reading for longer than TCP waits, nor when both ends send at once, nor when the guest drops segments; an end
# that resets ends it for the other; a plug that is killed ends it for both, and what comes after it goes on.
# timeout: 200
. tests/cases/lib.sh
need cc python3
cc -O1 -static -o "$T/duplex" tests/boot/duplex.c || fail "cannot build duplex"
python3 tests/boot/slow_peer.py "$T/sum" >"$T/port" &
at_exit "kill $!"
wait_until 10 test -s "$T/port"
PORT=$(cat "$T/port")

in_m() { timeout -k 5 60 uml-lab exec windows -- sh -c "$1"; }

plug_pid() {
	uml-lab status windows --json >"$T/status.json"
	json "$T/status.json" 'd["machines"][0]["plug_pid"]'
}

one_kernel() {
	lab windows <<-END
		lab: windows
		base: tiny
		machines: {m: {memory: 64M, kernel: "$1", interfaces: [{slirp: true, host: true}]}}
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/windows"
	expect 0 uml-lab copy "$T/duplex" windows/m:/root/duplex
	in_m 'dd if=/dev/urandom of=/tmp/f bs=1M count=12 2>/dev/null'
	# the host stops, then the guest does
	expect 0 in_m "(echo sink 12582912; cat /tmp/f) | nc 10.0.2.2 $PORT | head -n 1; md5sum </tmp/f"
	same "$(sed -n 1p "$T/out")" "$(sed -n 2p "$T/out" | cut -c1-32)" "what came to the host"
	expect 0 in_m "echo source 20000000 | nc 10.0.2.2 $PORT | (dd bs=1k count=500 2>/dev/null; sleep 2; cat) | head -c 20000000 | md5sum"
	same "$(cut -c1-32 <"$T/out")" "$(cat "$T/sum")" "what came to the guest"
	# both at once, and the host reads nothing while it sends
	expect 0 in_m "/root/duplex 10.0.2.2 $PORT 20000000"
	says same
	# the guest loses what it was sent, and what it was told
	expect 0 in_m "/root/duplex 10.0.2.2 $PORT 4000000 echo 20"
	says same
	# the guest resets while it has much unread, then the host does
	expect 0 in_m "echo source 20000000 | nc 10.0.2.2 $PORT | head -c 100000 | wc -c"
	wait_until 10 grep -q reset "$T/sum"
	expect 1 in_m "/root/duplex 10.0.2.2 $PORT 20000000 reset"
	says "it ended"
	in_m "/root/duplex 10.0.2.2 $PORT 2000000000" >"$T/killed" &
	sleep 1
	kill -9 "$(plug_pid)"
	wait $! && fail "a connection outlived its plug"
	grep -q "it ended" "$T/killed" || fail "the guest was not told: $(cat "$T/killed")"
	expect 0 in_m "/root/duplex 10.0.2.2 $PORT 2000000"
	says same
	expect 0 uml-lab down windows
}

for k in $(kernels); do
	echo "== $k"
	one_kernel "$k"
done
