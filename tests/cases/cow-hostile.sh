#!/bin/bash
# A submitted disk names a file of the person who looks at it as its backing file: it is not opened.
. "$(dirname "$0")/lib.sh"
need strace
cd "$T" || exit 1

mkdir home inbox
head -c 65536 /dev/urandom >home/secret
chmod 600 home/secret
# forge PATH BACKING: a V3 header with the size and time of home/secret, so that nothing else gives it away
forge() {
	python3 - "$1" "$2" <<'P'
import os, struct, sys
st = os.stat("home/secret")
h = struct.pack(">IIIQIII4096s", 0x4F4F4F4D, 3, int(st.st_mtime), st.st_size, 512, 4096, 0, sys.argv[2].encode())
with open(sys.argv[1], "wb") as f:
    f.write(h)
    f.truncate(12288 + st.st_size)
P
}
ln -s ../home/secret inbox/link
head -c 65536 /dev/urandom >inbox/mine
for backing in "$T/home/secret" ../home/secret "inbox/../home/secret" link "$T/inbox/link" /etc/shadow /proc/self/limits /dev/zero; do
	forge inbox/evil.cow "$backing"
	for verb in "info inbox/evil.cow" "map inbox/evil.cow" "check inbox/evil.cow" "check --repair inbox/evil.cow" \
		"flatten inbox/evil.cow made" "commit inbox/evil.cow" "files inbox/evil.cow" "diff-files inbox/evil.cow" \
		"convert inbox/evil.cow made.qcow2" "compact inbox/evil.cow" "rebase -b inbox/mine inbox/evil.cow"; do
		# shellcheck disable=SC2086
		expect 1 strace -f -o trace -e trace=open,openat,openat2 uml-cow $verb
		! grep -E 'home/secret|/etc/shadow|/proc/self/limits|/dev/zero|"[^"]*link"' trace | grep -v ENOENT ||
			fail "$verb opened $backing"
	done
	[ ! -e made ] && [ ! -e made.qcow2 ] || fail "it made something of $backing"
done
forge inbox/evil.cow "$T/home/secret"
expect 1 uml-cow flatten inbox/evil.cow made
says "outside of the folders allowed"
says "--allow"
expect 0 uml-cow flatten --allow "$T/home" inbox/evil.cow made
cmp made home/secret || fail "not its content"
