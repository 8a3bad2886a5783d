# A share on a file system without extended attributes (ramfs): owners, modes, nodes and links are kept in files beside, which the guest
# never sees; the POSIX suite passes as elsewhere. And owner: host and UID:GID in a real guest.
# timeout: 120
# shellcheck shell=bash source=tests/cases/lib.sh
[ -n "${IN_NAMESPACE:-}" ] || exec unshare --map-root-user --mount env IN_NAMESPACE=1 bash "$0" "$@"
. tests/cases/lib.sh
need gcc getfattr
mkdir "$T/work" "$T/host" "$T/some"
mount -t ramfs none "$T/work" || fail "no ramfs"
at_exit "umount -l '$T/work'"
echo x >"$T/work/probe"
! setfattr -n user.x -v x "$T/work/probe" 2>/dev/null || fail "ramfs has attributes here"
rm "$T/work/probe"
gcc -static -O1 -o "$T/work/posix_suite" tests/boot/posix_suite.c || fail "posix_suite.c does not compile"
echo theirs >"$T/host/f"
echo theirs >"$T/some/f"

lab side <<-END
	lab: side
	base: tiny
	machines: {m: {memory: 96M, kernel: "$(kernels | tail -n 1)", shares: [work, host, some]}}
	shares:
	  work: {path: $T/work, mode: rw}
	  host: {path: $T/host, mode: rw, owner: host}
	  some: {path: $T/some, mode: rw, owner: "1000:1001"}
END
up "$T/labs/side"
guest() { expect "$1" uml-lab exec --timeout 60s side -- sh -c "$2"; }

guest 0 'cd /mnt/work && echo x >f && chown 33:44 f && chmod 6751 f && mknod n c 1 3 && mkfifo p && ln -s f l && chown -h 5:6 l && mkdir d && chmod 1777 d'
LIST='cd /mnt/work && stat -c "%n %F %a %u %g %t:%T" d f l n p'
WANTED="d directory 1777 0 0 0:0
f regular file 6751 33 44 0:0
l symbolic link 777 5 6 0:0
n character special file 644 0 0 1:3
p fifo 644 0 0 0:0"
guest 0 "$LIST"
same "$(cat "$T/out")" "$WANTED"
same "$(stat -c '%F' "$T/work/n" "$T/work/p" | sort -u)" "regular empty file"
guest 0 'cd /mnt/work && ls -A; echo no >/mnt/work/n 2>/dev/null; cat .virtfs_metadata/f 2>/dev/null || echo hidden'
says hidden
says_not virtfs
[ -s "$T/work/.virtfs_metadata/f" ] || fail "no file beside it: $(ls -la "$T/work")"

# They go where their files go, and end with them.
guest 0 'cd /mnt/work && mv f d/g && stat -c "%a %u %g" d/g && ln d/g h && chown 7:8 h && stat -c "%u %g" h && tar -cpf t d && rm -r d h && tar -xpf t && stat -c "%a %u" d/g'
same "$(head -n 1 "$T/out")" "6751 33 44"
[ ! -e "$T/work/.virtfs_metadata/f" ] || fail "what was moved is still described there"
run uml-lab exec --timeout 60s side -- sh -c 'cd /mnt/work && mkdir s && cd s && ../posix_suite; cd .. && rm -r s'
grep -q " of [0-9]* failed" "$T/out" || fail "the suite did not end: $(cat "$T/out" "$T/err")"
# ramfs has neither attributes nor holes; a mode that is changed after the file has lost its name has no place to be kept.
! grep FAILED "$T/out" | grep -v "FAILED xattrs,\|FAILED holes,\|FAILED unlink,.*mode & 07777 == 0400" || fail "the POSIX suite"
guest 0 'cd /mnt/work && echo x >o && chown 1000 o && cat o && echo y >>o && ls -l o && rm o'

# Another start sees the same.
guest 0 'cd /mnt/work && mv d/g f'
expect 0 uml-lab down side
up "$T/labs/side"
guest 0 "$LIST"
cp "$T/out" "$T/again"
same "$(grep -v '^f' "$T/again")" "$(grep -v '^f' <<<"$WANTED")" "after another start"
guest 0 'rm -r /mnt/work/*'
same "$(find "$T/work" -type f)" "" "left on the host"

# Whose a file is that the guest did not give away.
guest 0 'stat -c "%u:%g" /mnt/host/f /mnt/some/f; touch /mnt/host/new; stat -c "%u:%g" /mnt/host/new; chown 9:9 /mnt/host/f; stat -c "%u:%g" /mnt/host/f'
same "$(tr '\n' ' ' <"$T/out")" "$(stat -c %u:%g "$T/host/f") 1000:1001 0:0 9:9 "
same "$(stat -c %u "$T/host/f" "$T/host/new" | sort -u)" "$(id -u)" "the host's owner"
expect 0 uml-lab down side
