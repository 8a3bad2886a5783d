# A disk whose storage answers no more (a base image on a FUSE mount whose process stands still) holds up nobody but who reads it: the
# machine's other disk is written on, and status answers; when the storage is back, what waited is answered.
# timeout: 90
. tests/cases/lib.sh
need python3
[ -w /dev/fuse ] || skip "no /dev/fuse"

mkdir "$T/mnt"
expect 0 uml-cow create -b "$(uml-lab image show --json tiny | python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])')" "$T/view.cow"
expect 0 uml-cow mount "$T/view.cow" "$T/mnt"
at_exit "uml-cow umount '$T/mnt'"
storage=$(pids_of "uml-cow mount $T/view.cow")
[ -n "$storage" ] || fail "who serves the mount?"
at_exit "kill -CONT $storage"

lab slow <<-END
	lab: slow
	base: $T/mnt/disk
	machines: {m: {memory: 64M, disks: [{size: 64M}]}}
END
up "$T/labs/slow"
counter() { timeout -k 5 10 uml-lab status --json slow >"$T/status.json" && json "$T/status.json" "d['machines'][0]['live']['disks']['list'][$1]['$2']"; }
more() { [ "$(counter "$1" "$2")" -gt "$3" ]; }
expect 0 uml-lab exec slow -- sh -c '(while :; do dd if=/dev/zero of=/dev/vdb bs=4k count=64 conv=fsync; done) >/dev/null 2>&1 & sleep 0.5'
wait_until 10 more 1 written_bytes 0

kill -STOP $storage
timeout -k 5 60 uml-lab exec slow -- sh -c 'echo 3 >/proc/sys/vm/drop_caches; find / -xdev -type f -exec cat {} + | md5sum' >"$T/reader" 2>&1 &
reader=$!
for _ in 1 2 3 4 5; do
	written=$(counter 1 written_bytes)
	wait_until 10 more 1 written_bytes $((written + 1000000))
done
[ ! -s "$T/reader" ] || fail "it was read without its storage: $(cat "$T/reader")"
kill -CONT $storage
wait $reader || fail "the reader: $(cat "$T/reader")"
grep -q '^[0-9a-f]\{32\} ' "$T/reader" || fail "the reader: $(cat "$T/reader")"
expect 0 uml-lab down --force slow
