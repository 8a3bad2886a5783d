#!/bin/bash
# The command line of uml-cow: what it says and how it ends; chains over qcow2 and back.
. "$(dirname "$0")/lib.sh"
need qemu-img uml_mkcow
cd "$T" || exit 1

head -c 3M /dev/urandom >base
truncate -s 10M base
expect 2 uml-cow create o.cow
expect 2 uml-cow create -b base
expect 1 uml-cow create -b nowhere o.cow
expect 0 uml-cow create -b base o.cow
expect 1 uml-cow create -b base o.cow
says "exists"
expect 0 uml-cow create --force -b base o.cow

# as uml_mkcow makes it, all of it
expect 0 uml_mkcow witness.cow base
cmp o.cow witness.cow || fail "uml_mkcow makes another file"

expect 0 uml-cow create -b o.cow top.cow
expect 0 uml-cow info --json top.cow
same "$(json "$T/out" '[f["format"] for f in d["chain"]]')" "['V3', 'V3', 'raw']"
same "$(json "$T/out" 'd["size"], d["problem"]')" "(10485760, None)"
expect 0 uml-cow map --json top.cow
same "$(json "$T/out" '[(e["start"], e["length"], e["owner"], e["kind"]) for e in d]')" \
	"[(0, 6144, 2, 'data'), (6144, 14336, 2, 'zero')]"

cp base content
printf x | dd of=content bs=1 seek=5000000 conv=notrunc status=none
head -c 70000 /dev/urandom | dd of=content bs=1000 seek=100 conv=notrunc status=none
expect 0 uml-cow diff base content
same "$(cat "$T/out")" $'195 138\n9765 1'
expect 0 uml-cow convert -b top.cow --to cow content c.cow
expect 0 uml-cow diff c.cow content
same "$(cat "$T/out")" ""
expect 0 uml-cow convert c.cow c.qcow2
expect 0 qemu-img compare -f raw -F qcow2 content c.qcow2
expect 0 uml-cow convert c.qcow2 back.img
cmp back.img content || fail "qcow2 and back"
expect 0 uml-cow convert -b base c.qcow2 c2.cow
expect 0 uml-cow diff c2.cow c.cow
same "$(cat "$T/out")" ""
# a qcow2 image that names another file is not followed
qemu-img create -q -f qcow2 -b content -F raw evil.qcow2
expect 1 uml-cow convert evil.qcow2 evil.img
says "backing file"
[ ! -e evil.img ] || fail "evil.img"

expect 0 uml-cow merge c.cow o.cow
expect 0 uml-cow info --json c.cow
same "$(json "$T/out" 'len(d["chain"])')" 2
expect 0 uml-cow diff c.cow content
same "$(cat "$T/out")" ""
expect 1 uml-cow merge c.cow base
expect 1 uml-cow merge c.cow content
expect 0 uml-cow commit c.cow
cmp base content || fail "commit"
# who else stands on that base is told so
expect 1 uml-cow info o.cow
says "was modified since"
expect 1 uml-cow flatten o.cow x
expect 1 uml-cow check o.cow
expect 0 uml-cow check c.cow

# an uml_mkcow overlay over a COW file sees its bytes: told, not followed
expect 0 uml_mkcow stacked.cow c.cow
expect 1 uml-cow flatten stacked.cow x
says "takes the COW file"

ls -A | grep -E 'uml-cow-|tmp-' && fail "left behind"
true
