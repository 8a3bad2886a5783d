#!/bin/bash
# A disk that a guest runs on is refused by everything but info and map; afterwards it is free.
. "$(dirname "$0")/lib.sh"
need linux.uml mke2fs cc
cd "$T" || exit 1

# the driver holds its locks while the device is open: the guest's init stays
echo 'int pause(void); int main(void) { for (;;) pause(); }' >init.c
cc -static -o init init.c 2>/dev/null || skip "no static libc"
mkdir tree
cp init tree/init
mke2fs -q -t ext4 -d tree base.img 8M >/dev/null 2>&1
expect 0 uml-cow create -b base.img o.cow
setsid linux.uml mem=64M con=null con0=null,fd:1 ssl=null ubd0=o.cow root=/dev/ubda init=/init >console.log 2>&1 </dev/null &
guest=$!
at_exit "kill -9 -- -$guest 2>/dev/null"
in_use() { uml-cow info --json o.cow | grep -q '"in_use": true'; }
mounted() { grep -q 'Run /init' console.log; }
wait_until 60 mounted
in_use || fail "a guest runs on it"

for verb in "commit o.cow" "compact o.cow" "rebase -b base.img o.cow" "rebase --header-only -b base.img o.cow" \
	"merge o.cow base.img" "flatten o.cow flat" "check o.cow" "check --repair o.cow" "files o.cow" \
	"diff o.cow base.img" "convert o.cow x.cow" "commit --allow-any o.cow"; do
	# shellcheck disable=SC2086
	expect 5 uml-cow $verb
	says "in use"
done
expect 0 uml-cow map o.cow
expect 0 uml-cow info o.cow

kill -9 -- "-$guest"
wait $guest 2>/dev/null
free() { ! in_use; }
wait_until 30 free
expect 0 uml-cow check o.cow
