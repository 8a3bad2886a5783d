# Networks between machines: a hub and a switch, tags, several addresses, links down and up, machines that come later, every
# process killed, nothing left; networks of another kind: two sessions joined by UDP; ten machines on one hub.
# timeout: 240
. tests/cases/lib.sh
need vde_switch python3

RUNTIME=/tmp/uml-lab-$(id -u)
[ -z "${XDG_RUNTIME_DIR:-}" ] || RUNTIME=$XDG_RUNTIME_DIR/uml-lab
mapfile -t KERNELS < <(kernels)
kernel() { echo "${KERNELS[$(($1 % ${#KERNELS[@]}))]}"; }

in_guest() { timeout -k 5 30 uml-lab exec "$@"; }
pings() { in_guest "$1" -- ping -c 1 -W 1 "${@:2}"; }
status_json() { uml-lab status --json "$1" >"$T/status.json"; }
all_joined() {
	status_json "$1" && [ "$(json "$T/status.json" 'all(p["joined"] for n in d["networks"] for p in n["ports"])')" = True ]
}

lab mesh <<END
	lab: mesh
	base: tiny
	networks:
	  lan: {}
	  trunk: {switch: true}
	machines:
	  a:
	    memory: 64M
	    kernel: "$(kernel 0)"
	    interfaces:
	      - {network: lan, address: 10.9.1.1/24}
	      - {slirp: true}
	      - {network: trunk, address: [10.9.2.1/24, 10.9.3.1/24, "fd09::1/64"]}
	  b:
	    memory: 64M
	    kernel: "$(kernel 1)"
	    interfaces:
	      - {network: trunk, address: [10.9.2.2/24, 10.9.3.2/24, "fd09::2/64"]}
	      - {network: lan, address: 10.9.1.2/24, mac: "02:00:00:00:00:0b"}
	  c:
	    memory: 64M
	    kernel: "$(kernel 2)"
	    interfaces:
	      - {network: lan, address: 10.9.1.3/24}
	      - {network: trunk, address: 10.9.2.3/24}
END
sed -i 's/^\t//' "$T/labs/mesh/lab.yml"

# ---- machines reach each other, also one that comes later ----
up "$T/labs/mesh" --only a,b
expect 0 pings mesh/a 10.9.1.2
expect 5 uml-lab up "$T/labs/mesh" --only a
up "$T/labs/mesh"
wait_until 10 all_joined mesh
expect 0 pings mesh/a b
expect 0 pings mesh/b a
expect 0 pings mesh/c b
expect 0 pings mesh/a 10.9.2.2
expect 0 pings mesh/a 10.9.3.2
wait_until 10 pings mesh/a fd09::2		# a fresh address has to be found unused first
expect 0 in_guest mesh/a -- sh -c 'ip -4 addr show eth1; cat /sys/class/net/eth0/mtu'
says "inet 10.0.2.15/24"
says 1500
expect 0 in_guest mesh/b -- cat /sys/class/net/eth1/address
says "02:00:00:00:00:0b"
LOCAL=$(in_guest mesh/b -- ip -6 addr show eth1 | grep -o 'fe80[0-9a-f:]*')
wait_until 10 in_guest mesh/a -- ping -c 1 -W 1 -I eth0 "$LOCAL"
uml-lab status mesh >"$T/out" && grep -q "mesh/lan.*hub.*a/eth0 b/eth1 c/eth0" "$T/out" || { cat "$T/out"; fail "status shows no networks"; }

# ---- whole frames, fragments, and tags, on both kinds ----
expect 0 pings mesh/a -s 1472 10.9.1.2
expect 0 pings mesh/a -s 8000 10.9.1.2
tag() { # MACHINE LAN_INTERFACE TRUNK_INTERFACE NUMBER
	expect 0 in_guest "mesh/$1" -- sh -e -c "vconfig add $2 5; vconfig add $3 4093; ip addr add 10.5.0.$4/24 dev $2.5
		ip addr add 10.6.0.$4/24 dev $3.4093; ip link set $2.5 up; ip link set $3.4093 up"
}
tag a eth0 eth2 1
tag b eth1 eth0 2
for peer in 10.5.0.2 10.6.0.2; do
	wait_until 5 pings mesh/a "$peer"
	expect 0 pings mesh/a -s 1472 "$peer"
done

# ---- what a third machine sees: all on a hub, nothing on a switch that has learned ----
heard() { in_guest mesh/c -- cat "/sys/class/net/$1/statistics/rx_packets"; }
talk() { expect 0 in_guest mesh/a -- ping -c 20 -i 0.02 -q -W 2 "$1"; }
talk 10.9.2.2
before=$(heard eth0) && talk 10.9.1.2 && [ $(($(heard eth0) - before)) -ge 40 ] || fail "a hub kept frames from c"
before=$(heard eth1) && talk 10.9.2.2 && [ $(($(heard eth1) - before)) -lt 10 ] || fail "a switch showed c what was not for it"

# ---- a link goes down and up ----
expect 0 in_guest mesh/b -- ip link set eth1 down
expect 1 pings mesh/a 10.9.1.2
expect 0 in_guest mesh/b -- ip link set eth1 up
wait_until 10 pings mesh/a 10.9.1.2

# ---- every process may be killed; the guest notices nothing but lost frames ----
status_json mesh
KEEPER=$(json "$T/status.json" 'd["network_keeper_pid"]')
for victim in 'd["networks"][0]["switch_pid"]' 'd["networks"][1]["switch_pid"]' 'd["network_keeper_pid"]' 'd["machines"][1]["plug_pid"]'; do
	status_json mesh
	kill -9 "$(json "$T/status.json" "$victim")" || fail "no process $victim"
	wait_until 20 pings mesh/a 10.9.1.2
	wait_until 20 pings mesh/a 10.9.2.2
done
wait_until 10 all_joined mesh
[ "$(json "$T/status.json" 'd["network_keeper_pid"]')" != "$KEEPER" ] || fail "the keeper that was killed still keeps"
kill -9 "$(json "$T/status.json" 'd["machines"][2]["supervisor_pid"]')"
expect 0 pings mesh/a 10.9.1.2
up "$T/labs/mesh"
wait_until 10 pings mesh/c 10.9.1.1

# ---- nothing is left, also when all supervisors and the keeper are killed at once ----
expect 0 uml-lab down --force mesh
same "$(pids_of "vde_switch.*$RUNTIME|__networks mesh|__supervise mesh")" "" "processes after down"
same "$(ls -A "$RUNTIME")" "" "files after down"
up "$T/labs/mesh"
status_json mesh
for victim in 'd["machines"][0]["supervisor_pid"]' 'd["machines"][1]["supervisor_pid"]' 'd["machines"][2]["supervisor_pid"]' 'd["network_keeper_pid"]'; do
	json "$T/status.json" "$victim"
done | xargs kill -9
expect 0 uml-lab status mesh
no_process() { [ -z "$(pids_of "vde_switch.*$RUNTIME|__networks mesh|__supervise mesh")" ]; }
wait_until 5 no_process
# The first status may have come while the killed ones were still ending, and taken them for alive.
swept() { uml-lab status mesh && [ -z "$(ls -A "$RUNTIME")" ]; }
wait_until 5 swept

# ---- two sessions joined by UDP; a plugin that is missing ----
read -r P1 P2 <<<"$(python3 -c '
import socket
s = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "12"]
for x in s: x.bind(("127.0.0.1", 0))
print(*[x.getsockname()[1] for x in s])')"
wan() { # NAME LOCATOR ADDRESS
	lab "$1" <<-END
		lab: $1
		base: tiny
		networks: {wan: {vde: "$2"}}
		machines:
		  m:
		    memory: 64M
		    interfaces: [{network: wan, address: $3/24}]
	END
}
wan near "udp://$P1->127.0.0.1:$P2" 10.8.0.1
wan far "udp://$P2->127.0.0.1:$P1" 10.8.0.2
up "$T/labs/near"
up "$T/labs/far"
wait_until 10 pings near/m 10.8.0.2
expect 0 pings far/m -s 1472 10.8.0.1
expect 0 uml-lab down --force near
expect 0 uml-lab down --force far
wan odd "vdesl:///dev/ttyS0" 10.8.0.3
compgen -G '/usr/lib/*/vdeplug/libvdeplug_vdesl.so' >/dev/null || { expect 1 uml-lab up "$T/labs/odd"; says "libvdeplug-vdesl"; }

# ---- ten machines on one hub ----
{
	printf 'lab: ten\nbase: tiny\nnetworks: {lan: {}}\nmachines:\n'
	for i in 1 2 3 4 5 6 7 8 9 10; do
		printf '  m%d: {memory: 48M, interfaces: [{network: lan, address: 10.7.0.%d/24}]}\n' $i $i
	done
} | lab ten
up "$T/labs/ten"
for i in 2 5 10; do expect 0 pings ten/m1 10.7.0.$i; done
expect 0 pings ten/m10 m3
expect 0 uml-lab down --force ten
same "$(ls -A "$RUNTIME")" "" "files at the end"
