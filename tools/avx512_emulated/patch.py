"""Patches a copy of the project: its AVX-512 kernels see avx512_shim.h, and dispatch lets them run where AVX2 does."""

import re
import shutil
import sys
from pathlib import Path

copy, here = Path(sys.argv[1]), Path(__file__).parent


def patch(name, *replacements):
    path = copy / name
    text = path.read_text()
    for pattern, new in replacements:
        text, n = re.subn(pattern, new, text, flags=re.M)
        if n != 1:
            sys.exit(f"{name}: {pattern!r} matches {n} times, not once: bring {__file__} up to date")
    path.write_text(text)


shutil.copy(here / "avx512_shim.h", copy / "cext/src/simd/avx512_shim.h")
patch("cext/src/simd/avx512.h", (r"^#\s*include <immintrin.h>$", '#include "avx512_shim.h"'))
for name in ("cext/src/kernels_avx512.c", "cext/tests/test_simd_avx512.c"):
    patch(
        name,
        (r'^(#\s*pragma GCC target\()"avx512[^"]*"', r'\1"avx2,fma,f16c"'),
        (r"^#\s*include <immintrin.h>\n", ""),
    )
patch(
    "cext/src/dispatch.c",
    (
        r"^static int can_run_avx512\(void\)\n\{\n(.*\n)+?\}$",
        "static int can_run_avx512(void) { return can_run_avx2(); }",
    ),
)

# Nothing else may use the instructions on its own.
for path in sorted((copy / "cext").rglob("*.[ch]")):
    if path.name not in ("avx512_shim.h", "avx512.h"):
        text = re.sub(r"__attribute__\(\(target.*", "", path.read_text())
        if re.search(r"_mm512_|__m512|__mmask|avx512f", text):
            sys.exit(f"{path} uses AVX-512 outside of simd/avx512.h: bring {__file__} up to date")
