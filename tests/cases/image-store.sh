#!/bin/bash
# image build tiny, list, show, remove; replacing; images in use; statuses.
. "${BASH_SOURCE%/*}/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
need busybox debugfs e2fsck python3

images=$HOME/.local/share/uml-lab/images
expect 0 uml-lab image list
says "no images yet"
expect 0 uml-lab image build tiny
says "tiny is ready"
e2fsck -fn "$images/tiny.img" >"$T/fsck" 2>&1 || { cat "$T/fsck"; fail "e2fsck is not content"; }
same "$(stat -c %a "$images/tiny.img")" 444
debugfs -R "ls -p /bin" "$images/tiny.img" 2>/dev/null | grep -q "/120777/0/0/sh/" || fail "no /bin/sh"
debugfs -R "cat /bin/busybox" "$images/tiny.img" 2>/dev/null | cmp - "$(command -v busybox)" || fail "busybox differs"
[ "$(stat -c %b "$images/tiny.img")" -lt $((16 * 2048)) ] || fail "the image is not sparse"

# One busybox, one image.
expect 1 uml-lab image build tiny
says "--replace"
cp "$images/tiny.img" "$T/first.img"
expect 0 uml-lab image build tiny --replace --quiet
same "$(cat "$T/out" "$T/err")" ""
cmp "$T/first.img" "$images/tiny.img" || fail "two builds differ"
expect 2 uml-lab image build tiny --include nano --replace
expect 2 uml-lab image build something
says "--suite"
expect 2 uml-lab image build debian-12 --include '../x'
expect 2 uml-lab image build UPPER --suite bookworm

expect 0 uml-lab image list
says "tiny  uml-lab tiny (busybox)  64 MiB"
expect 0 uml-lab image list --json
same "$(json "$T/out" 'd[0]["name"], d[0]["kind"], d[0]["size"], d[0]["init"]')" "('tiny', 'tiny', 67108864, '/sbin/init')"
expect 0 uml-lab image show tiny --json
same "$(json "$T/out" 'd["path"], d["users"]')" "('$images/tiny.img', [])"
expect 0 uml-lab image show "$images/tiny.img"
says "/usr/bin/busybox"
expect 4 uml-lab image show tinny
says "did you mean tiny"
expect 4 uml-lab image remove tinny
expect 4 uml-lab image show "$T/none.img"
expect 1 uml-lab image show "$T/"

# In use: a session's session.yml names it.
session=$HOME/.local/state/uml-lab/sessions/mine
mkdir -p "$session"
uses() {
	cat >"$session/session.yml" <<EOF
lab: mine
machines:
  m: {base: tiny}
session:
  name: mine
  lab-file: $T/lab.yml
  machines:
    m:
      base: {path: "$1", size: 67108864, mtime: 1}
EOF
}
uses "$images/tiny.img"
expect 5 uml-lab image remove tiny
says "session mine"
expect 5 uml-lab image build tiny --replace
says "session mine"
expect 0 uml-lab image show tiny
says "session mine"
uses "$images/tiny.img.other"
expect 0 uml-lab image remove tiny
same "$(ls -A "$images")" .lock

# A system folder's image is found, and not removed.
mkdir "$T/system"
mv "$T/first.img" "$T/system/tiny.img"
UML_LAB_IMAGES=$T/system expect 0 uml-lab image list
says tiny
UML_LAB_IMAGES=$T/system expect 1 uml-lab image remove tiny
says "not yours"
