#!/bin/bash
# The man pages of uml-netplug and uml-hostfs tell the options that these have, and no others.
. "${UML_LAB_SOURCE:-.}/tests/cases/lib.sh"
compare() { # PROGRAM PAGE
	sed 's/\\-/-/g' "$UML_LAB_SOURCE/$2" | sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' | grep -A1 '^\.TP' |
		grep -oE -- '--[a-z][a-z0-9-]*' | sort -u >"$T/told"
	expect 0 "$1" --help
	grep -oE -- '^ +(-., )?--[a-z][a-z0-9-]*' "$T/out" | grep -oE -- '--[a-z].*' | sort -u >"$T/there"
	[ "$(wc -l <"$T/there")" -gt 5 ] || fail "too few options: $(cat "$T/there")"
	same "$(diff "$T/told" "$T/there")" "" "man page (<) and program (>) of $1"
}
compare uml-netplug netplug/uml-netplug.1
compare uml-hostfs hostfs/uml-hostfs.1
