# A bad line in a real guest, from lab.yml and while running: delay by ping, rate by a transfer of seconds, loss by counting
# thousands of frames, each within 5 %; duplicates, a pulled cable; the settings outlive the plug.
# timeout: 180
. tests/cases/lib.sh
need python3

python3 tests/boot/serve.py >"$T/port" 2>/dev/null &
at_exit "kill $!"
wait_until 10 test -s "$T/port"
PORT=$(cat "$T/port")

lab bad <<-END
	lab: bad
	base: tiny
	machines:
	  m:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{slirp: true, host: true, delay: 20ms}]
END
up "$T/labs/bad"
in_m() { uml-lab exec bad/m -- "$@"; }
line() { uml-lab net bad "$@"; }
# within VALUE WANTED SLACK WHAT: VALUE is within 5 % of WANTED, plus SLACK
within() { python3 -c 'import sys; v, w, s = map(float, sys.argv[1:4]); sys.exit(not w * .95 <= v <= w * 1.05 + s)' "$1" "$2" "$3" ||
	fail "$4: $1 is not within 5 % of $2"; }
# The quickest round trip in milliseconds: a loaded host makes some late, none early. The first one has ARP in it.
least() { in_m ping -c "$1" -i 0.1 10.0.2.2 | sed -n 's/.*seq=[1-9][0-9]*.*time=\([0-9.]*\) ms.*/\1/p' | sort -n | head -n 1; }
counter() { line --json >"$T/net.json"; json "$T/net.json" "d[0]['counters']['$1']"; }

# ---- delay: each way, so twice in a round trip ----
within "$(least 8)" 40 1 "delay of lab.yml"
expect 0 uml-lab net bad m:eth0 --delay 50ms
within "$(least 8)" 100 1 "delay while running"
expect 0 uml-lab net bad
says "delay=50ms"

# ---- the plug dies, the line stays bad ----
uml-lab status --json bad >"$T/status.json"
kill -9 "$(json "$T/status.json" 'd["machines"][0]["plug_pid"]')"
wait_until 10 in_m ping -c 1 -W 1 10.0.2.2
within "$(least 8)" 100 1 "delay after the plug's death"

# ---- rate ----
expect 0 uml-lab net bad --clear --rate 20M
begin=$(date +%s%N)
expect 0 in_m timeout 30 wget -q -O /dev/null "http://10.0.2.2:$PORT/12500000"
within $((($(date +%s%N) - begin) / 1000000)) 5000 150 "milliseconds for 12.5 MB at 20 Mbit/s"

# ---- loss ----
expect 0 uml-lab net bad --clear --loss 20%
sent=$(counter in_frames)
in_m ping -q -c 12000 -i 0.0005 -W 1 10.0.2.2 >"$T/out" 2>&1
sent=$(($(counter in_frames) - sent))
[ "$sent" -gt 8000 ] || fail "only $sent pings were sent: $(cat "$T/out")"
# Of those that arrive, 20 % of the answers are lost.
within "$(counter lost)" "$((sent * 36 / 100))" 0 "lost frames of $sent"

# ---- twice, and not at all ----
expect 0 uml-lab net bad --clear --duplicate 100%
expect 0 in_m ping -c 3 -i 0.2 10.0.2.2
[ "$(counter duplicated)" -ge 9 ] || fail "no duplicates"
expect 0 uml-lab net bad --clear --down m
expect 1 in_m ping -c 2 -W 1 10.0.2.2
expect 0 uml-lab net bad
says down
expect 0 uml-lab net bad --up m:eth0
expect 0 in_m ping -c 1 -W 3 10.0.2.2

# ---- what is wrong is said ----
expect 2 uml-lab net bad --loss 200%
says "0% to 100%"
expect 4 uml-lab net bad nowhere
expect 4 uml-lab net bad --down nobody
expect 0 uml-lab down bad
expect 5 uml-lab net bad --delay 1ms
