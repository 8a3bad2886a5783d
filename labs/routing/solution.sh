#!/bin/sh
# Solves the lab. Usage: solution.sh [SESSION]
set -eu
session=${1:-routing}

on() { # MACHINE COMMANDS
	uml-lab exec "$session/$1" -- sh -e -c "$2"
}

on r1 'echo 1 > /proc/sys/net/ipv4/ip_forward
	ip route replace 10.0.2.0/24 via 10.0.12.2
	ip route replace 10.0.23.0/30 via 10.0.12.2'
on r2 'echo 1 > /proc/sys/net/ipv4/ip_forward
	ip route replace 10.0.1.0/24 via 10.0.12.1
	ip route replace 10.0.2.0/24 via 10.0.23.2'
on r3 'echo 1 > /proc/sys/net/ipv4/ip_forward
	ip route replace 10.0.1.0/24 via 10.0.23.1
	ip route replace 10.0.12.0/30 via 10.0.23.1'
on pc1 'ip route replace default via 10.0.1.1'
on pc2 'ip route replace default via 10.0.2.1'
