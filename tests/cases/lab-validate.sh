# uml-lab validate: right labs, parameters, JSON, exit statuses, and the values YAML 1.1 would misread.
. tests/cases/lib.sh
cd "$T" || exit 1

lab minimal <<'Y'
lab: x
base: tiny
machines: {m: {}}
Y
expect 0 uml-lab validate labs/minimal
says "labs/minimal/lab.yml is right: lab x, 1 machine, 0 networks, 0 checks"
expect 0 uml-lab validate labs/minimal/lab.yml
expect 0 uml-lab validate minimal
says "labs/minimal/lab.yml is right"
expect 0 uml-lab validate --quiet minimal
same "$(cat "$T/out")" ""

# Unquoted: a sexagesimal number, booleans, an octal, a number with an underscore, a date.
lab traps <<'Y'
lab: traps
base: tiny
params: {when: 2024-01-01, big: 1_000, mode: 0755, off: off}
networks: {"no": {switch: on}, "1e3": {}}
machines:
  n:
  y:
    restart: no
    kernel: 6.10
    setup: "chmod {{mode}} /srv; echo {{when}} {{big}} {{off}} '\\{{x}}'"
    interfaces:
      - {slirp: yes, forward: [8080:80, 22:22, 127.0.0.1:5353:53/udp], mac: 12:34:56:00:00:10}
      - {network: no, address: 10.0.0.1/24}
      - {network: 1e3, address: [2001:db8::1/64, fe80::1/64]}
Y
expect 0 uml-lab validate traps
says "2 machines, 2 networks"

# Parameters.
lab params <<'Y'
lab: params
base: tiny
params: {size: 64M, student: "{{user}}"}
machines: {m: {memory: "{{size}}"}}
Y
expect 0 uml-lab validate params --param size=96M
expect 3 uml-lab validate params --param size=9M
says "labs/params/lab.yml:4:24: machines.m.memory: is \"9M\": too small"
expect 2 uml-lab validate params --param sise=96M
says "did you mean size?"
says "allowed: size, student"
expect 2 uml-lab validate params --param size
says "NAME=VALUE"

# JSON.
expect 0 uml-lab validate --json minimal
same "$(json out 'd["valid"], d["lab"], d["machines"], d["problems"]')" "(True, 'x', 1, [])"
cat >bad.yml <<'Y'
lab: bad
base: tiny
machines:
  a: {memory: 1}
  b: {foo: "\e[31m"}
Y
expect 3 uml-lab validate --json bad.yml
same "$(json out 'd["valid"], d["file"], [(p["line"], p["column"], p["path"]) for p in d["problems"]]')" \
	"(False, 'bad.yml', [(4, 15, 'machines.a.memory'), (5, 7, 'machines.b.foo')])"

# What is no lab at all.
expect 4 uml-lab validate nowhere
says "there is no lab 'nowhere'"
expect 4 uml-lab validate minimall
says "did you mean minimal?"
expect 4 uml-lab validate ./nowhere
expect 4 uml-lab validate "$T"
says "there is no lab.yml in"
expect 2 uml-lab validate
mkfifo fifo.yml
expect 4 timeout 10 uml-lab validate ./fifo.yml
head -c 2000000 /dev/zero | tr '\0' '#' >huge.yml
expect 3 uml-lab validate ./huge.yml
says "1048576"

# A hostile file cannot write to the terminal.
printf 'lab: x\nbase: "\\e[2J"\nmachines: {"\\e]0;pwned\\a": {}}\n' >esc.yml
expect 3 uml-lab validate ./esc.yml
! grep -q $'\e' "$T/err" || fail "an escape sequence went through"

# UTF-16, a byte order mark.
printf 'lab: x\nbase: tiny\nmachines: {m: {}}\n' | iconv -t UTF-16 >wide.yml
expect 3 uml-lab validate ./wide.yml
says "UTF-16"
printf '\xef\xbb\xbflab: x\r\nbase: tiny\r\nmachines: {m: {}}\r\n' >bom.yml
expect 0 uml-lab validate ./bom.yml

# A relative path stays in the lab's folder through symbolic links, too; a share may be made later.
mkdir -p labs/links/inside outside
ln -s ../../outside labs/links/out
ln -s inside labs/links/in
lab links <<'Y'
lab: links
base: tiny
machines: {a: {files: in}, b: {files: out}}
shares: {w: {path: ~/later, mode: rw}, r: {path: ~/later}, h: {path: "~/"}}
Y
expect 3 uml-lab validate links
same "$(cut -d: -f2-4 "$T/err")" "3:39: machines.b.files
4:50: shares.r.path
4:70: shares.h.path" "$(cat "$T/err")"
