#!/bin/bash
# A guest's TCP throughput to and from the host through uml-netplug, against slirp4netns over bess and UML's legacy slirp transport.
#
#   tests/bench/netplug-net.sh [ROUNDS] [MEGABYTES]     PATH must have uml-netplug; KERNEL: a linux.uml (default: Debian's 6.1)
#   MTUS="1500 4096 9000 16384 32768 65521" tests/bench/netplug-net.sh     how NETPLUG_DEFAULT_MTU was chosen
#
# Each round boots a guest (busybox in an initramfs) for every contender, one after the other, so that drift hits all; the same
# program sends and checks the bytes (netplug-blast.c). Prints the medians in Mbit/s, and ours divided by theirs at each MTU.
# A run that does not end in 20 s, or loses bytes, counts as 0.
set -eu
ROUNDS=${1:-5} MEGABYTES=${2:-60}
KERNEL=${KERNEL:-linux.uml}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-netplug "$KERNEL" busybox gcc; do
	command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }
done
D=$(mktemp -d "${TMPDIR:-/tmp}/netplug-bench.XXXXXX")
pids=()
end() { [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true; rm -rf "$D"; }
trap end EXIT
MTUS=${MTUS:-1500 16384}
BYTES=$((MEGABYTES * 1000000))

prepare_guest() {
	mkdir -p "$D/root"/{bin,proc,sys,dev}
	gcc -O2 -static -o "$D/root/bin/netplug-blast" "$here/netplug-blast.c"
	cp "$(command -v busybox)" "$D/root/bin/"
	cat >"$D/root/init" <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t proc proc /proc
		ip link set lo up
		ip link set vec0 name eth0 2>&-
		ip link set eth0 up
		ip addr add 10.0.2.15/24 dev eth0
		ip route add default via 10.0.2.2
		for way in send recv; do
			echo "RESULT \$way \$(timeout 20 netplug-blast \$way 10.0.2.2 PORT $BYTES)"
		done
		poweroff -f
	END
	chmod 755 "$D/root/init"
}

# The host's side, on the first port that is free
start_server() {
	for PORT in $(seq 18110 18150); do
		"$D/root/bin/netplug-blast" serve "$PORT" </dev/null >/dev/null 2>&1 &
		sleep 0.2
		if kill -0 $! 2>/dev/null; then
			pids+=($!)
			return
		fi
	done
	echo "no free port for the server" >&2
	exit 1
}

# boot NAME NETWORK: runs the guest, appends its results to $D/NAME.send and $D/NAME.recv
boot() {
	local way value
	timeout -k 5 60 "$KERNEL" mem=128M initrd="$D/cpio" root=/dev/ram0 rdinit=/init uml_dir="$D/uml/" "$2" \
		con0=fd:0,fd:1 con=null ssl=null quiet noreboot </dev/null >"$D/out" 2>/dev/null || true
	for way in send recv; do
		value=$(sed -n "s/^RESULT $way \([0-9.]*\).*/\1/p" "$D/out" | tr -d '\r')
		echo "${value:-0}" >>"$D/$1.$way"
	done
}

bess() { echo "vec0:transport=bess,dst=$D/sock,mac=52:54:00:12:34:56,mtu=$1"; }

# with NAME MTU COMMAND…: boots with this peer behind the socket
with() {
	local name=$1 mtu=$2
	shift 2
	rm -f "$D/sock"
	"$@" >"$D/peer" 2>&1 &
	local peer=$!
	for _ in $(seq 100); do [ -S "$D/sock" ] && break; sleep 0.05; done
	boot "$name" "$(bess "$mtu")"
	kill "$peer" 2>/dev/null || true
	wait "$peer" 2>/dev/null || true
}

median() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }

# row NAME OURS: medians of both ways, and ours/theirs
row() {
	[ -e "$D/$1.send" ] || { printf '%-24s %s\n' "$1" "not installed"; return; }
	awk -v n="$1" -v s="$(median "$D/$1.send")" -v r="$(median "$D/$1.recv")" -v ours_s="$(median "$D/$2.send")" \
		-v ours_r="$(median "$D/$2.recv")" 'BEGIN {
			out = s > 0 ? sprintf("%.2f", ours_s / s) : "-"
			inward = r > 0 ? sprintf("%.2f", ours_r / r) : "-"
			printf("%-24s %10.0f %10.0f %10s %10s\n", n, s, r, out, inward) }'
}

prepare_guest
start_server
sed -i "s/PORT/$PORT/" "$D/root/init"
(cd "$D/root" && find . | busybox cpio -o -H newc >"$D/cpio" 2>/dev/null)
for _ in $(seq "$ROUNDS"); do
	for mtu in $MTUS; do
		with "uml-netplug-$mtu" $mtu uml-netplug --slirp --host --mtu $mtu --socket "$D/sock"
		! command -v slirp4netns >/dev/null ||
			with "slirp4netns-$mtu" $mtu slirp4netns --target-type=bess --mtu=$mtu "$D/sock"
	done
	! command -v slirp-fullbolt >/dev/null || boot legacy-slirp "eth0=slirp,,$(command -v slirp-fullbolt)"
done

echo "$("$KERNEL" --version), $ROUNDS rounds of $MEGABYTES MB, medians; ratio: ours/theirs (ours at the same MTU; legacy: at the last)"
printf '%-24s %10s %10s %10s %10s\n' contender "out Mb/s" "in Mb/s" "out ratio" "in ratio"
for mtu in $MTUS; do
	row "uml-netplug-$mtu" "uml-netplug-$mtu"
	row "slirp4netns-$mtu" "uml-netplug-$mtu"
done
row legacy-slirp "uml-netplug-${MTUS##* }"
