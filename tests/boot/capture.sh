# Captures of a real guest's frames, read by tshark: several at once, filters, --count, live through a pipe; a reader that
# does not read slows nobody; ends on Ctrl-C, with its reader, with the machine; goes on when the plug dies.
# timeout: 180
. tests/cases/lib.sh
need python3 tshark

python3 tests/boot/serve.py >"$T/port" 2>/dev/null &
at_exit "kill $!"
wait_until 10 test -s "$T/port"
PORT=$(cat "$T/port")

lab look <<-END
	lab: look
	base: tiny
	machines:
	  m:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{slirp: true, host: true}]
END
up "$T/labs/look"
in_m() { uml-lab exec look/m -- "$@"; }
# begin NAME OPTION…: a capture into $T/NAME in the background; its process is in PID
begin() {
	local name=$1
	shift
	uml-lab capture look/m -w "$T/$name" "$@" >"$T/$name.out" 2>"$T/$name.err" &
	PID=$!
	wait_until 5 test -s "$T/$name"
}
end_with() { # SIGNAL PID: it ends well, and soon
	kill -"$1" "$2"
	wait "$2" || fail "a capture ended with $? on $1"
}
frames() { tshark -r "$T/$1" -T fields -e frame.number 2>/dev/null | wc -l; }
fields() { tshark -r "$T/$1" -T fields -e "$2" 2>/dev/null | sort | uniq -c | awk '{ print $2 "=" $1 }' | tr '\n' ' '; }

# ---- two at once, one with a filter and short frames ----
begin all
all=$PID
begin some --filter "icmp and icmp[icmptype] == icmp-echo" --snaplen 60
some=$PID
expect 0 in_m ping -c 5 -i 0.1 10.0.2.2
has() { [ "$(stat -c %s "$T/$1")" -ge "$2" ]; }
wait_until 5 has all 1000
end_with INT "$all"
end_with TERM "$some"
same "$(fields all icmp.type | grep -o '[08]=5' | tr '\n' ' ')" "0=5 8=5 " "echo requests and replies"
same "$(fields some icmp.type)" "8=5 "
same "$(tshark -r "$T/some" -T fields -e frame.cap_len 2>/dev/null | sort -u)" 60
same "$(fields all frame.interface_name | grep -o 'm:eth0')" m:eth0
says_in() { grep -q "$1" "$T/$2" || fail "$2 does not say $1: $(cat "$T/$2")"; }
says_in "5 frames captured, 0 left out" some.err

# ---- live, counted ----
uml-lab capture look/m:eth0 -w - --filter icmp --count 4 --quiet | tshark -l -r - -T fields -e icmp.type >"$T/live" 2>/dev/null &
live=$!
pinged() { in_m ping -c 1 10.0.2.2 && ! kill -0 $live 2>/dev/null; }
wait_until 15 pinged
same "$(tr '\n' ' ' <"$T/live")" "8 0 8 0 "

# ---- nobody reads any more ----
(uml-lab capture look/m -w - 2>/dev/null; echo $? >"$T/status") | head -c 100 >/dev/null &
gone() { in_m ping -c 1 10.0.2.2; test -s "$T/status"; }
wait_until 15 gone
same "$(cat "$T/status")" 0

# ---- a reader that stands still: the guest does not notice, what was left out is counted ----
begin slow
slow=$PID
kill -STOP "$slow"
expect 0 in_m timeout 30 wget -q -O /dev/null "http://10.0.2.2:$PORT/30000000"
kill -CONT "$slow"
wait_until 15 has slow 10000
# The next one tells.
expect 0 in_m ping -c 2 10.0.2.2
end_with INT "$slow"
grep -q '[1-9][0-9]* left out' "$T/slow.err" || fail "nothing was left out: $(cat "$T/slow.err")"
captured=$(frames slow)
[ "$captured" -gt 10 ] || fail "only $captured frames"

# ---- the plug dies in the middle ----
begin on --filter icmp
on=$PID
expect 0 in_m ping -c 2 -i 0.1 10.0.2.2
uml-lab status --json look >"$T/status.json"
kill -9 "$(json "$T/status.json" 'd["machines"][0]["plug_pid"]')"
wait_until 10 in_m ping -c 1 -W 1 10.0.2.2
before=$(stat -c %s "$T/on")
more() { in_m ping -c 1 -W 1 10.0.2.2; [ "$(stat -c %s "$T/on")" -gt "$before" ]; }
wait_until 10 more

# ---- the machine ends ----
expect 0 uml-lab down look
wait "$on" || fail "the capture ended with $? when the machine did"
[ "$(frames on)" -ge 6 ] || fail "only $(frames on) frames"
expect 5 uml-lab capture look/m -w "$T/none"
[ ! -e "$T/none" ] || fail "an empty capture was left behind"

# ---- what is wrong is said ----
expect 2 uml-lab capture look -w "$T/none"
expect 2 uml-lab capture look/m
expect 2 uml-lab capture look/m -w "$T/none" --filter "no such thing"
expect 4 uml-lab capture look/nobody -w "$T/none"
