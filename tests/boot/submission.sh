# Two students hand in their work, one solved and running, one unsolved and stopped; a teacher opens both: points, no way out, no
# share, no forward, nothing handed in is written to. Killed and failed submits leave nothing. In a network namespace whose
# outside, 192.0.2.1, is us.
# timeout: 180
[ -n "${IN_NAMESPACE:-}" ] || exec unshare --map-root-user --net --mount env IN_NAMESPACE=1 bash "$0" "$@"
. tests/cases/lib.sh
need python3 ip
ip link set lo up
ip addr add 192.0.2.1/32 dev lo
ip -6 addr add 2001:db8::1/128 dev lo

# The outside: whoever comes, by TCP or UDP, is written down.
cat >"$T/outside.py" <<'END'
import selectors, socket
selector = selectors.DefaultSelector()
for family, kind, port in ((socket.AF_INET6, socket.SOCK_STREAM, 80), (socket.AF_INET6, socket.SOCK_DGRAM, 53), (socket.AF_INET6, socket.SOCK_STREAM, 53)):
    s = socket.socket(family, kind)
    s.bind(("::", port))
    if kind == socket.SOCK_STREAM: s.listen()
    selector.register(s, selectors.EVENT_READ, kind)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data == socket.SOCK_STREAM:
            c, a = key.fileobj.accept()
            print("came", a, flush=True)
            c.settimeout(5); c.recv(1000)
            c.sendall(b"HTTP/1.0 200 OK\r\n\r\noutside\n"); c.close()
        else: print("came", key.fileobj.recvfrom(2000)[1], flush=True)
END
python3 "$T/outside.py" >"$T/outside" 2>&1 &
at_exit "kill $!"
wait_until 10 grep -q ready "$T/outside"

lab exam <<'END'
lab: exam
base: tiny
params: {number: 7}
shares:
  work: {path: "~/work", mode: rw}
machines:
  m:
    memory: 64M
    shares: [work]
    disks: [{size: 8M}]
    interfaces: [{slirp: true, host: true, forward: ["auto:80"]}]
    setup: echo "{{user}} {{number}} {{random:8}}" >/root/given
checks:
  - {name: the answer, machine: m, run: cat /root/answer, expect: {output: "{{number}}"}, points: 3}
  - {name: it is set up, machine: m, run: "test -s /root/given"}
  - {name: eth0 has its address, machine: m, run: ip -4 addr show eth0, expect: {match: "inet 10\\.0\\.2\\.15"}}
  - {name: the extra disk, machine: m, run: head -c 5 /dev/vdb, expect: {output: "extra"}}
END
people="anna ben teacher"
end_all() { local p; for p in $people; do HOME=$T/$p end_sessions; done; }
at_exit end_all
as() { local who=$1; shift; env HOME="$T/$who" "$@"; }
state() { echo "$T/$1/.local/state/uml-lab/sessions"; }
for p in $people; do mkdir -p "$T/$p/work"; echo "of $p" >"$T/$p/work/file"; done

# Their work.
run as anna uml-lab up "$T/labs/exam" --param number=42 &
expect 0 as ben uml-lab up "$T/labs/exam" -q
wait $! || fail "anna cannot start"
expect 0 as anna uml-lab exec exam -- sh -c 'echo 42 >/root/answer; echo extra >/dev/vdb; dd if=/dev/urandom of=/root/bulk bs=1k count=300 2>/dev/null; cat /root/given'
given=$(cat "$T/out")
expect 0 as ben uml-lab exec exam -- sh -c 'echo extra >/dev/vdb; sync'
expect 0 as anna uml-lab check exam
expect 0 as ben uml-lab down exam
expect 2 as ben uml-lab submit exam
expect 0 as anna uml-lab submit exam -o "$T/anna.sub" --json
same "$(json "$T/out" 'd["manifest"]["running"], d["manifest"]["check"]["points"], d["manifest"]["params"], len(d["manifest"]["machines"][0]["disks"])')" \
	"(True, 6, ['number=42'], 2)"
expect 0 as ben uml-lab submit exam -o "$T/ben.sub"
says "it was not checked"
expect 1 as ben uml-lab submit exam -o "$T/ben.sub"
says "--replace"
cp "$T/ben.sub" "$T/ben.first"
expect 0 as ben uml-lab submit exam -o "$T/ben.sub" --replace
for member in m/root.cow m/disk1.img lab.yml; do
	cmp <(zstd -dc "$T/ben.first" | tar -xO "$member") <(zstd -dc "$T/ben.sub" | tar -xO "$member") || fail "$member is not the same twice"
done
[ "$(stat -c %s "$T/ben.sub")" -lt 65536 ] || fail "an untouched machine takes $(stat -c %s "$T/ben.sub") bytes"
expect 0 as anna uml-lab snapshot list exam
says "has no snapshots"
grep -qa "$T" <(zstd -dc "$T/anna.sub" | tar -xO m/root.cow | head -c 8192) && fail "the overlay names paths of its author's"

# No room, and SIGKILL at any moment: no file, or a whole one; the next submit works and cleans up.
mkdir "$T/small" && mount -t tmpfs -o size=128k none "$T/small"
expect 1 as anna uml-lab submit exam -o "$T/small/x"
says "No space left on device"
same "$(ls -A "$T/small")" "" "what is left where there was no room"
expect 0 as anna uml-lab submit exam -o "$T/anna.sub" --replace
expect 1 env HOME="$T/teacher" XDG_STATE_HOME="$T/small" UML_LAB_PATH="$T/labs" uml-lab open "$T/anna.sub" --stopped
says "No space left on device"
same "$(ls -A "$T/small/uml-lab/sessions" | grep -v lock)" "" "what is left of a session there was no room for"
umount "$T/small"
mkdir "$T/killed"
for ms in 10 50 100 150 250; do
	env HOME="$T/anna" uml-lab submit exam -o "$T/killed/$ms" >/dev/null 2>&1 &
	victim=$!
	sleep "0.$(printf %03d $ms)"
	kill -KILL $victim 2>/dev/null
	wait $victim 2>/dev/null
	[ ! -e "$T/killed/$ms" ] || zstd -dc "$T/killed/$ms" | tar -tf - >/dev/null || fail "half a file after $ms ms"
	same "$(find "$T/killed" -name '*tmp*')" "" "what is left after $ms ms"
done
expect 0 as anna uml-lab submit exam -o "$T/anna.sub" --replace
[ ! -e "$(state anna)/exam/.export" ] || fail "copies of the disks are left"
same "$(find "$(state anna)/exam/m" -name 'root*.cow' | wc -l)" 1 "layers left by snapshots of submits"
expect 0 as anna uml-lab snapshot list exam
says "has no snapshots"
expect 0 as anna uml-lab exec exam -- cat /root/answer
expect 0 as anna uml-lab down exam
sha256sum "$T"/*.sub >"$T/sums"

# All that was handed in, with what does not belong there, looked over and checked by the teacher, who has the lab and the image.
export UML_LAB_PATH=$T/labs
mkdir -p "$T/in/late"
cp "$T"/*.sub "$T/in"
cp "$T/anna.sub" "$T/in/late/=copy"
head -c 2000 "$T/anna.sub" >"$T/in/$(printf 'cut\033[2J')"
echo "- hello" >"$T/in/README"
expect 1 as teacher uml-lab collect "$T/in" --json
same "$(json "$T/out" '[(f["file"].split("/")[-1], f["verified"], len(f["same_disk_as"]), (f.get("self_reported") or {}).get("points")) for f in d]')" \
	"[('README', False, 0, None), ('anna.sub', True, 1, 6), ('ben.sub', True, 0, None), ('cut?[2J', False, 0, None), ('=copy', True, 1, 6)]"
expect 1 as teacher uml-lab collect --check --jobs 3 --csv --junit "$T/all.xml" "$T/in"
python3 - "$T/out" "$T/all.xml" <<'END' || { cat "$T/out" "$T/err"; fail "collect --check"; }
import csv, sys, xml.etree.ElementTree as e
rows = {r["file"].split("/")[-1]: r for r in csv.DictReader(open(sys.argv[1], newline=""))}
assert [(rows[n]["points"], rows[n]["points_of"]) for n in ("anna.sub", "=copy", "ben.sub")] == [("6", "6"), ("6", "6"), ("3", "6")], rows
assert "does not begin like one" in rows["README"]["problem"] and rows["cut?[2J"]["verified"] == "no", rows
suites = e.parse(sys.argv[2]).getroot().findall("testsuite")
assert sum(int(s.get("failures")) for s in suites) == 1 and sum(int(s.get("errors")) for s in suites) == 2, suites
END
says_not $'\033'
expect 1 as teacher uml-lab collect --check --jobs 3 --timeout 1ms "$T/in/ben.sub" "$T/in/anna.sub"
says "it was not done within"
expect 4 as teacher uml-lab collect "$T/killed/none"
as teacher uml-lab collect --check --jobs 3 "$T/in" >/dev/null 2>&1 &
victim=$!
wait_until 20 sh -c "ls '$(state teacher)' | grep -q '^collect'"
kill -KILL $victim
wait $victim 2>/dev/null
wait_until 60 sh -c "! ls -A '$(state teacher)' | grep -v lock"

# One by one.
expect 0 as teacher uml-lab open "$T/anna.sub" --name anna --check --junit "$T/junit.xml"
says "4 passed, 0 failed, 0 skipped; 6 of 6 points"
says "without a network to the outside"
grep -q 'tests="4" failures="0"' "$T/junit.xml" || fail "no JUnit"
expect 6 as teacher uml-lab open "$T/ben.sub" --name ben --check --discard --json
same "$(json "$T/out" 'd["check"]["points"], d["check"]["points_of"], d["kept"], d["notes"]')" "(3, 6, False, [])"
expect 4 as teacher uml-lab status ben
in_anna() { as teacher timeout -k 5 20 uml-lab exec anna -- "$@"; }
expect 0 in_anna cat /root/given
same "$(cat "$T/out")" "$given" "{{user}}, parameters and random texts"
# No way out, no way in, no share.
: >"$T/outside.before" && cp "$T/outside" "$T/outside.before"
for way in "ping -c 1 -W 1 192.0.2.1" "timeout 2 wget -q -O - http://192.0.2.1:80/" "timeout 2 wget -q -O - http://10.0.2.2:80/" "nc -w 2 192.0.2.1 53" \
	"ping -c 1 -W 1 2001:db8::1" "timeout 2 wget -q -O - http://[2001:db8::1]:80/" "nslookup -type=a example.org 10.0.2.3" "nslookup -type=a x 192.0.2.1"; do
	in_anna sh -c "$way" >"$T/out" 2>&1 && { cat "$T/out"; fail "an opened submission reaches the outside: $way"; }
done
cmp -s "$T/outside" "$T/outside.before" || { cat "$T/outside"; fail "something came out"; }
expect 0 as teacher uml-lab status anna --json
same "$(json "$T/out" '(d if isinstance(d, dict) else d[0])["machines"][0]["forwards"]')" "[]"
run in_anna sh -c 'mount | grep -c virtiofs; mkdir -p /mnt/work; echo gotcha >/mnt/work/file'
for p in $people; do same "$(cat "$T/$p/work/file")" "of $p"; done
same "$(cat "$T/out")" "0" "shares"
# What was handed in is never written to; the usual verbs work.
frozen=$(sha256sum "$(state teacher)/anna/m/root.cow" "$(state teacher)/anna/m/disk1.img")
expect 0 in_anna sh -c 'rm /root/answer; dd if=/dev/zero of=/dev/vdb bs=1k count=10 2>/dev/null; sync'
expect 6 as teacher uml-lab check anna
expect 0 as teacher uml-lab diff anna /root
says "A -rw-r--r-- /root/bulk"
says_not "/root/answer"
expect 5 as teacher uml-lab up exam --name anna
says "uml-lab restart anna"
expect 0 as teacher uml-lab reset anna --to submission --yes
expect 0 as teacher uml-lab check anna
expect 0 as teacher uml-lab down anna
same "$(sha256sum "$(state teacher)/anna/m/root.cow" "$(state teacher)/anna/m/disk1.img")" "$frozen" "what was handed in"
# Without namespaces it does not start again either, unless it was opened so.
expect 1 as teacher env UML_LAB_SANDBOX=process-group uml-lab restart anna
says "may run in namespaces only"
wait_until 10 as teacher uml-lab gc anna --yes
# Asked for, there is a network; and where there are no namespaces, it is said.
expect 0 as teacher env UML_LAB_SANDBOX=process-group uml-lab open "$T/anna.sub" --name out --network --weak
expect 0 as teacher timeout -k 5 20 uml-lab exec out -- timeout 5 wget -q -O - http://192.0.2.1:80/
says outside
expect 1 as teacher timeout -k 5 20 uml-lab exec out -- timeout 2 wget -q -O - http://10.0.2.2:80/
expect 0 as teacher uml-lab down out --force
expect 0 as teacher uml-lab gc out --yes
sha256sum -c --quiet "$T/sums" || fail "a submission was changed"
same "$(ls -A "$(state teacher)" | grep -v lock)" "" "sessions left"
