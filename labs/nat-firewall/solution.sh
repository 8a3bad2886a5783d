#!/bin/sh
# One solution: solution.sh [SESSION]. For instructors, and for the test that proves that the checks can be passed.
set -eu
session=${1:-nat-firewall}

uml-lab exec "$session/gw" -- sh -s <<'END'
set -e
cat >/etc/iptables.rules <<'RULES'
*filter
:INPUT DROP
:FORWARD DROP
:OUTPUT ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -i eth0 -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i eth0 -o eth1 -p tcp --dport 80 -j ACCEPT
-A FORWARD -i eth0 -o eth1 -p icmp --icmp-type echo-request -j ACCEPT
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
*nat
-A PREROUTING -i eth1 -p tcp --dport 8080 -j DNAT --to-destination 192.168.1.10:80
-A POSTROUTING -o eth1 -j MASQUERADE
COMMIT
RULES
cat >/etc/systemd/system/firewall.service <<'UNIT'
[Unit]
Before=network-pre.target
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/iptables-restore /etc/iptables.rules
[Install]
WantedBy=multi-user.target
UNIT
echo net.ipv4.ip_forward=1 >/etc/sysctl.d/gateway.conf
sysctl -q -p /etc/sysctl.d/gateway.conf
systemctl daemon-reload
systemctl enable --quiet --now firewall
END
