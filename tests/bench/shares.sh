#!/bin/bash
# A share against the kernel's own hostfs, in the same guest, on folders of the same host file system: small files and streams.
#
#   tests/bench/shares.sh [KERNEL…]     linux.uml programs; default: those that `uml-lab doctor` finds
#   ROUNDS (3), FILES (10000), MEGABYTES (1024)
#
# The guest is a bare kernel with busybox: a machine's sandbox leaves nothing to hostfs. Shares are read ahead as stage-0 has it
# (uml-lab/guest/mount.c). They take turns, and turns in being first; milliseconds are medians; ratio: share/hostfs, below 1 is faster. The guest's caches are dropped before each step, the host's are warm for both. hostfs
# does without much that a share does: owners, attributes, walls.
set -eu
ROUNDS=${ROUNDS:-3} FILES=${FILES:-10000} MEGABYTES=${MEGABYTES:-1024}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-lab uml-hostfs busybox gcc; do command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }; done
kernels=("$@")
[ $# -gt 0 ] || mapfile -t kernels < <(uml-lab doctor --json | grep -o '/[^ ()"]*linux\.uml' | sort -u)
[ ${#kernels[@]} -gt 0 ] || { echo "no linux.uml" >&2; exit 77; }

D=$(mktemp -d "${TMPDIR:-/tmp}/shares.XXXXXX")
server=
end() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	rm -rf "$D"
}
trap end EXIT
median() { printf '%s\n' "$@" | sort -n | sed -n "$(( ($# + 1) / 2 ))p"; }

mkdir "$D/plain" "$D/shared" "$D/sockets"
gcc -static -O2 -o "$D/work" "$here/shares-work.c"
cat >"$D/init" <<END
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /hostfs /share
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox insmod /fuse.ko
/bin/busybox insmod /virtiofs.ko
# Without them the folders would be the guest's memory, and fast.
/bin/busybox mount -t hostfs none /hostfs -o $D/plain || /bin/busybox poweroff -f
# (Not "work": busybox takes the name of a file that is there for an image.)
/bin/busybox mount -t virtiofs shared /share || /bin/busybox poweroff -f
echo 1024 >/sys/class/bdi/\$(/bin/busybox mountpoint -d /share)/read_ahead_kb
i=0
while [ \$i -lt $ROUNDS ]; do
	[ \$((i % 2)) = 0 ] && order="hostfs share" || order="share hostfs"
	for at in \$order; do
		/work /\$at $FILES $MEGABYTES | /bin/busybox sed "s/^/\$at /"
	done
	i=\$((i + 1))
done
/bin/busybox poweroff -f
END
chmod +x "$D/init"

# module KERNEL NAME: the file, beside a kernel that was fetched, or Debian's
module() {
	local folder
	for folder in "$(dirname "$1")/modules" /usr/lib/uml/modules; do
		[ -d "$folder" ] && find "$folder" -name "$2.ko" -print -quit && return
	done
}

for kernel in "${kernels[@]}"; do
	release=$("$kernel" --version)
	"$here/../initramfs" "$D/initrd" init="$D/init" work="$D/work" bin/busybox="$(command -v busybox)" \
		fuse.ko="$(module "$kernel" fuse)" virtiofs.ko="$(module "$kernel" virtiofs)"
	uml-hostfs --share "shared=$D/shared,rw" --listen "$D/sockets" >/dev/null 2>"$D/server.log" &
	server=$!
	for ((i = 0; i < 100; i++)); do
		[ ! -S "$D/sockets/shared" ] || break
		sleep 0.05
	done
	(cd "$D" && timeout -k 5 900 "$kernel" mem=768M initrd=initrd uml_dir="$D" con=null con0=null,fd:1 ssl=null quiet \
		"virtio_uml.device=sockets/shared:26" </dev/null 2>&1 | cat >out) || true
	kill "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
	server=
	tr -d '\r' <"$D/out" >"$D/told"
	grep -q "^share read-1M" "$D/told" || { tail -n 20 "$D/told" >&2; echo "the guest did not get to its end" >&2; exit 1; }
	printf '%-8s %-10s %10s %10s %7s\n' "$release" "" share hostfs ratio
	for step in create stat list read remove write-1M read-1M; do
		mapfile -t ours < <(sed -n "s/^share $step //p" "$D/told")
		mapfile -t theirs < <(sed -n "s/^hostfs $step //p" "$D/told")
		a=$(median "${ours[@]}") b=$(median "${theirs[@]}")
		printf '%-8s %-10s %10s %10s %7s\n' "" "$step" "$a" "$b" "$(awk "BEGIN {printf \"%.2f\", $a / $b}")"
	done
done
