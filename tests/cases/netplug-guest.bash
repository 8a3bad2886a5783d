# Sourced by netplug-*.sh after lib.sh: a real UML guest (busybox in an initramfs, no disk) behind a socket.
# shellcheck shell=bash

# The kernels there are: "VERSION PATH" a line.
netplug_kernels() {
	local v path wanted="6.1 6.12 7.2"
	{
		path=$(command -v linux.uml) && echo "6.1 $path"
		# The user's own and root's: the list shows one place at a time.
		"$UML_LAB_SOURCE/tests/kernels" --list | awk -F'\t' '{ print $1, $3 }'
		UML_LAB_KERNELS=${UML_LAB_KERNELS:-/var/cache/uml-lab-kernels} "$UML_LAB_SOURCE/tests/kernels" --list |
			awk -F'\t' '{ print $1, $3 }'
	} | sort -u -k 1,1 >"$T/kernels"
	if [ "${UML_LAB_MUST_WORK:-}" = 1 ]; then
		for v in $wanted; do
			grep -q "^$v " "$T/kernels" || fail "kernel $v is not here: tests/kernels fetches it"
		done
	fi
	cat "$T/kernels"
}

# guest_image [FILE…]: the initramfs, with these programs in /bin. Its init obeys lines of shell from the console.
guest_image() {
	local d=$T/initramfs
	mkdir -p "$d"/{bin,proc,sys,dev,etc,tmp,www}
	cp "$(command -v busybox)" "$@" "$d/bin/"
	cat >"$d/init" <<-'END'
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t devtmpfs dev /dev 2>/dev/null
		[ -c /dev/null ] || mknod /dev/null c 1 3
		[ -c /dev/zero ] || mknod /dev/zero c 1 5
		ip link set lo up
		ip link set vec0 name eth0
		stty -echo
		echo "GUEST up"
		while read -r line; do
			eval "$line" </dev/null
			echo "STATUS $?"
		done
		poweroff -f
	END
	cat >"$d/bin/dhcp" <<-'END'
		#!/bin/sh
		[ "$1" = bound ] || exit 0
		ip addr flush dev "$interface"
		ip addr add "$ip/24" dev "$interface"
		ip route replace default via "$router"
		echo "nameserver $dns" >/etc/resolv.conf
		echo "DHCP $ip $hostname $domain"
	END
	chmod 755 "$d/init" "$d/bin/dhcp"
	(cd "$d" && find . | busybox cpio -o -H newc >"$T/initramfs.cpio" 2>/dev/null) || fail "no initramfs"
}

# guest_start KERNEL SOCKET MTU: boots and waits for its init.
guest_start() {
	[ -p "$T/guest.in" ] || mkfifo "$T/guest.in"
	: >"$T/guest.out"
	setsid "$1" mem=128M initrd="$T/initramfs.cpio" root=/dev/ram0 rdinit=/init uml_dir="$T/uml/" umid=g \
		vec0:transport=bess,dst="$2",mac=52:54:00:12:34:56,mtu="$3" con0=fd:0,fd:1 con=null ssl=null \
		quiet noreboot <"$T/guest.in" >"$T/guest.out" 2>&1 &
	GUEST=$!
	exec 7>"$T/guest.in"
	at_exit guest_stop
	wait_until 60 grep -aq "^GUEST up" "$T/guest.out"
}

# Kills the whole group: the kernel's tracees must not outlive it.
guest_stop() {
	[ -n "${GUEST:-}" ] || return 0
	exec 7>&-
	kill -KILL -- "-$GUEST" 2>/dev/null
	wait "$GUEST" 2>/dev/null
	GUEST=
}

answers() { [ "$(grep -ac '^STATUS ' "$T/guest.out")" -gt "$1" ]; }

# tell COMMAND: starts it in the guest; told waits for it (SECONDS) and sets STATUS and $T/out.
tell() {
	BEFORE=$(grep -ac '^STATUS ' "$T/guest.out")
	FROM=$(($(wc -c <"$T/guest.out") + 1))
	echo "$1" >&7
}
told() {
	wait_until "$1" answers "$BEFORE"
	tail -c "+$FROM" "$T/guest.out" | tr -d '\r' >"$T/out"
	: >"$T/err"
	STATUS=$(sed -n 's/^STATUS //p' "$T/out" | tail -n 1)
}

# guest SECONDS COMMAND: runs it in the guest; its status must be 0.
guest() {
	tell "$2"
	told "$1"
	[ "$STATUS" = 0 ] || { cat "$T/out"; fail "in the guest: '$2' ended with $STATUS"; }
}

# Processor time of the guest's kernel so far, in clock ticks.
guest_ticks() { awk '{ print $14 + $15 }' "/proc/$GUEST/stat"; }

# host_files: a web server on a loopback port of its own (PORT), with 20 MB of noise and their digest (SUM).
host_files() {
	mkdir -p "$T/www"
	head -c 20000000 /dev/urandom >"$T/www/noise"
	SUM=$(sha256sum <"$T/www/noise")
	SUM=${SUM%% *}
	python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$T/www" >"$T/http" 2>&1 &
	at_exit "kill $!"
	wait_until 20 grep -q 'port [0-9]' "$T/http"
	# shellcheck disable=SC2034 # for the cases
	PORT=$(sed -n 's/.*port \([0-9]*\).*/\1/p' "$T/http" | head -n 1)
}

# plug_start OPTION…: a plug of its own on $T/plug.sock
plug_start() {
	uml-netplug --slirp --socket "$T/plug.sock" "$@" >"$T/plug" 2>&1 &
	PLUG=$!
	at_exit "kill $PLUG 2>/dev/null"
	wait_until 10 grep -q '^listening' "$T/plug"
}

# The host's port of the n-th forward that the plug told
forwarded() { sed -n 's/^forward [^:]*:\([0-9]*\):.*/\1/p' "$T/plug" | sed -n "$1p"; }
