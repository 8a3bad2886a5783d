# Checks: PASS, FAIL and SKIP with their evidence, exit status, stages, retry, time-outs, JSON, JUnit, and what stays of them.
# timeout: 120
. tests/cases/lib.sh

lab graded <<'END'
lab: graded
base: tiny
machines:
  a: {memory: 64M}
  b: {memory: 64M}
checks:
  - {name: output, machine: a, run: "printf 'yes\n\n'", expect: {output: "yes"}, points: 2}
  - {name: pattern on any line, machine: a, run: "echo one; echo two", expect: {match: "^tw.$"}}
  - {name: status, machine: a, run: exit 3, expect: {status: 3}, stage: first}
  - {name: the file, machine: a, run: cat /root/answer, expect: {output: "42"}, stage: second, points: 3}
END
up "$T/labs/graded"

# The untouched lab fails, and says why; the solution passes.
expect 6 uml-lab check
says "FAIL  the file (a, 3 points)"
says 'wanted the output "42", found ""; exit status 1; its errors: '
says "/root/answer"
says "3 passed, 1 failed, 0 skipped; 4 of 7 points"
expect 0 uml-lab check --stage first
says "3 passed, 0 failed"
says_not "the file"
expect 4 uml-lab check --stage third
says "first, second"
uml-lab exec graded/a -- sh -c 'echo 42 >/root/answer'
expect 0 uml-lab check "$T/labs/graded"
says "4 passed, 0 failed, 0 skipped; 7 of 7 points"
expect 0 uml-lab status graded
says "7 of 7 points"
expect 0 uml-lab check graded --json --junit "$T/junit.xml"
json "$T/out" "[c['verdict'] for c in d['checks']]" | grep -qF "['PASS', 'PASS', 'PASS', 'PASS']" || fail "$(cat "$T/out")"
python3 - "$T/junit.xml" <<'END' || fail "$(cat "$T/junit.xml")"
import sys, xml.etree.ElementTree as e
s = e.parse(sys.argv[1]).getroot().find("testsuite")
assert s.get("tests") == "4" and s.get("failures") == "0", s.attrib
assert s.findall("testcase")[3].find("system-out").text.strip() == "42"
END

# The lab file as it is now counts. A guest that answers with control characters, in XML and on the terminal; one that hangs;
# one that is right only a while later; a machine that does not run.
cat >>"$T/labs/graded/lab.yml" <<'END'
  - {name: "hostile <&>", machine: a, run: "printf '\\033[2J\\377]]><\\n'; head -c 300000 /dev/zero", expect: {output: x}}
  - {name: hangs, machine: a, run: sleep 60, timeout: 1s}
  - {name: late, machine: a, run: "echo x >>/tmp/n; test $(wc -l </tmp/n) -ge 3", retry: 20s}
  - {name: elsewhere, machine: b, run: "true"}
END
expect 0 uml-lab down graded/b
expect 6 uml-lab check graded --junit "$T/junit.xml"
says "SKIP  elsewhere"
says "machine b of session graded is not running"
says "it did not end within 1 s"
says "PASS  late"
says "2 failed, 1 skipped"
! grep -q "$(printf '\033\\[2J')" "$T/out" || fail "control characters of the guest reached the terminal"
python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' "$T/junit.xml" || fail "JUnit is no XML"
wait_until 10 sh -c "! uml-lab exec graded/a -- pgrep -f 'sleep 60'"

# Ctrl-C ends a check at once, and the guest's command with it. (`late` takes its time again: there must be something to end.)
expect 0 uml-lab exec graded/a -- rm /tmp/n
uml-lab check graded >"$T/out" 2>&1 &
pid=$!
wait_until 20 grep -q "hostile" "$T/out"
kill -INT $pid
wait $pid
same $? 1 "interrupted"

# What was graded is gone with a reset; a lab that cannot be loaded now is told, and the session's own checks are used.
echo "oops: 1" >>"$T/labs/graded/lab.yml"
expect 0 uml-lab check graded
says "using the checks that session graded was made with"
expect 0 uml-lab reset graded --yes
expect 0 uml-lab status graded --json
json "$T/out" "d['check'] is None" | grep -q True || fail "a reset left old results"
expect 0 uml-lab down graded
expect 5 uml-lab check graded
says "0 passed, 0 failed, 4 skipped"
