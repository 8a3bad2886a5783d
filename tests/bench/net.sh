#!/bin/bash
# A guest's network, to the host and to another guest: uml-netplug against all else that does it without privilege.
#
#   tests/bench/net.sh [ROUNDS] [MS]     PATH must have uml-netplug; ROUNDS: 3; MS: how long each flow sends, 1200
#   ONLY=vhost tests/bench/net.sh        contenders whose name has this in it
#   PLACED=no tests/bench/net.sh         guests are left to the host's scheduler, all of them, rather than kept on a processor each
#
# The same guest (busybox in an initramfs) on the same kernel for all of one table, and the same program at both ends
# (netplug-blast.c), which checks the bytes. Contenders take turns, so that drift hits all; medians. Each has the MTU that is best
# for it, which stands beside its name: on a vde_switch nobody has more than 1500.
# On a host with autogroups (/proc/sys/kernel/sched_autogroup_enabled) what others run takes its share even if it is SCHED_IDLE, since
# that holds within a session only; figures are then worth something under `chrt -r 10` alone.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-netplug linux.uml vde_switch busybox gcc python3; do
	command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }
done
D=$(mktemp -d "${TMPDIR:-/tmp}/net-bench.XXXXXX")
trap 'rm -rf "$D"' EXIT
gcc -O2 -static -o "$D/netplug-blast" "$here/netplug-blast.c"
python3 "$here/net.py" "$D" "${1:-3}" "${2:-1200}" "$here/../kernels"
