# uml-lab list: labs of all folders, the first of two of a name, broken ones with what is wrong.
. tests/cases/lib.sh
cd "$T" || exit 1

mkdir -p course
export UML_LAB_PATH=$T/course:$T/missing
mkdir -p course/dns labs/dns labs/web labs/broken labs/empty labs/.hidden
printf 'lab: dns\ntitle: Zones\nbase: tiny\nmachines: {a: {}, b: {}}\n' >course/dns/lab.yml
printf 'lab: dns\ntitle: Hidden\nbase: tiny\nmachines: {a: {}}\n' >labs/dns/lab.yml
printf 'lab: web\nbase: tiny\nmachines: {a: {}}\n' >labs/web/lab.yml
printf 'lab: broken\nbase: tiny\nmachines: {a: {mem: 1G}}\n' >labs/broken/lab.yml
cp labs/web/lab.yml labs/.hidden/

expect 0 uml-lab list
grep -qE '^dns +Zones +2 +.*/course/dns$' out || fail "dns: $(cat out)"
grep -qE '^web +- +1 +.*/labs/web$' out || fail "web: $(cat out)"
grep -qE '^broken +\(broken\) +- ' out || fail "broken: $(cat out)"
says "labs/broken/lab.yml:3:16: machines.a.mem: unknown key"
says_not Hidden
says_not .hidden
says_not empty

expect 0 uml-lab list --json
same "$(json out '[(e["name"], e["title"], e["machines"], bool(e["problem"])) for e in d if e["path"].startswith("'"$T"'")]')" \
	"[('broken', None, 0, True), ('dns', 'Zones', 2, False), ('web', None, 1, False)]"

# The labs that ship are right.
for file in "$UML_LAB_SOURCE"/labs/*/lab.yml; do
	expect 0 uml-lab validate "$file"
done
