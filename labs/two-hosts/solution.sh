#!/bin/sh
# Solves the lab. Usage: solution.sh [SESSION]
set -eu
session=${1:-two-hosts}

host() { # MACHINE NUMBER PEER PEER'S_NUMBER
	uml-lab exec "$session/$1" -- sh -e -c "
		ip addr replace 192.168.7.$2/24 dev eth0
		grep -qw $3 /etc/hosts || echo 192.168.7.$4 $3 >> /etc/hosts
		[ -e /sys/class/net/eth0.5 ] || vconfig add eth0 5
		ip addr replace 10.5.0.$2/24 dev eth0.5
		ip link set eth0.5 up"
}

host alice 1 bob 2
host bob 2 alice 1
