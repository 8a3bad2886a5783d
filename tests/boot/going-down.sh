# A machine goes down as its init wants it: shutdown actions first, then everybody is told, and what is written then is kept. With
# busybox's init, with none in the image, by `down`, by `restart` and by the guest's own poweroff.
# timeout: 240
. tests/cases/lib.sh
at_exit end_sessions

# What a guest's programs do when they are told: this one saves, after a while, that one hears nothing.
saver='trap "sleep 0.3; echo saved >>/root/kept; exit" TERM; while :; do sleep 0.1; done'
deaf='trap "" TERM HUP; while :; do sleep 0.1; done'

# in_guest LAB SCRIPT: it goes on after exec
in_guest() { expect 0 uml-lab exec "$1" -- sh -c "setsid sh -c '$2' </dev/null >/dev/null 2>&1 &"; }
# A terminal's shell ignores SIGTERM.
at_terminal() { wait_until 10 uml-lab exec "$1" -- sh -c 'ps | grep -q "[-]/bin/sh"'; }
# kept LAB WHAT: up again, with no journal to replay
kept() {
	up "$T/labs/$1"
	expect 0 uml-lab exec "$1" -- sh -c 'cat /root/kept; rm /root/kept; ! dmesg | grep -i recover'
	same "$(tr '\n' ' ' <"$T/out")" "$2" "kept"
}

# A base without init: the tiny one's programs alone, as in an image for containers.
mkdir -p "$T/bare/bin" "$T/bare/root" "$T/bare/etc"
cp "$(command -v busybox)" "$T/bare/bin/"
for a in sh sleep cat rm ps grep dmesg setsid; do ln -s busybox "$T/bare/bin/$a"; done
tar -C "$T/bare" -cf "$T/bare.tar" .
expect 0 uml-lab image import bare "$T/bare.tar" --size 32M

one_kernel() { # KERNEL
	lab down <<-END
		lab: down
		base: tiny
		machines: {m: {memory: 64M, kernel: "$1"}}
	END
	lab bare <<-END
		lab: bare
		base: bare
		machines: {m: {memory: 64M, kernel: "$1"}}
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/down"
	at_terminal down
	expect 0 uml-lab exec down -- sh -c 'echo "::shutdown:/bin/sh -c \"sleep 0.3; echo action >>/root/kept\"" >>/etc/inittab; kill -HUP 1'
	in_guest down "$saver"
	sleep 0.2
	expect 0 uml-lab down down
	e2fsck_overlay down m
	kept down "action saved "

	# Who hears nothing is ended, in time.
	in_guest down "$saver"
	in_guest down "$deaf"
	sleep 0.2
	expect 0 uml-lab restart down
	expect 0 uml-lab exec down -- sh -c 'cat /root/kept; rm /root/kept; ! dmesg | grep -i recover'
	same "$(tr '\n' ' ' <"$T/out")" "action saved "

	in_guest down "$saver"
	sleep 0.2
	run uml-lab exec down -- poweroff
	wait_until 20 sh -c 'uml-lab status down | grep -q stopped'
	e2fsck_overlay down m
	kept down "action saved "
	expect 0 uml-lab down down

	up "$T/labs/bare"
	in_guest bare "$saver"
	in_guest bare "$deaf"
	sleep 0.2
	expect 0 uml-lab down bare
	e2fsck_overlay bare m
	kept bare "saved "
	expect 0 uml-lab down bare
}

for k in $(kernels); do
	echo "== $k"
	one_kernel "$k"
done
