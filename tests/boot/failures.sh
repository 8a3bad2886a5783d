# When it does not work: the real cause, in words, and nothing left behind.
# timeout: 240
. tests/cases/lib.sh
at_exit end_sessions

# wait_failed LAB: who sees first that it failed sees why, though the supervisor has still to end what it started.
seen_failed() { expect 0 uml-lab status "$1" && grep -q failed "$T/out"; }
wait_failed() { wait_until 20 seen_failed "$1"; }

gone() { [ -z "$(find "$XDG_RUNTIME_DIR/uml-lab" -mindepth 1 2>/dev/null)" ]; }

# No such image, no such kernel, a driver that cannot keep a limit: all told at once.
lab wrong <<-END
	lab: wrong
	base: tiny
	limits: {disk: 1G}
	machines:
	  a: {base: debain-12}
	  b: {kernel: "9.9"}
	  c: {disk: ubd}
END
expect 1 uml-lab up "$T/labs/wrong"
says "debain-12"
says "9.9"
says "c: disk: ubd cannot keep limits.disk"

# An init that dies is a kernel panic: its text is the cause.
lab panic <<-END
	lab: panic
	base: tiny
	machines: {m: {memory: 64M, kernel_args: [panic=1]}}
END
for k in $(kernels); do
	sed -i "s/{memory: 64M, [^}]*}/{memory: 64M, kernel: \"$k\"}/" "$T/labs/panic/lab.yml"
	rm -rf "$HOME/.local/state"
	up "$T/labs/panic"
	uml-lab exec panic -- sh -c 'echo 1 > /proc/sys/kernel/sysrq; sleep 0.2; echo c > /proc/sysrq-trigger' >/dev/null 2>&1
	wait_failed panic
	says "kernel panic: sysrq"
	# Started again at once, it finds nothing in its way.
	expect 0 uml-lab up "$T/labs/panic"
	expect 0 uml-lab down --force panic
	wait_until 5 gone
done

# A panic that is a known bug of the kernel says so: no student has to look for what he did wrong.
lab forks <<-END
	lab: forks
	base: tiny
	machines: {m: {memory: 64M, kernel: auto}}
END
for k in $(kernels); do
	sed -i "s/kernel: .*}}/kernel: \"$k\"}}/" "$T/labs/forks/lab.yml"
	rm -rf "$HOME/.local/state"
	up "$T/labs/forks"
	run timeout -k 5 60 uml-lab exec forks -- sh -c 'n=0
		while [ $n -lt 200 ]; do
			sh -c "while :; do /bin/true; done" & p=$!
			usleep 20000
			kill -9 $p
			wait $p
			n=$((n + 1))
		done 2>/dev/null
		echo stands'
	if ! grep -q stands "$T/out"; then
		wait_failed forks
		says "when a process is killed while it forks"
	fi
	run uml-lab down --force forks
	wait_until 5 gone
done

# Too little memory for the kernel, an image that is no file system.
truncate -s 20M "$T/empty.img"
lab empty <<-END
	lab: empty
	machines: {m: {memory: 64M, base: $T/empty.img}}
END
expect 1 uml-lab up "$T/labs/empty"
says "root"
wait_until 5 gone

# Setup that fails: the machine stays up for a look, the failure is told with its last words.
lab script <<-END
	lab: script
	base: tiny
	machines:
	  m:
	    memory: 64M
	    setup: |
	      echo "about to fail"
	      ls /nonexistent-folder
	      echo "not reached"
END
expect 1 uml-lab up "$T/labs/script"
says "setup"
says "nonexistent-folder"
expect 0 uml-lab exec script -- true
expect 0 uml-lab log --which startup script
says "about to fail"
says_not "not reached"
expect 0 uml-lab down script

# A base that changed under an overlay is refused, with the way out.
cp "$(uml-lab image show --json tiny | python3 -c 'import json,sys; print(json.load(sys.stdin)["path"])')" "$T/own.img"
chmod 644 "$T/own.img"
lab own <<-END
	lab: own
	machines: {m: {memory: 64M, base: $T/own.img}}
END
expect 0 uml-lab up "$T/labs/own"
expect 0 uml-lab down own
touch -d "2020-01-01" "$T/own.img"
expect 1 uml-lab up "$T/labs/own"
says "uml-lab reset own"
expect 0 uml-lab reset own --yes
expect 0 uml-lab up "$T/labs/own"
expect 0 uml-lab down own

# The guest's own poweroff and reboot.
lab off <<-END
	lab: off
	base: tiny
	machines: {m: {memory: 64M}}
END
expect 0 uml-lab up "$T/labs/off"
run uml-lab exec off -- poweroff
wait_until 20 sh -c 'uml-lab status off | grep -q stopped'
wait_until 5 gone
expect 0 uml-lab up "$T/labs/off"
before=$(uml-lab exec off -- cat /proc/sys/kernel/random/boot_id)
run uml-lab exec off -- reboot
wait_until 20 sh -c "id=\$(uml-lab exec off -- cat /proc/sys/kernel/random/boot_id) && [ -n \"\$id\" ] && [ \"\$id\" != $before ]"
# A guest that takes longer to go down than it may is forced.
expect 0 uml-lab down --timeout 200ms off
expect 0 uml-lab status off
says stopped
wait_until 5 gone

# Ctrl-C while starting: what was started is stopped. A Debian, which takes longer than that to be ready.
lab slow <<-END
	lab: slow
	base: debian-12
	machines: {m: {memory: 256M}}
END
timeout -s INT 1 uml-lab up "$T/labs/slow" >"$T/out" 2>"$T/err"
says interrupted
wait_until 20 gone
expect 0 uml-lab status slow
says stopped
