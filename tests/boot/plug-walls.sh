# The walls around every uml-netplug of a lab with networks of all kinds: what code in a plug could do is tried in the running
# ones (system calls injected by ptrace). Behind them ports still join again when a switch, its keeper or a plug dies.
# timeout: 120
. tests/cases/lib.sh
need gcc vde_switch python3

lab fort <<-'END'
	lab: fort
	base: tiny
	networks:
	  lan: {}
	  pipe: {vde: "cmd://sleep 1000"}
	machines:
	  both:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{slirp: true}, {network: lan, address: 10.4.0.1/24}]
	  inside:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: lan, address: 10.4.0.2/24}, {network: pipe}]
END
up "$T/labs/fort"
pings() { timeout -k 5 10 uml-lab exec fort/both -- ping -c 1 -W 1 10.4.0.2; }
wait_until 10 pings
plug() { uml-lab status --json fort >"$T/status.json" && json "$T/status.json" "next(m['plug_pid'] for m in d['machines'] if m['name'] == '$1')"; }

# ---- every process of ours that meets a frame: two plugs, and the one that carries between a guest and a command ----
field() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$2/status"; }
# This session's; supervisors are their parents.
plugs() { uml-lab status --json fort >"$T/status.json" && pgrep -x uml-netplug -P "$(json "$T/status.json" "','.join(str(m['supervisor_pid']) for m in d['machines'])")"; }
walled() { # COUNT
	local pid count=0
	for pid in $(plugs); do
		[ "$(field Seccomp "$pid") $(field NoNewPrivs "$pid") $(field CapEff "$pid")" = "2 1 0000000000000000" ] || return 1
		count=$((count + 1))
	done
	[ "$count" = "$1" ]
}
wait_until 10 walled 3

# ---- the attack: open what is the user's, talk to his other programs, start one, go out ----
gcc -O1 -o "$T/inject" tests/boot/inject.c || fail "cannot compile the attack"
echo "the student's own" >"$HOME/secret"
both=$(plug both) inside=$(plug inside)
carrier=$(plugs | grep -vx -e "$both" -e "$inside")
tries() { # PID WHAT…: what came of it, a line for each thread, without repeats
	"$T/inject" "$@" >"$T/tried" 2>&1 || fail "cannot try $*: $(cat "$T/tried")"
	TRIED=$(cut -d' ' -f2 "$T/tried" | sort -u)
}
gives() { tries "${@:2}"; same "$TRIED" "$1" "${*:2}"; }
refused() { tries "$@"; [ -n "$TRIED" ] && ! grep -q ok "$T/tried" || fail "it may: $*: $(cat "$T/tried")"; }
for pid in "$both" "$inside" "$carrier"; do
	refused "$pid" read "$HOME/secret"
	refused "$pid" make "$HOME/planted"
	refused "$pid" remove "$HOME/secret"
	gives ENOSYS "$pid" unix
	gives ENOSYS "$pid" exec /bin/true
	gives ENOSYS "$pid" signal $$
done
[ ! -e /etc/resolv.conf ] || gives ok "$both" read /etc/resolv.conf
gives ok "$both" socket
gives ENOSYS "$inside" socket
gives ENOSYS "$inside" connect
gives ENOSYS "$carrier" socket
expect 0 pings

# ---- behind the walls all still join again ----
for victim in 'd["networks"][0]["switch_pid"]' 'd["network_keeper_pid"]' 'd["machines"][1]["plug_pid"]'; do
	uml-lab status --json fort >"$T/status.json"
	kill -9 "$(json "$T/status.json" "$victim")"
	wait_until 20 pings
done
wait_until 10 walled 3
all=$(plugs | paste -sd,)
expect 0 uml-lab down fort
same "$(pids_of '^sleep 1000')$(ps -o pid= -p "$all")" "" "processes after down"
