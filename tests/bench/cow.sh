#!/bin/bash
# uml-cow against qemu-img (qcow2) and uml_moo, on the same content, both sides in one run.
#
#   tests/bench/cow.sh [SIZE_MB] [CHANGED_MB] [ROUNDS]      PATH must have uml-cow
#
# Prints a table of medians and the ratio (theirs / ours: above 1 we are faster). Warm: page cache filled by the
# round before. As root also cold: caches dropped before each run. BENCH_DIR: where to work (default: TMPDIR).
set -eu
SIZE=${1:-1024} CHANGED=${2:-200} ROUNDS=${3:-5}
for c in uml-cow qemu-img mke2fs debugfs; do command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }; done
D=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/cow-bench.XXXXXX")
trap 'rm -rf "$D"' EXIT
cd "$D"

cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
modes=(warm)
[ "$(id -u)" = 0 ] && [ -w /proc/sys/vm/drop_caches ] && modes+=(cold)

# timed MODE PREPARE COMMAND: runs PREPARE, then COMMAND, appends COMMAND's milliseconds to $REPLY
timed() {
	eval "$2"
	sync	# what the preparation wrote is not for the run to write
	[ "$1" = cold ] && cold
	local a=$EPOCHREALTIME
	eval "$3" >/dev/null
	local b=$EPOCHREALTIME
	REPLY=$(( (${b/./} - ${a/./}) ))
}

median() { printf '%s\n' "$@" | sort -n | sed -n "$(( ($# + 1) / 2 ))p"; }

# pair NAME OURS_PREPARE OURS THEIRS_PREPARE THEIRS: alternates the two, so that drift hits both
pair() {
	local name=$1 mode i
	for mode in "${modes[@]}"; do
		local ours=() theirs=()
		timed warm "$2" "$3"; timed warm "$4" "$5"	# once, not counted
		for ((i = 0; i < ROUNDS; i++)); do
			timed "$mode" "$2" "$3"; ours+=("$REPLY")
			timed "$mode" "$4" "$5"; theirs+=("$REPLY")
		done
		local o t
		o=$(median "${ours[@]}") t=$(median "${theirs[@]}")
		awk -v n="$name" -v m="$mode" -v o="$o" -v t="$t" 'BEGIN {
			printf "%-44s %-5s %10.1f %10.1f %8.2f\n", n, m, o / 1000, t / 1000, t / (o ? o : 1) }'
	done
}

# A base with data in 40 % of it; the disk's content with CHANGED MB in runs of 64 KiB changed. The same changes in both formats.
truncate -s "${SIZE}M" base
head -c "$((SIZE * 2 / 5))M" /dev/urandom | dd of=base bs=1M conv=notrunc status=none
cp --sparse=always base content
runs=$((CHANGED * 16))
head -c "${CHANGED}M" /dev/urandom >changes
for ((i = 0; i < runs; i++)); do
	echo "$i $(( (i * 7919) % (SIZE * 16) ))"
done | while read -r i at; do
	dd if=changes of=content bs=64K skip="$i" seek="$at" count=1 conv=notrunc status=none
done
rm changes
touch -d '2001-01-01' base
uml-cow convert --to cow -b base content upper.cow
qemu-img convert -O qcow2 -B base -F raw content upper.qcow2

printf '%s MB disk, %s MB changed, %s rounds, medians in ms\n' "$SIZE" "$CHANGED" "$ROUNDS"
printf '%-44s %-5s %10s %10s %8s\n' what cache ours theirs ratio

pair "create: qemu-img create" 'rm -f n.cow' 'uml-cow create -b base n.cow' \
	'rm -f n.qcow2' 'qemu-img create -q -f qcow2 -b base -F raw n.qcow2'
pair "flatten: qemu-img convert" 'rm -f flat' 'uml-cow flatten upper.cow flat' \
	'rm -f qflat' 'qemu-img convert -O raw upper.qcow2 qflat'
cmp flat content && cmp qflat content
pair "flatten, durable: qemu-img convert, sync" 'rm -f flat' 'uml-cow flatten --durable upper.cow flat' \
	'rm -f qflat' 'qemu-img convert -O raw upper.qcow2 qflat; sync qflat'
if command -v uml_moo >/dev/null; then
	pair "flatten: uml_moo" 'rm -f flat' 'uml-cow flatten upper.cow flat' \
		'rm -f mflat' 'uml_moo -b base upper.cow mflat'
	cmp mflat content
fi
rm -f flat qflat mflat

reset_ours() { cp --sparse=always -p base cbase; cp --sparse=always upper.cow c.cow; uml-cow rebase --header-only -b cbase c.cow; }
reset_theirs() { cp --sparse=always -p base cbase; cp --sparse=always upper.qcow2 c.qcow2; qemu-img rebase -u -b cbase -F raw c.qcow2; }
reset_moo() { cp --sparse=always -p base cbase; cp --sparse=always upper.cow c.cow; uml-cow rebase --header-only -b cbase c.cow; }
pair "commit: qemu-img commit" 'reset_ours' 'uml-cow commit c.cow' 'reset_theirs' 'qemu-img commit -q c.qcow2'
cmp cbase content
if command -v uml_moo >/dev/null; then
	pair "commit: uml_moo -d" 'reset_ours' 'uml-cow commit c.cow' 'reset_moo' 'uml_moo -d c.cow'
fi
rm -f cbase c.cow c.qcow2 content

# Chains of 1 to 8 layers, an eighth of the changes in each.
for depth in 1 2 4 8; do
	below=base qbelow=base qformat=raw
	for ((l = 1; l <= depth; l++)); do
		uml-cow create -f -b "$below" "l$l.cow"
		below=l$l.cow
		rm -f "l$l.qcow2"
		qemu-img create -q -f qcow2 -b "$qbelow" -F $qformat "l$l.qcow2"
		qbelow=l$l.qcow2 qformat=qcow2
	done
	pair "flatten, $depth layers: qemu-img convert" 'rm -f flat' "uml-cow flatten $below flat" \
		'rm -f qflat' "qemu-img convert -O raw $qbelow qflat"
done
rm -f flat qflat l*.cow l*.qcow2

# Files: 2 GB file system of 20000 files, 200 of them changed; there is no peer, so the time is against the goal of 100 ms.
mkdir tree
for ((d = 0; d < 200; d++)); do
	mkdir "tree/d$d"
	for ((f = 0; f < 100; f++)); do echo "$d $f" >"tree/d$d/f$f"; done
done
truncate -s 2G fsbase
mke2fs -q -t ext4 -d tree fsbase
uml-cow create -b fsbase fs.cow
mkdir mnt
uml-cow mount -w fs.cow mnt
for ((f = 0; f < 200; f++)); do
	echo "sif /d$f/f$((f % 100)) uid 7"
done >commands
debugfs -w -f commands mnt/disk >/dev/null 2>&1
uml-cow umount mnt
[ "$(uml-cow diff-files fs.cow | wc -l)" = 200 ]
times=()
for ((i = 0; i < ROUNDS; i++)); do timed warm : 'uml-cow diff-files fs.cow'; times+=("$REPLY"); done
awk -v o="$(median "${times[@]}")" 'BEGIN { printf "%-44s %-5s %10.1f %10s %8s\n", "diff-files, 200 of 20000 files (goal 100 ms)", "warm", o / 1000, "-", "-" }'
