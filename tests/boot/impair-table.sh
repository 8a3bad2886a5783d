# Every impairment, for a network and for one interface, from the lab file and while running: counted and timed by the guests at the
# two ends (impair_probe.c), not by our own counters. Each within 5 %, of 8000 frames: four standard deviations or so.
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
	  loss: {loss: 50%}
	  twice: {duplicate: 50%}
	  order: {reorder: 50%}
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
	      - {network: loss, loss: 60%}
	      - {network: twice, duplicate: 60%}
	      - {network: order, reorder: 40%}
	      - {network: rate, rate: 200K}
	      - {network: late, delay: 80ms, jitter: 20ms}
END
up "$T/labs/table"
for m in a b; do expect 0 uml-lab copy "$T/probe" table/$m:/tmp/probe; done
# Where delays are measured frames are rare: they do not wait for each other, as jitter keeps their order.
LINES="eth0:100 eth1 eth2 eth3 eth4:4 eth5:100"

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

# table FROM TO LOSS DUPLICATE REORDER RATE DELAY JITTER: percent, bits a second, ms
table() {
	local from=$1 to=$2 tries=0
	shift 2
	# A guest that gets no processor loses frames: seen on the lines that lose none.
	until once "$from" "$to" && awk 'NR == 4 || NR == 5 { if ($2 != 8000) exit 1 }' "$T/came"; do
		[ $((tries += 1)) -lt 5 ] || break
	done
	echo "$from to $to, wanted $*: $(sed 1d "$T/came" | tr '\n' ';')"
	python3 - "$T/came" "$@" <<-'PY' || fail "not within 5 %"
		import sys
		rows = [list(map(int, l.split())) for l in open(sys.argv[1]).read().splitlines()[1:]]
		loss, twice, order, rate, delay, jitter = map(float, sys.argv[2:])
		good, lossy, doubled, mixed, slow, late = rows
		bad = []
		def within(what, value, wanted, slack=0):
		    if not wanted * .95 <= value <= wanted * 1.05 + slack: bad.append("%s: %g, not %g" % (what, value, wanted))
		within("lost", 8000 - lossy[1], 80 * loss)
		within("duplicates", doubled[0] - doubled[1], 80 * twice)
		within("reordered", mixed[2], 80 * order)
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
table a b 50 50 50 400000 60 20
table b a 60 60 40 200000 80 20
set_lines loss "--loss 80%" twice "--duplicate 70%" order "--reorder 45%" rate "--rate 600K" late "--delay 40ms --jitter 10ms"
table b a 80 70 45 600000 40 10
set_lines a:eth1 "--loss 70%" a:eth2 "--duplicate 90%" a:eth3 "--reorder 40%" a:eth4 "--rate 500K" a:eth5 "--delay 100ms --jitter 25ms"
table a b 70 90 40 500000 100 25
expect 0 uml-lab down table
