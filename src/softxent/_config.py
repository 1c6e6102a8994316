"""What this build is and how it runs here: for people (``show_config``) and for programs (``config``)."""

from __future__ import annotations

import sys

import numpy as np

from . import _kernels
from ._threads import num_threads_and_reason
from ._version import __version__


def config() -> dict[str, object]:
    """Version, instruction sets, OpenMP and threads. RuntimeError if SOFTXENT_ISA names what cannot run here."""
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
    """The version of OpenMP that the build used, by the month of its specification."""
    if not _kernels.OPENMP_VERSION:
        return "not built in"
    year, month = divmod(_kernels.OPENMP_VERSION, 100)
    return f"OpenMP of {year}-{month:02}"


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
