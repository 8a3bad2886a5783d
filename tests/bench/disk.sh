#!/bin/bash
# The disk of a guest: uml-cow serve against the kernel's own ubd with its COW files, and qemu-storage-daemon with qcow2.
#
# One guest after the other, in turns, each with a fresh overlay over the same content: chains of 1, 4 and 8 files over a base image
# (ubd can have one only; layers hold random pieces of 256 KiB). What the host holds of base and layers is in its page cache.
#
# What a guest's fsync does: ubd: nothing on the host's disk; with flag s (ubd-sync) it opens its files with O_SYNC, each write is
# durable when it is answered. qemu-storage-daemon: nothing, since it tells guests that its cache is write-through, and they send no
# FLUSH (5 fdatasync() in a run with 700 fsyncs, seen with 7.2.22); with writethrough=on (qemu-sync) each write is followed by a flush.
# uml-cow serve: a FLUSH, answered when data and bitmap are on the host's disk. So fsync is compared with ubd-sync and qemu-sync.
#
# limit (disk-limit.c): a server with our rings and our waiting that answers at once, and reads and writes nothing. What of a row is
# the way to another process and back, and not the disk, can be seen from it; it keeps nothing, so it has no fsync.
#
# Rounds go forth and back through the backends, each pair from another one on: who always follows the same one, or twice itself, is
# up to a tenth faster or slower (two runs of the same build). Each ratio is the median of the rounds' ratios.
#
#   DISK_ROUNDS=5  DISK_KERNELS="7.2 6.1"  DISK_MIB=512  DISK_BACKENDS="ubd serve-1"
#   DISK_ONLY=read-4k-random,write-1m   these measurements alone (boot always; those that rewrite need write-1m before them)
#   PLACED=no                           guests are left to the scheduler, rather than kept on one processor as uml-lab does
#   DISK_OTHER=/path/to/uml-cow         another build of it, as backends other-1, other-4, other-8
#
# A file that was just written from front to end lies in the host's page cache in folios of up to 1 MiB, one written in pieces in ones
# of 128 KiB and less (ext4 of 6.16 and newer, XFS), and the kernel copies more slowly from those: 1 MiB in 140 µs rather than 90. So
# all files of all chains come into the cache in the same way: out of it first, then read in pieces of 256 KiB, in no order. That is
# looked after before each guest: a host that reclaims what lies idle (DAMON) takes the layers while other back ends have their turn.
# shellcheck shell=bash
set -u
rounds=${DISK_ROUNDS:-3}
mib=${DISK_MIB:-512}
kernels=${DISK_KERNELS:-7.2 6.1}
placed=
[ "${PLACED:-yes}" = no ] || placed=$(taskset -cp $$ | sed 's/.*[ ,-]//')
for c in qemu-storage-daemon qemu-img qemu-io python3 gcc; do
	command -v $c >/dev/null || { echo "$c is not installed: skipped" >&2; exit 77; }
done

work=$(mktemp -d "${TMPDIR:-/tmp}/disk.XXXXXX")
server=
# shellcheck disable=SC2317
finish() {
	[ -z "$server" ] || kill "$server" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
here=$PWD/tests/bench
cd "$work" || exit 2
gcc -std=gnu17 -D_GNU_SOURCE -O2 -static -o init "$here/disk-guest.c" || exit 2

# A base image, and seven layers of both formats with the same pieces.
python3 - "$mib" <<'PY' || exit 2
import os, random, struct, subprocess, sys
size = int(sys.argv[1]) << 20
piece = 256 << 10
random.seed(1)
with open('base.img', 'wb') as f:
    for _ in range(size >> 20):
        f.write(os.urandom(1 << 20))
def cow(path, backing, at):
    bits = bytearray(size // 512 // 8)
    data = (8192 + len(bits) + 4095) // 4096 * 4096
    with open(path, 'wb') as f:
        f.write(struct.pack('>IIIQIII4096s', 0x4f4f4f4d, 3, int(os.stat(backing).st_mtime), size, 512, 4096, 0,
                            os.path.abspath(backing).encode()))
        for a in at:
            bits[a // 4096:(a + piece) // 4096] = b'\xff' * (piece // 4096)
        f.seek(8192)
        f.write(bits)
        for a in at:
            f.seek(data + a)
            f.write(os.urandom(piece))
        f.truncate(data + size)
def qcow2(path, backing, fmt, at):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', backing, '-F', fmt, path], check=True)
    subprocess.run(['qemu-io', path], input=''.join('write -P 5 %d %d\n' % (a, piece) for a in at).encode(), check=True,
                   stdout=subprocess.DEVNULL)
below = 'base.img'
for i in range(1, 8):
    at = [a * piece for a in random.sample(range(size // piece), size // piece // 16)]
    cow('layer%d.cow' % i, 'layer%d.cow' % (i - 1) if i > 1 else 'base.img', at)
    qcow2('layer%d.qcow2' % i, 'layer%d.qcow2' % (i - 1) if i > 1 else 'base.img', 'qcow2' if i > 1 else 'raw', at)
PY

# warm FILE…: what is missing of them into the page cache, each in the same way. EVICT=1: out of it first
warm() {
	python3 - "$@" <<'PY'
import os, random, sys
piece = 256 << 10
for path in sys.argv[1:]:
    with open(path, 'r+b') as f:
        fd, size = f.fileno(), os.fstat(f.fileno()).st_size
        if os.environ.get('EVICT'):
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        # the disk's pieces end where the file does; before them lie header and bitmap
        at = list(range(size % piece, size, piece))
        random.shuffle(at)
        os.pread(fd, size % piece, 0)
        for a in at:
            try:
                if os.lseek(fd, a, os.SEEK_DATA) >= a + piece:
                    continue
            except OSError:  # nothing but a hole behind it
                continue
            os.pread(fd, piece, a)
PY
}

# kernel_of VERSION: the path of a UML kernel, as doctor finds them: "7.2.7 (/path/linux.uml), …"
kernel_of() {
	uml-lab doctor --json | grep -oE "[0-9.]+ \([^)]*\)" | sed -nE "s/^${1//./\\.}\.[0-9]+ \((.*)\)\$/\1/p" | head -n 1
}

module_of() {
	local v
	v=$("$1" --version)
	find "/usr/lib/uml/modules/$v" "$(dirname "$1")/modules/$v" -name 'virtio_blk.ko' 2>/dev/null | head -n 1
}

ready() { # SOCKET
	local end=$((SECONDS + 10))
	until [ -S "$1" ]; do [ $SECONDS -lt $end ] || { echo "the disk server did not start" >&2; exit 1; }; sleep 0.01; done
}

# below EXT DEPTH: what the overlay of a chain of that depth stands on
below() { [ "$2" = 1 ] && echo base.img || echo "layer$(($2 - 1)).$1"; }

# guest KERNEL INITRD LOG ARG…: boots it to its end; prints how many ms it took until the disk was there
guest() {
	local kernel=$1 initrd=$2 log=$3 begin
	shift 3
	begin=$(date +%s%N)
	# a pipe, because UML can't wait for a file to become writable
	timeout -k 5 90 ${placed:+taskset -c "$placed"} setarch -R "$kernel" mem=256M initrd="$initrd" con=null con0=null,fd:1 \
		console=tty0 ssl=null quiet noreboot initcall_blacklist=raid6_select_algo,raid6_init \
		${DISK_ONLY:+"only=$DISK_ONLY"} "$@" </dev/null 2>/dev/null | while IFS= read -r line; do
		line=${line%$'\r'}
		[ "$line" = "result boot 1" ] && line="result boot $((($(date +%s%N) - begin) / 1000000))"
		echo "$line"
	done >"$log"
	grep -q '^finished' "$log" || { echo "a guest failed:" >&2; tail -n 3 "$log" >&2; exit 1; }
}

stop_server() {
	kill "$server"
	wait "$server" 2>/dev/null
	server=
}

# one BACKEND KERNEL INITRD LOG
one() {
	local depth=${1##*-} cow sync
	warm base.img layer* || exit 2
	rm -f top.* s
	case $1 in
	ubd) guest "$2" "$3" "$4" ubd0=top.cow,base.img dev=ubda ;;
	ubd-sync) guest "$2" "$3" "$4" ubd0s=top.cow,base.img dev=ubda quick ;;
	limit)
		"$UML_LAB_BUILD/tests/disk-limit" s "$mib" &
		server=$!
		ready s
		guest "$2" "$3" "$4" "virtio_uml.device=$PWD/s:2" dev=vda nosync
		stop_server
		;;
	qemu-*)
		sync=
		[[ $1 != qemu-sync-* ]] || sync=,writethrough=on
		qemu-img create -q -f qcow2 -b "$(below qcow2 "$depth")" -F "$([ "$depth" = 1 ] && echo raw || echo qcow2)" top.qcow2
		qemu-storage-daemon --blockdev driver=file,node-name=file,filename=top.qcow2 \
			--blockdev driver=qcow2,node-name=disk,file=file,discard=unmap \
			--export type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=s,writable=on$sync &
		server=$!
		ready s
		guest "$2" "$3" "$4" "virtio_uml.device=$PWD/s:2" dev=vda ${sync:+quick}
		stop_server
		;;
	serve-* | other-*)
		cow=uml-cow
		[[ $1 != other-* ]] || cow=${DISK_OTHER:?names the other uml-cow}
		uml-cow create -b "$(below cow "$depth")" top.cow
		"$cow" serve --socket s top.cow &
		server=$!
		ready s
		guest "$2" "$3" "$4" "virtio_uml.device=$PWD/s:2" dev=vda
		stop_server
		;;
	esac
}

backends=${DISK_BACKENDS:-ubd limit ubd-sync qemu-1 qemu-sync-1 serve-1 serve-8 serve-4 qemu-4 qemu-8}
# order ROUND: of the backends
order() {
	local all n i at
	read -ra all <<<"$backends"
	n=${#all[@]}
	for ((i = 0; i < n; i++)); do
		at=$((($1 - 1) / 2 + i))
		[ $(($1 % 2)) = 1 ] || at=$(($1 / 2 - 1 + n - 1 - i))
		echo "${all[at % n]}"
	done
}

for k in $kernels; do
	kernel=$(kernel_of "$k")
	[ -n "$kernel" ] || { echo "kernel $k is not here: left out"; continue; }
	"$here/../initramfs" "initrd-$k" init=init "virtio_blk.ko=$(module_of "$kernel")" || exit 2
	EVICT=1 warm base.img layer* || exit 2
	for ((r = 1; r <= rounds; r++)); do
		for b in $(order "$r"); do
			one "$b" "$kernel" "initrd-$k" "log-$k-$b-$r"
		done
	done
	echo
	echo "kernel $k, $rounds rounds, load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) CPUs; 1 MiB and cached in MB/s, 4 KiB in operations a second, boot in ms"
	python3 - "$k" "$rounds" $backends <<'PY'
import re, statistics, sys
k, rounds, backends = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
values = {}
for b in backends:
    for r in range(1, rounds + 1):
        for line in open(f'log-{k}-{b}-{r}'):
            w = line.split()
            if w[:1] == ['result'] and len(w) == 3:
                values.setdefault(w[1], {}).setdefault(b, []).append(float(w[2]))
def median(name, b):
    return '%.0f' % statistics.median(values[name][b]) if b in values[name] else '-'
def ratio(name, ours, other):
    row = values[name]
    if ours not in row or other not in row:
        return '-'
    pairs = zip(row[ours], row[other])
    return '%.2f' % statistics.median(b / a if name == 'boot' else a / b for a, b in pairs)
heads = backends + ['ours:ubd', 'ours:qemu', 'limit:ubd', '4:1', '8:1']
# two lines for what is long
heads = [re.fullmatch('(.*?[-:])(.*)', h).groups() if len(h) > 7 else ('', h) for h in heads]
widths = [max(len(a), len(b), 6 if i < len(backends) else 4) + 1 for i, (a, b) in enumerate(heads)]
def line(name, cells):
    print(('%-18s' % name + ''.join(c.rjust(w) for c, w in zip(cells, widths))).rstrip())
line('', [a for a, b in heads])
line('median', [b for a, b in heads])
for name in values:
    sync = '-sync' if 'fsync' in name else ''
    line(name, [median(name, b) for b in backends] +
         [ratio(name, 'serve-1', 'ubd' + sync), ratio(name, 'serve-1', 'qemu' + sync + '-1'), ratio(name, 'limit', 'ubd'),
          ratio(name, 'serve-4', 'serve-1'), ratio(name, 'serve-8', 'serve-1')])
print('ours: chains of 1; above 1 is faster (fsync: to ubd-sync, qemu-sync). 4:1, 8:1: our chain of 4, 8 to ours of 1')
print('limit: a server that answers at once and reads and writes nothing: what no vhost-user server can be faster than')
PY
done
