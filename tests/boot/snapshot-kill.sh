# kill -9 of snapshot create, restore, remove and reset at many of the system calls that change something: the session is then as
# before or as after, its snapshots too, and the next verb goes on and leaves no file behind.
# timeout: 240
. tests/cases/lib.sh
need strace python3

# The calls by which files change, and which of them are looked at (every third…). Killed on entering: what went before is the
# state in between.
CALLS="rename:1 renameat2:1 unlink:1 ftruncate:2 pwrite64:3 write:5 fsync:5 fsetxattr:4 fremovexattr:1 utimensat:1 openat:24"

# content: what the machines' disks and the snapshots hold, one line each
content() {
	uml-lab status --json k >"$T/status" 2>/dev/null || fail "status: $(uml-lab status --json k 2>&1)"
	uml-lab snapshot list --json k >"$T/snapshots" || fail "snapshot list"
	python3 - "$S" "$T/status" "$T/snapshots" <<-'END' || fail "a disk does not open"
		import hashlib, json, os, subprocess, sys, tempfile
		S, status, snapshots = sys.argv[1], json.load(open(sys.argv[2])), json.load(open(sys.argv[3]))
		def digest(path):
		    with tempfile.TemporaryDirectory(dir="/dev/shm") as d:
		        subprocess.run(["uml-cow", "flatten", path, d + "/raw"], check=True, stdout=subprocess.DEVNULL)
		        h, fd, at = hashlib.sha256(), os.open(d + "/raw", os.O_RDONLY), 0
		        while True:  # holes are zeroes in all of them
		            try: at = os.lseek(fd, at, os.SEEK_DATA)
		            except OSError: break
		            end = os.lseek(fd, at, os.SEEK_HOLE)
		            for block in range(at, end, 4096):
		                data = os.pread(fd, 4096, block)
		                if data.strip(b"\0"): h.update(b"%d " % block + data)
		            at = end
		        os.close(fd)
		        return h.hexdigest()[:16]
		for m in status["machines"]:
		    print("now", m["name"], m["snapshot"], m["set_up"], *[digest(p) for p in m["disks"]])
		for s in snapshots:
		    for m in s["machines"]:
		        print(s["name"], m["machine"], m["parent"], *[digest(f"{S}/{m['machine']}/{l['file']}") for l in m["layers"]])
	END
}

save() { rm -rf "$SAVED"; cp -a "$S" "$SAVED"; }
put_back() { rm -rf "$S"; cp -a "$SAVED" "$S"; }

# Settles what was left, and counts what lies there.
settle_and_count() {
	uml-lab snapshot create k settle -q >"$T/settle" 2>&1 && uml-lab snapshot remove k settle >>"$T/settle" 2>&1 ||
		{ cat "$T/settle"; fail "the next verb does not go on"; }
	find "$S"/*/ -type f ! -name '*.log' | wc -l
}

points=0
old_seen=0
new_seen=0
# killed VERB…: runs it whole once, then killed at calls of each kind
killed() {
	local call step n status before after old_files new_files now
	save
	content >"$T/before"
	before=$(cat "$T/before")
	old_files=$(settle_and_count)
	put_back
	expect 0 uml-lab "$@"
	after=$(content)
	[ "$before" != "$after" ] || fail "'$*' changed nothing"
	new_files=$(settle_and_count)
	for call in $CALLS; do
		step=${call#*:}
		call=${call%:*}
		n=$((1 - step))
		while :; do
			n=$((n + step))
			put_back
			strace -qq -o /dev/null -e trace="$call" -e inject="$call:signal=KILL:when=$n" uml-lab "$@" >"$T/killed" 2>&1 &
			wait $! 2>/dev/null
			status=$?
			[ $status = 137 ] || break
			points=$((points + 1))
			now=$(content)
			if [ "$now" = "$before" ]; then
				old_seen=$((old_seen + 1))
				same "$(settle_and_count)" "$old_files" "files left by '$*' killed at $call $n"
			elif [ "$now" = "$after" ]; then
				new_seen=$((new_seen + 1))
				same "$(settle_and_count)" "$new_files" "files left by '$*' killed at $call $n"
			else
				diff <(echo "$before") <(echo "$now")
				diff <(echo "$after") <(echo "$now")
				fail "'$*' killed at $call $n left something that is neither old nor new"
			fi
		done
		[ $status = 0 ] || { cat "$T/killed"; fail "'$*' under strace ended with $status"; }
	done
	put_back
	expect 0 uml-lab "$@"
	echo "$*: $points points so far, $old_seen old, $new_seen new"
}

lab k <<-END
	lab: k
	base: tiny
	machines:
	  a: {memory: 64M, disks: [{size: 16M}]}
	  b: {memory: 64M}
END
up "$T/labs/k" -q
expect 0 uml-lab exec k/a -- sh -c 'echo one >/root/f; echo one | dd of=/dev/ubdb bs=512 conv=sync; sync'
expect 0 uml-lab exec k/b -- sh -c 'echo one >/root/f; sync'
expect 0 uml-lab down k

# In memory from here on: nothing is about what the host's disk does, and there are many fsync().
memory=$(mktemp -d /dev/shm/uml-lab-test.XXXXXX) || skip "/dev/shm cannot be written to"
at_exit 'rm -rf "$memory"'
mkdir -p "$memory/uml-lab"
mv "$HOME/.local/state/uml-lab/sessions" "$memory/uml-lab/"
export XDG_STATE_HOME=$memory
S=$memory/uml-lab/sessions/k
SAVED=$memory/saved

expect 0 uml-lab snapshot create k one
killed snapshot create k two
killed snapshot restore k one
expect 0 uml-lab snapshot remove k one
killed snapshot remove k two # after which the extra disk is one raw file
[ "$(find "$S/a" -name 'disk1*' | wc -l)" = 1 ] || fail "the extra disk was not merged"
killed reset k b --yes
[ $old_seen -gt 20 ] && [ $new_seen -gt 5 ] || fail "hardly anything was killed: $old_seen, $new_seen"
