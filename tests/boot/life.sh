# A machine's whole life on every kernel: up, status, exec, files and setup, down, up again, reset.
# timeout: 300
. tests/cases/lib.sh

mkdir -p "$T/labs/life/files/etc" "$T/labs/life/files/opt/deep/er"
echo "from the lab" >"$T/labs/life/files/etc/from-lab"
printf '#!/bin/sh\necho tool ran\n' >"$T/labs/life/files/opt/deep/er/tool"
chmod 755 "$T/labs/life/files/opt/deep/er/tool"
ln -s /etc/from-lab "$T/labs/life/files/opt/link"

one_life() { # KERNEL
	lab life <<-END
		lab: life
		base: tiny
		machines:
		  m:
		    memory: 64M
		    kernel: "$1"
		    disks: [{size: 64M}]
		    files: files/
		    setup: |
		      echo "set up" >> /root/setup-count
		    startup: |
		      echo "started" >> /root/startup-count
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/life"
	expect 0 uml-lab exec life -- uname -r
	case $(cat "$T/out") in "$1".*) ;; *) fail "kernel $1 wanted, $(cat "$T/out") runs" ;; esac
	expect 0 uml-lab exec life/m -- sh -c 'id -u; hostname; cat /etc/from-lab; /opt/deep/er/tool; readlink /opt/link; stat -c %u:%g /etc/from-lab'
	same "$(tr '\n' ' ' <"$T/out")" "0 m from the lab tool ran /etc/from-lab 0:0 "
	# The kernel's modules are there and load.
	expect 0 uml-lab exec life -- sh -c 'ls /lib/modules/$(uname -r)/kernel >/dev/null && modprobe dummy && grep -q "^dummy " /proc/modules'
	# The extra disk is there, of its size.
	expect 0 uml-lab exec life -- sh -c 'cat /sys/block/vdb/size'
	same "$(cat "$T/out")" 131072

	expect 0 uml-lab status --json life
	cp "$T/out" "$T/status.json"
	same "$(json "$T/status.json" 'd["state"], d["machines"][0]["state"], d["machines"][0]["set_up"]')" "('running', 'ready', True)"
	kill -0 "$(json "$T/status.json" 'd["machines"][0]["supervisor_pid"]')" || fail "no such supervisor"
	kill -0 "$(json "$T/status.json" 'd["machines"][0]["kernel_pid"]')" || fail "no such kernel process"
	expect 5 uml-lab up "$T/labs/life"

	# What is changed survives a clean stop and start; setup runs once, startup each time.
	expect 0 uml-lab exec life -- sh -c 'echo mine > /root/mine'
	expect 0 uml-lab down life
	expect 5 uml-lab down life
	expect 5 uml-lab exec life -- true
	expect 0 uml-lab status life
	says stopped
	up "$T/labs/life"
	expect 0 uml-lab exec life -- sh -c 'cat /root/mine; wc -l < /root/setup-count; wc -l < /root/startup-count'
	same "$(tr '\n' ' ' <"$T/out")" "mine 1 2 "

	# Reset of a running machine: as first started, and running again.
	expect 2 uml-lab reset life
	expect 0 uml-lab reset life --yes
	expect 0 uml-lab exec life -- sh -c 'test ! -e /root/mine; echo $?; wc -l < /root/setup-count; wc -l < /root/startup-count'
	same "$(tr '\n' ' ' <"$T/out")" "0 1 1 "
	expect 0 uml-lab down life
	e2fsck_overlay life m
	same "$(ls "$XDG_RUNTIME_DIR/uml-lab" 2>/dev/null | wc -l)" 0 "something is left in the runtime folder"
}

for k in $(kernels); do
	echo "== $k"
	one_life "$k"
done
