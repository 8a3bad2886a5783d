# Two sessions on one VXVDE network, which has no switch and no centre: their machines find each other by multicast. In a network
# namespace whose loopback carries multicast, as any host's network card does.
# timeout: 120
[ -n "${IN_NAMESPACE:-}" ] || exec unshare --map-root-user --net env IN_NAMESPACE=1 bash "$0" "$@"
. tests/cases/lib.sh
need ip ss python3
ip link set lo up multicast on
ip route add 224.0.0.0/4 dev lo

mapfile -t KERNELS < <(kernels)
pings() { timeout -k 5 10 uml-lab exec "$1/m" -- ping -c 1 -W 1 "${@:2}"; }
side() { # NAME KERNEL LAST_BYTE
	lab "$1" <<-END
		lab: $1
		base: tiny
		networks: {wan: {vde: "vxvde://239.1.2.3"}}
		machines:
		  m: {memory: 64M, kernel: "$2", interfaces: [{network: wan, address: [10.8.0.$3/24, "fd08::$3/64"]}]}
	END
	up "$T/labs/$1"
}
side west "${KERNELS[0]}" 1
side east "${KERNELS[-1]}" 2
wait_until 10 pings west 10.8.0.2
expect 0 pings east 10.8.0.1
expect 0 pings east -s 1400 10.8.0.1
wait_until 10 pings west fd08::2
expect 0 uml-lab status west
says "vxvde://239.1.2.3"

# Who joins later is found; another address is another network.
side south "${KERNELS[-1]}" 3
wait_until 10 pings south 10.8.0.1
wait_until 10 pings east 10.8.0.3
expect 0 uml-lab down --force south
sed -i 's/239.1.2.3/239.1.2.4/' "$T/labs/south/lab.yml"
up "$T/labs/south"
expect 1 pings south 10.8.0.1

# A plug that dies is started again, and is on the network as before.
uml-lab status --json east >"$T/status.json"
kill -9 "$(json "$T/status.json" 'd["machines"][0]["plug_pid"]')"
wait_until 20 pings west 10.8.0.2

# The other session ends: frames go nowhere, and come again when it is back.
expect 0 uml-lab down --force east
expect 1 pings west 10.8.0.2
up "$T/labs/east"
wait_until 10 pings west 10.8.0.2
for s in west east south; do expect 0 uml-lab down --force $s; done
same "$(ss -Hlun sport = :14789)" "" "sockets left"
