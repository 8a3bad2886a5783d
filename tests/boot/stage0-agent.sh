# The agent alone, against a host's side of its own (stage0_test.c): on each kernel, with a small image in full, with Debian, with
# an image that has no init, and with a disk that is none.
# timeout: 900
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need tar mke2fs truncate cmp

test=$UML_LAB_BUILD/tests/stage0_test
[ -x "$test" ] || fail "$test is not built: make unit-tests"
# Our programs look for each other in their own folder.
cp "$test" "$UML_LAB_BUILD/stage0" "$T/"
test=$T/stage0_test

# try NAME KERNEL IMAGE MODE: in a folder $T/NAME of its own; a bad end shows what the guest said
try() {
	local dir=$T/$1
	mkdir -p "$dir"
	cp --sparse=always "$3" "$dir/disk"
	chmod u+w "$dir/disk"
	[ "$4" != full ] || make_tree "$dir"
	if ! "$test" "$2" "$dir/disk" "$dir" "$4" >"$dir/out" 2>&1; then
		cat "$dir/out"
		tail -n 40 "$dir/log"
		grep ^FAIL "$dir/out"
		fail "$1 on $2"
	fi
	grep -E '^(kernel|time|rate)' "$dir/out"
	[ "$4" != full ] || compare_tree "$dir"
	rm -rf "$dir"
}

# A tree of all kinds, and its listing with all that a copy must keep.
make_tree() {
	local long
	mkdir "$1/tree" && cd "$1/tree" || exit 1
	mkdir -p a/b 'd e'
	echo hi >a/file
	head -c 700000 /dev/urandom >a/b/big
	ln a/file a/hard
	ln -s ../a/file 'd e/sym'
	mkfifo fifo
	long=$(printf 'x%.0s' $(seq 120))
	mkdir -p "$long/$long" && echo long >"$long/$long/$long"
	chmod 4755 a/b/big && chmod 700 a/b && touch -d '2001-02-03 04:05:06.789' a/file && touch -d 2002-03-04 a/b 'd e'
	tar --owner=7 --group=8 --format=posix -cf "$1/tree.tar" .
	cd "$OLDPWD" || exit 1
}

compare_tree() {
	mkdir "$1/back"
	tar -C "$1/back" -xf "$1/back.tar" || fail "the archive from the guest"
	diff -r --no-dereference -x fifo "$1/tree" "$1/back/copied" || fail "the tree came back changed"
	tar --numeric-owner -tvf "$1/tree.tar" --full-time | sed 's# \./# #' | tr -s ' ' | sort -k6 | grep -v ' $' >"$1/one"
	tar --numeric-owner -tvf "$1/back.tar" --full-time | sed 's# copied/# #g' | tr -s ' ' | sort -k6 | grep -v ' $' >"$1/two"
	# Which of two hard links comes first is the archive's choice.
	diff <(grep -v 'a/hard\|a/file$' "$1/one") <(grep -v 'a/hard\|a/file$' "$1/two") || fail "owners, modes or times changed"
	same "$(grep -c 'link to' "$1/two")" 1 "hard links"
	grep -q '2001-02-03 04:05:06.789.* a/' "$1/two" || fail "the time of a file changed"
}

# As docker export leaves it: programs, no init.
no_init_image() {
	local root=$T/no-init
	mkdir -p "$root"/{bin,etc,root,proc,sys,dev}
	cp "$(command -v busybox)" "$root/bin/busybox"
	ln -s busybox "$root/bin/sh"
	echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
	mke2fs -q -t ext4 -d "$root" "$T/no-init.img" 16M
	rm -rf "$root"
}

PATH=$PATH:/usr/sbin:/sbin
mapfile -t kernels < <(kernels)
[ ${#kernels[@]} -gt 0 ] || skip "no UML kernel is here"
no_init_image
truncate -s 8M "$T/empty.img"
for k in "${kernels[@]}"; do
	try tiny "$k" "$UML_LAB_IMAGES/tiny.img" full
	try no-init "$k" "$T/no-init.img" boot
	try broken "$k" "$T/empty.img" broken
done
try debian "${kernels[0]}" "$UML_LAB_IMAGES/debian-12.img" full
