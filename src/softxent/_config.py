"""The properties of this build and of this process, for people (``show_config``) and for programs (``config``).

The folders of the C library in the package are here too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from . import _kernels
from ._threads import num_threads_and_reason
from ._version import __version__


def config() -> dict[str, object]:
    """Version, instruction sets, OpenMP and threads. RuntimeError if SOFTXENT_ISA names a set that cannot run here."""
    num_threads, num_threads_from = num_threads_and_reason()
    return {
        "version": __version__,
        "isa": _kernels.isa_in_use(),
        "isa_usable": _kernels.usable_isas(),
        "openmp": openmp(),
        "num_threads": num_threads if _kernels.OPENMP_VERSION else 1,
        "num_threads_from": num_threads_from if _kernels.OPENMP_VERSION else "built without OpenMP",
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }


def openmp() -> str:
    """The month of the OpenMP specification that the build used, and the OpenMP runtimes of this process, if they are
    told.
    """
    if not _kernels.OPENMP_VERSION:
        return "not built in"
    year, month = divmod(_kernels.OPENMP_VERSION, 100)
    runtimes = ", ".join(loaded_runtimes()) or "unknown"
    return f"specification {year}-{month:02}, runtime {runtimes}"


def loaded_runtimes() -> list[str]:
    """The file names of the OpenMP libraries in this process, if the system lists them (Linux does)."""
    try:
        with open("/proc/self/maps") as maps:
            files = {os.path.basename(line.split()[-1]) for line in maps if "/" in line}
    except OSError:
        return []
    return sorted(name for name in files if name.startswith(("libgomp", "libomp", "libiomp")))


def show_config() -> None:
    """Print the version, the instruction sets usable and in use, OpenMP, and the number of threads.

    Raises
    ------
    RuntimeError
        If the environment variable ``SOFTXENT_ISA`` names an instruction set that is unknown or cannot run here.

    Examples
    --------
    >>> import softxent
    >>> softxent.show_config()  # doctest: +ELLIPSIS
    version           ...
    """
    for name, value in config().items():
        print(f"{name:17} {', '.join(value) if isinstance(value, list) else value}")


def get_include() -> str:
    """The folder of ``softxent.h``, the C library's header, to compile with.

    Returns
    -------
    str
        An absolute path.

    Examples
    --------
    >>> import os, softxent
    >>> os.path.exists(os.path.join(softxent.get_include(), "softxent.h"))
    True
    """
    return _installed("include", "softxent.h")


def get_library_dir() -> str:
    """The folder of the C library itself, ``libsoftxent.a`` or ``softxent.lib``, to link with.

    Returns
    -------
    str
        An absolute path.

    Examples
    --------
    >>> import os, softxent
    >>> os.listdir(softxent.get_library_dir())  # doctest: +ELLIPSIS
    [...softxent...]
    """
    return _installed("lib", "pkgconfig")


def get_cmake_dir() -> str:
    """The folder of ``softxentConfig.cmake``, for ``find_package(softxent)``: what ``softxent_DIR`` should be.

    Returns
    -------
    str
        An absolute path.

    Examples
    --------
    >>> import os, softxent
    >>> sorted(os.listdir(softxent.get_cmake_dir()))
    ['softxentConfig.cmake', 'softxentConfigVersion.cmake']
    """
    return _installed("lib/cmake/softxent", "softxentConfig.cmake")


def pkgconfig_dir() -> str:
    """The folder of ``softxent.pc``, for PKG_CONFIG_PATH."""
    return _installed("lib/pkgconfig", "softxent.pc")


def _installed(folder: str, witness: str) -> str:
    path = Path(__file__).parent / folder
    if not (path / witness).exists():
        raise FileNotFoundError(f"{path / witness} is not there: this softxent was installed without its C library")
    return str(path)
