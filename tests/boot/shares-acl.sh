# Access control lists on a share, by setfacl and getfacl in real guests: enforced, inherited, changed by chmod, kept beside the files on
# the host; and files without names.
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need gcc setfacl getfacl getfattr

mkdir -p "$T/tools" "$T/work"
for program in setfacl getfacl; do cp "$(command -v $program)" "$T/tools"; done
ldd "$T/tools/setfacl" | grep -o '/[^ ]*' | xargs -I{} cp {} "$T/tools"
gcc -static -O1 -o "$T/tools/tmpfile" tests/boot/tmpfile.c || fail "tmpfile.c does not compile"

guest() { expect "$1" uml-lab exec --timeout 60s a -- sh -c "cd /mnt/work; . /mnt/tools/rc; $2"; }
cat >"$T/tools/rc" <<-'END'
	run() { LD_LIBRARY_PATH=/mnt/tools /mnt/tools/ld-linux-x86-64.so.2 "/mnt/tools/$@"; }
	setfacl() { run setfacl "$@"; }
	getfacl() { run getfacl -cEn "$@" | grep . | tr '\n' ' ' | sed 's/ $//'; echo; }
	grep -q ^ann: /etc/passwd || printf 'ann:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n' >>/etc/passwd
	as() { who=$1; shift; su "$who" -s /bin/sh -c "$*"; }
	umask 022
END

# They say who may do what, besides owner and group.
try_access() {
	guest 0 'echo x >f; chmod 640 f; as ann "cat f" && exit 1; setfacl -m u:1000:rw f; getfacl f; stat -c %a f'
	same "$(cat "$T/out")" "user::rw- user:1000:rw- group::r-- mask::rw- other::---
660"
	guest 0 'as ann "echo y >>f; cat f"; as bob "cat f" && exit 1; true'
	# chmod changes the mask, and the mask holds for named users.
	guest 0 'chmod 600 f; getfacl f; as ann "cat f" && exit 1; chmod 640 f; as ann "cat f" || exit 1; as ann "echo z >>f" && exit 1; true'
	says "user:1000:rw- group::r-- mask::--- other::---"
	guest 0 'setfacl -x u:1000 f; setfacl -m g:1001:r f; as bob "cat f" || exit 1; as ann "cat f" && exit 1; setfacl -b f; getfacl f'
	says "user::rw- group::r-- other::---"
	# Only its owner sets it.
	guest 1 'as bob "LD_LIBRARY_PATH=/mnt/tools /mnt/tools/ld-linux-x86-64.so.2 /mnt/tools/setfacl -m u:1001:rw f"'
	says "Operation not permitted"
}

try_default() {
	guest 0 'mkdir d; setfacl -d -m u:1000:rwx,g::rx,o::- d; getfacl d; (umask 077; mkdir d/sub; echo x >d/f); getfacl d/sub d/f; stat -c %a d/sub d/f'
	same "$(cat "$T/out")" "user::rwx group::r-x other::r-x default:user::rwx default:user:1000:rwx default:group::r-x default:mask::rwx default:other::---
user::rwx user:1000:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:1000:rwx default:group::r-x default:mask::rwx default:other::--- user::rw- user:1000:rwx group::r-x mask::rw- other::---
770
660"
	guest 0 'as ann "echo y >d/sub/own; cat d/f" && setfacl -k d; mkdir d/plain; getfacl d/plain'
	says "user::rwx group::r-x other::r-x"
	guest 1 'setfacl -d -m u:1000:r d/f'
	# A copy, a rename and a hard link have them; the umask counts where there is no list.
	guest 0 'mv d/f d/g; ln d/g h; getfacl h; (umask 027; touch m; mkdir n); stat -c %a m n'
	same "$(cat "$T/out")" "user::rw- user:1000:rwx group::r-x mask::rw- other::---
640
750"
}

# On the host: attributes, and nobody but the owner gets more than he had.
try_host() {
	guest 0 'echo x >k; chmod 600 k; setfacl -m u:1000:r k; getfacl k'
	same "$(stat -c %a "$T/work/k")" 600
	getfattr -n user.virtfs.system.posix_acl_access "$T/work/k" >/dev/null 2>&1 || fail "not as QEMU keeps it"
	chmod 644 "$T/work/k"
	sleep 1
	guest 0 'stat -c %a k; getfacl k'
	same "$(cat "$T/out")" "644
user::rw- user:1000:r-- group::--- mask::r-- other::r--"
	# One that is damaged counts as none.
	setfattr -n user.virtfs.system.posix_acl_access -v 0x0200000001000700ffffffff "$T/work/k"
	sleep 1
	guest 0 'getfacl k; cat k'
	says "user::rw- group::r-- other::r--"
	guest 0 'rm -rf /mnt/work/*'
}

# A file without a name is written, read, and gets one (Linux 6.2 and later).
try_tmpfile() {
	guest 0 '/mnt/tools/tmpfile /mnt/work named && cat named && stat -c "%a %u %h" named; rm named'
	same "$(cat "$T/out")" "text of a file without a name
640 7 1"
	[ -z "$(ls -A "$T/work")" ] || fail "left: $(ls -A "$T/work")"
}

for kernel in $(kernels); do
	rm -rf "$HOME/.local/state"
	lab a <<-END
		lab: a
		base: tiny
		machines: {m: {memory: 64M, kernel: "$kernel", shares: [work, tools]}}
		shares: {work: {path: $T/work, mode: rw}, tools: {path: $T/tools}}
	END
	up "$T/labs/a"
	try_access
	try_default
	try_host
	[ "$kernel" = 6.1 ] || try_tmpfile
	expect 0 uml-lab down a
done
