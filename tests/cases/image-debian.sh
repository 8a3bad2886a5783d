#!/bin/bash
# image build debian-N: what mmdebstrap is asked for, and what is made of its answer. A stand-in takes its place, since
# this runs without network; tests/images makes the real one, which tests/boot starts.
. "${BASH_SOURCE%/*}/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
need debugfs e2fsck python3 fakechroot fakeroot

images=$HOME/.local/share/uml-lab/images
mkdir "$T/bin" "$T/root"
cat >"$T/bin/mmdebstrap" <<EOF
#!/bin/bash
# Like the real one, it runs itself again under fakeroot.
[ -n "\${FAKEROOTKEY:-}" ] || exec fakechroot fakeroot "\$0" "\$@"
printf '%s\n' "\$@" >$T/arguments
cat >$T/sources
echo "\$TMPDIR" >$T/tmpdir
echo "I: installing remaining packages inside the chroot..." >&2
. $T/answer
EOF
chmod +x "$T/bin/mmdebstrap"
PATH=$T/bin:$PATH
mkdir -p "$T"/root/{etc/ssh,etc/apt/apt.conf.d,usr/lib,lib/systemd/system,sbin}
echo secret >"$T/root/etc/ssh/ssh_host_rsa_key"
echo host >"$T/root/etc/hostname"
echo 0123 >"$T/root/etc/machine-id"
echo proxy >"$T/root/etc/apt/apt.conf.d/99mmdebstrap"
: >"$T/root/sbin/init"
echo "tar -C $T/root --owner=0 --group=0 -c ." >"$T/answer"

expect 0 uml-lab image build debian-12 --mirror http://me:word@mirror.test/debian --include gawk,jq --include bind9
says "installing packages"
for wanted in bookworm --format=tar --variant=minbase; do
	grep -qx -- "$wanted" "$T/arguments" || fail "mmdebstrap was not told $wanted"
done
grep -q -- '^--include=systemd,.*,gawk,jq,bind9$' "$T/arguments" || fail "the packages: $(cat "$T/arguments")"
grep -q '^--mode=\(fakechroot\|unshare\)$' "$T/arguments" || fail "the mode: $(cat "$T/arguments")"
same "$(head -n 1 "$T/sources")" "deb http://me:word@mirror.test/debian bookworm main"
e2fsck -fn "$images/debian-12.img" >"$T/fsck" 2>&1 || { cat "$T/fsck"; fail "e2fsck is not content"; }
same "$(find "$images" -name "*.tmp*")" "" "left behind by a build that worked"
cat_image() { debugfs -R "cat $1" "$images/debian-12.img" 2>/dev/null; }
same "$(cat_image /etc/ssh/ssh_host_rsa_key)" "" "a host key in the image"
same "$(cat_image /etc/machine-id)" "" "a machine id in the image"
same "$(cat_image /etc/apt/apt.conf.d/99mmdebstrap)" "" "the host's apt options in the image"
same "$(cat_image /etc/hostname)" debian
same "$(cat_image /etc/apt/sources.list | head -n 1)" "deb http://mirror.test/debian bookworm main"
cat_image /etc/systemd/system/getty@tty0.service.d/uml-lab.conf | grep -q "autologin root" || fail "no login on the console"
same "$(json "$images/debian-12.json" 'd["suite"], "jq" in d["packages"]')" "('bookworm', True)"

# fakechroot can only make the host's own release.
if ! command -v newuidmap >/dev/null; then
	expect 1 uml-lab image build debian-13 --mirror http://mirror.test/debian
	says "apt install uidmap"
fi

# The image is full: that is told, not that mmdebstrap could not write on.
echo "for n in 1 2; do head -c 12000000 /dev/urandom >$T/root/large\$n; done; tar -C $T/root -c . || { echo E: pipe >&2; exit 25; }" >"$T/answer"
expect 1 uml-lab image build other --suite bookworm --mirror http://mirror.test/debian --size 20M
says "does not fit"
rm "$T"/root/large?

# It fails: its own words are told, and nothing is left.
echo "echo 'E: no such package: jqq' >&2; exit 7" >"$T/answer"
expect 1 uml-lab image build other --suite bookworm --mirror http://mirror.test/debian
says "mmdebstrap exited with status 7"
says "no such package: jqq"
# It fails after half an archive.
echo "tar -C $T/root -c . | head -c 2000; echo 'E: broken off' >&2; exit 1" >"$T/answer"
expect 1 uml-lab image build other --suite bookworm --mirror http://mirror.test/debian
says "broken off"
same "$(find "$images" -name '*other*' -o -name '*.tmp*')" "" "left behind"

# Interrupted, and killed: what mmdebstrap started ends, fakeroot's daemon too.
faked() { pgrep -u "$(id -u)" -x 'faked.*' | sort; }
before=$(faked)
no_more_faked() { [ "$(comm -13 <(echo "$before") <(faked))" = "" ]; }
cat >"$T/answer" <<EOF
trap 'touch $T/cleaned; exit 1' INT
sleep 300 & echo \$! >$T/sleeper
touch $T/started
wait
EOF
gone() { ! kill -0 "$(cat "$T/sleeper")" 2>/dev/null; }
for signal in TERM KILL; do
	rm -f "$T/started" "$T/cleaned"
	uml-lab image build other --suite bookworm --mirror http://mirror.test/debian >/dev/null 2>&1 &
	wait_until 10 test -e "$T/started"
	kill -$signal $!
	wait $! 2>/dev/null
	wait_until 10 test -e "$T/cleaned"
	wait_until 10 gone
	wait_until 10 no_more_faked
done
expect 0 uml-lab image list
same "$(find "$images" -name '*other*' -o -name '*.tmp*')" "" "left behind"
