# A lab that grows while its session runs: `up` starts the machines that are new and the networks they need, and leaves the rest alone.
# timeout: 120
. tests/cases/lib.sh
need vde_switch python3

RUNTIME=/tmp/uml-lab-$(id -u)
[ -z "${XDG_RUNTIME_DIR:-}" ] || RUNTIME=$XDG_RUNTIME_DIR/uml-lab
lab grow <<-'END'
	lab: grow
	base: tiny
	networks: {lan: {}}
	machines:
	  a: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.1/24}]}
END
up "$T/labs/grow"
status_json() { uml-lab status --json grow >"$T/status.json"; }
of() { json "$T/status.json" "next(n['switch_pid'] for n in d['networks'] if n['name'] == '$1')"; }
status_json
lan=$(of lan) keeper=$(json "$T/status.json" 'd["network_keeper_pid"]') kernel=$(json "$T/status.json" 'd["machines"][0]["kernel_pid"]')
lab grow <<-'END'
	lab: grow
	base: tiny
	networks: {far: {switch: true}, lan: {}, near: {}}
	machines:
	  a: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.1/24}]}
	  b:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: lan, address: 10.1.0.2/24}, {network: far, address: 10.2.0.2/24}, {network: near, address: 10.3.0.2/24}]
	  c: {memory: 64M, kernel: "7.2", interfaces: [{network: far, address: 10.2.0.3/24}, {network: near, address: 10.3.0.3/24}]}
END
up "$T/labs/grow"
pings() { timeout -k 5 10 uml-lab exec "grow/$1" -- ping -c 1 -W 1 "$2"; }
all() { pings b 10.1.0.1 && pings b 10.2.0.3 && pings c 10.3.0.2; }
wait_until 10 all
status_json
same "$(of lan) $(json "$T/status.json" 'd["network_keeper_pid"]') $(json "$T/status.json" 'd["machines"][0]["kernel_pid"]')" "$lan $keeper $kernel" "who ran before"
same "$(json "$T/status.json" '[n["kind"] for n in d["networks"]]')" "['switch', 'hub', 'hub']"
# New ones live like the others: killed, they come back; a new keeper keeps them too.
kill -9 "$(of near)"
wait_until 20 all
kill -9 "$keeper"
wait_until 20 all
# What the keeper does not understand does not disturb it.
python3 - "$(find "$RUNTIME" -name .control)" <<-'END'
	import socket, sys
	s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
	s.connect(sys.argv[1])
	for word in (b"x", b"ATEN" + b"\0" * 72, b"ATEN\0\0\0\0\1\0\0\0../../x" + b"\0" * 57, b"ATEN\0\0\0\0\1\0\0\0" + b"y" * 64, b"z" * 5000):
	    s.send(word)
END
wait_until 20 all
expect 0 uml-lab down grow
same "$(ls -A "$RUNTIME")$(pids_of "vde_switch.*$RUNTIME|__networks grow")" "" "left after down"
