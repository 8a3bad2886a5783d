# diff of running and stopped machines: what changed since the base, paths, patches, JSON; the machine goes on afterwards.
# timeout: 120
. tests/cases/lib.sh

lab changed <<-END
	lab: changed
	base: tiny
	machines:
	  a: {memory: 64M}
	  b: {memory: 64M}
END
up "$T/labs/changed"
expect 0 uml-lab exec changed/a -- sh -c 'echo one >/root/f; echo x >>/etc/passwd; rm /etc/hostname; mkdir /opt/d; echo y >/opt/d/y'
expect 0 uml-lab diff changed/a
for line in "D -rw-r--r-- /etc/hostname" "M -rw-r--r-- /etc/passwd (content, size, mtime)" "A drwxr-xr-x /opt/d" "A -rw-r--r-- /root/f"; do
	grep -qxF -- "$line" "$T/out" || { cat "$T/out"; fail "no line: $line"; }
done
# Held still for a moment only, writers too; many times in a row.
uml-lab exec changed/a -- sh -c 'i=0; while [ $i -lt 400 ]; do echo $i >/root/busy; i=$((i + 1)); done; echo wrote' >"$T/writer" 2>&1 &
writer=$!
for _ in 1 2 3 4 5 6; do
	expect 0 uml-lab diff changed /root/f
	same "$(cat "$T/out")" "a:
A -rw-r--r-- /root/f"
done
wait $writer || { cat "$T/writer"; fail "the writer was disturbed"; }
grep -q wrote "$T/writer" || fail "the writer did not end"
expect 0 uml-lab diff changed/a --patch etc/passwd
same "$(sed -n '1,2p;$p' "$T/out")" "--- a/etc/passwd
+++ b/etc/passwd
+x"
expect 0 uml-lab diff changed --json /opt/
same "$(json "$T/out" '[(m["machine"], sorted(c["path"] for c in m["changes"])) for m in d]')" "[('a', ['/opt/d', '/opt/d/y']), ('b', [])]"
expect 2 uml-lab diff changed --json --patch
expect 4 uml-lab diff changed/nobody
expect 4 uml-lab diff nowhere

# A client that dies while all is frozen: the guest goes on.
expect 0 uml-lab exec changed/a -- sh -c 'dd if=/dev/urandom of=/root/big bs=64k count=64 2>/dev/null; sync'
for _ in 1 2 3; do
	uml-lab diff changed/a --patch >/dev/null 2>&1 &
	victim=$!
	kill -9 $victim
	wait $victim 2>/dev/null
done
expect 0 timeout -k 5 30 uml-lab exec changed/a -- sh -c 'echo thawed >/root/thawed; sync; cat /root/thawed'
same "$(cat "$T/out")" thawed

expect 0 uml-lab down changed
expect 0 uml-lab diff changed/a /root
says "A -rw-r--r-- /root/thawed"
expect 0 uml-lab reset changed --yes
expect 0 uml-lab diff changed
same "$(cat "$T/out")" ""
