# Shares in real guests: a POSIX suite (posix_suite.c), random I/O against a model (fsx.c), owners and kinds of files, read-only, hidden names, quota,
# the host's changes within a second, uml-hostfs killed and started again, a source that goes and comes back.
# timeout: 240
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need gcc getfattr

for program in posix_suite fsx; do
	gcc -static -O1 -o "$T/$program" tests/boot/$program.c || fail "$program.c does not compile"
done

in_guest() { uml-lab exec sh -- sh -c "$1"; }
# guest STATUS 'COMMANDS'
guest() { expect "$1" uml-lab exec --timeout 60s sh -- sh -c "$2"; }
hostfs_pid() { uml-lab status sh --json | sed 's/.*"hostfs_pid":\([0-9]*\).*/\1/'; }

lab_with() { # KERNEL
	lab sh <<-END
		lab: sh
		base: tiny
		machines: {m: {memory: 96M, kernel: "$1", shares: [work, book, small]}}
		shares:
		  work: {path: $T/work, mode: rw}
		  book: {path: $T/book, hide: ["*.key", .ssh], mount: /opt/book}
		  small: {path: $T/small, mode: rw, quota: 4M, max_file_size: 2M, owner: "1000:1000"}
	END
}

make_sources() {
	mkdir -p "$T/work" "$T/book/.ssh" "$T/small"
	echo text >"$T/book/page"
	echo secret >"$T/book/exam.key"
	echo host >"$T/small/host"
	cp "$T/posix_suite" "$T/fsx" "$T/work"
}

try_posix() {
	guest 0 'cd /mnt/work && mkdir t && cd t && ../posix_suite; s=$?; cd .. && rmdir t; exit $s'
	grep -q "^0 of 6" "$T/out" || fail "the suite: $(cat "$T/out")"
	guest 0 "cd /mnt/work && ./fsx f 800 $RANDOM"
}

# What the guest gave is kept in attributes; the host's files stay the user's own.
try_owners() {
	guest 0 'cd /mnt/work && echo x >f && chown 33:44 f && chmod 6751 f && mknod n c 1 3 && mkfifo p && ln -s f l && chown -h 5:6 l'
	guest 0 'cd /mnt/work && stat -c "%n %F %a %u %g" f n p l'
	same "$(cat "$T/out")" "f regular file 6751 33 44
n character special file 644 0 0
p fifo 644 0 0
l symbolic link 777 5 6"
	same "$(stat -c '%F %a %U' "$T/work/f" "$T/work/n" "$T/work/p" | tr '\n' ,)" \
		"regular file 751 $(id -un),regular empty file 600 $(id -un),regular empty file 600 $(id -un),"
	getfattr -e hex -n user.virtfs.uid "$T/work/f" | grep -q 0x21000000 || fail "not as QEMU keeps it"
	guest 0 'cd /mnt/small && stat -c "%u:%g" host && touch root && stat -c "%u:%g" root'
	same "$(cat "$T/out")" "1000:1000
0:0"
	guest 0 'rm -rf /mnt/work/* /mnt/small/root'
	[ -z "$(ls -A "$T/work")" ] || fail "left on the host: $(ls -A "$T/work")"
}

try_walls() {
	guest 0 'cat /opt/book/page; ls -A /opt/book'
	same "$(cat "$T/out")" "text
page"
	guest 1 'cat /opt/book/exam.key'
	guest 1 'mount -o remount,rw /opt/book; echo no >/opt/book/page'
	guest 1 'mount -o remount,rw /opt/book; touch /opt/book/new'
	guest 1 'rm /opt/book/page'
	same "$(cat "$T/book/page")" text
	# A link is text, which the guest follows in itself; nothing leads out of the folder.
	ln -s /etc/hostname "$T/work/l"
	ln -s ../book/exam.key "$T/work/up"
	guest 0 'cat /mnt/work/l /etc/hostname; ls /mnt/work/../'
	same "$(head -1 "$T/out")" m
	guest 1 'cat /mnt/work/up'
	rm "$T/work/l" "$T/work/up"
}

try_quota() {
	guest 1 'dd if=/dev/zero of=/mnt/small/big bs=64k count=40 2>&1; s=$?; ls -l /mnt/small/big; exit $s'
	says "File too large"
	guest 1 'cd /mnt/small; rm big; for i in 1 2 3 4 5 6; do dd if=/dev/zero of=f$i bs=64k count=16 2>&1 || exit 1; done'
	says "Disk quota exceeded"
	local used
	used=$(du -sk "$T/small" | cut -f1)
	[ "$used" -le 4200 ] || fail "$used KiB behind a quota of 4096"
	guest 0 'cd /mnt/small; df -k . | tail -1; rm f1; echo there is room >room; rm f*'
}

# Each side sees what the other does, within a second.
try_changes() {
	guest 0 'cd /mnt/work && echo one >f && cat f && ls'
	echo another >"$T/work/f"
	echo new >"$T/work/g"
	sleep 1
	guest 0 'cd /mnt/work && cat f g'
	same "$(cat "$T/out")" "another
new"
	rm "$T/work/f" "$T/work/g"
}

# Killed: names and files work again, what was open says so, nobody hangs.
try_kill() {
	local pid
	pid=$(hostfs_pid)
	guest 0 'cd /mnt/work && (echo before; sleep 1.5; echo after) >open 2>err & sleep 0.3'
	kill -9 "$pid"
	wait_until 20 sh -c '[ "$(uml-lab status sh --json | grep -c "\"hostfs_pid\":'"$pid"',")" = 0 ]'
	wait_until 20 uml-lab exec --timeout 5s sh -- sh -c 'echo x >/mnt/work/later && cat /mnt/work/later'
	guest 0 'rm -f /mnt/work/*; ls /mnt/work /opt/book'
	same "$(cat "$T/book/page")" text
	# In the middle of work, thrice.
	for _ in 1 2 3; do
		pid=$(hostfs_pid)
		uml-lab exec --timeout 30s sh -- sh -c 'cd /mnt/work; for i in $(seq 300); do echo $i >k$i; done 2>/dev/null; true' &
		local worker=$!
		wait_until 10 sh -c "ls $T/work | grep -q k20"
		kill -9 "$pid"
		wait $worker || fail "the guest's loop ended with $?"
		guest 0 'rm -f /mnt/work/k*; cd /mnt/work && echo works >w && cat w && rm w'
	done
}

try_source() {
	mv "$T/work" "$T/away"
	rm -rf "$T/gone"
	rmdir "$T/away" 2>/dev/null || rm -rf "$T/away"
	sleep 1
	guest 1 'ls /mnt/work'
	says "Stale"
	guest 0 'cat /opt/book/page'
	expect 0 uml-lab status sh
	says "sh/m: share work: its folder $T/work is gone"
	mkdir "$T/work"
	echo back >"$T/work/f"
	wait_until 20 uml-lab exec --timeout 5s sh -- cat /mnt/work/f
	guest 0 'cat /mnt/work/f; echo again >/mnt/work/g'
	same "$(cat "$T/work/g")" again
	expect 0 uml-lab status sh
	says_not "share work"
	# An instructor's way to put a new version there at once.
	mkdir "$T/next"
	echo next >"$T/next/f"
	mv "$T/work" "$T/away"
	mv "$T/next" "$T/work"
	wait_until 20 uml-lab exec --timeout 5s sh -- grep -q next /mnt/work/f
	guest 0 'echo more >/mnt/work/g'
	same "$(cat "$T/work/g")" more
	same "$(cat "$T/away/g")" again
	expect 0 uml-lab status sh
	says_not "share work"
}

for kernel in $(kernels); do
	rm -rf "$T/work" "$T/book" "$T/small" "$HOME/.local/state"
	make_sources
	lab_with "$kernel"
	up "$T/labs/sh"
	try_posix
	try_owners
	try_walls
	try_changes
	if [ "$kernel" = 7.2 ]; then
		try_quota
		try_kill
		try_source
	fi
	expect 0 uml-lab down sh
	[ -z "$(pids_of "uml-hostfs.*$T/work")" ] || fail "uml-hostfs outlived its machine"
done

# The supervisor killed: nothing is left, and the next start works.
up "$T/labs/sh"
pid=$(hostfs_pid)
kill -9 "$(json <(uml-lab status sh --json) 'd["machines"][0]["supervisor_pid"]')"
wait_until 10 sh -c "! kill -0 $pid"
expect 0 uml-lab up "$T/labs/sh"
guest 0 'cat /opt/book/page'
