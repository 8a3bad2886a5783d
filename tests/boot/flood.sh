# Hostile guests on a network: one floods it, one never reads. The others go on and keep their share, memory of plugs and switch stays
# as it was, and counters show what was dropped.
# timeout: 300
. tests/cases/lib.sh
need gcc vde_switch python3

lab mob <<-'END'
	lab: mob
	base: tiny
	networks: {lan: {switch: true}}
	machines:
	  flooder: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.1/24}]}
	  deaf: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.2/24}]}
	  a: {memory: 64M, kernel: "7.2", interfaces: [{network: lan, address: 10.1.0.3/24}]}
	  b:
	    memory: 64M
	    kernel: "7.2"
	    interfaces: [{network: lan, address: 10.1.0.4/24}]
	    startup: |
	      mkdir -p /www; dd if=/dev/zero of=/www/data bs=1000000 count=8 2>/dev/null; httpd -h /www
END
up "$T/labs/mob"
in_a() { timeout -k 5 60 uml-lab exec mob/a -- "$@"; }
wait_until 10 in_a ping -c 1 -W 1 10.1.0.4
wait_until 10 in_a ping -c 1 -W 1 10.1.0.2
counter() { uml-lab net mob "$1" --json >"$T/net.json" && json "$T/net.json" "d[0]['counters']['$2']"; }
# a gets 8 MB from b. TCP waits a second or more for each thing that a full switch dropped, and the host may be loaded: no time is asked
# for but that it ends.
fetch() { timeout -k 5 100 uml-lab exec mob/a -- timeout 90 wget -q -O /dev/null http://10.1.0.4/data || fail "a cannot reach b any more"; }
uml-lab status --json mob >"$T/status.json"
pids=$(json "$T/status.json" '" ".join([str(m["plug_pid"]) for m in d["machines"]] + [str(d["networks"][0]["switch_pid"])])')
memory() { # KiB in all
	local p sum=0
	for p in $pids; do sum=$((sum + $(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$p/status"))); done
	echo $sum
}
fetch
before=$(memory)
gcc -static -O1 -o "$T/flood" tests/boot/flood.c || fail "cannot compile"
expect 0 uml-lab copy "$T/flood" mob/flooder:/tmp/flood

# ---- one stands still and reads nothing; to everybody, and to b alone ----
kernel=$(json "$T/status.json" 'next(m["kernel_pid"] for m in d["machines"] if m["name"] == "deaf")')
at_exit "kill -CONT $kernel"
kill -STOP "$kernel"
flows() { [ "$(counter flooder in_frames)" -gt $((from + 5000)) ]; }
b=$(uml-lab exec mob/b -- cat /sys/class/net/eth0/address)
for to in ff:ff:ff:ff:ff:ff "$b"; do
	from=$(counter flooder in_frames)
	expect 0 uml-lab exec mob/flooder -- sh -c "/tmp/flood eth0 $to >/dev/null 2>&1 & echo \$! >/tmp/pid"
	wait_until 40 flows
	from=$(counter flooder in_frames) theirs=$(counter b in_frames)
	fetch
	flood=$(($(counter flooder in_frames) - from)) theirs=$(($(counter b in_frames) - theirs))
	echo "flood to $to: $flood frames, while b sent $theirs"
	from=$(counter flooder in_frames)
	wait_until 40 flows
	expect 0 uml-lab exec mob/flooder -- sh -c 'kill $(cat /tmp/pid)'
done
grown=$(($(memory) - before))
[ "$grown" -lt 16000 ] || fail "plugs and switch grew from $before by $grown KiB"
dropped=$(counter deaf out_dropped)
[ "$dropped" -gt 1000 ] || fail "counters show $dropped dropped frames for a guest that never read"
expect 0 uml-lab net mob
grep -q "deaf:eth0.* $dropped" "$T/out" || fail "uml-lab net does not show what was dropped: $(cat "$T/out")"

# ---- it reads again ----
kill -CONT "$kernel"
wait_until 20 in_a ping -c 1 -W 1 10.1.0.2
expect 0 uml-lab down mob
