# SLIRP as a person meets it: forwards changed while running, IPv4 and IPv6 out and in, ping, DNS by UDP and TCP following
# the host's resolv.conf, what DHCP tells, restrict: with allow:. All of it in a network namespace of its own,
# whose outside is us: 192.0.2.1, 2001:db8::1, two name servers.
# timeout: 180
[ -n "${IN_NAMESPACE:-}" ] || exec unshare --map-root-user --net --mount env IN_NAMESPACE=1 bash "$0" "$@"
. tests/cases/lib.sh
need python3 curl ip gcc
ip link set lo up
ip addr add 192.0.2.1/32 dev lo
ip addr add 192.0.2.2/32 dev lo
ip -6 addr add 2001:db8::1/128 dev lo
echo "0 0" >/proc/sys/net/ipv4/ping_group_range

# The outside: port 80 says "outside" and who asks, on every address; name servers on 192.0.2.1 and .2, UDP and TCP,
# answer every A question with 198.51.100.1 and .2.
cat >"$T/outside.py" <<'END'
import http.server, socket, socketserver, struct, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"outside\n")
    def log_message(self, *a): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
def reply(query, last):
    end = query.index(b"\0", 12) + 5
    kind = struct.unpack(">H", query[end - 4:end - 2])[0]
    answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([198, 51, 100, last]) if kind == 1 else b""
    return query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if answer else 0, 0, 0) + query[12:end] + answer
def serve(address, last):
    class Udp(socketserver.BaseRequestHandler):
        def handle(self): self.request[1].sendto(reply(self.request[0], last), self.client_address)
    class Tcp(socketserver.BaseRequestHandler):
        def handle(self):
            size = struct.unpack(">H", self.request.recv(2))[0]
            r = reply(self.request.recv(size), last)
            self.request.sendall(struct.pack(">H", len(r)) + r)
    for server in (socketserver.UDPServer((address, 53), Udp), socketserver.TCPServer((address, 53), Tcp)):
        threading.Thread(target=server.serve_forever, daemon=True).start()
serve("192.0.2.1", 1)
serve("192.0.2.2", 2)
page = Server(("::", 80), Page)
print("ready", flush=True)
page.serve_forever()
END
python3 "$T/outside.py" >"$T/outside" 2>"$T/outside.err" &
at_exit "kill $!"
wait_until 10 grep -q ready "$T/outside"
resolver() { # ADDRESS: replaced as resolvconf and NetworkManager do
	printf 'search lab.test other.test\nnameserver %s\n' "$1" >"$T/etc/resolv.conf.new"
	mv "$T/etc/resolv.conf.new" "$T/etc/resolv.conf"
}
mkdir "$T/etc"
cp -a /etc/. "$T/etc/" 2>/dev/null
rm -f "$T/etc/resolv.conf"
resolver 192.0.2.1
mount --bind "$T/etc" /etc || fail "cannot mount over /etc"
at_exit "umount -l /etc"

lab slirp <<-END
	lab: slirp
	base: tiny
	machines:
	  m:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{slirp: true, forward: ["auto:80"]}]
	    startup: |
	      mkdir -p /www; echo "hello from the guest" > /www/index.html; httpd -h /www
	  exam:
	    memory: 64M
	    kernel: "7.2"
	    interfaces:
	      - {slirp: true, restrict: true, forward: ["auto:80"], allow: ["192.0.2.1:80", "192.0.2.2", "[2001:db8::1]:80", "10.0.2.3:53/udp"]}
	    startup: |
	      mkdir -p /www; echo "hello from the exam" > /www/index.html; httpd -h /www
END
up "$T/labs/slirp"
in_m() { uml-lab exec slirp/m -- "$@"; }
in_exam() { uml-lab exec slirp/exam -- timeout 5 "$@"; }

# ---- forwards that come and go ----
expect 0 uml-lab forward slirp/m add auto:80 --json
PORT=$(json "$T/out" 'd["forward"]' | cut -d: -f2)
same "$(curl -s -m 5 "http://127.0.0.1:$PORT/")" "hello from the guest"
expect 0 uml-lab forward slirp/m
says "127.0.0.1:$PORT"
expect 1 uml-lab forward slirp/m add "$PORT:80"
says "in use by process"
expect 0 uml-lab forward slirp/m remove "$PORT:80"
expect 7 curl -s -m 5 "http://127.0.0.1:$PORT/"
expect 4 uml-lab forward slirp/m remove "$PORT:80"
expect 2 uml-lab forward slirp/m add nonsense
expect 2 uml-lab forward slirp/m join 1:2
# UDP, IPv6, another address; they outlive the plug.
expect 0 uml-lab forward slirp/m add 5000:5000/udp
expect 0 uml-lab forward slirp/m add '[::1]:8006:[fec0::15]:80'
expect 0 uml-lab forward slirp/m add 192.0.2.2:8080:80
cat >"$T/echo.c" <<'END'
#include <arpa/inet.h>
#include <unistd.h>
int main(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(5000) };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	char buf[2048];

	if (bind(s, (struct sockaddr *)&a, sizeof(a)) || daemon(0, 0))
		return 1;
	for (;;) {
		socklen_t size = sizeof(a);
		ssize_t n = recvfrom(s, buf, sizeof(buf), 0, (struct sockaddr *)&a, &size);

		if (n > 0)
			sendto(s, buf, n, 0, (struct sockaddr *)&a, size);
	}
}
END
gcc -static -o "$T/echo" "$T/echo.c" || fail "cannot compile"
expect 0 uml-lab copy "$T/echo" slirp/m:/tmp/echo
expect 0 in_m /tmp/echo
udp() { printf ping | timeout 2 python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(b"ping", ("127.0.0.1", 5000))
sys.exit(s.recv(100) != b"ping")'; }
wait_until 10 udp
expect 0 in_m ip -6 addr add fec0::15/64 dev eth0
wait_until 15 curl -s -g -m 3 -o /dev/null "http://[::1]:8006/"
same "$(curl -s -m 5 http://192.0.2.2:8080/)" "hello from the guest"
uml-lab status --json slirp >"$T/status.json"
kill -9 "$(json "$T/status.json" 'next(m["plug_pid"] for m in d["machines"] if m["name"] == "m")')"
wait_until 15 udp
wait_until 15 curl -s -g -m 3 -o /dev/null "http://[::1]:8006/"
wait_until 15 curl -s -m 3 -o /dev/null http://192.0.2.2:8080/

# ---- the plug stands behind walls ----
uml-lab status --json slirp >"$T/status.json"
plug=$(json "$T/status.json" 'next(m["plug_pid"] for m in d["machines"] if m["name"] == "m")')
grep -q "^Seccomp:.2" "/proc/$plug/status" || fail "no filter of system calls around the plug"
grep -q "^NoNewPrivs:.1" "/proc/$plug/status" || fail "the plug may gain privileges"
grep -q "^CapEff:.0*$" "/proc/$plug/status" || fail "the plug has capabilities"

# ---- out ----
expect 0 in_m timeout 5 wget -q -O - http://192.0.2.1/
says outside
wait_until 15 in_m timeout 5 wget -q -O - 'http://[2001:db8::1]/'
expect 0 in_m ping -c 2 -W 3 192.0.2.1
# The host's own loopback is no outside.
expect 1 in_m timeout 5 wget -q -O - http://10.0.2.2/

# ---- names ----
expect 0 in_m nslookup -type=a www.example 10.0.2.3
says 198.51.100.1
# TCP: id 1, recursion, "a.test", A, IN
tcp_dns() { in_m sh -c 'printf "\0\030\0\001\001\0\0\001\0\0\0\0\0\0\001a\004test\0\0\001\0\001" | nc -w 3 10.0.2.3 53 | hexdump -v -e "/1 \"%02x\""'; }
expect 0 tcp_dns
grep -q c6336401 "$T/out" || fail "no answer by TCP: $(cat "$T/out")"
resolver 192.0.2.2
now_second() { in_m nslookup -type=a www.example 10.0.2.3 | grep -q 198.51.100.2; }
wait_until 10 now_second
expect 0 tcp_dns
grep -q c6336402 "$T/out" || fail "TCP still asks the old one: $(cat "$T/out")"

# ---- DHCP ----
in_m sh -c 'printf "#!/bin/sh\nset\n" >/tmp/show; chmod +x /tmp/show; udhcpc -i eth0 -n -q -t 5 -s /tmp/show -O search -O mtu -O hostname -O domain' \
	>"$T/out" 2>"$T/err"
says "hostname='m'"
says "domain='lab.test'"
says "search='lab.test other.test"
says "mtu='$(in_m cat /sys/class/net/eth0/mtu | tr -d '\r')'"
says "router='10.0.2.2'"
says "dns='10.0.2.3'"

# ---- restrict ----
uml-lab forward slirp/exam --json >"$T/out"
same "$(curl -s -m 5 "http://127.0.0.1:$(tr -d '"[]' <"$T/out" | cut -d: -f2)/")" "hello from the exam"
expect 0 in_exam wget -q -O - http://192.0.2.1/
expect 0 in_exam ping -c 1 192.0.2.2
expect 0 in_exam ping -c 1 10.0.2.2
wait_until 10 in_exam wget -q -O - 'http://[2001:db8::1]/'
expect 0 in_exam nslookup -type=a www.example 10.0.2.3
says 198.51.100.2
for closed in "ping -c 1 -W 1 192.0.2.1" "nc -w 2 192.0.2.1 53" "ping -c 1 -W 1 2001:db8::1" "nc -w 2 10.0.2.2 80" "nc -w 2 10.0.2.3 53"; do
	# shellcheck disable=SC2086
	run in_exam $closed </dev/null
	[ "$STATUS" != 0 ] || fail "$closed went through"
done
expect 0 uml-lab down slirp
