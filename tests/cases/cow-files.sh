#!/bin/bash
# files, cat and diff-files: against what was done to the disk, and without reading all of it.
. "$(dirname "$0")/lib.sh"
need debugfs mke2fs diff fusermount3
[ -w /dev/fuse ] || skip "/dev/fuse is not accessible"
[ -e /etc/mtab ] || skip "there is no /etc/mtab, which fusermount3 needs"
cd "$T" || exit 1

mkdir -p tree/etc/sub tree/home tree/moved/deep tree/gone m
seq 1 50 >tree/etc/hosts
echo same >tree/etc/same
echo conf >tree/etc/app.conf
ln -s hosts tree/etc/link
echo 1 >tree/moved/one
echo 2 >tree/moved/deep/two
echo 3 >tree/gone/three
echo to-move >tree/home/a
head -c 300000 /dev/urandom >tree/home/big
mke2fs -q -t ext4 -d tree base.img 32M >/dev/null 2>&1
uml-cow create -b base.img o.cow
expect 0 uml-cow diff-files o.cow
same "$(cat "$T/out")" "" "an empty overlay"

seq 1 49 >hosts
printf 'one\000two' >binary
printf 'echo "$1"\n' >script
at_exit "fusermount3 -u -z $T/m 2>/dev/null"
expect 0 uml-cow mount --write o.cow m
debugfs -w m/disk >/dev/null 2>&1 <<'D'
rm /etc/hosts
write hosts /etc/hosts
sif /etc/app.conf mode 0100600
sif /etc/app.conf uid 7
write script /etc/sub/script
write binary /home/binary
mkdir /new
ln /moved /new/place
unlink /moved
ln /home/a /new/b
unlink /home/a
rm /gone/three
rmdir /gone
symlink /etc/link2 /etc/hosts
ea_set /etc/same user.note hello
D
expect 0 uml-cow umount m

expect 0 uml-cow diff-files o.cow
cut -d'(' -f1 "$T/out" | sed 's/ $//' >lines
cat >wanted <<'W'
M -rw------- /etc/app.conf
M -rw-r--r-- /etc/hosts
A lrwxrwxrwx /etc/link2
M -rw-r--r-- /etc/same
A -rw-r--r-- /etc/sub/script
D drwxr-xr-x /gone
D -rw-r--r-- /gone/three
A -rw-r--r-- /home/binary
A drwxr-xr-x /new
R -rw-r--r-- /home/a -> /new/b
R drwxr-xr-x /moved -> /new/place
W
diff wanted lines || fail "diff-files"
says "/etc/app.conf (mode, owner"
says "/etc/same (attributes"
expect 0 uml-cow diff-files --json o.cow
same "$(json "$T/out" '[x["old_path"] for x in d if x["change"] == "renamed"]')" "['/home/a', '/moved']"
same "$(json "$T/out" '[x["new"]["uid"] for x in d if x["path"] == "/etc/app.conf"]')" "[7]"

# a patch that patch(1) takes
expect 0 uml-cow diff-files --patch o.cow
cp "$T/out" patch
says "Binary file /home/binary differs"
says "+++ b/etc/sub/script"
if command -v patch >/dev/null; then
	cp -r tree patched
	grep -v '^Binary' patch | patch -s -p1 -d patched || fail "patch does not take it"
	cmp patched/etc/hosts hosts && cmp patched/etc/sub/script script && [ ! -e patched/gone/three ] || fail "patched"
fi

expect 0 uml-cow files o.cow /etc
says "/etc/link -> hosts"
expect 0 uml-cow files -R --json o.cow
same "$(json "$T/out" 'sorted(x["path"] for x in d if x["path"].startswith("/new"))')" \
	"['/new', '/new/b', '/new/place', '/new/place/deep', '/new/place/deep/two', '/new/place/one']"
expect 0 uml-cow cat o.cow /home/big
cmp "$T/out" tree/home/big || fail "cat"
expect 4 uml-cow cat o.cow /nowhere
expect 1 uml-cow cat o.cow /etc
expect 1 uml-cow diff-files base.img

# the layers in between, and the base
uml-cow create -b o.cow top.cow
expect 0 uml-cow diff-files top.cow
same "$(cat "$T/out")" ""
expect 0 uml-cow diff-files --base top.cow
same "$(wc -l <"$T/out")" 11
head -c 1000000 /dev/urandom >nofs
expect 1 uml-cow files nofs
