"""Builds the C library, once, and the Cython layer over it, with OpenMP where there is one.

The library also goes into the package, with its header and what CMake and pkg-config need to find it: for C and C++
programs that are built against an installed softxent.

SOFTXENT_OPENMP=require fails where OpenMP cannot be used, auto (the default) does without it, off leaves it out.
"""

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sysconfig import get_platform

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

C_LIBRARY = Path("cext")
C_SOURCES = sorted(path.as_posix() for path in C_LIBRARY.glob("src/*.c"))
C_FILES = sorted(path.as_posix() for path in C_LIBRARY.rglob("*.[ch]"))
HEADER = C_LIBRARY / "include/softxent.h"

PROBE = "int softxent_probe(void) { return 0; }"
OPENMP_PROBE = """
#include <omp.h>
int softxent_probe(void) { return omp_get_max_threads(); }
"""


class BuildExtension(build_ext):
    """build_ext with the flags of its compiler."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            compile_flags, candidates = ["/O2", "/std:c11"], [(["/openmp"], [])]
        else:
            # The compiler must not contract a * b + c in the templates: what is fused there is fused by name.
            compile_flags = ["-O2", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", *debug_flags()]
            candidates = [(["-fopenmp"], ["-fopenmp"])]
            if get_platform().startswith("macosx"):  # a cross-compiler for macOS comes here too
                candidates = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), *candidates]
        openmp_compile, openmp_link = self.openmp_flags(candidates)
        self.library = self.build_library(compile_flags)
        for extension in self.extensions:
            extension.extra_compile_args = compile_flags + openmp_compile
            extension.extra_link_args = openmp_link
            extension.extra_objects = [self.library]
        super().build_extensions()
        self.add_to_package()

    def copy_extensions_to_source(self):  # called for a build in place
        super().copy_extensions_to_source()
        self.add_to_package()

    def build_library(self, flags):
        """Build the static C library if it is not there yet. The extension is linked with it."""
        folder = self.build_temp
        library = self.compiler.library_filename("softxent", output_dir=folder)
        if self.force or newer_group(C_FILES, library):
            kernel_flags = [*flags, *self.kernel_flags()]

            def compiled(source):
                own = [*(kernel_flags if "kernels_" in source else flags)]  # a compiler object may add to its arguments
                return self.compiler.compile([source], folder, include_dirs=["cext/include"], extra_preargs=own)[0]

            first, *others = C_SOURCES
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # the first source has set up the compiler
                objects = [compiled(first), *pool.map(compiled, others)]
            self.compiler.create_static_lib(objects, "softxent", output_dir=folder)
        return library

    def kernel_flags(self):
        """Flags without which kernels are slower.

        Canaries cost up to a fifth beside arrays of constant size, in which all indices are bounded. GCC's copies of
        loop heads and of the paths to them make a sixth more code, and no more speed.
        """
        if self.compiler.compiler_type == "msvc":
            return []
        candidates = ["-fno-stack-protector"], ["-fno-tree-ch", "-fno-thread-jumps"]
        return [flag for flags in candidates if self.can_link(PROBE, ["-Werror", *flags], []) for flag in flags]

    def add_to_package(self):
        """Copy include/ and lib/ into the package: what a C program needs."""
        package = Path(self.get_ext_fullpath("softxent._kernels")).parent
        version = re.search(r'SOFTXENT_VERSION "(.*)"', HEADER.read_text()).group(1)
        values = {
            "VERSION": version,
            "MINOR_VERSION": version.rpartition(".")[0],
            "LIBRARY": Path(self.library).name,
            "TO_ROOT": "../..",
            "INCLUDE_DIR": "include",
            "LIBRARY_DIR": "lib",
        }
        for folder in ("include", "lib/cmake/softxent", "lib/pkgconfig"):
            (package / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(HEADER, package / "include")
        shutil.copy(self.library, package / "lib")
        for template, folder in (
            ("softxent.pc.in", "lib/pkgconfig"),
            ("softxentConfig.cmake.in", "lib/cmake/softxent"),
            ("softxentConfigVersion.cmake.in", "lib/cmake/softxent"),
        ):
            text = re.sub(r"@(\w+)@", lambda name: values[name.group(1)], (C_LIBRARY / template).read_text())
            (package / folder / template.removesuffix(".in")).write_text(text)

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


def debug_flags():
    """The flag against debug information, which is ten times the size of the code.

    Many interpreters were built with -g, and pass it on. If the user's own CFLAGS ask for debug information, it stays.
    """
    wanted = any(flag.startswith("-g") for flag in os.environ.get("CFLAGS", "").split())
    return [] if wanted else ["-g0"]


def compile_errors():
    from setuptools import errors

    return errors.CompileError, errors.LinkError, errors.ExecError


kernels = Extension(
    "softxent._kernels",
    sources=["src/softxent/_kernels.pyx"],
    depends=C_FILES,
    include_dirs=["cext/include", numpy.get_include()],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ],
)

setup(
    ext_modules=cythonize([kernels], include_path=["src"], language_level=3),
    cmdclass={"build_ext": BuildExtension},
)
