# Every broken lab is refused with exactly the mistakes its header names: `# expect: LINE:COLUMN: path: … words`, in order.
. tests/cases/lib.sh

cd tests/cases/broken-labs || fail "no broken labs"
count=0
for file in *.yml; do
	expect 3 uml-lab validate "$file"
	wanted=()
	while IFS= read -r line; do
		wanted+=("${line#\# expect: }")
	done < <(grep -a '^# expect: ' "$file")
	mapfile -t told <"$T/err"
	same "${#told[@]}" "${#wanted[@]}" "$file: number of mistakes: $(cat "$T/err")"
	for i in "${!wanted[@]}"; do
		place=${wanted[$i]%%… *}
		words=${wanted[$i]#*… }
		case ${wanted[$i]} in
		*…*) ;;
		*) # no path: LINE:COLUMN: words
			place=$(cut -d: -f1,2 <<<"${wanted[$i]}"):
			words=${wanted[$i]#"$place" }
			;;
		esac
		[[ ${told[$i]} == "$file:$place"* ]] || fail "$file: '${told[$i]}' is not at $place"
		[[ ${told[$i]} == *"$words"* ]] || fail "$file: '${told[$i]}' does not say: $words"
	done
	same "$(cat "$T/out")" "" "$file: standard output"
	count=$((count + 1))
done
[ "$count" -ge 100 ] || fail "only $count broken labs"
echo "$count broken labs"
