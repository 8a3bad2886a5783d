# A QEMU machine (in software, without KVM) and a machine of a lab on one network: they ping each other.
# timeout: 180
. tests/cases/lib.sh
need qemu-system-x86_64 vde_switch python3

GUEST=$("$UML_LAB_SOURCE/tests/qemu-kernel" 2>"$T/err") || skip "no kernel for QEMU: $(tail -n 1 "$T/err")"
lab mixed <<-END
	lab: mixed
	base: tiny
	networks:
	  lan: {switch: true}
	machines:
	  m:
	    memory: 64M
	    interfaces: [{network: lan, address: 10.6.0.1/24}]
END
up "$T/labs/mixed"
uml-lab status --json mixed >"$T/status.json"
WHERE=$(json "$T/status.json" 'd["networks"][0]["locator"]')
qemu-system-x86_64 -accel tcg -m 128 -nodefaults -no-user-config -display none -serial "file:$T/console" \
	-kernel "$GUEST/kernel" -initrd "$GUEST/initrd" \
	-append "console=ttyS0 quiet panic=-1 ADDRESS=10.6.0.2/24 PEER=10.6.0.1" \
	-netdev "vde,id=n,sock=$WHERE" -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:99 \
	</dev/null >"$T/qemu" 2>&1 &
at_exit "kill $!"
wait_until 90 grep -q "guest is up" "$T/console"
wait_until 30 grep -q "10.6.0.1 answers" "$T/console"
wait_until 10 timeout -k 5 10 uml-lab exec mixed/m -- ping -c 1 -W 2 10.6.0.2
expect 0 timeout -k 5 10 uml-lab exec mixed/m -- ip neigh
says "52:54:00:00:00:99"
