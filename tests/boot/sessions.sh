# Two sessions of one lab, machines of one name: they never meet. Concurrent starts. A machine that is busy is told so.
# timeout: 180
. tests/cases/lib.sh

lab twice <<-END
	lab: twice
	base: tiny
	machines:
	  a: {memory: 64M}
	  b: {memory: 64M}
END
at_exit end_sessions
uml-lab up --name one "$T/labs/twice" >"$T/one" 2>&1 &
first=$!
uml-lab up --name two "$T/labs/twice" >"$T/two" 2>&1 || { cat "$T/two"; fail "up two"; }
wait $first || { cat "$T/one"; fail "up one"; }
for s in one two; do
	for m in a b; do
		expect 0 uml-lab exec $s/$m -- sh -c "echo $s-$m > /root/me"
	done
done
for s in one two; do
	for m in a b; do
		expect 0 uml-lab exec $s/$m -- cat /root/me
		same "$(cat "$T/out")" "$s-$m"
	done
done
expect 0 uml-lab status
for x in one/a one/b two/a two/b; do says $x; done
# Which one is meant? All of them, only when told so.
expect 2 uml-lab down
says "one, two"
expect 2 uml-lab exec one -- true
says "one/a, one/b"
expect 4 uml-lab exec three/a -- true
expect 4 uml-lab exec one/c -- true
expect 4 uml-lab reset one c --yes
# One machine of several.
expect 0 uml-lab down one/a
expect 5 uml-lab exec one/a -- true
expect 0 uml-lab exec one/b -- true
expect 0 uml-lab up --name one --only a "$T/labs/twice"
expect 0 uml-lab exec one/a -- cat /root/me
expect 0 uml-lab reset one b --yes
expect 1 uml-lab exec one/b -- cat /root/me
expect 0 uml-lab exec one/a -- cat /root/me
expect 0 uml-lab restart two a
expect 0 uml-lab exec two/a -- cat /root/me
# A session of another lab under the same name is refused.
lab other <<-END
	lab: other
	base: tiny
	machines: {a: {}}
END
expect 5 uml-lab up --name one "$T/labs/other"
says "--name"
expect 2 uml-lab down --all one
expect 0 uml-lab down --all
expect 5 uml-lab down one
expect 5 uml-lab down --all
# In the lab's folder the session needs no name.
expect 0 uml-lab up "$T/labs/other"
(cd "$T/labs/other" && uml-lab exec other -- true && uml-lab down) || fail "down in the lab's folder"
