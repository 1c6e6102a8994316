#!/bin/sh
# Tests the AVX-512 kernels on an x86-64 machine that has AVX2 but no AVX-512.
#
#   sh tools/avx512_emulated/run.sh c                       the C tests
#   sh tools/avx512_emulated/run.sh py [pytest arguments]   the Python tests
#
# In a copy of the working tree, simd/avx512.h sees avx512_shim.h in place of <immintrin.h>: SIMDe's portable 512-bit
# intrinsics over AVX2, FMA and F16C. Needs gcc and SIMDe (Debian: libsimde-dev) and, for the Python tests, what builds
# and tests the package. Not seen so: the compiler's own AVX-512 code, and the processor's detection.
# PYTHON names the interpreter; CFLAGS adds flags.
here=$(cd "$(dirname "$0")" && pwd) || exit 2
what=${1-}
case $what in c | py) shift ;; *) sed -n '2,5p' "$0"; exit 2 ;; esac
python=${PYTHON:-python3}

copy=$(mktemp -d) || exit 2
trap 'rm -rf "$copy"' EXIT
trap 'exit 2' HUP INT TERM
cd "$here/../.." || exit 2
cp -r cext src setup.py pyproject.toml tests README.md LICENSE MANIFEST.in "$copy/" || exit 2
cd "$copy" || exit 2
find . \( -name __pycache__ -o -name '*.so' -o -name '*.o' -o -name _kernels.c \) -prune -exec rm -rf {} +
"$python" "$here/patch.py" "$copy" || exit 2

if [ "$what" = c ]; then
    CFLAGS="-ffp-contract=off -Wno-psabi ${CFLAGS-}" sh cext/tests/run.sh
    exit
fi
CFLAGS="-Wno-psabi ${CFLAGS-}" "$python" setup.py -q build_ext --inplace || exit 2
unset SOFTXENT_ISA
PYTHONPATH=$copy/src
export PYTHONPATH
"$python" - "$copy" <<'PY' || exit 2
import sys

from softxent import _kernels

print(_kernels.usable_isas())
sys.exit(not _kernels.__file__.startswith(sys.argv[1]) or "avx512" not in _kernels.usable_isas())
PY
"$python" -m pytest "$@"
