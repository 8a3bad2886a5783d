# One instructor's folder offered to thirty students: thirty uml-hostfs, as thirty sessions have them, all mounted by one real guest (thirty
# guests would be the machine's memory, not the shares'). All of it is read through each; no copy is made of it, on the host's disk or in
# its memory.
# timeout: 90
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need busybox fincore setarch
STUDENTS=30 MEBIBYTES=8 DAEMON_KIB=2048

# kernel VERSION: its path, as doctor finds it: "7.2.7 (/path/linux.uml), …"
kernel() { uml-lab doctor --json | grep -oE "[0-9.]+ \([^)]*\)" | sed -nE "s/^${1//./\\.}\.[0-9]+ \((.*)\)$/\1/p" | head -n 1; }
module() { find "/usr/lib/uml/modules/$("$1" --version)" "$(dirname "$1")/modules/" -name "$2.ko" 2>/dev/null | head -n 1; }
# Bytes on the disk, and bytes of the page cache that are the file's: each page is counted once, whoever reads it.
on_disk() { du -s --block-size=1 "$T" | cut -f1; }
cached() { fincore --bytes --noheadings --output RES "$T/handout/film" | tr -d ' '; }
# Kibibytes that a process has for itself and its part of what it shares
pss() { sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "/proc/$1/smaps_rollup"; }

linux=$(kernel "$(kernels | tail -n 1)")
mkdir "$T/handout" "$T/sockets" "$T/handout/exercise"
head -c ${MEBIBYTES}M /dev/urandom >"$T/handout/film"
for ((i = 0; i < 20; i++)); do echo "page $i" >"$T/handout/exercise/$i"; done
sync "$T/handout/film"

cat >"$T/init" <<END
#!/bin/busybox sh
b=/bin/busybox
\$b mkdir /proc /mnt
\$b mount -t proc none /proc
\$b insmod /fuse.ko
\$b insmod /virtiofs.ko
i=0
while [ \$i -lt $STUDENTS ]; do
	\$b mkdir /mnt/\$i
	\$b mount -t virtiofs s\$i /mnt/\$i || echo cannot mount \$i
	cd /mnt/\$i && echo "sum \$(\$b sha256sum film exercise/* | \$b md5sum)" && cd /
	echo 1 2>/dev/null >/mnt/\$i/mine && echo written to \$i
	echo 1 >/proc/sys/vm/drop_caches
	i=\$((i + 1))
done
echo all read
while [ ! -e /mnt/0/end ]; do \$b sleep 0.1; done
\$b poweroff -f
END
chmod +x "$T/init"
tests/initramfs "$T/initrd" init="$T/init" bin/busybox="$(command -v busybox)" fuse.ko="$(module "$linux" fuse)" \
	virtiofs.ko="$(module "$linux" virtiofs)" || fail "initramfs"

daemons=() devices=()
for ((i = 0; i < STUDENTS; i++)); do
	uml-hostfs --share "s$i=$T/handout,ro" --listen "$T/sockets" 2>"$T/daemon$i" &
	daemons+=($!)
	at_exit "kill $! 2>/dev/null"
	devices+=("virtio_uml.device=sockets/s$i:26")
done
for ((i = 0; i < STUDENTS; i++)); do wait_until 10 test -S "$T/sockets/s$i"; done

before=$(on_disk)
cached=$(cached)
(cd "$T" && exec timeout -k 5 60 setarch -R "$linux" mem=192M initrd=initrd uml_dir="$T" con=null con0=null,fd:1 console=tty0 ssl=null \
	quiet noreboot initcall_blacklist=raid6_select_algo,raid6_init "${devices[@]}" </dev/null > >(cat >"$T/log") 2>&1) &
guest=$!
at_exit "kill $guest 2>/dev/null && wait $guest"
finished() { grep -q "all read" "$T/log" || ! kill -0 $guest; }
wait_until 50 finished
grep -q "all read" "$T/log" || { tail -n 20 "$T/log"; fail "the guest has ended"; }

sum=$(cd "$T/handout" && sha256sum film exercise/* | md5sum)
same "$(grep -c "^sum $sum" "$T/log")" $STUDENTS "readers who saw all of it"
! grep -q "written to\|cannot mount" "$T/log" || fail "somebody could write, or not mount"

most=0 all=0
for d in "${daemons[@]}"; do
	n=$(pss "$d")
	[ -n "$n" ] || fail "a daemon has ended"
	all=$((all + n))
	[ "$n" -le $most ] || most=$n
done
echo "thirty daemons take $all KiB, none more than $most; the page cache holds $(cached) bytes of the film's $((MEBIBYTES << 20))"
nm -D "$(command -v uml-hostfs)" | grep -q __asan_ || [ $most -le $DAEMON_KIB ] || fail "a daemon takes $most KiB"
[ "$(cached)" -le $((MEBIBYTES << 20)) ] || fail "the page cache holds more than the film: $(cached), before: $cached"
grown=$(($(on_disk) - before))
[ $grown -lt $((MEBIBYTES << 18)) ] || fail "$grown bytes more on the disk"
: >"$T/handout/end"
wait $guest
