# A guest's root attacks the host: he makes the UML process run code of his (a kernel module), mounts hostfs with "..", and
# kills the kernel under its own traced processes. With and without user namespaces, on every kernel: nothing is reached.
# timeout: 300
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
	[ "$(wc -l <"$T/results")" = 18 ] || fail "not all attacks were tried"
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

for kernel in $(kernels); do
	echo "kernel $kernel, namespaces"
	attack "$kernel"
	[ "$(field a sandbox | cut -d, -f1)" = namespaces ] || skip "this host has no user namespaces"
done
# Without user namespaces Landlock alone has to hold files and sockets.
export UML_LAB_SANDBOX=process-group
for kernel in $(kernels | sed -n '1p;$p'); do
	echo "kernel $kernel, process group"
	attack "$kernel"
done
