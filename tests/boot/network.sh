# SLIRP: DHCP, DNS, the host's loopback where the lab says so, forwards; a link that goes down and up, networking restarted, a
# plug that dies. By vhost-user, which the kernels take by themselves, and by UML's own bess transport.
# timeout: 300
. tests/cases/lib.sh
need python3 curl

mkdir -p "$T/www"
echo "hello from the host" >"$T/www/index.html"
serve_folder "$T/www"

fetch() { uml-lab exec net/m -- timeout 5 wget -q -O - "http://10.0.2.2:$PORT/"; }
forwarded() { curl -s -m 5 "http://127.0.0.1:$1/"; }

try_network() { # KERNEL TRANSPORT DRIVER
	lab net <<-END
		lab: net
		base: tiny
		machines:
		  m:
		    memory: 64M
		    kernel: "$1"
		    interfaces: [{slirp: true, host: true, forward: ["auto:80"], transport: $2}]
		    startup: |
		      mkdir -p /www; echo "hello from the guest" > /www/index.html; httpd -h /www
		  shut:
		    memory: 64M
		    kernel: "$1"
		    interfaces: [{slirp: true}]
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/net"
	expect 0 fetch
	same "$(cat "$T/out")" "hello from the host"
	expect 0 uml-lab exec net/m -- readlink /sys/class/net/eth0/device/driver
	says "$3"
	# Without host: true the host's loopback is out of reach.
	expect 1 uml-lab exec net/shut -- timeout 5 wget -q -O - "http://10.0.2.2:$PORT/"
	expect 0 uml-lab exec net/m -- sh -c 'ip -4 addr show eth0; ip route; cat /etc/resolv.conf'
	says "inet 10.0.2.15/24"
	says "default via 10.0.2.2"
	says 10.0.2.3
	expect 0 uml-lab status --json net
	cp "$T/out" "$T/status.json"
	local forward
	forward=$(json "$T/status.json" 'd["machines"][0]["forwards"][0]' | cut -d: -f2)
	same "$(forwarded "$forward")" "hello from the guest"

	# DHCP answers whoever asks.
	expect 0 uml-lab exec net/m -- udhcpc -i eth0 -n -q -t 5
	says "lease of 10.0.2.15 obtained"
	# DNS is passed on: an answer or a failure of the host's, but an answer.
	run uml-lab exec net/m -- nslookup nosuchname.invalid 10.0.2.3
	says_not "timed out"

	# A link taken down and up by a student.
	expect 0 uml-lab exec net/m -- sh -c 'ip link set eth0 down; ip link set eth0 up'
	wait_until 15 fetch
	same "$(forwarded "$forward")" "hello from the guest"

	# The plug dies; nobody inside does anything.
	local plug
	plug=$(json "$T/status.json" 'd["machines"][0]["plug_pid"]')
	kill -9 "$plug"
	wait_until 15 fetch
	wait_until 10 forwarded "$forward"
	expect 0 uml-lab status --json net
	cp "$T/out" "$T/status.json"
	[ "$(json "$T/status.json" 'd["machines"][0]["plug_pid"]')" != "$plug" ] || fail "it is the same plug"
	same "$(json "$T/status.json" 'd["machines"][0]["state"]')" ready
	expect 0 uml-lab down net
}

for k in $(kernels); do
	echo "== $k"
	try_network "$k" auto virtio_net
done
try_network "$(kernels | head -1)" bess uml-vector

# A taken port is named before anybody waits in vain.
lab taken <<-END
	lab: taken
	base: tiny
	machines: {m: {interfaces: [{slirp: true, forward: ["$PORT:80"]}]}}
END
at_exit end_sessions
expect 1 uml-lab up "$T/labs/taken"
says "$PORT"
