"""Builds the extension: the C library's files and the Cython layer over them, with OpenMP where there is one.

SOFTXENT_OPENMP=require fails where OpenMP cannot be used, auto (the default) does without it, off leaves it out.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

C_SOURCES = sorted(path.as_posix() for path in Path("cext/src").glob("*.c"))

OPENMP_PROBE = """
#include <omp.h>
int softxent_probe(void) { return omp_get_max_threads(); }
"""


class BuildExtension(build_ext):
    """build_ext that knows its compiler's flags."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            compile_flags, candidates = ["/O2", "/std:c11"], [(["/openmp"], [])]
        else:
            # No contraction of a * b + c behind the templates' back: what is fused is fused by name.
            compile_flags = ["-O2", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden"]
            candidates = [(["-fopenmp"], ["-fopenmp"])]
            if sys.platform == "darwin":
                candidates = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), *candidates]
        openmp_compile, openmp_link = self.openmp_flags(candidates)
        for extension in self.extensions:
            extension.extra_compile_args = compile_flags + openmp_compile
            extension.extra_link_args = openmp_link
        super().build_extensions()

    def openmp_flags(self, candidates):
        wanted = os.environ.get("SOFTXENT_OPENMP", "auto")
        if wanted not in ("require", "auto", "off"):
            raise SystemExit(f"SOFTXENT_OPENMP={wanted!r}: it must be require, auto or off")
        if wanted == "off":
            return [], []
        for compile_flags, link_flags in candidates:
            if self.can_link(OPENMP_PROBE, compile_flags, link_flags):
                return compile_flags, link_flags
        if wanted == "require":
            raise SystemExit(f"SOFTXENT_OPENMP=require, but no OpenMP program links with any of {candidates}")
        print("softxent: OpenMP was not found; building for one thread")
        return [], []

    def can_link(self, code, compile_flags, link_flags):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(code)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_preargs=compile_flags)
                library = str(Path(folder, "probe.so"))
                self.compiler.link_shared_object(objects, library, extra_postargs=link_flags)
            except (OSError, subprocess.SubprocessError, *compile_errors()):
                return False
        return True


def compile_errors():
    from setuptools import errors

    return errors.CompileError, errors.LinkError, errors.ExecError


kernels = Extension(
    "softxent._kernels",
    sources=["src/softxent/_kernels.pyx", *C_SOURCES],
    depends=[path.as_posix() for path in Path("cext").rglob("*.h")],
    include_dirs=["cext/include", "cext/src", numpy.get_include()],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ],
)

setup(
    ext_modules=cythonize([kernels], include_path=["src"], language_level=3),
    cmdclass={"build_ext": BuildExtension},
)
