# Sourced by tests/cases/*.sh and tests/boot/*.sh (bash). tests/run gives HOME, XDG_RUNTIME_DIR, TMPDIR and PATH.
# shellcheck shell=bash
set -u

T=$(mktemp -d "${TMPDIR:-/tmp}/t.XXXXXX")
CLEANUP=()

# at_exit COMMAND: run when the test ends, last one first.
at_exit() { CLEANUP=("$*" "${CLEANUP[@]}"); }

finish() {
	local status=$?
	trap - EXIT
	for c in "${CLEANUP[@]}"; do eval "$c" || true; done
	cd /
	chmod -R u+rwX "$T" 2>/dev/null
	rm -rf "$T"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

fail() { echo "FAILED: $*" >&2; exit 1; }
skip() { echo "skipped: $*" >&2; exit 77; }
need() { local c; for c in "$@"; do command -v "$c" >/dev/null || skip "$c is not installed"; done; }

# run COMMAND…: stdout to $T/out, stderr to $T/err, status to $STATUS
run() { "$@" >"$T/out" 2>"$T/err"; STATUS=$?; }

# expect STATUS COMMAND…: runs it and compares the exit status
expect() {
	local wanted=$1
	shift
	run "$@"
	[ "$STATUS" = "$wanted" ] && return
	echo "--- stdout"; tail -n 40 "$T/out"
	echo "--- stderr"; tail -n 40 "$T/err"
	fail "'$*' ended with $STATUS, not $wanted"
}

# says TEXT: the last run printed it, on either stream
says() { grep -qF -- "$1" "$T/out" "$T/err" || { tail -n 40 "$T/out" "$T/err"; fail "it did not say: $1"; }; }
says_not() { ! grep -qF -- "$1" "$T/out" "$T/err" || { tail -n 40 "$T/out" "$T/err"; fail "it said: $1"; }; }
same() { [ "$1" = "$2" ] || fail "${3:-differs}: '$1' is not '$2'"; }

# wait_until SECONDS COMMAND…: until it succeeds
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "waited in vain for: $*"
		sleep 0.05
	done
}

# The leak sanitizer (VARIANT=san) cannot work in a traced process and says so with a failure.
strace() { ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 command strace "$@"; }

# ---- machines ----

# lab NAME <<yaml: a lab folder under $T
lab() { mkdir -p "$T/labs/$1"; cat >"$T/labs/$1/lab.yml"; }

# Ends every session of this test, whatever state it is in.
end_sessions() {
	local s
	for s in "$HOME"/.local/state/uml-lab/sessions/*/; do
		[ -e "$s/session.yml" ] && timeout 60 uml-lab down --force "$(basename "$s")" >/dev/null 2>&1
	done
	return 0
}

# up LAB [OPTION…]: starts it and sees to its end
up() {
	at_exit end_sessions
	uml-lab up "$@" >"$T/up.out" 2>"$T/up.err" && return
	local status=$?
	cat "$T/up.out" "$T/up.err"
	local s
	for s in "$HOME"/.local/state/uml-lab/sessions/*/*/; do
		echo "--- ${s}console.log"; tail -n 30 "$s/console.log" 2>/dev/null
		echo "--- ${s}supervisor.log"; tail -n 20 "$s/supervisor.log" 2>/dev/null
	done
	fail "uml-lab up $* ended with $status"
}

# serve_folder DIR: a web server on the host's loopback; its port is in $PORT
serve_folder() {
	python3 - "$1" >"$T/port" 2>/dev/null <<-'END' &
	import functools, http.server, sys
	handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
	server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
	print(server.server_port, flush=True)
	server.serve_forever()
	END
	at_exit "kill $!"
	wait_until 10 test -s "$T/port"
	# shellcheck disable=SC2034 # for the test
	PORT=$(cat "$T/port")
}

# The kernels to test with: versions that kernel: in lab.yml takes.
kernels() {
	if [ -n "${UML_LAB_TEST_KERNELS:-}" ]; then
		echo "$UML_LAB_TEST_KERNELS"
		return
	fi
	local v
	for v in 6.1 6.12 7.2; do
		if uml-lab doctor --json 2>/dev/null | grep -q "\b${v//./\\.}\."; then
			echo "$v"
		elif [ "${UML_LAB_MUST_WORK:-}" = 1 ]; then
			# Ours is a subshell, $(kernels): the test itself has to end.
			echo "FAILED: kernel $v is not here: tests/kernels fetches it" >&2
			kill -TERM $$
			exit 1
		fi
	done
}

# json FILE EXPRESSION: evaluates a Python expression over the parsed JSON `d`
json() { python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }

# process ids whose command line holds a text, of this user
pids_of() { pgrep -u "$(id -u)" -f -- "$1" || true; }

# e2fsck_overlay SESSION MACHINE [OVERLAY]: the overlay opens, is sound, and its file system is clean (its journal replayed).
e2fsck_overlay() {
	local overlay=${3:-$HOME/.local/state/uml-lab/sessions/$1/$2/root.cow}
	uml-cow check "$overlay" >"$T/check" 2>&1 || { cat "$T/check"; fail "uml-cow check $overlay"; }
	rm -f "$T/flat.img"
	uml-cow flatten "$overlay" "$T/flat.img" >"$T/check" 2>&1 || { cat "$T/check"; fail "uml-cow flatten $overlay"; }
	# A journal that was not replayed yet is no damage: replay it, then look.
	e2fsck -E journal_only -y "$T/flat.img" >/dev/null 2>&1
	e2fsck -fn "$T/flat.img" >"$T/check" 2>&1 || { cat "$T/check"; fail "the file system of $1/$2 is not clean"; }
	rm -f "$T/flat.img"
}
