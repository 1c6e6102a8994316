#!/bin/sh
# Builds the C tests with nothing but a C compiler and runs them.
#
#   sh cext/tests/run.sh [cc]      the compiler: $1, else $CC, else cc
#   CFLAGS='-fsanitize=address,undefined -g' sh cext/tests/run.sh         flags for the library and the tests
#   OBJECTS=folder TESTS='test_p*.c' SPARSE=50 sh cext/tests/run.sh      the library as it was compiled there; some of
#                                  the tests; fewer points in the dense sweeps, as an emulator gets them by default
#   CC=aarch64-linux-gnu-gcc RUN='qemu-aarch64 -L /usr/aarch64-linux-gnu' sh cext/tests/run.sh    an emulator
#
# The library is compiled as any build may compile it, with no flags of its own: its files switch their targets on.
cc=${1:-${CC:-cc}}
here=$(cd "$(dirname "$0")" && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM
cd "$here" || exit 2

# By default the sanitizer of undefined behaviour goes on after a finding.
UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
export UBSAN_OPTIONS
unset SOFTXENT_ISA

plain="-std=c11 -O2 -I../include -I../src"
sparse=${SPARSE:-${RUN:+50}}
sparse=${sparse:+-DTHINNED=$sparse}

if [ -z "${OBJECTS-}" ]; then
    OBJECTS=$work
    for source in ../src/*.c; do
        # shellcheck disable=SC2086  # flags are several words
        $cc $plain ${CFLAGS-} -c "$source" -o "$work/$(basename "$source" .c).o" || exit 2
    done
fi

passed=0
failed=0
for source in ${TESTS:-test_*.c}; do
    name=$(basename "$source" .c)
    # shellcheck disable=SC2086
    if $cc $plain -Wall -Wextra $sparse ${CFLAGS-} "$source" "$OBJECTS"/*.o -o "$work/$name" -lm; then
        ${RUN-} "$work/$name" >"$work/printed" 2>&1
        status=$?
        tr -d '\r' <"$work/printed" >"$work/$name.txt" # Windows ends a line with two characters
    else
        echo "it does not compile" >"$work/$name.txt"
        status=1
    fi
    # A program ends with its counts; one that does not has crashed, and is one failure more.
    counts=$(sed -n '$s/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$work/$name.txt")
    sed '/^[0-9]* passed, [0-9]* failed$/d; s/^/    /' "$work/$name.txt"
    p=${counts% *} f=${counts#* }
    if [ -z "$counts" ] || { [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; }; then
        p=${p:-0} f=$((${f:-0} + 1))
        echo "$name: exit status $status"
    fi
    echo "$name: $p passed, $f failed"
    passed=$((passed + p))
    failed=$((failed + f))
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
