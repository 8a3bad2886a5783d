# Hardware addresses: a session's machines always have the same ones, no two interfaces share one; on a network with port-security a
# guest that takes another's is heard by nobody, and counted.
# timeout: 120
. tests/cases/lib.sh
need vde_switch python3

lab mac <<-'END'
	lab: mac
	base: tiny
	networks: {strict: {port-security: true}, lax: {}}
	machines:
	  a:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: strict, address: 10.1.0.1/24}, {network: lax, address: 10.2.0.1/24}]
	  b:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: strict, address: 10.1.0.2/24}, {network: lax, address: 10.2.0.2/24}]
END
up "$T/labs/mac"
in_a() { timeout -k 5 20 uml-lab exec mac/a -- "$@"; }
pings() { in_a ping -c 1 -W 1 "$1"; }
macs() { for m in a b; do timeout -k 5 20 uml-lab exec "$1/$m" -- cat /sys/class/net/eth0/address /sys/class/net/eth1/address; done; }
wait_until 10 pings 10.1.0.2
wait_until 10 pings 10.2.0.2

# ---- addresses of its own, and the same ones after a restart ----
macs mac >"$T/macs"
same "$(sort -u "$T/macs" | wc -l) $(grep -c '^02:' "$T/macs")" "4 4" "addresses: $(cat "$T/macs")"
expect 0 uml-lab restart mac a
wait_until 10 pings 10.1.0.2
same "$(macs mac)" "$(cat "$T/macs")" "addresses after a restart"
up "$T/labs/mac" --name other --only a
same "$(timeout -k 5 20 uml-lab exec other/a -- cat /sys/class/net/eth0/address | grep -cxFf "$T/macs")" 0 "addresses that two sessions share"
expect 0 uml-lab down other

# ---- somebody else's ----
spoofed() { uml-lab net mac a:eth0 --json >"$T/net.json" && json "$T/net.json" "d[0]['counters']['in_spoofed']"; }
same "$(spoofed)" 0
mac=$(sed q "$T/macs")
for i in 0 1; do
	expect 0 in_a sh -c "ip link set eth$i down; ip link set eth$i address 02:00:00:00:00:99; ip link set eth$i up"
done
wait_until 10 pings 10.2.0.2
expect 1 pings 10.1.0.2
[ "$(spoofed)" -gt 0 ] || fail "nothing was counted"
expect 0 in_a sh -c "ip link set eth0 down; ip link set eth0 address $mac; ip link set eth0 up"
wait_until 10 pings 10.1.0.2
expect 0 uml-lab down mac
