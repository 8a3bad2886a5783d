# Real work on a share, in a guest that has the host's /usr as a read-only share: git clone and the build of a real project (this one),
# stress-ng's file stressors; and in Debian, apt with its cache on a share.
# timeout: 300
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need git gcc make stress-ng dpkg-deb python3

kernel=$(kernels | tail -1)
mkdir -p "$T/work" "$T/src" "$T/repo" "$T/cache"

# ---- this project; its basic library is built ----
cp -r Makefile README LICENSE cow hostfs netplug uml-lab "$T/src" 2>/dev/null
mkdir "$T/src/tests" && cp tests/module.mk "$T/src/tests"
(cd "$T/src" && git init -q && git add . && git -c user.name=t -c user.email=t@t commit -qm source) || fail "no repository"

# ---- packages, and where apt finds them ----
for n in one two; do
	mkdir -p "$T/p/$n/DEBIAN" "$T/p/$n/opt/$n"
	head -c 300000 /dev/urandom >"$T/p/$n/opt/$n/data"
	depends=
	[ $n = two ] || depends="Depends: ult-two"
	printf 'Package: ult-%s\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\n%s\nDescription: a test\n' $n "$depends" |
		grep . >"$T/p/$n/DEBIAN/control"
	printf '#!/bin/sh\nchown daemon:daemon /opt/%s/data && chmod 4755 /opt/%s/data\n' $n $n >"$T/p/$n/DEBIAN/postinst"
	chmod 755 "$T/p/$n/DEBIAN/postinst"
	dpkg-deb --root-owner-group -b "$T/p/$n" "$T/repo/ult-${n}_1_all.deb" >/dev/null || fail "no package"
done
(cd "$T/repo" && for f in *.deb; do
	dpkg-deb -f "$f"
	printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$f" "$(stat -c %s "$f")" "$(sha256sum "$f" | cut -d' ' -f1)"
done >Packages)

lab w <<-END
	lab: w
	machines:
	  m: {base: tiny, memory: 512M, kernel: "$kernel", shares: [usr, work, src]}
	  d: {base: debian-12, memory: 192M, kernel: "$kernel", shares: [cache, repo]}
	shares:
	  usr: {path: /usr, mount: /h/usr}
	  work: {path: $T/work, mode: rw, mount: /h/work}
	  src: {path: $T/src, mount: /h/src}
	  cache: {path: $T/cache, mode: rw}
	  repo: {path: $T/repo}
END
up --timeout 100s "$T/labs/w"

host_programs='
	cd /h && for l in bin sbin lib lib64; do ln -s usr/$l $l; done
	mkdir proc dev tmp etc && mount -t proc none proc && mount -o bind /dev dev && mount -t tmpfs none tmp
	echo root:x:0:0::/:/bin/sh >etc/passwd'
expect 0 uml-lab exec w/m -- sh -c "$host_programs"
inside() { uml-lab exec --timeout 200s w/m -- chroot /h env -i PATH=/usr/bin:/usr/sbin HOME=/tmp LC_ALL=C.UTF-8 sh -ec "cd /work; $1"; }

# ---- git and make ----
run inside 'git -c safe.directory=* clone -q /src clone && cd clone && git status --porcelain && make -s build/release/libbase.a && make -q build/release/libbase.a
	nm build/release/libbase.a | grep " T str_to_size"'
[ "$STATUS" = 0 ] || { cat "$T/out" "$T/err"; fail "clone and build"; }
expect 0 uml-lab exec w/m -- sha256sum /h/work/clone/build/release/libbase.a
same "$(cut -c-64 "$T/out")" "$(sha256sum <"$T/work/clone/build/release/libbase.a" | cut -c-64)" "what was built"
git -C "$T/work/clone" -c safe.directory='*' diff --quiet || fail "the host sees other files"
git -C "$T/work/clone" -c safe.directory='*' fsck --full >"$T/fsck" 2>&1 || fail "the repository is damaged: $(cat "$T/fsck")"

# ---- stress-ng ----
for stressor in hdd lockf filename dentry flock rename link fallocate xattr chmod mmap seek; do
	args="--$stressor 1 --$stressor-ops 50"
	run inside "mkdir s && stress-ng $args --hdd-bytes 4m --mmap-bytes 2m --mmap-file --fallocate-bytes 4m --temp-path s --timeout 2s --verify -q 2>&1; rmdir s"
	[ "$STATUS" = 0 ] || { cat "$T/out"; fail "stress-ng $args"; }
done

# ---- apt ----
run uml-lab exec --timeout 100s w/d -- sh -ec '
	echo "deb [trusted=yes] copy:/mnt/repo ./" >/etc/apt/sources.list; rm -f /etc/apt/sources.list.d/*
	mkdir -p /mnt/cache/apt/archives/partial /mnt/cache/lists/partial && chown -R _apt /mnt/cache/apt/archives/partial /mnt/cache/lists/partial
	opts="-o Dir::Cache=/mnt/cache/apt -o Dir::State::lists=/mnt/cache/lists"
	apt-get $opts -qq update
	apt-get $opts -qq -y install ult-one
	dpkg -s ult-two | grep Status
	stat -c "%a %U" /opt/one/data
	ls /mnt/cache/apt/archives'
[ "$STATUS" = 0 ] || { cat "$T/out" "$T/err"; fail "apt"; }
says "Status: install ok installed"
says "4755 daemon"
says "ult-one_1_all.deb"
cmp "$T/cache/apt/archives/ult-two_1_all.deb" "$T/repo/ult-two_1_all.deb" || fail "what apt keeps is not what it fetched"
expect 0 uml-lab down w
