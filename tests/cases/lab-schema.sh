# uml-lab schema: a JSON Schema that takes the labs that validate takes, and refuses what a schema can refuse.
. tests/cases/lib.sh
need python3
python3 -c 'import jsonschema, yaml' 2>/dev/null || skip "python3-jsonschema or python3-yaml is not installed"

expect 0 uml-lab schema
cp "$T/out" "$T/schema.json"
cat >"$T/good.yml" <<'Y'
lab: good
title: All kinds of values
base: debian-12
params: {student: "{{user}}", index: 1}
networks: {lan-a: {}, lan-b: , wan: {rate: 10M, delay: 50ms, loss: 2%}, up: {vde: "vxvde://239.1.2.3"}}
machines:
  r1:
    memory: "{{index}}28M"
    kernel: 6.12
    disks: [{size: 1G}]
    interfaces:
      - {network: lan-a, address: [10.0.1.1/24, 2001:db8::1/64], mac: auto, mtu: 1400}
      - {slirp: true, forward: "8080:80", restrict: yes, allow: ["192.0.2.0/24:443"]}
    shares: [handout]
    setup: |
      echo {{student}}
    restart: on-failure
  r2:
shares: {handout: {path: /usr/share, mode: ro}}
limits: {memory: 1G, cpu: 50%, time: 3h}
checks:
  - {name: a, machine: r1, run: id, expect: {output: "1", status: 0}, points: 2, stage: first, timeout: 5s}
Y
expect 0 uml-lab validate "$T/good.yml"
cat >"$T/check.py" <<'P'
import json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for path in sys.argv[2:]:
    wrong = list(validator.iter_errors(yaml.safe_load(open(path))))
    print("wrong" if wrong else "right", path, *[e.message[:90] for e in wrong[:3]])
P
python3 "$T/check.py" "$T/schema.json" "$T/good.yml" "$UML_LAB_SOURCE"/labs/*/lab.yml >"$T/told" || fail "$(cat "$T/told")"
! grep -q ^wrong "$T/told" || fail "$(cat "$T/told")"

cd tests/cases/broken-labs || exit 1
python3 "$T/check.py" "$T/schema.json" unknown-key-*.yml no-lab-name.yml no-machines.yml lab-name-uppercase.yml memory-words.yml \
	machines-as-list.yml disk-without-size.yml mac-short.yml restart-choice.yml cpu-without-percent.yml network-name.yml \
	>"$T/told" 2>&1 || fail "$(cat "$T/told")"
! grep -q ^right "$T/told" || fail "$(cat "$T/told")"

expect 0 uml-lab schema --markdown
for words in '# lab.yml' '## machine' '| `memory` | size | `128M` |' '## expect' '`no`' 'required'; do
	says "$words"
done
