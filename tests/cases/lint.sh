# The sources as `make lint` looks them over, without its build (CI has one with -Werror).
# timeout: 600
# shellcheck shell=bash source=tests/cases/lib.sh
. tests/cases/lib.sh
need shellcheck cppcheck man perl

tests/lint --quick >"$T/out" 2>&1 || fail "make lint: $(cat "$T/out")"
