# The lab first-steps as a student does it: a whole Debian with systemd, its tasks, a clean stop, a reset; on every kernel.
# timeout: 420
. tests/cases/lib.sh
need curl

page() { curl -s -m 5 "http://127.0.0.1:$1/"; }
# Nobody who looks at the console while it goes down is alarmed.
undisturbed() {
	expect 0 uml-lab log first-steps
	says "Reached target"
	says_not FAILED
	says_not "I/O error"
}

cp -R "$UML_LAB_SOURCE/labs/first-steps" "$T/"
for k in $(kernels); do
	echo "== $k"
	rm -rf "$HOME/.local/state"
	cp "$UML_LAB_SOURCE/labs/first-steps/lab.yml" "$T/first-steps/lab.yml"
	sed -i "s/^    memory: .*/&\n    kernel: \"$k\"/" "$T/first-steps/lab.yml"
	up "$T/first-steps"
	expect 0 uml-lab exec first-steps -- sh -c 'uname -r; systemctl is-system-running'
	says "$k."
	says running
	expect 0 uml-lab exec first-steps -- systemctl --failed --no-legend
	same "$(cat "$T/out")" ""
	# 1. users, 2. services
	expect 0 uml-lab exec first-steps -- sh -c 'useradd -m -s /bin/bash ada && usermod -aG sudo ada && su - ada -c "id -un"'
	same "$(cat "$T/out")" ada
	expect 0 uml-lab exec first-steps -- systemctl restart cron
	# 3. a web server, seen from the host
	expect 0 uml-lab exec first-steps -- systemctl enable --now nginx
	expect 0 uml-lab status --json first-steps
	cp "$T/out" "$T/status.json"
	PORT=$(json "$T/status.json" 'd["machines"][0]["forwards"][0]' | cut -d: -f2)
	wait_until 10 page "$PORT"
	page "$PORT" | grep -q "root on" || fail "the page is not the lab's"
	# Networking restarted, a link taken down and up.
	expect 0 uml-lab exec first-steps -- systemctl restart systemd-networkd
	wait_until 15 uml-lab exec first-steps -- sh -c 'ip route | grep -q "default via 10.0.2.2"'
	expect 0 uml-lab exec first-steps -- sh -c 'ip link set eth0 down; sleep 0.2; ip link set eth0 up'
	wait_until 20 uml-lab exec first-steps -- sh -c 'ip route | grep -q "default via 10.0.2.2"'
	wait_until 10 page "$PORT"
	# The login console shows a root prompt.
	wait_until 20 sh -c 'uml-lab log first-steps | grep -q "root@server"'
	# A clean stop: the journal of the file system is empty, and the service starts by itself next time.
	expect 0 uml-lab down first-steps
	e2fsck_overlay first-steps server
	undisturbed
	up "$T/first-steps"
	expect 0 uml-lab exec first-steps -- systemctl is-active nginx
	expect 0 uml-lab reset first-steps --yes
	expect 1 uml-lab exec first-steps -- grep ada /etc/passwd
	run uml-lab exec first-steps -- poweroff
	wait_until 30 sh -c 'uml-lab status first-steps | grep -q stopped'
	undisturbed
done
