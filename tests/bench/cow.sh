#!/bin/bash
# uml-cow against qemu-img (qcow2) and uml_moo, on the same content, both sides in one run.
#
#   tests/bench/cow.sh [SIZE_MB] [CHANGED_MB] [ROUNDS] [PART…]      PATH must have uml-cow
#
# SIZE_MB: of the disk, 100 to 8192 (default 512); CHANGED_MB: what the overlay holds (default 100); ROUNDS of which the median
# is told (default 3). PART: create flatten commit layers files memory (default: all).
#
# Prints a table of medians and the ratio (theirs / ours: above 1 we are faster). The two sides take turns. Warm: page cache
# filled by the round before. As root also cold: caches dropped before each run; then the disk's own speed is most of it, which
# the rows "read it all" tell: cat of the files that both have to read. BENCH_DIR: where to work (default: TMPDIR).
#
# Durability. flatten and qemu-img convert both leave their output to the page cache; in the rows "durable" both wait for the disk.
# commit waits for the disk four times and can be killed anywhere; qemu-img commit waits once, at its end; uml_moo does not wait,
# so here `sync` of the file follows it. What commit and reset replaced is freed by the kernel after they ended (row "rm" tells how
# long that is), and no run begins before it is; qemu-img frees, and waits for it.
set -eu
SIZE=${1:-512} CHANGED=${2:-100} ROUNDS=${3:-3}
shift $(($# < 3 ? $# : 3))
parts=("$@")
[ $# -gt 0 ] || parts=(create flatten commit layers files memory)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-cow qemu-img qemu-io uml_moo mke2fs debugfs python3 cc; do
	command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }
done
D=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/cow-bench.XXXXXX")
trap 'rm -rf "$D"' EXIT
cd "$D"
cc -O2 -static -o timed "$here/timed.c"

modes=(warm)
[ "$(id -u)" = 0 ] && [ -w /proc/sys/vm/drop_caches ] && modes+=(cold)

# Waits until the kernel has freed what the run before replaced: as long as space comes back, 4 s at most.
settle() {
	local i before after
	after=$(stat -f -c %f .)
	for ((i = 0; i < 80; i++)); do
		before=$after
		sleep 0.05
		after=$(stat -f -c %f .)
		[ "$after" -gt "$before" ] || return 0
	done
}

# timed MODE PREPARE COMMAND: runs PREPARE, then COMMAND; its microseconds in TIME, its RSS in RSS
timed() {
	settle
	eval "$2"
	sync -f . # what the preparation wrote is not for the run to write
	[ "$1" = warm ] || echo 3 >/proc/sys/vm/drop_caches
	eval "'$D/timed' $3 >'$D/.timed'" || { echo "failed: $3" >&2; exit 1; }
	read -r TIME RSS <"$D/.timed"
}

median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

# pair NAME OURS_PREPARE OURS THEIRS_PREPARE THEIRS: alternates the two, so that drift hits both
pair() {
	local name=$1 mode i ours theirs
	for mode in "${modes[@]}"; do
		ours=() theirs=()
		timed warm "$2" "$3"; timed warm "$4" "$5" # once, not counted
		for ((i = 0; i < ROUNDS; i++)); do
			timed "$mode" "$2" "$3"; ours+=("$TIME")
			timed "$mode" "$4" "$5"; theirs+=("$TIME")
		done
		awk -v n="$name" -v m="$mode" -v o="$(median "${ours[@]}")" -v t="$(median "${theirs[@]}")" 'BEGIN {
			printf "%-44s %-5s %10.1f %10.1f %8.2f\n", n, m, o / 1000, t / 1000, t / (o ? o : 1) }'
	done
}

# floor FILE…: how long the disk takes to read these alone
floor() {
	local times=() i
	[ ${#modes[@]} = 2 ] || return 0
	for ((i = 0; i < ROUNDS; i++)); do timed cold : "cat $*"; times+=("$TIME"); done
	awk -v o="$(median "${times[@]}")" 'BEGIN { printf "%-44s %-5s %10.1f %10s %8s\n", "  read it all", "cold", o / 1000, "-", "-" }'
}

# freeing FILE: how long the file system takes to free a copy of it (with `discard`: long)
freeing() {
	local times=() i
	for ((i = 0; i < ROUNDS; i++)); do timed warm "cp --sparse=always '$1' gone" 'rm gone'; times+=("$TIME"); done
	awk -v o="$(median "${times[@]}")" 'BEGIN { printf "%-44s %-5s %10.1f %10s %8s\n", "  rm of the overlay", "warm", o / 1000, "-", "-" }'
}

heading() { printf '%-44s %-5s %10s %10s %8s\n' "$1" cache ours theirs ratio; }

# change FIRST COUNT COW QCOW2: changes runs of 64 KiB, the same in `content` and QCOW2; COW is made of `content` over BELOW
change() {
	python3 - "$SIZE" "$1" "$2" <<'PY' >.commands
import sys
size, first, count = map(int, sys.argv[1:])
with open("content", "r+b") as disk:
    for i in range(first, first + count):
        at = i * 7919 % (size * 16) * 65536
        disk.seek(at)
        disk.write(bytes([i % 255 + 1]) * 65536)
        print(f"write -P {i % 255 + 1} {at} 65536")
PY
	qemu-io -f qcow2 "$4" <.commands >/dev/null
	uml-cow convert --to cow -b "$BELOW" content "$3"
}

# A base with data in 40 % of it, and the disk's content, with CHANGED MB changed, over it in both formats.
make_disks() {
	[ ! -e base ] || return 0
	truncate -s "${SIZE}M" base
	head -c "$((SIZE * 2 / 5))M" /dev/urandom | dd of=base bs=1M conv=notrunc status=none
	touch -d '2001-01-01' base
	cp --sparse=always base content
	qemu-img create -q -f qcow2 -b base -F raw upper.qcow2
	BELOW=base
	change 0 $((CHANGED * 16)) upper.cow upper.qcow2
}

part_create() {
	make_disks
	local ROUNDS=$((ROUNDS * 7)) # it takes a millisecond
	heading create
	pair "create: qemu-img create" 'rm -f n.cow' 'uml-cow create -b base n.cow' \
		'rm -f n.qcow2' 'qemu-img create -q -f qcow2 -b base -F raw n.qcow2'
	pair "reset: qemu-img create over it" : 'uml-cow create -f -b base n.cow' \
		: 'qemu-img create -q -f qcow2 -b base -F raw n.qcow2'
	pair "reset of a used one: qemu-img create over it" 'cp --sparse=always upper.cow n.cow' 'uml-cow create -f -b base n.cow' \
		'cp --sparse=always upper.qcow2 n.qcow2' 'qemu-img create -q -f qcow2 -b base -F raw n.qcow2'
	freeing upper.cow
	rm -f n.cow n.qcow2
}

part_flatten() {
	make_disks
	heading flatten
	pair "flatten: qemu-img convert" 'rm -f flat' 'uml-cow flatten upper.cow flat' \
		'rm -f qflat' 'qemu-img convert -O raw upper.qcow2 qflat'
	floor base upper.cow
	cmp flat content && cmp qflat content
	pair "flatten, durable: qemu-img convert, sync" 'rm -f flat' 'uml-cow flatten --durable upper.cow flat' \
		'rm -f qflat' "sh -c 'qemu-img convert -O raw upper.qcow2 qflat && sync qflat'"
	pair "flatten: uml_moo" 'rm -f flat' 'uml-cow flatten upper.cow flat' 'rm -f mflat' 'uml_moo -b base upper.cow mflat'
	cmp mflat content
	rm -f flat qflat mflat
}

part_commit() {
	local cow='cp --sparse=always -p base cbase; cp --sparse=always upper.cow c.cow; uml-cow rebase --header-only -b cbase c.cow'
	local qcow2='cp --sparse=always -p base cbase; cp --sparse=always upper.qcow2 c.qcow2
		qemu-img rebase -u -b cbase -F raw c.qcow2'
	make_disks
	heading commit
	pair "commit: qemu-img commit" "$cow" 'uml-cow commit c.cow' "$qcow2" 'qemu-img commit -q c.qcow2'
	cmp cbase content
	pair "commit: uml_moo -d, sync" "$cow" 'uml-cow commit c.cow' "$cow" "sh -c 'uml_moo -d c.cow && sync cbase'"
	floor upper.cow
	freeing upper.cow
	rm -f cbase c.cow c.qcow2
}

# Chains of 1 to 8 layers, each with its share of the changes.
part_layers() {
	local depth l each qbelow qformat
	make_disks
	heading layers
	for depth in 1 2 4 8; do
		cp --sparse=always base content
		BELOW=base qbelow=base qformat=raw each=$((CHANGED * 16 / depth))
		for ((l = 1; l <= depth; l++)); do
			rm -f "l$l.cow" "l$l.qcow2"
			qemu-img create -q -f qcow2 -b "$qbelow" -F $qformat "l$l.qcow2"
			change $(((l - 1) * each)) $each "l$l.cow" "l$l.qcow2"
			BELOW=l$l.cow qbelow=l$l.qcow2 qformat=qcow2
		done
		pair "flatten, $depth layers: qemu-img convert" 'rm -f flat' "uml-cow flatten $BELOW flat" \
			'rm -f qflat' "qemu-img convert -O raw $qbelow qflat"
		cmp flat content && cmp qflat content
	done
	rm -f flat qflat l*.cow l*.qcow2 base content # the content is another now
}

# files SIZE NAME: a disk of that size with 20000 files, NAME.cow with the owners of 200 of them changed
files_disk() {
	local f
	truncate -s "$1" "$2"
	mke2fs -q -t ext4 -b 4096 -d tree "$2" # small disks would have smaller blocks
	uml-cow create -f -b "$2" "$2.cow"
	for ((f = 0; f < 200; f++)); do echo "sif /d$f/f$((f % 100)) uid 7"; done >.commands
	uml-cow mount -w "$2.cow" mnt
	debugfs -w -f .commands mnt/disk >/dev/null 2>&1
	uml-cow umount mnt
	[ "$(uml-cow diff-files "$2.cow" | wc -l)" = 200 ]
}

make_tree() {
	local d f
	[ ! -d tree ] || return 0
	mkdir tree mnt
	for ((d = 0; d < 200; d++)); do
		mkdir "tree/d$d"
		for ((f = 0; f < 100; f++)); do echo "$d $f" >"tree/d$d/f$f"; done
	done
}

# There is no peer, so the time is against the goal of 100 ms.
part_files() {
	local times=() i
	make_tree
	files_disk 2G fs
	for ((i = 0; i < ROUNDS; i++)); do timed warm : 'uml-cow diff-files fs.cow'; times+=("$TIME"); done
	heading "files of a 2 GB disk"
	awk -v o="$(median "${times[@]}")" 'BEGIN {
		printf "%-44s %-5s %10.1f %10s %8s\n", "diff-files, 200 of 20000 (goal 100 ms)", "warm", o / 1000, "-", "-" }'
	rm -f fs fs.cow
}

# memory SIZE: the largest RSS of verbs on a disk of that size, whose content is that of every other size
memory() {
	local verb
	files_disk "$1" m
	for verb in "info m.cow" "map m.cow" "diff m.cow m" "diff-files m.cow" "flatten -f m.cow flat" "compact m.cow" \
		"check m.cow" "commit m.cow"; do
		timed warm : "uml-cow $verb"
		printf '%-20s %s\n' "${verb%% *}" "$RSS"
	done
	rm -f m m.cow flat
}

part_memory() {
	make_tree
	memory 100M >.small
	memory 8G >.large
	printf '%-44s %10s %10s\n' "largest RSS, KiB, of a disk of" "100 MB" "8 GB"
	join .small .large | while read -r verb small large; do printf '%-44s %10s %10s\n' "$verb" "$small" "$large"; done
}

printf '%s MB disk, %s MB changed, %s rounds, medians in ms\n' "$SIZE" "$CHANGED" "$ROUNDS"
for part in "${parts[@]}"; do "part_$part"; done
