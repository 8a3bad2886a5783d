# File systems without extended attributes (here: their calls fail as there): notes are kept in a file beside the disk, and all that
# hangs on them works: backing files elsewhere, found by digest, told apart from changed ones; interrupted commits.
. tests/cases/lib.sh
need strace

# cow VERB…: uml-cow where there are no extended attributes; INJECT: one more fault
cow() {
	strace -f -qq -o /dev/null -e trace=fgetxattr,fsetxattr,fremovexattr,fdatasync \
		-e inject=fgetxattr,fsetxattr,fremovexattr:error=EOPNOTSUPP ${INJECT:+-e "inject=$INJECT"} uml-cow "$@"
}
notes() { echo "$(dirname "$1")/.$(basename "$1").uml-cow-notes"; }

cd "$T" || exit 1
mkdir images work
head -c 1M /dev/urandom >images/base
touch -d 2020-02-02 images/base
expect 0 cow create --digest -b images/base work/top
[ -s "$(notes work/top)" ] || fail "no notes beside the overlay"
! getfattr -d work/top 2>/dev/null | grep -q uml-cow || fail "there are extended attributes"

# The backing file lies elsewhere, but its owner chose it; the same disk from somebody else, without the notes, is refused.
expect 0 cow info work/top
mkdir sent
cp -p work/top sent/top
expect 1 cow info sent/top
says "outside of the folders allowed"

# Renamed: found by its digest. Copied without its time: told apart from changed, and repaired.
mv images/base images/renamed
expect 0 cow info --allow images work/top
says images/renamed
mv images/renamed images/base
cp images/base images/copy
mv images/copy images/base
touch -d 2021-02-02 images/base # another time, in whole seconds
expect 1 cow check work/top
says "its content is the same by digest"
expect 0 cow check --repair work/top
expect 0 cow check work/top
printf x | dd of=images/base bs=1 seek=5000 conv=notrunc status=none
expect 1 cow check work/top
says "its content is another"

# A commit that is killed when its data is on the way: the lower file is read through its overlay; done again, it completes.
rm images/base work/top "$(notes work/top)"
head -c 1M /dev/urandom >images/base
touch -d 2020-02-02 images/base
cp images/base new
head -c 64K /dev/urandom | dd of=new bs=64K seek=3 conv=notrunc status=none
expect 0 cow convert --to cow -b images/base new work/top
INJECT=fdatasync:signal=KILL:when=1 expect 137 cow commit work/top
grep -q "^commit copying" "$(notes images/base)" || fail "no note of the commit"
expect 0 cow flatten --allow work images/base seen
cmp seen new || fail "the lower file does not show the new content"
expect 0 cow commit work/top
cmp images/base new || fail "the commit did not complete"
! grep -q commit "$(notes images/base)" 2>/dev/null || fail "the note of the commit is still there"
