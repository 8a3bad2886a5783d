# The daemons of a machine in sandboxes of their own: what /proc says of each, and what each of its threads reaches when it is made
# to try (inject.c): its files, and none of the student's others, no network, no program, no process.
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need gcc
gcc -O1 -o "$T/inject" tests/boot/inject.c || fail "inject.c does not compile"

mkdir -p "$T/share" "$T/book"
echo "the student's own" >"$HOME/secret"
echo text >"$T/book/page"; echo own >"$T/share/own"
lab d <<-END
	lab: d
	base: tiny
	machines: {m: {memory: 64M, shares: [work, book], disks: [{size: 16M}], interfaces: [{slirp: true}]}}
	shares: {work: {path: $T/share, mode: rw}, book: {path: $T/book}}
END
up "$T/labs/d"
state=$HOME/.local/state/uml-lab/sessions/d
uml-lab status --json d >"$T/status.json"
daemon() { json "$T/status.json" "d['machines'][0]['$1']"; }
disk=$(daemon disk_pid) plug=$(daemon plug_pid) hostfs=$(daemon hostfs_pid)

# refused, allowed PID WHAT…: each of its threads
tries() {
	"$T/inject" "$@" >"$T/tried" 2>&1 || fail "cannot try $*: $(cat "$T/tried")"
	[ -s "$T/tried" ] || fail "nothing was tried: $*"
}
refused() { tries "$@"; ! grep -q ok "$T/tried" || fail "it may: $*: $(cat "$T/tried")"; }
allowed() { tries "$@"; ! grep -v ok "$T/tried" || fail "it may not: $*"; }

for pid in $disk $plug $hostfs; do
	for line in "NoNewPrivs 1" "Seccomp 2" "CapEff 0000000000000000" "CapPrm 0000000000000000"; do
		read -r name value <<<"$line"
		same "$(sed -n "s/^$name:[[:space:]]*//p" "/proc/$pid/status")" "$value" "$name of $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done
	refused "$pid" read "$HOME/secret"
	refused "$pid" read "$HOME"
	refused "$pid" read /proc/self/environ
	refused "$pid" write "$HOME/secret"
	refused "$pid" make "$HOME/new"
	refused "$pid" make /dev/shm/new
	refused "$pid" remove "$HOME/secret"
	refused "$pid" read "$state/session.yml"
	refused "$pid" exec /bin/true
	refused "$pid" signal $$
done
# The plug reads name servers' addresses, which may be put anew in /etc at any time.
refused "$disk" read /etc/passwd
refused "$hostfs" read /etc/passwd
refused "$disk" socket
refused "$hostfs" socket

# Its own.
allowed "$disk" write "$state/m/root.cow"
refused "$disk" read "$T/book/page"
refused "$disk" make "$state/new"
base=$(uml-cow info --json "$state/m/root.cow" 2>/dev/null | grep -o '"/[^"]*\.img"' | tail -1 | tr -d '"')
[ -z "$base" ] || refused "$disk" write "$base"
allowed "$hostfs" read "$T/book/page"
refused "$hostfs" write "$T/book/page"
refused "$hostfs" make "$T/book/new"
allowed "$hostfs" write "$T/share/own"
refused "$hostfs" write "$state/m/root.cow"
refused "$plug" read "$T/book/page"
refused "$plug" write "$state/m/root.cow"

# And all of it still works: snapshots and merges make and remove files.
expect 0 uml-lab snapshot create d one
expect 0 uml-lab exec d -- sh -c 'echo x >/root/x; sync; cat /mnt/book/page; echo y >/mnt/work/y'
expect 0 uml-lab snapshot create d two
expect 0 uml-lab snapshot remove d one
expect 0 uml-lab exec d -- cat /root/x
same "$(cat "$T/share/y" "$HOME/secret")" "y
the student's own"
expect 0 uml-lab down d
