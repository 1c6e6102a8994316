#!/bin/sh
# Looks for data races: the whole module, compiled by gcc for ThreadSanitizer, calls from many Python threads and from
# OpenMP's. Which of those wait for each other, LLVM's OpenMP runtime tells it, with its tool Archer; GNU's runtime, which
# tells nothing, would be all false alarms. In the end a race is planted, and has to be found.
#
#   sh tools/thread_sanitizer.sh [seconds]      for which 16 threads call at once: 20
#   PYTHON=python3.14t sh tools/thread_sanitizer.sh
#
# Needs a Python with Cython, NumPy, pytest and pytest-xdist, gcc, and libomp with libarcher (Debian: libomp-dev): where
# these two are not there, or ThreadSanitizer does not run (as where the kernel places memory too much at random), it
# says so, and ends with status 0.
seconds=${1:-20}
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

archer=$(find /usr/lib/llvm-*/lib -name libarcher.so 2>/dev/null | sort -V | tail -n 1)
omp=$(dirname "$archer")/libomp.so.5
if ! command -v gcc >/dev/null || [ ! -e "$omp" ]; then
    echo "gcc, or LLVM's libomp with libarcher.so, is not installed: no test for data races"
    exit 0
fi
tsan=$(gcc -print-file-name=libtsan.so)
if ! LD_PRELOAD=$tsan "$python" -c ''; then
    echo "ThreadSanitizer does not run here: no test for data races"
    exit 0
fi

# ---- The module, for ThreadSanitizer ----------------------------------------------------------------------------------

cp -r "$root/src/softxent" "$work" && rm -f "$work"/softxent/*.so
cd "$work" || exit 2
"$python" -m cython -3 -I "$root/src" -o kernels.c "$root/src/softxent/_kernels.pyx" || exit 2
includes=$("$python" -c "import numpy, sysconfig; print('-I' + numpy.get_include(), '-I' + sysconfig.get_path('include'))")
suffix=$("$python" -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
flags="-std=c11 -O1 -g1 -w -fsanitize=thread -fopenmp -fPIC -ffp-contract=off -DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION"

compile() { # source, object: the flags are several words
    # shellcheck disable=SC2086
    gcc $flags $includes -I"$root/cext/include" -I"$root/cext/src" -c "$1" -o "$2"
}

compilers=
for source in kernels.c "$root"/cext/src/*.c; do
    compile "$source" "$(basename "$source" .c).o" &
    compilers="$compilers $!"
done
for compiler in $compilers; do wait "$compiler" || exit 2; done

link() { gcc -shared -fsanitize=thread -fopenmp ./*.o -lm -o "softxent/_kernels$suffix"; }

watched() { # a Python program; 66 is the status of one that had a race
    OMP_TOOL_LIBRARIES=$archer OMP_NUM_THREADS=4 PYTHONPATH=$work:$root/tools PYTHONDONTWRITEBYTECODE=1 \
        TSAN_OPTIONS='ignore_noninstrumented_modules=1 exitcode=66' LD_PRELOAD="$tsan $omp" "$python" "$@"
}

# ---- Clean, and not because it is blind -------------------------------------------------------------------------------

link || exit 2
echo "16 threads at once, $seconds s"
watched - "$seconds" <<'END' || exit 1
import sys

import numpy as np
from soak import storm

calls, faults = storm(float(sys.argv[1]), 16, np.random.default_rng(0))
print(calls, "calls, no data race" if not faults else faults)
sys.exit(bool(faults))
END
echo "the tests of threads"
(cd "$root" && watched -m pytest -q -n 0 -p no:cacheprovider tests/test_threads.py) || exit 1

echo "the C examples"
"$python" - <<'END' || exit 2
import numpy as np

digits = np.load("softxent/data/digits.npz")
np.c_[digits["images"] / 16, digits["labels"]].astype("f4").tofile("digits.f32")
END
for example in batch shards train; do
    compile "$root/examples/c/$example.c" "example.o" || exit 2
    gcc -fsanitize=thread example.o dispatch.o kernels_*.o softxent.o -lm -o example && rm example.o || exit 2
    TSAN_OPTIONS=exitcode=66 ./example digits.f32 || exit 1
done

sed '/^SIMD_INLINE int call(/,/{/s/{/{ static int planted; ++planted;/' "$root/cext/src/softxent.c" >planted.c
compile planted.c softxent.o && link || exit 2
if watched -c 'import numpy as np, softxent
softxent.cross_entropy(np.zeros((300000, 10)), np.zeros(300000, int), n_threads=4)' >planted.txt 2>&1; then
    echo "a planted race was not found"
    exit 1
fi
grep -q 'data race' planted.txt && grep -q planted planted.txt || { cat planted.txt && exit 1; }
echo "a planted race was found: no other is there"
