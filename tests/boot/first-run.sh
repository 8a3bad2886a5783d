# What `make run` does last: without a terminal it shows the status and an answer and ends with 0, again and again; with one it
# leaves the person at the machine's root prompt.
# timeout: 120
. tests/cases/lib.sh
need tmux
at_exit end_sessions

cp -R "$UML_LAB_SOURCE/labs" "$T/labs"
unset UML_LAB_IMAGES # it makes its own small image
for _ in 1 2; do
	expect 0 "$T/labs/first-run" "$UML_LAB_BUILD"
	says "uid=0(root)"
	says "Linux "
	says ready
done
# Another clone of the same account: a session of its own, each time the same.
mkdir "$T/other"
cp -R "$UML_LAB_SOURCE/labs" "$T/other/labs"
for _ in 1 2; do
	expect 0 "$T/other/labs/first-run" "$UML_LAB_BUILD"
	says "Session hello is of another folder's lab, $T/labs/hello/lab.yml; this one is hello-2."
	says "hello-2/hello"
	says "uid=0(root)"
done
expect 0 "$UML_LAB_BUILD/uml-lab" down hello-2
S=uml-lab-test-$$
at_exit "tmux -L $S kill-server 2>/dev/null"
tmux -L "$S" -f /dev/null new-session -d -x 100 -y 30 "$T/labs/first-run $UML_LAB_BUILD; echo ended with \$?; sleep 60"
prompt() { tmux -L "$S" capture-pane -p | grep -qF 'root@hello'; }
wait_until 30 prompt
tmux -L "$S" send-keys 'cat /root/welcome.txt' Enter
wait_until 10 sh -c "tmux -L $S capture-pane -p | grep -q 'You are root here'"
tmux -L "$S" send-keys C-d
wait_until 10 sh -c "tmux -L $S capture-pane -p | grep -q 'ended with 0'"
expect 0 "$UML_LAB_BUILD/uml-lab" down hello
