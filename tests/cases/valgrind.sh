# valgrind over the verbs: no wrong access, no leak, no descriptor left open. uml-cow-all, since valgrind sees no malloc() in a
# static program; of verbs that start programs only what comes before (valgrind 3.19 knows no pidfd_open).
# timeout: 300
. tests/cases/lib.sh
need valgrind mke2fs

# clean STATUS COMMAND…: ends with STATUS, and valgrind has nothing to say; descriptors that were given to it do not count
clean() {
	local wanted=$1
	shift
	expect "$wanted" valgrind -q --error-exitcode=99 --leak-check=full --track-fds=yes --log-file="$T/valgrind" "$@"
	! awk '/Open (file descriptor|AF_)/ { what = $0; getline; if (!/inherited/) { print what; found = 1 } }
		/ lost in | Invalid |ninitialised/ { print; found = 1 }
		END { exit !found }' "$T/valgrind" || { cat "$T/valgrind"; fail "valgrind complains of: $*"; }
}
cow() { clean 0 uml-cow-all "$@"; }

cd "$T" || exit 1
truncate -s 4M base
mke2fs -q -t ext4 -O ^has_journal -F base 2>/dev/null
cp base changed
dd if=/dev/urandom of=changed bs=4096 seek=500 count=20 conv=notrunc status=none
touch -d 2020-02-02 base
cow create -b base one
cow convert --to cow -b base changed two
cow create -b two three
for verb in info map check files; do cow $verb three; done
cow diff two three
cow flatten three flat
cmp flat changed || fail "flatten"
cow compact two
cow rebase -b two three
cow merge three two
cow commit three
cmp base changed || fail "commit"
clean 1 uml-cow-all info nothing
clean 2 uml-cow-all create -b nothing
clean 2 uml-cow-all nonsense

lab one <<-END
	lab: one
	base: tiny
	machines: {m: {memory: 64M}}
END
clean 0 uml-lab validate "$T/labs/one"
# A few: the unit tests load them all, under the sanitizers.
for broken in $(printf '%s\n' "$UML_LAB_SOURCE"/tests/cases/broken-labs/*.yml | sed -n '1~40p'); do
	clean 3 uml-lab validate "$broken"
done
for verb in --help list status schema "completion bash" "image list" "gc --dry-run"; do
	# shellcheck disable=SC2086
	clean 0 uml-lab $verb
done
clean 4 uml-lab status nobody
clean 5 uml-lab down --all
