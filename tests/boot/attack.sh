# A guest's root attacks the host: he makes the UML process run code of his (a kernel module), mounts hostfs with "..", and
# kills the kernel under its own traced processes. With and without user namespaces, on every kernel: nothing is reached.
# timeout: 400
. tests/cases/lib.sh
need gcc objcopy python3
at_exit end_sessions

secret=$HOME/secret
echo "the student's own" >"$secret"
chmod 600 "$secret"

# Somebody's TCP port and abstract socket.
python3 - "$T/port" <<-'END' &
	import socket, sys, time
	tcp = socket.socket(); tcp.bind(("127.0.0.1", 0)); tcp.listen()
	abstract = socket.socket(socket.AF_UNIX); abstract.bind("\0attack-abstract"); abstract.listen()
	open(sys.argv[1], "w").write(str(tcp.getsockname()[1]))
	time.sleep(600)
END
listener=$!
at_exit kill $listener
wait_until 10 test -s "$T/port"

cat >"$T/flat.ld" <<-'END'
	SECTIONS { . = 0; .text : { *(.text.entry) *(.text*) *(.rodata*) *(.data*) *(.bss*) } /DISCARD/ : { *(.comment) *(.note*) *(.eh_frame*) } }
END

# make_module KERNEL OUT -DFLAG…: of the largest module that is there
make_module() {
	local kernel=$1 out=$2 folder
	shift 2
	gcc -Os -ffreestanding -fPIC -fno-stack-protector -mno-red-zone -mno-sse -fcf-protection=none -fno-asynchronous-unwind-tables \
		-nostdlib -static -Wl,-T,"$T/flat.ld" -Wl,--build-id=none "$@" -o "$T/code.elf" tests/boot/attack_module.c ||
		fail "cannot compile the attack"
	objcopy -O binary "$T/code.elf" "$T/code"
	case $kernel in
	6.1) folder=/usr/lib/uml/modules ;;
	*) folder=$(uml-lab doctor --json | grep -o "/[^ ]*/$kernel/linux.uml" | sed 's,/linux.uml,/modules,;q') ;;
	esac
	python3 tests/boot/attack_module.py "$(find "$folder" -name 'x25.ko*' | sed q)" "$T/code" "$out" || fail "no module"
}

field() { uml-lab status --json "$1" >"$T/status.json" && json "$T/status.json" "d['machines'][0]['$2']"; }
log() { cat "$HOME/.local/state/uml-lab/sessions/a/m/supervisor.log"; }
ended() { log | grep -q 'attack: end'; }

attack() { # KERNEL
	local runtime
	lab a <<-END
		lab: a
		base: tiny
		machines: {m: {memory: 64M, kernel: "$1"}}
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/a"
	runtime=$(find "$XDG_RUNTIME_DIR/uml-lab" -name control)
	make_module "$1" "$T/attack.ko" -DSECRET="\"$secret\"" -DCONTROL="\"$runtime\"" -DPORT="$(cat "$T/port")" \
		-DSTUDENT="$(field a supervisor_pid)"
	expect 0 uml-lab copy "$T/attack.ko" a/m:/root/attack.ko
	run uml-lab exec a -- insmod /root/attack.ko
	wait_until 10 ended
	log | grep -o 'attack: .*' | sed '/attack: end/d' | awk '!seen[$0]++' >"$T/results" # insmod tries twice
	cat "$T/results"
	[ "$(wc -l <"$T/results")" = 20 ] || fail "not all attacks were tried"
	# All refused but one: in the namespaced sandbox /tmp may be there, in a root that holds nothing.
	! grep -v ' -[0-9]*$' "$T/results" || fail "an attack went through"
	[ ! -e /tmp/attack-was-here ] || fail "it made a file"
	expect 0 uml-lab exec a -- true

	# hostfs, which confines nothing itself.
	for path in / .. ../../../../.. /proc /dev "$HOME" /home /etc; do
		uml-lab exec a -- sh -c "mkdir -p /m; mount -t hostfs none /m -o $path 2>/dev/null || exit 0
			find /m -xdev -name secret -o -xdev -name passwd -o -xdev -name control -o -xdev -name session.yml
			cat /m$secret /m/etc/passwd /m/../etc/shadow 2>/dev/null | grep -a student
			touch /m/attack-was-here /m/tmp/attack-was-here 2>/dev/null && echo made a file
			umount /m" >"$T/out" 2>"$T/err"
		! grep . "$T/out" || fail "hostfs $path reached the host"
	done
	same "$(cat "$secret")" "the student's own"

	# The kernel dies under its traced processes, one of which would write on natively.
	uml-lab exec -n a -- sh -c 'while :; do :; done & while :; do echo x > /root/x; done' >/dev/null 2>&1 &
	make_module "$1" "$T/suicide.ko" -DSUICIDE -DSECRET='""' -DCONTROL='""' -DPORT=1 -DSTUDENT=1
	expect 0 uml-lab copy "$T/suicide.ko" a/m:/root/suicide.ko
	timeout -k 5 20 uml-lab exec a -- insmod /root/suicide.ko >/dev/null 2>&1
	wait_until 10 sh -c '! pgrep -u "$(id -u)" -f "^uml: a/m|__supervise [a] m"'
	wait_until 10 sh -c 'uml-lab status a | grep -q failed'
}

said_nonsense() { log | grep -q 'attack: nonsense-was-said' || ! pgrep -u "$(id -u)" -f "^uml: a/m" >/dev/null; }

# Nonsense in the rings of disks, network and shares: the guest is done for, the daemons are not, and believe nothing of it.
nonsense() { # KERNEL
	lab a <<-END
		lab: a
		base: tiny
		machines: {m: {memory: 64M, kernel: "$1", disks: [{size: 16M}], shares: [book], interfaces: [{slirp: true}]}}
		shares: {book: {path: $T/book, mode: rw}}
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/a"
	expect 0 uml-lab exec a -- ls /mnt/book
	make_module "$1" "$T/nonsense.ko" -DNONSENSE -DSECRET='""' -DCONTROL='""' -DPORT=1 -DSTUDENT=1
	expect 0 uml-lab copy "$T/nonsense.ko" a/m:/root/nonsense.ko
	timeout -k 5 20 uml-lab exec a -- insmod /root/nonsense.ko >/dev/null 2>&1
	# A guest that only hangs after that is ended like any other.
	for _ in $(seq 100); do said_nonsense && break; sleep 0.1; done
	uml-lab status a >"$T/out" 2>&1 || fail "status: $(cat "$T/out")"
	python3 -c 'import sys; t = open(sys.argv[1], "rb").read().decode(); sys.exit(any(c < " " and c != "\n" or "\x7f" <= c < "\xa0" for c in t))' \
		"$T/out" || fail "status prints what a terminal would obey"
	uml-lab down --force a >/dev/null 2>&1
	cat "$HOME"/.local/state/uml-lab/sessions/a/m/supervisor.log >"$T/log"
	! grep -E "(disk server|uml-cow|uml-netplug|uml-hostfs|plug).*(SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|SIGSYS|runtime error|Sanitizer)" "$T/log" ||
		fail "a daemon died of nonsense"
	! grep "cannot write YAML" "$T/log" || fail "the guest's last words got into session.yml"
	same "$(cat "$T/book/page") $(ls -A "$T/book")" "text page" "the share"
	expect 0 uml-cow check "$HOME/.local/state/uml-lab/sessions/a/m/root.cow"
	expect 0 uml-lab reset a --yes
	up "$T/labs/a"
	expect 0 uml-lab down --force a
}
mkdir "$T/book"
echo text >"$T/book/page"

for kernel in $(kernels); do
	echo "kernel $kernel, namespaces"
	attack "$kernel"
	nonsense "$kernel"
	[ "$(field a sandbox | cut -d, -f1)" = namespaces ] || skip "this host has no user namespaces"
done
# Without user namespaces Landlock alone has to hold files and sockets.
export UML_LAB_SANDBOX=process-group
for kernel in $(kernels | sed -n '1p;$p'); do
	echo "kernel $kernel, process group"
	attack "$kernel"
done
