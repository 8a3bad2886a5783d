# Every impairment, for a network and for one interface, from the lab file and while running: counted and timed by the guests at the
# two ends (impair_probe.c), not by our own counters. Each within 5 %, of 2000 frames: at 80% and more
# that is four standard deviations.
# timeout: 180
. tests/cases/lib.sh
need gcc vde_switch python3
gcc -static -O1 -o "$T/probe" tests/boot/impair_probe.c || fail "impair_probe.c does not compile"

# b's interfaces have their own settings, which count before their network's.
lab table <<-'END'
	lab: table
	base: tiny
	networks:
	  plain: {}
	  loss: {loss: 80%}
	  twice: {duplicate: 90%}
	  order: {reorder: 80%}
	  rate: {rate: 400K}
	  late: {delay: 60ms, jitter: 20ms}
	machines:
	  a:
	    memory: 96M
	    kernel: "7.2"
	    interfaces: [{network: plain}, {network: loss}, {network: twice}, {network: order}, {network: rate}, {network: late}]
	  b:
	    memory: 96M
	    kernel: "7.2"
	    interfaces:
	      - {network: plain}
	      - {network: loss, loss: 90%}
	      - {network: twice, duplicate: 80%}
	      - {network: order, reorder: 85%}
	      - {network: rate, rate: 200K}
	      - {network: late, delay: 80ms, jitter: 20ms}
END
up "$T/labs/table"
for m in a b; do expect 0 uml-lab copy "$T/probe" table/$m:/tmp/probe; done
# Where delays are measured frames are rare: they do not wait for each other, as jitter keeps their order.
LINES="eth0:25 eth1 eth2 eth3 eth4:4 eth5:25"

# once FROM TO: frames on all lines; what came is in $T/came
once() {
	local from=$1 to=$2 receiver
	# shellcheck disable=SC2086
	timeout -k 5 60 uml-lab exec "table/$to" -- /tmp/probe receive $LINES >"$T/came" 2>"$T/err" &
	receiver=$!
	wait_until 10 grep -q ready "$T/came"
	# shellcheck disable=SC2086
	expect 0 timeout -k 5 60 uml-lab exec "table/$from" -- /tmp/probe send $LINES
	wait $receiver || fail "the receiver: $(cat "$T/err")"
}

# MACHINE: frames that its line to the network "order" held back, by its own count
reordered() { uml-lab net table "$1:eth3" --json >"$T/net.json" && json "$T/net.json" "d[0]['counters']['reordered']"; }

# table FROM TO LOSS DUPLICATE REORDER RATE DELAY JITTER: percent, bits a second, ms
table() {
	local from=$1 to=$2 before runs
	shift 2
	before=$(reordered "$from")
	# A guest that gets no processor loses frames: seen on the lines that lose none.
	for runs in 1 2 3 4 5; do
		once "$from" "$to"
		echo "$from to $to, wanted $*: $(sed 1d "$T/came" | tr '\n' ';')"
		awk '(NR == 4 || NR == 5) && $2 != 2000 { bad = 1 } END { exit bad }' "$T/came" && break
	done
	python3 - "$T/came" $(($(reordered "$from") - before)) "$runs" "$@" <<-'PY' || fail "not within 5 %"
		import sys
		rows = [list(map(int, l.split())) for l in open(sys.argv[1]).read().splitlines()[1:]]
		reordered, runs, loss, twice, order, rate, delay, jitter = map(float, sys.argv[2:])
		good, lossy, doubled, mixed, slow, late = rows
		bad = []
		def within(what, value, wanted, slack=0):
		    if not wanted * .95 <= value <= wanted * 1.05 + slack: bad.append("%s: %g, not %g" % (what, value, wanted))
		within("lost", 2000 - lossy[1], 20 * loss)
		within("duplicates", doubled[0] - doubled[1], 20 * twice)
		# What the line held back; the guest sees one that nothing overtook in order.
		within("reordered", reordered, 20 * order * runs)
		if mixed[2] < 200: bad.append("seen out of order: %d" % mixed[2])
		within("bits a second", slow[3], rate)
		# The guests' clocks differ by a little, and a loaded host makes all late: the good line tells how much. Of 80 frames
		# the mean is within a quarter of the jitter with 4 standard deviations.
		if (good[1], late[1]) != (80, 80): bad.append("%d and %d of 80 frames" % (good[1], late[1]))
		least, mean, greatest = [(l - g) / 1000 for l, g in zip(late[4:], (good[4], good[5], good[4]))]
		within("mean delay", mean, delay, jitter / 4)
		if not (delay - jitter - 1 <= least <= delay - .7 * jitter + 1): bad.append("least delay: %g" % least)
		if not greatest >= delay + .7 * jitter: bad.append("greatest delay: %g" % greatest)
		for name, row in zip(("good", "lossy", "doubled", "slow", "late"), (good, lossy, doubled, slow, late)):
		    if row[2]: bad.append("%s line: %d frames out of order" % (name, row[2]))
		print("\n".join(bad))
		sys.exit(bool(bad))
	PY
}
set_lines() { # SCOPE… and SETTING…, by turns
	while [ $# -gt 0 ]; do
		# shellcheck disable=SC2086
		expect 0 uml-lab net table "$1" $2
		shift 2
	done
}
table a b 80 90 80 400000 60 20
table b a 90 80 85 200000 80 20
set_lines loss "--loss 85%" twice "--duplicate 85%" order "--reorder 90%" rate "--rate 600K" late "--delay 40ms --jitter 10ms"
table b a 85 85 90 600000 40 10
set_lines a:eth1 "--loss 95%" a:eth2 "--duplicate 100%" a:eth3 "--reorder 82%" a:eth4 "--rate 500K" a:eth5 "--delay 100ms --jitter 25ms"
table a b 95 100 82 500000 100 25
expect 0 uml-lab down table
