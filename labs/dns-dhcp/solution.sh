#!/bin/sh
# One solution: solution.sh [SESSION]. For instructors, and for the test that proves that the checks can be passed.
set -eu
session=${1:-dns-dhcp}

uml-lab exec "$session/server" -- sh -s <<'END'
cat >/etc/dnsmasq.conf <<'CONF'
interface=eth0
bind-interfaces
domain=lab.test
local=/lab.test/
no-resolv
no-hosts
host-record=server.lab.test,192.168.50.1
cname=www.lab.test,server.lab.test
dhcp-range=192.168.50.100,192.168.50.150,1h
dhcp-option=option:dns-server,192.168.50.1
dhcp-host=02:00:00:00:50:20,pc2,192.168.50.20
CONF
cat >/etc/systemd/system/dnsmasq.service <<'UNIT'
[Service]
ExecStart=/usr/sbin/dnsmasq --keep-in-foreground
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now dnsmasq
END
# Names come from those who ask for an address by name.
uml-lab exec "$session/pc2" -- udhcpc -i eth0 -q -n -x hostname:pc2
