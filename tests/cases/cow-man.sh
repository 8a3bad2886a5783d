#!/bin/bash
# Each verb and each option that uml-cow --help tells is in the man page, and each option of the page is some verb's.
. "$(dirname "$0")/lib.sh"
page=$UML_LAB_SOURCE/cow/uml-cow.1
sed 's/\\-/-/g; s/\\f[BIR]//g' "$page" >"$T/page"
options() { grep -oE -- '--[a-z][a-z-]*' "$@" | sort -u; }
expect 0 uml-cow --help
verbs=$(awk '/^  [a-z]/ { print $1 }' "$T/out")
[ "$(echo "$verbs" | wc -l)" -ge 16 ] || fail "too few verbs: $verbs"
for v in $verbs; do
	grep -qE "^\.BI? \"?$v( |\")" "$T/page" || fail "the man page has no $v"
	expect 0 uml-cow "$v" --help
	cat "$T/out" >>"$T/help"
	for o in $(options "$T/out"); do
		grep -q -- "$o" "$T/page" || fail "the man page has no $o, which $v understands"
	done
done
same "$(comm -13 <(options "$T/help") <(options "$T/page"))" "" "options of the man page that no verb has"
