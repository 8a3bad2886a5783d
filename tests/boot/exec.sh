# exec: true exit statuses, streams of any size both ways, signals, time-outs; copy: files and folders both ways.
# timeout: 240
. tests/cases/lib.sh

try_exec() { # KERNEL
	lab ex <<-END
		lab: ex
		base: tiny
		machines: {m: {memory: 128M, kernel: "$1"}}
	END
	rm -rf "$HOME/.local/state"
	up "$T/labs/ex"
	for status in 0 1 3 42 126 255; do
		expect "$status" uml-lab exec ex -- sh -c "exit $status"
	done
	expect 127 uml-lab exec ex -- /no/such/program
	expect 137 uml-lab exec ex -- sh -c 'kill -9 $$'
	expect 0 uml-lab exec ex -- sh -c 'echo out; echo err >&2'
	same "$(cat "$T/out")" out
	same "$(cat "$T/err")" err
	expect 0 uml-lab exec -C /etc -e "A=b c" ex -- sh -c 'echo "$PWD $A"'
	same "$(cat "$T/out")" "/etc b c"
	expect 124 uml-lab exec --timeout 1s ex -- sleep 60
	expect 0 uml-lab exec -n ex -- cat

	# 20 MB in and out, byte for byte, also when the reader is slow.
	head -c 20000000 /dev/urandom >"$T/big"
	uml-lab exec ex -- cat <"$T/big" | cmp - "$T/big" || fail "20 MB came back different"
	uml-lab exec ex -- sh -c 'cat > /tmp/big; md5sum < /tmp/big' <"$T/big" | cut -c1-32 >"$T/sum"
	same "$(cat "$T/sum")" "$(md5sum <"$T/big" | cut -c1-32)"
	uml-lab exec ex -- cat /tmp/big | { sleep 2; md5sum; } | cut -c1-32 >"$T/sum"
	same "$(cat "$T/sum")" "$(md5sum <"$T/big" | cut -c1-32)"

	# A signal to the client is a signal to the command.
	uml-lab exec ex -- sh -c 'trap "echo got it; exit 7" TERM; echo ready; while :; do sleep 0.1; done' >"$T/sig" &
	local client=$!
	wait_until 10 grep -q ready "$T/sig"
	kill -TERM $client
	wait $client
	same $? 7
	grep -q "got it" "$T/sig" || fail "the command did not get the signal"
	# A client that dies takes its command along.
	uml-lab exec ex -- sleep 12345 &
	client=$!
	wait_until 10 uml-lab exec ex -- sh -c "ps | grep -q [s]leep.12345"
	kill -9 $client
	wait $client 2>/dev/null
	wait_until 10 sh -c '! uml-lab exec ex -- sh -c "ps | grep -q [s]leep.12345"'

	# Many at once.
	local i pids=()
	for i in $(seq 20); do
		uml-lab exec ex -- sh -c "echo $i; exit $i" >"$T/many.$i" &
		pids+=($!)
	done
	for i in $(seq 20); do
		wait "${pids[i - 1]}"
		same $? "$i"
		same "$(cat "$T/many.$i")" "$i"
	done

	# copy
	rm -rf "$T/tree" "$T/back"
	mkdir -p "$T/tree/sub/empty"
	echo one >"$T/tree/one"
	printf 'x' >"$T/tree/sub/run"
	chmod 750 "$T/tree/sub/run"
	ln -s ../one "$T/tree/sub/link"
	cp "$T/big" "$T/tree/big"
	touch "$T/tree/with space" "$T/tree/-dash"
	expect 0 uml-lab copy "$T/tree" ex/m:/root/
	expect 0 uml-lab exec ex -- sh -c 'cd /root/tree && cat one && readlink sub/link && stat -c %a sub/run && ls -d sub/empty && md5sum < big'
	expect 0 uml-lab copy ex/m:/root/tree "$T/back"
	diff -r "$T/tree" "$T/back" || fail "the tree came back different"
	same "$(stat -c %a "$T/back/sub/run")" 750
	same "$(readlink "$T/back/sub/link")" ../one
	expect 0 uml-lab copy "$T/tree/one" ex:/etc/renamed
	expect 0 uml-lab exec ex -- cat /etc/renamed
	same "$(cat "$T/out")" one
	expect 1 uml-lab copy ex:/no/such/file "$T/nothing"
	expect 1 uml-lab copy "$T/missing" ex:/root/
	expect 2 uml-lab copy "$T/tree" "$T/other"
	expect 4 uml-lab copy "$T/tree/one" nosession/m:/root/
	expect 0 uml-lab down ex
}

for k in $(kernels); do
	echo "== $k"
	try_exec "$k"
done
