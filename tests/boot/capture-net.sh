# Captures of a network with three guests, by an ordinary user: each frame once, in an interface of its sender's; several captures at
# once, filters, live into tshark; a machine that comes later, a switch and a plug that die.
# timeout: 120
. tests/cases/lib.sh
need vde_switch python3 tshark

lab look <<-'END'
	lab: look
	base: tiny
	networks: {lan: {}, other: {switch: true}}
	machines:
	  a: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.1/24}, {network: other, address: 10.2.0.1/24}]}
	  b: {memory: 64M, kernel: "7.2", interfaces: [{network: other, address: 10.2.0.2/24}, {network: lan, address: 10.1.0.2/24}]}
	  c: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.3/24}]}
END
up "$T/labs/look"
[ "$(id -u)" != 0 ] || fail "this is to run without root"
in_a() { timeout -k 5 20 uml-lab exec look/a -- "$@"; }
pings() { in_a ping -c 1 -W 1 "$1"; }
for to in 10.1.0.2 10.1.0.3 10.2.0.2; do wait_until 10 pings $to; done
# begin NAME WHAT OPTION…: a capture into $T/NAME in the background; its process is in PID
begin() {
	uml-lab capture "look/$2" -w "$T/$1" "${@:3}" >"$T/$1.out" 2>"$T/$1.err" &
	PID=$!
	wait_until 5 test -s "$T/$1"
}
end_all() {
	kill -INT "$@"
	for p in "$@"; do wait "$p" || fail "a capture ended with $?"; done
}
# FILE FILTER: the interfaces of the frames that match, and how many of each
by() { tshark -r "$T/$1" -Y "$2" -T fields -e frame.interface_name 2>"$T/tshark.err" | sort | uniq -c | awk '{ printf "%s=%s ", $2, $1 }'; }

# ---- several at once: the whole network, one with a filter, another network, one machine ----
begin lan lan
pids=$PID
begin some lan --filter "icmp[icmptype] == icmp-echo and host 10.1.0.3"
pids+=" $PID"
begin other other
pids+=" $PID"
begin a a
pids+=" $PID"
uml-lab capture look/lan -w - --filter icmp --count 4 --quiet | tshark -l -r - -T fields -e frame.interface_name -e icmp.type >"$T/live" 2>/dev/null &
live=$!
expect 0 in_a ping -c 5 -i 0.1 10.1.0.2
expect 0 in_a ping -c 3 -i 0.1 10.1.0.3
expect 0 in_a ping -c 2 -i 0.1 10.2.0.2
wait $live || fail "the live capture ended with $?"
same "$(tr '\t\n' ': ' <"$T/live")" "a:eth0:8 b:eth1:0 a:eth0:8 b:eth1:0 " "live"
# shellcheck disable=SC2086
end_all $pids
same "$(by lan icmp)" "a:eth0=8 b:eth1=5 c:eth0=3 " "the network: each frame once"
same "$(by some frame)" "a:eth0=3 " "filtered"
same "$(by other icmp)" "a:eth1=2 b:eth0=2 " "the other network"
same "$(by a icmp)" "a:eth0=16 a:eth1=4 " "the machine: what it sends and gets"
grep -q "3 frames captured, 0 left out" "$T/some.err" || fail "$(cat "$T/some.err")"
# Times grow, and are those of the frames.
tshark -r "$T/lan" -Y icmp -T fields -e frame.time_epoch 2>/dev/null | sort -c || fail "frames are not in the order of their times"

# ---- a lossy line: what is lost never appears ----
expect 0 uml-lab net look a:eth0 --loss 100%
begin lossy lan
pids=$PID
expect 1 in_a ping -c 2 -i 0.1 -W 1 10.1.0.2
expect 0 uml-lab net look a:eth0 --clear
expect 0 pings 10.1.0.2
seen() { uml-lab net look --json >/dev/null; [ -n "$(by lossy 'icmp.type == 0')" ]; }
wait_until 10 seen

# ---- the switch dies, a plug dies: it goes on ----
uml-lab status --json look >"$T/status.json"
kill -9 "$(json "$T/status.json" "next(n['switch_pid'] for n in d['networks'] if n['name'] == 'lan')")"
wait_until 20 pings 10.1.0.3
kill -9 "$(json "$T/status.json" "next(m['plug_pid'] for m in d['machines'] if m['name'] == 'c')")"
wait_until 20 pings 10.1.0.3
again() { pings 10.1.0.3 && [ -n "$(by lossy "icmp.type == 0 and ip.src == 10.1.0.3")" ]; }
wait_until 20 again
end_all "$pids"
same "$(by lossy "icmp.type == 8 and ip.dst == 10.1.0.2")" "a:eth0=1 " "lost frames"

expect 4 uml-lab capture look/nowhere -w "$T/none"
expect 2 uml-lab capture look/lan -w "$T/none" --filter "no such thing"
expect 0 uml-lab down look
expect 5 uml-lab capture look/lan -w "$T/none"
[ ! -e "$T/none" ] || fail "an empty capture was left behind"
