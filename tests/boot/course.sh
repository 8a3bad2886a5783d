# Course layers: a session's disk published, cleaned; labs and other layers that stand on it; the disk a class of 30 takes; gc.
# timeout: 300
. tests/cases/lib.sh

images=$HOME/.local/share/uml-lab/images
lab source <<-END
	lab: source
	base: tiny
	machines:
	  m: {memory: 64M, setup: "echo ran >>/root/setup"}
END
up "$T/labs/source" -q
expect 0 uml-lab exec source -- sh -c '
	echo exercise >/root/exercise; echo secret >/root/.ash_history
	mkdir -p /etc/ssh /var/log /tmp/x/y /home/u
	echo key >/etc/ssh/ssh_host_rsa_key; echo id >/etc/machine-id; echo secret >/home/u/.bash_history
	echo line >/var/log/messages; echo line >/var/log/messages.1; dd if=/dev/urandom of=/tmp/x/y/junk bs=64k count=40 2>/dev/null'
expect 5 uml-lab publish source/m course
says "uml-lab down"
expect 0 uml-lab snapshot create source before # what is published lies in two layers then
expect 0 uml-lab exec source -- sh -c 'echo later >/root/later'
expect 0 uml-lab down source
(cd "$HOME/.local/state/uml-lab/sessions/source/m" && sha256sum root*.cow) >"$T/before"
expect 0 uml-lab publish source/m course
says "Layer course is ready"
(cd "$HOME/.local/state/uml-lab/sessions/source/m" && sha256sum root*.cow) | cmp - "$T/before" || fail "publish changed the session"
expect 1 uml-lab publish source/m course
says "--replace"
expect 2 uml-lab publish source/m
expect 0 uml-cow diff-files "$images/course.img"
for gone in ash_history bash_history ssh_host_rsa_key messages.1 junk /var/lib/uml-lab/set-up; do says_not "$gone"; done
for there in /root/exercise /root/later /var/log/messages; do says "A -rw-r--r-- $there"; done
grep -qa secret "$images/course.img" && fail "something deleted is in the layer"
[ "$(stat -c %b "$images/course.img")" -lt 2048 ] || fail "the layer is not compact"
uml-cow flatten "$images/course.img" "$T/flat.img" && e2fsck -fn "$T/flat.img" >"$T/check" 2>&1 || { cat "$T/check"; fail "the layer's file system is not clean"; }
uml-cow cat "$images/course.img" /etc/machine-id >"$T/id" || fail "no machine-id"
same "$(cat "$T/id")" ""
expect 0 uml-lab image show course --json
same "$(json "$T/out" 'd["kind"], d["base"], d["layer"], d["digest"][:7], d["users"]')" "('layer', 'tiny', True, 'sha512-', [])"

# A lab on the layer: its set-up runs, the exercise is there. A layer on a layer.
lab on <<-END
	lab: on
	base: course
	machines:
	  m: {memory: 64M, setup: "echo ran again >>/root/setup"}
END
up "$T/labs/on" -q
expect 0 uml-lab exec on -- cat /root/exercise /root/later /root/setup
same "$(cat "$T/out")" "exercise
later
ran
ran again"
expect 0 uml-lab exec on -- sh -c 'echo second >/root/second'
expect 0 uml-lab down on
expect 0 uml-lab publish on/m course-2 --quiet
sed -i 's/lab: on/lab: top/; s/base: course/base: course-2/' "$T/labs/on/lab.yml"
expect 0 uml-lab up "$T/labs/on" -q
expect 0 uml-lab exec top -- cat /root/exercise /root/second
expect 0 uml-lab down top
expect 0 uml-lab image list
grep -q '^course-2 .*  course$' "$T/out" || { cat "$T/out"; fail "image list does not tell what course-2 stands on"; }
# Who stands on it keeps it.
expect 5 uml-lab image remove course
says "session on"
says "layer course-2"
expect 5 uml-lab image remove course-2

# A class of thirty on one layer: made, started and stopped.
lab class <<-END
	lab: class
	base: course-2
	machines:
	  m: {memory: 64M}
END
for i in $(seq 30); do
	expect 0 uml-lab up "$T/labs/class" --name "class-$i" --wait none -q
	expect 0 uml-lab down "class-$i" --force -q
done
expect 0 uml-lab status --all --json
bytes=$(json "$T/out" 'sum(m["disk_bytes"] for s in d if s["session"].startswith("class-") for m in s["machines"])')
count=$(json "$T/out" 'sum(len(s["machines"]) for s in d if s["session"].startswith("class-"))')
same "$count" 30 "machines"
expect 0 uml-lab status --all
tail -n 4 "$T/out"
echo "thirty machines take $bytes bytes"
[ "$bytes" -lt $((30 << 20)) ] || fail "a class takes $bytes bytes"
grep -q "machines on course-2: .* of their own; the image takes .*, once for all" "$T/out" || fail "status --all does not tell what is shared"

# gc: what dead things left goes, sessions only when asked to.
state=$HOME/.local/state/uml-lab/sessions
touch "$state/class-1/m/root-9.cow" "$state/class-1/m/.root.cow.uml-cow-abcdef" "$state/class-1/session.yml.tmp-abcdef"
touch "$images/.left.abcdef.tmp"
expect 0 uml-lab gc --dry-run
for what in root-9.cow uml-cow-abcdef session.yml.tmp-abcdef .left.abcdef.tmp; do says "$what"; done
[ -e "$state/class-1/m/root-9.cow" ] || fail "--dry-run removed something"
expect 0 uml-lab gc
for f in "$state/class-1/m/root-9.cow" "$state/class-1/m/.root.cow.uml-cow-abcdef" "$state/class-1/session.yml.tmp-abcdef" "$images/.left.abcdef.tmp"; do
	[ ! -e "$f" ] || fail "gc left $f"
done
expect 0 uml-lab gc
says "nothing to remove"
expect 2 uml-lab gc class-1
says "--yes"
expect 0 uml-lab gc class-1 --yes
expect 4 uml-lab status class-1
expect 0 uml-lab up "$T/labs/class" --name class-2 --wait none -q
expect 5 uml-lab gc class-2 --yes
expect 0 uml-lab down class-2 --force
expect 0 uml-lab gc --sessions --yes --json
same "$(json "$T/out" 'sum(1 for i in d["items"] if i["what"] == "session")')" 32
expect 0 uml-lab status
says "You have no session"
expect 0 uml-lab image remove course-2 course
