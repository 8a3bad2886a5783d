# Submissions that were made to do harm: each is refused with its reason, and nothing is left of it; the good one opens.
# timeout: 180
. tests/cases/lib.sh
need zstd python3

images=$HOME/.local/share/uml-lab/images
state=$HOME/.local/state/uml-lab/sessions
mkdir -p "$images" "$state" "$T/subs" "$HOME/secret" "$HOME/.cache/uml-lab"
head -c 1048576 /dev/urandom >"$images/forged.img"
head -c 1048576 /dev/urandom >"$images/secret.img"
# What open must never leave behind or touch.
world() { (cd "$HOME" && find . -not -name '.*lock' -not -path './.local/state/uml-lab/sessions' | sort; sha256sum "$images"/*.img); }

# refused STATUS KIND TEXT [OPTION…]
refused() {
	local status=$1 kind=$2 text=$3
	shift 3
	run timeout -k 5 60 uml-lab open --stopped "$@" "$T/subs/$kind"
	[ "$STATUS" = "$status" ] || { cat "$T/out" "$T/err"; fail "$kind: status $STATUS, not $status"; }
	grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "$kind: it did not say: $text"; }
	grep -q $'\033' "$T/err" && fail "$kind: it commands the terminal"
	same "$(world)" "$before" "what is left of $kind"
}

python3 tests/cases/submission-forge.py all "$images/forged.img" "$T/subs" || fail "cannot forge"
before=$(world)
for kind in dotdot absolute dotslash order; do refused 1 $kind "there is something else where m/root.cow should be"; done
for kind in symlink hardlink device fifo folder; do refused 1 $kind "m/root.cow is not a regular file"; done
refused 1 more "there is more in it than the manifest says"
refused 1 fewer "m/disk1.img is missing"
refused 1 no-manifest "there is something else where manifest.json should be"
refused 1 big-manifest "manifest.json is larger than"
refused 1 no-json "manifest.json is not JSON"
refused 1 deep-json "manifest.json is not JSON"
refused 1 zero-byte "manifest.json holds a zero byte"
refused 1 version "has version 2 of the format"
refused 1 unknown-key "has a key that is not known"
refused 1 twice "manifest.json is not JSON"
refused 1 escape "student holds control characters"
refused 1 long "student is too long"
refused 1 machine-name "machines[0].name is no name"
refused 1 two-machines "machines[1].name is there twice"
refused 1 many-machines "machines is no list, empty, or too long"
refused 1 no-digest "machines[0].disks[0].digest is no digest"
refused 1 params "params holds one without ="
refused 1 huge "size is missing, or is no number that can be"
refused 1 terabyte "disk 1 is larger than the lab's"
refused 1 outside "m/root.cow"
refused 1 backwards "m/root.cow"
refused 1 digest "its digest is another than the manifest's"
refused 1 shadow "its header names a backing file"
refused 1 relative "its header names a backing file"
refused 1 old-header "it is no overlay over that base image"
refused 1 other-size "it is no overlay over that base image"
refused 1 no-overlay "it is no overlay over that base image"
refused 1 extra-is-cow "it is a COW file, where a plain disk should be"
refused 4 other-base "stands on a base image that is not among yours: it was called 'forged'"
says "uml-lab image list"
refused 1 no-lab "is of another lab than its manifest says"
refused 1 bomb "holds more than 16 MiB" --max-size 16M
refused 1 window "too much memory"
whole=$(stat -c %s "$T/subs/good")
for size in 0 3 100 $((whole / 2)) $((whole - 50)); do
	head -c $size "$T/subs/good" >"$T/subs/cut"
	refused 1 cut "$T/subs/cut: "
done
head -c 65536 /dev/urandom >"$T/subs/noise"
refused 1 noise "it does not begin like one"
tar -C "$images" -cf "$T/subs/plain" forged.img
refused 1 plain "it does not begin like one"
mkfifo "$T/subs/pipe"
refused 1 pipe "is not a regular file"
mkdir "$T/subs/dir"
refused 1 dir "is not a regular file"
expect 4 uml-lab open "$T/subs/nothing"
expect 2 uml-lab open "$T/subs/good" --lab x --as-submitted
expect 1 env UML_LAB_SANDBOX=process-group uml-lab open "$T/subs/good" --stopped
says "--weak"
expect 2 uml-lab open "$T/subs/good" --name ../x --stopped
same "$(world)" "$before" "what is left"

# The good one, also with holes: its disks are a snapshot that nothing writes to, on our own image.
for kind in good holes; do
	expect 0 uml-lab open --stopped --json --name $kind "$T/subs/$kind"
	same "$(json "$T/out" 'd["session"], d["student"], d["lab"], d["network"], len(d["notes"])')" "('$kind', 'mallory', 'forged', False, 1)"
	same "$(uml-cow info --json "$state/$kind/m/root-2.cow" | python3 -c 'import json,sys; print([f["path"].split("/")[-1] for f in json.load(sys.stdin)["chain"]])')" \
		"['root-2.cow', 'root.cow', 'forged.img']"
	expect 0 uml-cow flatten "$state/$kind/m/root-2.cow" "$T/flat"
	same "$(head -c 9 "$T/flat")" "handed in"
	cmp -s <(tail -c +513 "$T/flat") <(tail -c +513 "$images/forged.img") || fail "the rest of the disk is not the base's"
	rm "$T/flat"
	same "$(head -c 8197 "$state/$kind/m/disk1.img" | tail -c 5)" extra
	expect 5 uml-lab open --stopped --name $kind "$T/subs/$kind"
	expect 0 uml-lab gc $kind --yes
done
same "$(world)" "$before" "what is left of good ones"

# A lab that came along loses what could touch the host.
expect 0 uml-lab open --stopped --name harmful "$T/subs/harmful-lab"
says "it runs as the lab that it came with, made harmless"
for gone in shares: secret forward 2222 vde: udp:// kernel_args panic=7 files always host: allow /bin/true 8G 100G 9d; do
	grep -qF -- "$gone" "$state/harmful/session.yml" && { cat "$state/harmful/session.yml"; fail "session.yml has: $gone"; }
done
for there in "restrict: true" "memory: 512M" "kernel: auto" "time: 2h" "submission"; do
	grep -qF -- "$there" "$state/harmful/session.yml" || { cat "$state/harmful/session.yml"; fail "session.yml lacks: $there"; }
done
# `up` would make another lab of it.
mkdir -p "$T/labs/forged" && printf 'lab: forged\nbase: forged\nmachines:\n  m: {memory: 64M}\n' >"$T/labs/forged/lab.yml"
expect 5 uml-lab up "$T/labs/forged" --name harmful
says "is the opened submission of mallory"
expect 5 uml-lab submit harmful -o "$T/again"
expect 0 uml-lab gc harmful --yes
# The instructor's lab of that name counts, unless told otherwise.
export UML_LAB_PATH=$T/labs
refused 1 good "does not have the machines and disks of lab forged"
says "--as-submitted"
expect 0 uml-lab open --stopped --as-submitted --name as "$T/subs/good"
expect 0 uml-lab gc as --yes

# One that is killed at any moment leaves a whole session, or none, and is in nobody's way.
for ms in 5 10 15 20 25 30 40 50 60 80; do
	uml-lab open --stopped --as-submitted --name killed "$T/subs/good" >/dev/null 2>&1 &
	victim=$!
	sleep "0.$(printf %03d $ms)"
	kill -KILL $victim 2>/dev/null
	wait $victim 2>/dev/null
	if [ -e "$state/killed" ]; then
		expect 0 uml-cow check "$state/killed/m/root-2.cow"
		expect 0 uml-lab status killed
	else
		expect 0 uml-lab open --stopped --as-submitted --name killed "$T/subs/good"
	fi
	expect 0 uml-lab gc killed --yes
	expect 0 uml-lab gc
	same "$(world)" "$before" "what is left of one that was killed"
done

# What a killed open leaves, gc removes; so does the next open of that name.
mkdir -p "$state/.left.opening/m"
expect 0 uml-lab gc
says "unfinished session"
[ ! -e "$state/.left.opening" ] || fail "gc left it"
