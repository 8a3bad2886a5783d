# Limits by cgroup v2, tried where it can be had without root on the host: in a machine whose kernel has the controllers, a user
# with a delegated group. And on this host, whatever it has: said in status.
. tests/cases/lib.sh
at_exit end_sessions

lab c <<-END
	lab: c
	base: tiny
	machines: {m: {memory: 128M}}
	limits: {cpu: 30%}
END
up "$T/labs/c"
uml-lab status --json c >"$T/status.json"
json "$T/status.json" "d['machines'][0]['sandbox']" >"$T/out"
grep -q "limits: by cgroup.*cpu 30%\|limits: .*cgroup.*low priority only" "$T/out" || fail "limits are not told: $(cat "$T/out")"
if grep -q "low priority" "$T/out"; then
	kernel=$(json "$T/status.json" "d['machines'][0]['kernel_pid']")
	# proc(5), stat: the 19th field. ps shows none where all this runs under SCHED_IDLE.
	[ "$(sed 's/.*) //' "/proc/$kernel/stat" | cut -d' ' -f17)" -ge 10 ] || fail "the kernel has no low priority"
	expect 0 uml-lab status c
	says "low priority"
fi

expect 0 uml-lab copy "$UML_LAB_BUILD/tests/cgroup_guest" c/m:/root/cg
cat >"$T/in" <<-'END'
	mkdir -p /c && mount -t cgroup2 none /c || exit 1
	cp /root/cg /tmp/cg && chmod 755 /tmp/cg
	echo "+memory +cpu +pids" >/c/cgroup.subtree_control || exit 1
	mkdir -p /c/user/shell
	echo "+memory +cpu +pids" >/c/user/cgroup.subtree_control
	grep -q ^student: /etc/passwd || echo student:x:1000:1000::/:/bin/sh >>/etc/passwd
	chown 1000 /c/user /c/user/cgroup.* /c/user/shell /c/user/shell/cgroup.*
	for what in memory cpu forks; do
		sh -c 'echo 0 >/c/user/shell/cgroup.procs; exec su student -s /bin/sh -c "/tmp/cg '$what'"' && ls /c/user | grep uml-lab
	done
	su student -s /bin/sh -c "/tmp/cg cpu"
	sh -c 'echo 0 >/c/user/shell/cgroup.procs; exec su student -s /bin/sh -c "/tmp/cg killed; exit 0"'
	[ -d /c/user/uml-lab-session/machine ] && echo "left by one that was killed"
	su student -s /bin/sh -c "/tmp/cg sweep" && [ ! -d /c/user/uml-lab-session ] && echo "swept"
END
run uml-lab exec c -- sh -s <"$T/in"
cat "$T/out" "$T/err"
says "by cgroup, memory 16 MiB, cpu 20%, 8 processes"
[ "$(grep -c "ended with signal 9" "$T/out")" = 2 ] || fail "memory or processes were not bounded"
says "no cgroup is delegated to the user"
used=$(sed -n 's/^used \([0-9.]*\) of 4 s/\1/p' "$T/out")
awk -v u="$used" 'BEGIN { exit !(u > 0.1 && u < 1.6) }' || fail "20% of a processor for 4 s, but it used $used s"
says "forked 7"
says "left by one that was killed"
says "swept"
! grep -q "^uml-lab-" "$T/out" || fail "a group was left"
