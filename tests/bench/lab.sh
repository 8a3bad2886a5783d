#!/bin/bash
# uml-lab against bare guests: how long until a machine is ready, what idle machines cost, how long a reset takes.
#
#   tests/bench/lab.sh [PART…]     boot, parallel, idle, reset, class (default: all); tests/bench/run sets what it needs
#   ROUNDS: how many pairs of boots (default 5; Debian 3); STUDENTS: how many start at once (default 30)
#
# "Bare" is linux.uml with the same image, memory and a fresh overlay made by the kernel, timed until its console shows a shell's
# prompt (bare-boot.py). It is measured twice: as it is, and without the RAID-6 measurement at boot that uml-lab leaves out too
# (uml_args.c): the second ratio is what uml-lab itself costs. Ours is `uml-lab up`, from nothing to its end with all ready.
# The contenders take turns, so that drift hits all. Ratio: ours/theirs, below 1 is faster.
set -eu
ROUNDS=${ROUNDS:-5}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for c in uml-lab uml-cow python3 qemu-img; do command -v "$c" >/dev/null || { echo "$c is missing" >&2; exit 77; }; done
[ -e "${UML_LAB_IMAGES:-}/tiny.img" ] || { echo "UML_LAB_IMAGES names no folder with tiny.img: use tests/bench/run" >&2; exit 77; }
parts=("$@")
[ $# -gt 0 ] || parts=(boot parallel idle reset class)

D=$(mktemp -d "${TMPDIR:-/tmp}/lab.XXXXXX")
end() {
	forget
	rm -rf "$D"
}
trap end EXIT
mkdir "$D/bare" "$D/lab"

median() { printf '%s\n' "$@" | sort -n | sed -n "$(( ($# + 1) / 2 ))p"; }

# timed COMMAND…: its milliseconds in REPLY, with a decimal
timed() {
	local a=$EPOCHREALTIME b
	"$@" >/dev/null 2>"$D/err" || { cat "$D/err" >&2; exit 1; }
	b=$EPOCHREALTIME
	REPLY=$((${b/./} - ${a/./}))
	REPLY=$((REPLY / 1000)).$((REPLY / 100 % 10))
}

# The kernel that `kernel: VERSION` means: its path
kernel_path() { uml-lab doctor | sed -n "s|.*[ ,]$1\\.[0-9]* (\\([^)]*\\)).*|\\1|p"; }

# lab NAME BASE KERNEL MEMORY NETWORKS MACHINE…: a lab file
lab() {
	local name=$1 base=$2 kernel=$3 memory=$4 networks=$5 m
	shift 5
	mkdir -p "$D/lab/$name"
	{
		printf 'lab: %s\nbase: %s\nmachines:\n' "$name" "$base"
		for m; do printf '  %s:\n    memory: %s\n    kernel: "%s"\n%s' "$m" "$memory" "$kernel" "$networks"; done
	} >"$D/lab/$name/lab.yml"
}

# Every session is forgotten, its machines with it.
forget() {
	local s
	for s in "$HOME"/.local/state/uml-lab/sessions/*/; do
		[ ! -d "$s" ] || timeout -k 5 60 uml-lab down --force "$(basename "$s")" >/dev/null 2>&1 || true # it may be down
	done
	rm -rf "$HOME/.local/state/uml-lab"
}

# ours NAME: boots the lab, from no session at all
ours() {
	forget
	timed timeout -k 5 150 uml-lab up "$D/lab/$1"
}

# bare COUNT PROMPT KERNEL IMAGE MEMORY [ARGUMENT…]
bare() {
	local count=$1 prompt=$2 kernel=$3 image=$4 memory=$5
	shift 5
	rm -rf "${D:?}/bare" && mkdir "$D/bare"
	REPLY=$(python3 "$here/bare-boot.py" ${IDLE:+--idle "$IDLE"} "$count" "$prompt" "$kernel" "mem=$memory" \
		"ubd0=$D/bare/{n}.cow,$image" root=/dev/ubda rw "uml_dir=$D/bare" 'umid=b{n}' con=null ssl=null con0=fd:0,fd:1 \
		console=tty0 loglevel=5 "$@")
}

row() { # WHAT OURS BARE BARE-WITHOUT
	awk -v what="$1" -v o="$2" -v b="$3" -v w="$4" 'BEGIN {
		printf "%-34s %8.0f %8.0f %8.2f %10.0f %8.2f\n", what, o, b, o / b, w, o / w }'
}
NO_RAID6=initcall_blacklist=raid6_select_algo,raid6_init

# against WHAT LAB COUNT PROMPT KERNEL IMAGE MEMORY ROUNDS
against() {
	local what=$1 lab=$2 rounds=$8 o=() b=() w=() i
	set -- "$3" "$4" "$5" "$6" "$7"
	ours "$lab" # once, not counted: the page cache has the image then
	for ((i = 0; i < rounds; i++)); do
		ours "$lab"; o+=("$REPLY")
		forget
		bare "$@"; b+=("$REPLY")
		bare "$@" $NO_RAID6; w+=("$REPLY")
	done
	row "$what" "$(median "${o[@]}")" "$(median "${b[@]}")" "$(median "${w[@]}")"
}

heading() { printf '%-34s %8s %8s %8s %10s %8s\n' "$1, ms" ours bare ratio "no RAID-6" ratio; }

part_boot() {
	local v kernel
	heading "until ready, median of $ROUNDS"
	for v in 6.1 6.12 7.2; do
		kernel=$(kernel_path $v)
		[ -n "$kernel" ] || { echo "kernel $v is not here: tests/kernels"; continue; }
		lab "tiny-${v/./-}" tiny "$v" 64M "" m
		against "tiny, kernel $v" "tiny-${v/./-}" 1 "# " "$kernel" "$UML_LAB_IMAGES/tiny.img" 64M "$ROUNDS"
	done
	if [ -e "$UML_LAB_IMAGES/debian-12.img" ] && [ -n "$kernel" ]; then
		lab debian debian-12 7.2 256M "" m
		against "debian-12, kernel 7.2, median of 3" debian 1 "root@" "$kernel" "$UML_LAB_IMAGES/debian-12.img" 256M 3
	fi
}

part_parallel() {
	local kernel
	kernel=$(kernel_path 7.2)
	[ -n "$kernel" ] || { echo "kernel 7.2 is not here: tests/kernels"; return; }
	heading "four at once, median of 3"
	lab four tiny 7.2 64M "" m1 m2 m3 m4
	against "tiny, kernel 7.2, four machines" four 4 "# " "$kernel" "$UML_LAB_IMAGES/tiny.img" 64M 3
}

# descendants PID: the process and all below it
descendants() {
	local p
	echo "$1"
	for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do descendants "$p"; done
}

# switches PID…: context switches so far, of all threads
switches() {
	local p
	for p; do cat /proc/"$p"/task/*/status 2>/dev/null; done | awk '/ctxt_switches/ { n += $2 } END { print n + 0 }'
}

# kind PID: what it is for; the guest's own processes are linux.uml
kind() {
	case $(tr '\0' ' ' <"/proc/$1/cmdline") in
	*__supervise*) if [ "$1" = "$2" ]; then echo supervisor; else echo keeper; fi ;;
	*uml-netplug*) echo uml-netplug ;;
	*) echo guest ;;
	esac
}

part_idle() {
	local supervisor p k all=() groups seconds=10 kernel
	kernel=$(kernel_path 7.2)
	[ -n "$kernel" ] || { echo "kernel 7.2 is not here: tests/kernels"; return; }
	lab idle tiny 7.2 64M "    interfaces:
      - {slirp: true}
" m
	ours idle
	supervisor=$(uml-lab status --json idle | python3 -c 'import json,sys; print(json.load(sys.stdin)["machines"][0]["supervisor_pid"])')
	sleep 3 # what comes after a login
	mapfile -t all < <(descendants "$supervisor")
	declare -A pss=() before=() of=()
	for p in "${all[@]}"; do
		k=$(kind "$p" "$supervisor")
		of[$k]+=" $p"
		pss[$k]=$((${pss[$k]:-0} + $(awk '/^Pss:/ { print $2 }' "/proc/$p/smaps_rollup" 2>/dev/null || echo 0)))
	done
	groups=(supervisor keeper uml-netplug guest)
	# shellcheck disable=SC2086
	for k in "${groups[@]}"; do before[$k]=$(switches ${of[$k]:-}); done
	sleep $seconds
	printf '%-34s %8s %16s\n' "one idle machine with SLIRP" "PSS KiB" "switches a s"
	for k in "${groups[@]}"; do
		# shellcheck disable=SC2086
		awk -v k="$k" -v p="${pss[$k]:-0}" -v n=$(($(switches ${of[$k]:-}) - before[$k])) -v s=$seconds \
			'BEGIN { printf "%-34s %8d %16.1f\n", k, p, n / s }'
	done
	printf '%-34s %8d\n' "ours together (goal 4096)" $((${pss[supervisor]:-0} + ${pss[keeper]:-0} + ${pss[uml-netplug]:-0}))
	forget
	IDLE=$seconds bare 1 "# " "$kernel" "$UML_LAB_IMAGES/tiny.img" 64M
	printf '%-34s %8s %16s\n' "a bare guest, for comparison" - "${REPLY##*$'\n'}"
}

# spawned COMMAND…: its microseconds in REPLY, without a shell's fork
spawned() {
	"$D/timed" "$@" >"$D/spawned" 2>"$D/err" || { cat "$D/err" >&2; exit 1; }
	read -r REPLY _ <"$D/spawned"
}

# compare WHAT OURS-PREPARE OURS THEIRS-PREPARE THEIRS: 21 pairs
compare() {
	local o=() t=() i
	for ((i = 0; i < 21; i++)); do
		eval "$2"; eval "spawned $3"; o+=("$REPLY")
		eval "$4"; eval "spawned $5"; t+=("$REPLY")
	done
	awk -v w="$1" -v o="$(median "${o[@]}")" -v t="$(median "${t[@]}")" 'BEGIN {
		printf "%-34s %8.1f %8.1f %8.2f\n", w, o / 1000, t / 1000, o / t }'
}

part_reset() {
	local base="$UML_LAB_IMAGES/debian-12.img"
	lab stopped debian-12 7.2 256M "" m
	ours stopped
	timeout -k 5 60 uml-lab down --force stopped >/dev/null 2>&1
	cc -O2 -static -o "$D/timed" "$here/timed.c"
	printf '%-34s %8s %8s %8s\n' "a fresh overlay, ms, median of 21" ours qemu-img ratio
	compare "uml-lab reset: qemu-img create" : "uml-lab reset --yes stopped" "rm -f '$D/o.qcow2'" \
		"qemu-img create -q -f qcow2 -b '$base' -F raw '$D/o.qcow2'"
	compare "uml-cow create: qemu-img create" "rm -f '$D/o.cow'" "uml-cow create -b '$base' '$D/o.cow'" \
		"rm -f '$D/o.qcow2'" "qemu-img create -q -f qcow2 -b '$base' -F raw '$D/o.qcow2'"
}

# Nine in the morning: as many sessions as STUDENTS, all started at once; what they take, and how long until all are stopped.
part_class() {
	local students=${STUDENTS:-30} started=() i pid kib=0 up all
	lab class tiny auto 64M '    interfaces:
      - {slirp: true, forward: ["auto:80"]}
' m
	forget
	local a=$EPOCHREALTIME b
	for ((i = 1; i <= students; i++)); do
		timeout -k 5 300 uml-lab up --quiet --timeout 280s --name "s$i" "$D/lab/class" 2>>"$D/err" &
		started+=($!)
	done
	for pid in "${started[@]}"; do wait "$pid" || { cat "$D/err" >&2; exit 1; }; done
	b=$EPOCHREALTIME
	up=$((${b/./} - ${a/./}))
	mapfile -t all < <(uml-lab status --json |
		python3 -c 'import json,sys; [print(m["supervisor_pid"]) for s in json.load(sys.stdin) for m in s["machines"]]' |
		while read -r pid; do descendants "$pid"; done)
	for pid in "${all[@]}"; do
		kib=$((kib + $(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)))
	done
	local disk
	disk=$(du -sk "$HOME/.local/state/uml-lab/sessions" | cut -f1)
	timed uml-lab down --all
	local left=0
	for pid in "${all[@]}"; do [ ! -e "/proc/$pid/exe" ] || left=$((left + 1)); done
	printf '%-34s %8s %12s %12s %8s %10s\n' "sessions started at once" "up s" "PSS KiB each" "disk KiB each" "down s" "left over"
	awk -v n="$students" -v u=$up -v p=$kib -v k="$disk" -v d="$REPLY" -v l=$left 'BEGIN {
		printf "%-34d %8.1f %12d %13d %8.1f %10d\n", n, u / 1e6, p / n, k / n, d / 1e3, l }'
}

for part in "${parts[@]}"; do "part_$part"; done
