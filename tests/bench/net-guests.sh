#!/bin/bash
# TCP from one guest to another over one vde_switch (a hub): uml-netplug, against the kernel's own vde and daemon transports.
#
#   tests/bench/net-guests.sh [ROUNDS] [MEGABYTES]     PATH must have uml-netplug; KERNEL: a linux.uml with the old transports (6.1)
#
# Each round boots two guests (busybox in an initramfs) for every contender, one after the other, so that drift hits all; the same
# program sends and checks the bytes (netplug-blast.c). Prints the medians in Mbit/s, and ours divided by theirs. A run that does not
# end in 20 s, or loses bytes, counts as 0.
set -eu
ROUNDS=${1:-5} MEGABYTES=${2:-60}
KERNEL=${KERNEL:-linux.uml}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-netplug "$KERNEL" vde_switch busybox gcc; do
	command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }
done
"$KERNEL" --showconfig | grep -q CONFIG_UML_NET_VDE=y || { echo "$KERNEL has no vde transport of its own" >&2; exit 77; }
D=$(mktemp -d "${TMPDIR:-/tmp}/net-guests.XXXXXX")
pids=()
BYTES=$((MEGABYTES * 1000000))

# Ends what a contender started, last one first. UML leads a process group of its own.
end_contender() {
	local i
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
		kill -KILL -- "-${pids[i]}" 2>/dev/null || kill "${pids[i]}" 2>/dev/null || true
		wait "${pids[i]}" 2>/dev/null || true
	done
	pids=()
}
trap 'end_contender; rm -rf "$D"' EXIT

prepare_guest() {
	mkdir -p "$D/root"/{bin,proc,sys,dev}
	gcc -O2 -static -o "$D/root/bin/netplug-blast" "$here/netplug-blast.c"
	cp "$(command -v busybox)" "$D/root/bin/"
	# ROLE comes from the kernel's command line.
	cat >"$D/root/init" <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t proc proc /proc
		ip link set lo up
		ip link set vec0 name eth0 2>&-
		ip link set eth0 up
		if [ "\$ROLE" = server ]; then
			ip addr add 10.0.0.2/24 dev eth0
			netplug-blast serve 5000 0.0.0.0
		fi
		ip addr add 10.0.0.1/24 dev eth0
		until ping -c 1 -W 1 10.0.0.2 >/dev/null; do :; done
		for way in send recv; do
			echo "RESULT \$way \$(timeout 20 netplug-blast \$way 10.0.0.2 5000 $BYTES)"
		done
		poweroff -f
	END
	chmod 755 "$D/root/init"
	(cd "$D/root" && find . | busybox cpio -o -H newc >"$D/cpio" 2>/dev/null)
}

# background COMMAND…: until end_contender
background() {
	"$@" </dev/null >/dev/null 2>&1 &
	pids+=($!)
}

wait_for() { for _ in $(seq 100); do [ -S "$1" ] && return; sleep 0.05; done; }

guest() { # ROLE NETWORK
	exec "$KERNEL" mem=96M initrd="$D/cpio" root=/dev/ram0 rdinit=/init uml_dir="$D/uml/" ROLE="$1" "$2" \
		con0=fd:0,fd:1 con=null ssl=null quiet noreboot
}

# contend NAME NETWORK_OF_SERVER NETWORK_OF_CLIENT
contend() {
	local way value
	background guest server "$2"
	(timeout -k 5 60 bash -c "$(declare -f guest); KERNEL=$KERNEL D=$D; guest client '$3'" </dev/null >"$D/out" 2>/dev/null) || true
	for way in send recv; do
		value=$(sed -n "s/^RESULT $way \([0-9.]*\).*/\1/p" "$D/out" | tr -d '\r')
		echo "${value:-0}" >>"$D/$1.$way"
	done
	end_contender
}

start_switch() {
	rm -rf "$D/net"
	# It ends at the end of its input.
	[ -p "$D/input" ] || mkfifo "$D/input"
	vde_switch -x -f /dev/null -s "$D/net" -m 0600 <>"$D/input" >/dev/null 2>&1 &
	pids+=($!)
	wait_for "$D/net/ctl"
}

mac() { echo "52:54:00:00:00:0$1"; }

contend_netplug() {
	start_switch
	for i in 1 2; do
		rm -f "$D/sock$i"
		background uml-netplug --vde "$D/net" --socket "$D/sock$i"
	done
	wait_for "$D/sock1"
	wait_for "$D/sock2"
	contend uml-netplug "vec0:transport=bess,dst=$D/sock2,mac=$(mac 2),mtu=1500" \
		"vec0:transport=bess,dst=$D/sock1,mac=$(mac 1),mtu=1500"
}

contend_vde() {
	start_switch
	contend kernel-vde "eth0=vde,$D/net,$(mac 2)" "eth0=vde,$D/net,$(mac 1)"
}

contend_daemon() {
	start_switch
	contend kernel-daemon "eth0=daemon,$(mac 2),unix,$D/net/ctl" "eth0=daemon,$(mac 1),unix,$D/net/ctl"
}

median() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }

row() { # NAME
	awk -v n="$1" -v s="$(median "$D/$1.send")" -v r="$(median "$D/$1.recv")" -v ours_s="$(median "$D/uml-netplug.send")" \
		-v ours_r="$(median "$D/uml-netplug.recv")" 'BEGIN {
			out = s > 0 ? sprintf("%.2f", ours_s / s) : "-"
			inward = r > 0 ? sprintf("%.2f", ours_r / r) : "-"
			printf("%-16s %10.0f %10.0f %10s %10s\n", n, s, r, out, inward) }'
}

prepare_guest
for _ in $(seq "$ROUNDS"); do
	contend_netplug
	contend_vde
	contend_daemon
done
echo "$("$KERNEL" --version), guest to guest over one hub, $ROUNDS rounds of $MEGABYTES MB, medians; ratio: ours/theirs"
printf '%-16s %10s %10s %10s %10s\n' contender "out Mb/s" "in Mb/s" "out ratio" "in ratio"
for name in uml-netplug kernel-vde kernel-daemon; do row $name; done
