# Hosts that forbid user namespaces, have a noexec or full /dev/shm, or a full disk: it works with less, or says the real cause.
# timeout: 240
. tests/cases/lib.sh
at_exit end_sessions

lab w <<-END
	lab: w
	base: tiny
	machines: {m: {memory: 64M}}
END
alive() { pgrep -u "$(id -u)" -f "__supervise $1 m|uml: $1/m"; }
dead() { ! alive "$1"; }

# Without user namespaces: said in status, and whoever is killed, nothing is left.
export UML_LAB_SANDBOX=process-group
for victim in none supervisor_pid kernel_pid; do
	up "$T/labs/w"
	expect 0 uml-lab exec w -- id -u
	same "$(cat "$T/out")" 0
	expect 0 uml-lab status w
	says "process-group"
	expect 0 uml-lab status --json w
	cp "$T/out" "$T/status.json"
	if [ $victim = none ]; then
		expect 0 uml-lab down w
	else
		kill -9 "$(json "$T/status.json" "d['machines'][0]['$victim']")"
	fi
	wait_until 10 dead w
	expect 0 uml-lab status w
	e2fsck_overlay w m
done
unset UML_LAB_SANDBOX

# The rest needs a /dev/shm and a disk of its own: a mount namespace.
unshare -Urm true 2>/dev/null || skip "this host has no user namespaces"
in_world() { # MOUNTS COMMAND…
	local mounts=$1
	shift
	unshare -Urm sh -c "$mounts; exec \"\$@\"" sh "$@"
}

# Guests' memory does not lie in the host's /dev/shm: a noexec, full one does no harm, with a root of their own and without.
for sandbox in namespaces process-group; do
	rm -rf "$HOME/.local/state"
	expect 0 in_world "mount -t tmpfs -o noexec,size=64k none /dev/shm" env UML_LAB_SANDBOX=$sandbox \
		sh -c "uml-lab up '$T/labs/w' && uml-lab exec w -- id && uml-lab down --force w"
done

# A full disk under the overlays.
mkdir -p "$T/state"
expect 1 in_world "mount -t tmpfs -o size=20M none '$T/state'" env XDG_STATE_HOME="$T/state" uml-lab up "$T/labs/w"
says "free"
