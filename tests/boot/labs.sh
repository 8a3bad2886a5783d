# The labs that ship with checks: as they come they fail them, with their solution they pass.
# timeout: 400
. tests/cases/lib.sh

at_exit end_sessions
for solution in labs/*/solution.sh; do
	name=$(basename "$(dirname "$solution")")
	up "labs/$name"
	expect 6 uml-lab check "$name"
	says "FAIL"
	says_not "SKIP"
	sh "$solution" "$name" >"$T/solution" 2>&1 || { cat "$T/solution"; fail "$solution"; }
	expect 0 uml-lab check "$name"
	# What the student did lives as long as nobody resets it.
	if [ "$name" = nat-firewall ]; then
		expect 0 uml-lab restart "$name" gw
		expect 0 uml-lab check "$name"
	fi
	expect 0 uml-lab down "$name" --force
done

# Nothing that stays holds the streams of `up`: a pipe ends.
expect 0 timeout -k 5 60 sh -c 'uml-lab up labs/two-hosts --name piped 2>&1 | cat'
expect 0 uml-lab down piped --force
