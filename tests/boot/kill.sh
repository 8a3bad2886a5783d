# Twenty times: a supervisor, a plug, a kernel, a disk server or a machine in mid-start is killed at a random moment, while the
# guest writes. Then: the overlay opens and its file system is sound, no process, socket or lock is left, status tells the truth, and
# the machine starts again with what was synced before.
# timeout: 600
. tests/cases/lib.sh

RANDOM=${UML_LAB_TEST_SEED:-$(date +%s)}
echo "seed $RANDOM"
mapfile -t KERNELS < <(kernels)

# Processes of this test's own machines; the marks in the environment are tests/run's, or ours.
export UML_LAB_TEST_MARK=${UML_LAB_TEST_MARK:-kill.$$}
ours() {
	local p
	for p in /proc/[0-9]*; do
		grep -qsz "^UML_LAB_TEST_MARK=$UML_LAB_TEST_MARK\$" "$p/environ" || continue
		case $(tr '\0' ' ' <"$p/cmdline" 2>/dev/null) in
		*__supervise* | *uml-netplug* | *uml-cow*serve* | *linux.uml* | *uml-lab*sandbox*) echo "${p#/proc/}" ;;
		esac
	done
}
nothing_left() { [ -z "$(ours)" ]; }

pid_of() { # FIELD of status
	uml-lab status --json victim >"$T/status.json" 2>/dev/null || return 1
	json "$T/status.json" "d['machines'][0]['$1'] or ''"
}

# new_plug OLD_PID: another plug runs
new_plug() {
	local now
	now=$(pid_of plug_pid) && [ -n "$now" ] && [ "$now" != "$1" ]
}

write_lab() { # KERNEL
	lab victim <<-END
		lab: victim
		base: tiny
		machines:
		  m: {memory: 64M, kernel: "$1", interfaces: [{slirp: true}]}
	END
}

state() { uml-lab status --json victim >"$T/status.json" && json "$T/status.json" "d['machines'][0]['state']"; }

one_round() { # NUMBER KERNEL VICTIM
	local victim pid delay
	write_lab "$2"
	rm -rf "$HOME/.local/state"
	case $3 in
	starting) # in the middle of the start
		uml-lab up --wait none "$T/labs/victim" >/dev/null 2>&1 || fail "up"
		;;
	*)
		up "$T/labs/victim"
		uml-lab exec victim -- sh -c 'echo kept > /root/kept; sync'
		uml-lab exec -n victim -- sh -c 'while :; do dd if=/dev/urandom of=/root/f$((i = (i + 1) % 50)) bs=4k count=20 2>/dev/null; done' &
		;;
	esac
	delay=0.$((RANDOM % 1000 + 1000))
	sleep "${delay/0.1/0.}"
	case $3 in
	starting | supervisor) victim=supervisor_pid ;;
	kernel) victim=kernel_pid ;;
	plug) victim=plug_pid ;;
	disk) victim=disk_pid ;;
	esac
	pid=$(pid_of $victim)
	echo "round $1: kernel $2, $3 ${pid:-gone}"
	[ -n "$pid" ] && kill -9 "$pid"
	case $3 in
	plug) # nobody inside notices
		wait_until 10 new_plug "$pid"
		same "$(state)" ready
		expect 0 uml-lab exec victim -- true
		expect 0 uml-lab down --force victim
		;;
	kernel)
		wait_until 10 nothing_left
		same "$(state)" failed
		;;
	disk) # the machine ends, and says why
		wait_until 10 nothing_left
		same "$(state)" failed
		expect 0 uml-lab status victim
		says "the disk server (uml-cow serve) was killed by SIGKILL"
		;;
	*)
		wait_until 10 nothing_left
		same "$(state)" failed
		expect 5 uml-lab exec victim -- true
		;;
	esac
	wait
	wait_until 10 nothing_left
	same "$(find "$XDG_RUNTIME_DIR/uml-lab" -mindepth 1 2>/dev/null)" "" "left in the runtime folder"
	e2fsck_overlay victim m
	expect 5 uml-lab down victim
	up "$T/labs/victim"
	[ "$3" = starting ] || { expect 0 uml-lab exec victim -- cat /root/kept; same "$(cat "$T/out")" kept; }
	expect 0 uml-lab down --force victim
}

victims=(supervisor kernel plug disk starting)
for round in $(seq "${UML_LAB_TEST_KILLS:-20}"); do
	one_round "$round" "${KERNELS[round % ${#KERNELS[@]}]}" "${victims[round % 5]}"
done
