#!/bin/bash
# An archive with everything a root file system can hold comes out of the image as it went in.
. "${BASH_SOURCE%/*}/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
need debugfs e2fsck python3 zstd

"${BASH_SOURCE%/*}/image-archives.py" "$T"
images=$HOME/.local/share/uml-lab/images
# in PATH: what debugfs' stat says of it
in_image() { debugfs -R "stat \"$1\"" "$images/good.img" 2>/dev/null | tr -s ' \n' ' '; }
content() { debugfs -R "cat \"$1\"" "$images/good.img" 2>/dev/null; }
has() { [[ "$(in_image "$1")" == *"$2"* ]] || fail "$1 lacks '$2': $(in_image "$1")"; }

expect 0 uml-lab image import good "$T/good.tar" --size 256M
e2fsck -fn "$images/good.img" >"$T/fsck" 2>&1 || { cat "$T/fsck"; fail "e2fsck is not content"; }

has / "Mode: 0751"
has / "User: 7 Group: 8"
has /sticky "Mode: 01777"
has /setuid "Mode: 04755"
has /setuid "User: 70000 Group: -1294967296" # 3000000000, which debugfs takes for signed
has /times "mtime: 0x499602d2:1d6f3454"	# 123456789 ns, shifted by the two epoch bits
has /times "atime: 0x3b9aca00:77359400"
has /future "mtime: 0xf4865700:00000001"	# 2100: past 2038
has /past "mtime: 0xfffeae80:00000000"	# 1969
has /later "Links: 3"
same "$(content /early)" linked
same "$(content /late)" linked
has /fast 'Fast link dest: "/absolute/target"'
has /fast "Links: 2"
has /link-to-link "Type: symlink"
same "$(content /slow)" "$(printf 't%.0s' {1..200})"
has /console "Type: character special"
has /console "05:01"
has /disk "Type: block special"
has /fifo "Type: FIFO"
same "$(content /missing/parents/file)" deep
has /missing/parents "Mode: 0755"
same "$(content /twice)" second
same "$(content /was-dir)" "now a file"
same "$(content /was-file/inside)" in
same "$(content "/$(printf 'n%.0s' {1..255})")" "long name"
same "$(content /Főtanúsítvány.crt)" utf-8
has /xattrs 'user.colour (4) = "blue"'
has /xattrs "user.long (1500)"
has /ping "security.capability (20) = 01 00 00 02 00 20 00 00"
# Version 1; owner rwx, user 1234 r-x (rwx by default), … as the kernel has them on disk (fs/ext4/acl.h).
has /acl "system.posix_acl_access (28) = 01 00 00 00 01 00 07 00 02 00 05 00 d2 04 00 00 04 00 05 00 10 00 05 00 20 00"
has /acl "system.posix_acl_default (28) = 01 00 00 00 01 00 07 00 02 00 07 00 d2 04 00 00"
has /empty "Size: 0"
has /lost+found "Type: directory"
same "$(debugfs -R "ls -p /many" "$images/good.img" 2>/dev/null | grep -c file-with)" 5000
tar -xOf "$T/good.tar" ./large | cmp - <(content /large) || fail "the large file differs"

# The usual compressions, from a file and from standard input; what it is is told.
zstd -q "$T/plain.tar"
for suffix in tar tar.gz tar.xz tar.zst; do
	expect 0 uml-lab image import plain "$T/plain.$suffix" --replace --size 16M
	same "$(json "$images/plain.json" 'd["init"], d["system"], d["source"]')" \
		"('/sbin/init', 'Plain 1', 'plain.$suffix')"
done
expect 0 uml-lab image import plain - --replace --size 16M --quiet <"$T/plain.tar.gz"
same "$(cat "$T/out" "$T/err")" ""

# Sparse files stay sparse, in GNU tar's own forms.
truncate -s 1G "$T/hole"
{ printf start; dd if=/dev/zero bs=1M count=0 seek=100 status=none; } >"$T/sparse"
printf end | dd of="$T/sparse" bs=1 seek=200M conv=notrunc status=none
for format in gnu pax; do
	tar --format=$format -S -C "$T" -cf "$T/sparse.tar" hole sparse
	expect 0 uml-lab image import sparse "$T/sparse.tar" --replace --size 32M
	debugfs -R "cat sparse" "$images/sparse.img" 2>/dev/null | cmp - "$T/sparse" || fail "the sparse file differs ($format)"
	debugfs -R "stat hole" "$images/sparse.img" 2>/dev/null | grep -q "Size: 1073741824" || fail "the hole has another size"
	e2fsck -fn "$images/sparse.img" >"$T/fsck" 2>&1 || { cat "$T/fsck"; fail "e2fsck is not content"; }
done
