#!/bin/bash
# Archives that lie or reach outside are refused with the entry's name, and leave nothing behind.
. "${BASH_SOURCE%/*}/lib.sh"
need python3

"${BASH_SOURCE%/*}/image-archives.py" "$T"
images=$HOME/.local/share/uml-lab/images
for archive in "$T"/hostile/*.tar; do
	expect 1 uml-lab image import victim "$archive" --size 64M
	grep -q "entry '\(.*evil\|\.'\)" "$T/err" || fail "the entry is not named: $(cat "$T/err")"
	if LC_ALL=C grep -q $'[\033]' "$T/err"; then fail "control characters reached the terminal: $archive"; fi
done

# Not archives at all.
: >"$T/empty.tar"
head -c 20000 /dev/urandom >"$T/noise.tar"
head -c 10240 /dev/zero >"$T/zero.tar"
for name in empty noise zero; do
	expect 1 uml-lab image import victim "$T/$name.tar" --size 64M
	says "$name.tar"
done
expect 4 uml-lab image import victim "$T/none.tar"
expect 2 uml-lab image import 'no/name' "$T/plain.tar"
expect 2 uml-lab image import victim "$T/plain.tar" --size 1M
same "$(find "$images" -type f ! -name .lock)" "" "something was left behind"
[ ! -e "$HOME/evil" ] && [ ! -e "$T/evil" ] && [ ! -e "$images/evil" ] || fail "an entry came out"
