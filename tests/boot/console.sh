# The login console as a person sees it: tmux. Typing, Ctrl-] detaches, several look at once, the window's size follows.
# timeout: 240
. tests/cases/lib.sh
need tmux

S=uml-lab-test-$$
at_exit "tmux -L $S kill-server 2>/dev/null"
screen() { tmux -L "$S" capture-pane -p -t "$1"; }
at_exit 'for w in a b; do echo "-- window $w:"; screen $w | grep . || :; done'
shows() { screen "$1" | grep -qF -- "$2"; }

try_console() { # KERNEL
	lab con <<-END
		lab: con
		base: tiny
		machines: {m: {memory: 64M, kernel: "$1"}}
	END
	rm -rf "$HOME/.local/state"
	up --wait login "$T/labs/con"
	tmux -L "$S" kill-server 2>/dev/null; wait_until 5 sh -c "! tmux -L $S ls"
	tmux -L "$S" -f /dev/null new-session -d -s a -x 90 -y 30 "bash --norc"
	tmux -L "$S" new-session -d -s b -x 90 -y 30 "bash --norc"
	# Not before the shells are there: what is typed earlier may be thrown away.
	wait_until 10 shows a "\$"
	wait_until 10 shows b "\$"
	# What was printed before fits into the window, below the line that says how to leave.
	expect 0 uml-lab exec con/m -- sh -c 'for i in 1 2 3 4 5 6 7 8; do seq -f "before-%g" 10; done >/dev/console; echo before-all >/dev/console'
	tmux -L "$S" send-keys -t a "uml-lab console con/m; echo left with \$?" Enter
	wait_until 10 shows a before-all
	shows a "Ctrl-] detaches" || fail "nobody is told how to leave"
	tmux -L "$S" send-keys -t a "" Enter
	tmux -L "$S" send-keys -t a "echo typed-\$((40+2))" Enter
	wait_until 10 shows a typed-42
	# A second one sees the same, and types as well.
	tmux -L "$S" send-keys -t b "uml-lab console con/m" Enter
	wait_until 10 shows b typed-42
	tmux -L "$S" send-keys -t b "echo from-b-\$((1+1))" Enter
	wait_until 10 shows a from-b-2
	# The size of the smallest window is the guest's.
	tmux -L "$S" send-keys -t a "stty size" Enter
	wait_until 10 shows a "30 90"
	tmux -L "$S" resize-window -t a -x 70 -y 20
	wait_until 10 sh -c "tmux -L $S send-keys -t a 'stty size' Enter; sleep 0.3; tmux -L $S capture-pane -p -t a | grep -qF '20 70'"
	# Ctrl-C goes to the guest, Ctrl-] leaves, and the terminal is sane again.
	tmux -L "$S" send-keys -t a "sleep 1000" Enter
	# Not before it runs: the shell itself throws a Ctrl-C away.
	wait_until 10 uml-lab exec con/m -- pidof sleep
	tmux -L "$S" send-keys -t a C-c
	# The terminal throws away what was typed together with the Ctrl-C.
	wait_until 10 sh -c "tmux -L $S send-keys -t a 'echo alive-\$((2+3))' Enter; sleep 0.3; tmux -L $S capture-pane -p -t a | grep -qF alive-5"
	tmux -L "$S" send-keys -t a C-]
	wait_until 10 shows a "left with 0"
	tmux -L "$S" send-keys -t a "clear; echo again-\$((3+3))" Enter
	wait_until 10 shows a again-6
	# shell: a terminal of its own, job control, its exit status
	tmux -L "$S" send-keys -t a "clear; uml-lab shell con/m; echo shell ended with \$?" Enter
	wait_until 10 shows a "#"
	tmux -L "$S" send-keys -t a "tty; exit 9" Enter
	wait_until 10 shows a "shell ended with 9"
	shows a /dev/pts/ || fail "no pseudo-terminal"
	# Everything that was printed is in the log.
	expect 0 uml-lab log con/m
	says typed-42
	says "BusyBox v"
	expect 0 uml-lab down con
	wait_until 10 sh -c "! pgrep -u $(id -u) -f 'uml-lab consol[e] con/m'"
	# Without a terminal: said so, with status 2.
	expect 2 uml-lab console con/m
	expect 2 uml-lab shell con/m
}

for k in $(kernels); do
	echo "== $k"
	try_console "$k"
done
