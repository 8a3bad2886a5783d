#!/bin/bash
# A build that is interrupted leaves nothing; one that is killed leaves what the next one sweeps; a live one is left alone.
. "${BASH_SOURCE%/*}/lib.sh"
need python3

"${BASH_SOURCE%/*}/image-archives.py" "$T"
images=$HOME/.local/share/uml-lab/images
leftovers() { find "$images" -mindepth 1 ! -name .lock; }

# start NAME: an import that waits in the middle of its archive; its pid in $pid
start() {
	mkfifo "$T/$1.fifo"
	uml-lab image import "$1" - --size 64M <"$T/$1.fifo" 2>"$T/$1.err" &
	pid=$!
	exec {feed}>"$T/$1.fifo"
	head -c 3000000 "$T/good.tar" >&$feed
	wait_until 10 grep -q importing "$T/$1.err"
}

for signal in INT TERM HUP; do
	start "by-${signal,,}"
	[ -n "$(leftovers)" ] || fail "it had not begun"
	kill -$signal $pid
	wait $pid
	same $? 1 "status after $signal"
	exec {feed}>&-
	grep -q interrupted "$T/by-${signal,,}.err" || fail "it did not say so"
	same "$(leftovers)" "" "left behind after $signal"
done

start live
live=$pid live_feed=$feed
start dead
kill -KILL $pid
wait $pid 2>/dev/null
exec {feed}>&-
same "$(leftovers | wc -l)" 2
expect 0 uml-lab image list
same "$(leftovers | wc -l)" 1 "what the dead one left is swept, the live one's is not"
tail -c +3000001 "$T/good.tar" >&$live_feed
exec {live_feed}>&-
wait $live || fail "the live import failed: $(cat "$T/live.err")"
same "$(leftovers | sort | xargs -n1 basename | tr '\n' ' ')" "live.img live.json "

# A disk that is full.
expect 1 uml-lab image import full "$T/good.tar" --size 16M
says "does not fit"
says "--size"
same "$(leftovers | wc -l)" 2
