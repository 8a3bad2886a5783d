#!/bin/bash
# A share against the kernel's own hostfs, in the same guest, on the same host folder: small files and streams.
#
#   tests/bench/shares.sh [KERNEL…]     default: 6.1 6.12 7.2; tests/bench/run sets what it needs
#   ROUNDS (3), FILES (10000), MEGABYTES (1024)
#
# They take turns; milliseconds are medians; ratio: share/hostfs, below 1 is faster. The guest's caches are dropped before each step,
# the host's are warm for both. hostfs does without much that a share does: owners, attributes, walls.
set -eu
ROUNDS=${ROUNDS:-3} FILES=${FILES:-10000} MEGABYTES=${MEGABYTES:-1024}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-lab gcc; do command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }; done
kernels=("$@")
[ $# -gt 0 ] || kernels=(6.1 6.12 7.2)

D=$(mktemp -d "${TMPDIR:-/tmp}/shares.XXXXXX")
end() {
	timeout -k 5 60 uml-lab down --force bench-shares >/dev/null 2>&1 || true
	rm -rf "$D"
}
trap end EXIT
median() { printf '%s\n' "$@" | sort -n | sed -n "$(( ($# + 1) / 2 ))p"; }

mkdir "$D/lab" "$D/work"
gcc -static -O2 -o "$D/work/shares-work" "$here/shares-work.c"

measure() { # NAME FOLDER
	timeout -k 5 600 uml-lab exec bench-shares -- /mnt/work/shares-work "$2" "$FILES" "$MEGABYTES" </dev/null >>"$D/$1"
}

for kernel in "${kernels[@]}"; do
	cat >"$D/lab/lab.yml" <<-END
		lab: bench-shares
		base: tiny
		machines: {m: {memory: 256M, kernel: "$kernel", shares: [work]}}
		shares: {work: {path: $D/work, mode: rw}}
	END
	uml-lab up --quiet "$D/lab" >/dev/null
	# What the sandbox leaves to hostfs: a folder beside the kernel's sockets.
	plain=$(dirname "$(find "${XDG_RUNTIME_DIR:-/tmp/uml-lab-$(id -u)}" -name share0)")/plain
	mkdir -p "$plain"
	uml-lab exec bench-shares -- sh -c "mkdir -p /mnt/plain && mount -t hostfs none /mnt/plain -o $plain && mkdir -p /mnt/work/in"
	rm -f "$D/hostfs" "$D/share"
	for ((i = 0; i < ROUNDS; i++)); do
		measure hostfs /mnt/plain
		measure share /mnt/work/in
	done
	printf '%-8s %-10s %10s %10s %7s\n' "$kernel" "" share hostfs ratio
	for step in create stat list read remove write-1M read-1M; do
		mapfile -t ours < <(sed -n "s/^$step //p" "$D/share")
		mapfile -t theirs < <(sed -n "s/^$step //p" "$D/hostfs")
		a=$(median "${ours[@]}") b=$(median "${theirs[@]}")
		printf '%-8s %-10s %10s %10s %7s\n' "" "$step" "$a" "$b" "$(awk "BEGIN {printf \"%.2f\", $a / $b}")"
	done
	uml-lab down --quiet bench-shares >/dev/null
done
