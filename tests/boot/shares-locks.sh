# Locks on a share with locks: shared (fcntl, flock) hold between two machines and the host; who waits for one holds up nobody else; they end with who
# has them, in the guest or with uml-hostfs.
# timeout: 180
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need gcc flock

mkdir -p "$T/work"
gcc -static -O1 -o "$T/lock" tests/boot/lock.c || fail "lock.c does not compile"
cp "$T/lock" "$T/work/lock"

lock() { # MACHINE KIND MODE HOW [START LENGTH]: in its own time
	local machine=$1
	shift
	uml-lab exec --timeout 60s "l/$machine" -- /mnt/work/lock /mnt/work/f "$@"
}
host_lock() { "$T/lock" "$T/work/f" "$@"; }
begin() { rm -f "$T/work/f.release"; sleep 0.8; } # the guests may have seen it for so long
release() { touch "$T/work/f.release"; }
gives() { same "$("${@:2}")" "$1" "${*:2}"; }

# held NAME COMMAND…: in the background, until release
held() {
	local name=$1
	shift
	rm -f "$T/$name"
	"$@" >"$T/$name" 2>&1 &
	wait_until 10 grep -q have "$T/$name"
}

try_kind() { # KIND
	begin
	held a lock a "$1" write try
	gives EAGAIN lock b "$1" write try
	gives EAGAIN lock b "$1" read try
	gives EAGAIN lock a "$1" write try
	gives EAGAIN host_lock "$1" write try
	# One waits, on the other machine; its share goes on meanwhile.
	lock b "$1" write wait >"$T/b" 2>&1 &
	expect 0 uml-lab exec --timeout 5s l/b -- sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo $i >/mnt/work/g; cat /mnt/work/g; done; sleep 0.3'
	[ ! -s "$T/b" ] || fail "it did not wait: $(cat "$T/b")"
	release
	wait_until 10 grep -q have "$T/b"
	wait
	# The host has it, then nobody.
	begin
	held h host_lock "$1" write try
	gives EAGAIN lock a "$1" write try
	lock a "$1" read wait >"$T/a" 2>&1 &
	sleep 0.3
	[ ! -s "$T/a" ] || fail "it did not wait for the host: $(cat "$T/a")"
	release
	wait_until 10 grep -q have "$T/a"
	wait
}

# Bytes; readers together; who has it; a process that dies.
try_fcntl() {
	begin
	held a lock a fcntl write try 0 10
	gives "0 write 0 10" lock b fcntl write ask 5 100
	gives "0 free 10 5" lock b fcntl write ask 10 5
	held b lock b fcntl write try 10 10
	gives "0 write 10 10" host_lock fcntl read ask 10 100
	release
	wait
	begin
	held a lock a fcntl read try
	held b lock b fcntl read try
	gives EAGAIN host_lock fcntl write try
	expect 0 uml-lab exec l/a -- killall -9 lock
	expect 0 uml-lab exec l/b -- killall -9 lock
	release
	wait
	gives have host_lock fcntl write try
	gives have host_lock flock write try
	# Whoever asks last is told.
	expect 0 uml-lab exec --timeout 20s l/a -- /mnt/work/lock /mnt/work/f circle
	grep -qx "EDEADLK have\|have EDEADLK" "$T/out" || fail "a circle: $(cat "$T/out")"
}

# Who waits hears signals: a handler, one that has the wait begun again, ^C, and SIGKILL. Well before the 30 seconds that a wait has at most.
try_signals() { # KIND
	local begin
	begin
	held h host_lock "$1" write try
	begin=$SECONDS
	gives EINTR lock a "$1" write alarm
	expect 137 uml-lab exec --timeout 20s l/b -- sh -c "/mnt/work/lock /mnt/work/f $1 write wait & sleep 0.5; kill -9 \$!; wait \$!"
	expect 130 uml-lab exec --timeout 20s l/b -- timeout -s INT 1 /mnt/work/lock /mnt/work/f "$1" read wait
	[ $((SECONDS - begin)) -lt 25 ] || fail "signals took $((SECONDS - begin)) s to be heard"
	lock a "$1" write restart >"$T/a" 2>&1 &
	sleep 2.5
	[ ! -s "$T/a" ] || fail "the wait ended: $(cat "$T/a")"
	release
	wait_until 10 grep -q have "$T/a"
	wait
}

# uml-hostfs killed while somebody waits in it: he is told, and all goes on, with those who wait later too.
try_kill() { # MACHINE
	local pid
	begin
	held h host_lock flock write try
	lock a flock write wait >"$T/a" 2>&1 &
	lock a flock write wait >"$T/a2" 2>&1 &
	sleep 0.5
	uml-lab status l --json >"$T/status.json"
	pid=$(json "$T/status.json" "[m['hostfs_pid'] for m in d['machines'] if m['name'] == 'a'][0]")
	kill -9 "$pid"
	wait_until 10 grep -q ENOLCK "$T/a"
	wait_until 10 grep -q ENOLCK "$T/a2"
	expect 0 uml-lab exec --timeout 10s l/a -- sh -c 'echo x >/mnt/work/g && cat /mnt/work/g /mnt/work/g /mnt/work/g'
	gives EAGAIN lock a flock write try
	lock a flock write wait >"$T/a" 2>&1 &
	sleep 0.3
	release
	wait_until 10 grep -q have "$T/a"
	wait
}

for kernel in $(kernels); do
	rm -rf "$HOME/.local/state"
	lab l <<-END
		lab: l
		base: tiny
		machines: {a: {memory: 64M, kernel: "$kernel", shares: [work]}, b: {memory: 64M, kernel: "$kernel", shares: [work]}}
		shares: {work: {path: $T/work, mode: rw, locks: shared}}
	END
	up "$T/labs/l"
	try_kind fcntl
	try_fcntl
	try_kind flock
	try_signals fcntl
	[ "$kernel" != 7.2 ] || try_signals flock
	[ "$kernel" != 7.2 ] || try_kill
	expect 0 uml-lab down l
done
