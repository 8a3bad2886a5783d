#!/bin/bash
# The man page of uml-netplug tells the options that it has, and no others.
. "${UML_LAB_SOURCE:-.}/tests/cases/lib.sh"
sed 's/\\-/-/g' "$UML_LAB_SOURCE/netplug/uml-netplug.1" | sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' | grep -A1 '^\.TP' | grep -oE -- '--[a-z][a-z0-9-]*' | sort -u >"$T/told"
expect 0 uml-netplug --help
grep -oE -- '^ +(-., )?--[a-z][a-z0-9-]*' "$T/out" | grep -oE -- '--[a-z].*' | sort -u >"$T/there"
[ "$(wc -l <"$T/there")" -gt 10 ] || fail "too few options: $(cat "$T/there")"
same "$(diff "$T/told" "$T/there")" "" "man page (<) and program (>)"
