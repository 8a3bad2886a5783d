# make install into a folder of one's own, and staged for a package: programs find each other, labs and man pages are there; make uninstall
# takes all of it away again, and nothing else.
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need make

# What was built is not built again.
install_with() { expect 0 make -C "$UML_LAB_SOURCE" -s -o all B="${UML_LAB_BUILD#"$UML_LAB_SOURCE"/}" "$@"; }

own=$T/own
install_with install PREFIX="$own"
expect 0 env -u UML_LAB_PATH PATH="$own/bin:/usr/bin:/bin" uml-lab list
says hello
says first-steps
expect 0 "$own/bin/uml-lab" validate hello
for page in uml-lab.1 uml-cow.1 uml-cow.5 uml-lab-lab.5 uml-lab-networks.7; do
	[ -s "$own/share/man/man${page##*.}/$page" ] || fail "there is no page $page"
done
bash -n "$own/share/bash-completion/completions/uml-lab" || fail "the completion is no script"
mkdir "$own/share/theirs"
install_with uninstall PREFIX="$own"
same "$(cd "$own" && find . | sort | tr '\n' ' ')" ". ./share ./share/theirs " "left over"

install_with install DESTDIR="$T/staged" PREFIX=/usr
[ -x "$T/staged/usr/bin/uml-lab" ] && [ -x "$T/staged/usr/libexec/uml-lab/uml-netplug" ] || fail "not staged"
install_with uninstall DESTDIR="$T/staged" PREFIX=/usr
same "$(find "$T/staged" | wc -l)" 1 "left over where it was staged"
