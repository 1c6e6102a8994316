#!/bin/sh
# Looks for what the C tests alone do not show: they run under the sanitizers of addresses and undefined behaviour and
# under valgrind, then fuzz.c tries what nobody has thought of, and last they run as 32-bit programs.
#
#   sh cext/tests/quality.sh [seconds]      for which the fuzzer runs: 60
#   CC=gcc-13 sh cext/tests/quality.sh      where there is no clang, whose libFuzzer and sanitizers come first
#
# What is not installed is said and left out. An input that the fuzzer found is left as ./fuzz-input, and printed; to
# try it again, build fuzz.c as below and give it the file.
seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM
kept=$PWD/fuzz-input
cd "$here" || exit 2

start=$(date +%s)
failed=0
say() { echo "[$(($(date +%s) - start)) s] $*"; }
verdict() { # status, what it was
    if [ "$1" -eq 0 ]; then say "$2: passed"; else say "$2: FAILED"; failed=1; fi
}

ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16}
export ASAN_OPTIONS

# The kernels are forced inline, so that checks at every access take minutes to compile: no more of them than find what
# the address sanitizer does not; and gcc takes half the time where it does not optimise.
some=address,bool,bounds,enum,float-cast-overflow,integer-divide-by-zero,return,shift,signed-integer-overflow,unreachable
sanitize="-fsanitize=$some -fno-sanitize-recover=all -gline-tables-only -O1"
with=
echo 'int LLVMFuzzerTestOneInput(const char *p, long n) { return p && n < 0; }' >"$work/probe.c"
if ! command -v clang >/dev/null; then
    say "clang: not installed, so no libFuzzer: the fuzzer draws its inputs at random"
elif ! clang -fsanitize=fuzzer,address,undefined "$work/probe.c" -o "$work/probe" 2>"$work/probe.txt"; then
    say "clang: its sanitizers or libFuzzer are not installed (Debian: libclang-rt-dev): the fuzzer draws at random"
else
    cc=clang with=-fsanitize=fuzzer-no-link
fi
if [ -z "$with" ]; then cc=${CC:-cc} sanitize="-fsanitize=$some -fno-sanitize-recover=all -g1 -O0"; fi
echo 'int main(void) { return 0; }' >"$work/probe.c"

# ---- In the background, on a core of its own: valgrind, which knows no AVX-512 -----------------------------------------

# It takes long double for double, by which the tests judge: only what it says itself counts, and that a program ends.
# The kernels read and write memory; the vector layer's own tests do not.
in_valgrind() {
    CFLAGS='-O1 -g' TESTS='test_[!s]*.c' SPARSE=200 RUN="valgrind -q --log-file=$work/valgrind.%p" \
        sh run.sh "${CC:-cc}" >"$work/tests-in-valgrind" 2>&1
    [ "$(grep -c '^test_.* passed, ' "$work/tests-in-valgrind")" -eq 5 ] || echo "not all tests ran" >"$work/valgrind.0"
    grep 'exit status [^1]' "$work/tests-in-valgrind" >>"$work/valgrind.0"
    : >"$work/valgrind-ended"
}

if command -v valgrind >/dev/null; then
    in_valgrind &
else
    say "valgrind: not installed, skipped"
fi

# ---- The sanitizers: the library is compiled once, for the tests and for the fuzzer -----------------------------------

# shellcheck disable=SC2086  # flags are several words
if $cc $sanitize "$work/probe.c" -o "$work/probe" 2>"$work/probe.txt"; then
    say "$cc: compiling the library with its sanitizers"
    mkdir "$work/objects"
    compilers=
    for source in ../src/*.c; do
        $cc -std=c11 $sanitize $with -I../include -c "$source" -o "$work/objects/$(basename "$source" .c).o" &
        compilers="$compilers $!"
    done
    for compiler in $compilers; do wait "$compiler" || exit 2; done
    say "C tests with sanitizers"
    CFLAGS=$sanitize OBJECTS=$work/objects SPARSE=200 sh run.sh "$cc" >"$work/tests.txt" 2>&1
    status=$?
    grep -v ': at worst ' "$work/tests.txt"
    verdict $status "C tests with sanitizers"

    main=-DSTANDALONE
    [ -n "$with" ] && main=-fsanitize=fuzzer
    $cc -std=c11 $sanitize $main -I../include -I../src fuzz.c "$work"/objects/*.o -o "$work/fuzz" -lm || exit 2
    say "fuzzer: $seconds s"
    if [ -n "$with" ]; then
        mkdir "$work/corpus"
        "$work/fuzz" -max_total_time="$seconds" -max_len=1024 -len_control=0 -timeout=20 -print_final_stats=1 \
            -exact_artifact_path="$work/input" "$work/corpus" >"$work/fuzz.txt" 2>&1
        status=$?
    else
        "$work/fuzz" "$work/input" "$seconds" "$(date +%s)" >"$work/fuzz.txt" 2>&1
        status=$?
    fi
    if [ $status -eq 0 ]; then
        grep -E 'inputs,|Done|cov:.*DONE' "$work/fuzz.txt"
    else
        grep -vE 'NEW|REDUCE|INFO' "$work/fuzz.txt" | tail -n 40
        cp "$work/input" "$kept" && od -An -v -tx1 "$kept" && say "the input is in $kept"
    fi
    verdict $status "fuzzer"
else
    say "$cc: no sanitizers, neither the tests with them nor the fuzzer ran"
fi

# ---- 32-bit x86, where compilers take the x87 unit unless they are told otherwise --------------------------------------

# With the flags that people have, and not -std=c11, by which gcc rounds more often.
if "${CC:-cc}" -m32 "$work/probe.c" -o "$work/probe" 2>"$work/probe.txt"; then
    say "32-bit x86: C tests"
    CFLAGS='-m32 -std=gnu11' SPARSE=200 sh run.sh "${CC:-cc}" >"$work/tests-in-32-bits" 2>&1
    status=$?
    grep -v ': at worst ' "$work/tests-in-32-bits"
    verdict $status "32-bit x86, -O2"
    if command -v cmake >/dev/null; then
        CFLAGS=-m32 CC=${CC:-cc} cmake -S .. -B "$work/cmake" >"$work/cmake.txt" &&
            cmake --build "$work/cmake" --target softxent >>"$work/cmake.txt" &&
            CFLAGS='-m32 -std=gnu11' OBJECTS=$work/cmake/CMakeFiles/softxent.dir/src TESTS='test_[gk]*.c' \
                sh run.sh "${CC:-cc}" >"$work/tests-of-cmake" 2>&1
        verdict $? "32-bit x86, as CMake builds it"
    else
        say "cmake: not installed, so its 32-bit build was not tried"
    fi
else
    say "32-bit x86: ${CC:-cc} -m32 does not link (Debian: gcc-multilib), skipped"
fi

wait
if [ -f "$work/valgrind-ended" ]; then
    cat "$work"/valgrind.[0-9]*
    [ -z "$(cat "$work"/valgrind.[0-9]*)" ]
    verdict $? "C tests under valgrind, by its own findings"
fi
exit $failed
