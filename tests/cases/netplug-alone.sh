#!/bin/bash
# uml-netplug started by hand on a VDE network: walls around it, a process without them that joins for it, and which ends with it.
# timeout: 60
. "${UML_LAB_SOURCE:-.}/tests/cases/lib.sh"
need vde_switch python3

start_switch() {
	rm -rf "$T/net"
	mkfifo "$T/input.$1"
	vde_switch -x -f /dev/null -s "$T/net" -m 0600 <>"$T/input.$1" >/dev/null 2>&1 &
	SWITCH=$!
	at_exit "kill $SWITCH 2>/dev/null"
	wait_until 5 test -S "$T/net/ctl"
}
start_switch 1
for i in 1 2; do
	uml-netplug --vde "$T/net" --label "by hand $i" --socket "$T/sock$i" >"$T/plug$i" 2>&1 &
	eval "PLUG$i=$!"
	at_exit "kill $! 2>/dev/null"
done
wait_until 5 grep -q listening "$T/plug1"
wait_until 5 grep -q listening "$T/plug2"
wait_until 5 grep -q joined "$T/plug1"
wait_until 5 grep -q joined "$T/plug2"
for pid in $PLUG1 $PLUG2; do
	grep -q '^Seccomp:.2' "/proc/$pid/status" || fail "no filter around the plug"
	grep -q '^NoNewPrivs:.1' "/proc/$pid/status" || fail "the plug may gain privileges"
done
cat >"$T/guests.py" <<'END'
import socket, sys, time
def guest(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(path); s.settimeout(0.2); return s
a, b = map(guest, sys.argv[1:3])
frame = b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x88\xb5" + b"x" * 86
def passes(one, other):
    for _ in range(50):
        one.send(frame)
        try:
            if other.recv(2000) == frame: return True
        except TimeoutError: pass
    return False
sys.exit(not (passes(a, b) and passes(b, a)))
END
expect 0 python3 "$T/guests.py" "$T/sock1" "$T/sock2"

# ---- the switch dies and comes back ----
kill -9 $SWITCH
wait_until 5 grep -q "gone away" "$T/plug1"
start_switch 2
expect 0 python3 "$T/guests.py" "$T/sock1" "$T/sock2"

# ---- nothing is left, however it ends ----
kill -9 "$PLUG1"
kill -TERM "$PLUG2"
wait "$PLUG2" || fail "it ended with $? on SIGTERM"
[ ! -e "$T/sock2" ] || fail "its socket is left"
gone() { [ -z "$(pids_of "uml-netplug.*$T/")" ]; }
wait_until 5 gone
