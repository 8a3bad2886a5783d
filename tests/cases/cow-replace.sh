#!/bin/bash
# What --force replaces is neither in use nor what the new file is made from.
. "$(dirname "$0")/lib.sh"
need python3
cd "$T" || exit 1

head -c 1M /dev/urandom >base
uml-cow create -b base a.cow
uml-cow create -b a.cow b.cow
sums=$(cksum base a.cow b.cow)
expect 1 uml-cow create -f -b b.cow a.cow
says "stands on it"
expect 1 uml-cow create -f -b b.cow b.cow
expect 1 uml-cow create -f -b b.cow base
expect 1 uml-cow flatten -f b.cow base
expect 1 uml-cow flatten -f b.cow b.cow
expect 1 uml-cow convert -f b.cow a.cow
expect 1 uml-cow convert -f --to cow -b base b.cow a.cow
same "$(cksum base a.cow b.cow)" "$sums" "something changed"

uml-cow create -b base busy.cow
python3 - busy.cow <<'P' &
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX)
open("locked", "w").close()
while not os.path.exists("done"):
    time.sleep(0.02)
P
holder=$!
at_exit "touch $T/done; wait $holder"
wait_until 10 test -e locked
expect 5 uml-cow create -f -b base busy.cow
expect 5 uml-cow flatten -f b.cow busy.cow
expect 5 uml-cow convert -f --to raw b.cow busy.cow
expect 5 uml-cow convert -f --to cow b.cow busy.cow
touch "done"
wait $holder
expect 0 uml-cow create -f -b base busy.cow
expect 0 uml-cow flatten -f b.cow busy.cow
cmp busy.cow base || fail "flatten"
ls -A | grep 'uml-cow-' && fail "left behind"
true
