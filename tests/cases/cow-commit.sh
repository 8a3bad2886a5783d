#!/bin/bash
# A commit that is killed half way: both disks open and show the new content, others are refused, and it is completed by
# committing again or by check --repair; the same when writing fails. test_cow_faults does this at each call; here it is what a
# person sees, and the disk is large enough to be copied by two threads.
. "$(dirname "$0")/lib.sh"
need strace
cd "$T" || exit 1

prepare() {
	rm -f base old new o.cow sibling.cow seen elsewhere trace
	head -c 24M /dev/urandom >base
	touch -d @1000000000 base
	cp -p base old
	cp base new
	for at in 100 500 3000 7000 9000 12000 14000 16000 18000 20000 22000 23000; do head -c 50000 /dev/urandom | dd of=new bs=1024 seek=$at conv=notrunc status=none; done
	expect 0 uml-cow convert --to cow -b base new o.cow
	uml-cow create -b base sibling.cow
}
# interrupted STATUS FAULT: at the third write of data by one thread: some is there, some is not
interrupted() {
	prepare
	expect "$1" strace -f -qq -o trace -e trace=pwrite64,clone,clone3 -e "inject=pwrite64:$2:when=3" uml-cow commit o.cow
	[ "$(nproc)" = 1 ] || grep -q clone trace || fail "no second thread"
	! cmp -s base old || fail "killed too early"
	! cmp -s base new || fail "killed too late"
	expect 0 uml-cow flatten -f o.cow seen
	cmp seen new || fail "the overlay shows something else"
	expect 0 uml-cow flatten -f base seen
	cmp seen new || fail "the base, opened by us, is neither old nor new"
	expect 1 uml-cow flatten -f sibling.cow seen
	says "was modified since"
	expect 1 uml-cow check o.cow
	says "interrupted"
	expect 5 uml-cow mount --write base .
	says "complete it first: uml-cow commit"
}

complete() {
	cmp base new || fail "not committed"
	expect 0 uml-cow check o.cow
	expect 0 uml-cow info --json o.cow
	same "$(json "$T/out" 'd["chain"][0]["owned_sectors"], len(d["chain"])')" "(0, 2)"
	expect 0 uml-cow flatten -f o.cow seen
	cmp seen new || fail "the overlay shows something else in the end"
}

for fault in "137 signal=KILL" "1 error=EIO" "1 error=ENOSPC"; do
	# shellcheck disable=SC2086
	interrupted $fault
	expect 0 uml-cow commit o.cow
	complete
done
interrupted 137 signal=KILL
expect 0 uml-cow check --repair o.cow
says "repaired"
complete
interrupted 137 signal=KILL
expect 0 uml-cow check --repair base
complete

# the overlay is gone meanwhile: said, and nothing is made up
interrupted 137 signal=KILL
mv o.cow elsewhere
expect 1 uml-cow flatten -f base seen
says "can't be completed"
mv elsewhere o.cow
expect 0 uml-cow commit o.cow
complete
