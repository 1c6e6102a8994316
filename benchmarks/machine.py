"""Where it runs: which processors, with which settings, and what there is to know about the machine and the versions.

Everything that a library reads when it is imported is set for a process before it starts.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from softxent._config import config

PACKAGES = ("numpy", "scipy", "torch", "jax", "jaxlib", "optax", "scikit-learn", "numba", "llvmlite", "ml_dtypes")

# Memory is touched beforehand also for those who allocate in each call: the C library's malloc keeps what is freed, in
# place of giving it back to the system at each call and having its pages cleared again; and it asks for huge pages, as
# NumPy does for its large arrays.
MALLOC = (
    "glibc.malloc.hugetlb=1",
    "glibc.malloc.mmap_max=0",
    "glibc.malloc.trim_threshold=1000000000000",
)


@contextmanager
def pinned(n_threads: int) -> Iterator[None]:
    """Keeps this thread, and the processes that it starts, to as many processors; where the system knows how."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:n_threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def environment(n_threads: int) -> dict[str, str]:
    """The variables of a process that measures with so many threads."""
    pools = ("OMP", "OPENBLAS", "MKL", "NUMBA", "SOFTXENT")
    return {
        **os.environ,
        **{f"{pool}_NUM_THREADS": str(n_threads) for pool in pools},
        "GLIBC_TUNABLES": ":".join(MALLOC),
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA warns at length of constants that take a second to compile
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # in this process: no compiler waits in the background
    }


def release_memory() -> None:
    """Give back what malloc keeps, between two cells; where the C library knows how."""
    gc.collect()  # compiled functions and their arrays refer to each other
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def circumstances() -> dict[str, str]:
    """What every row of a results file says: when, on what processor, with which versions."""
    ours = config()
    versions = {"softxent": str(ours["version"]), "python": platform.python_version()}
    versions |= {package: installed for package in PACKAGES if (installed := installed_version(package))}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": str(os.cpu_count()),
        "isa": str(ours["isa"]),
        "openmp": str(ours["openmp"]),
        "system": platform.system(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def cpu_model() -> str:
    """The processor's name as Linux has it; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def installed_version(package: str) -> str:
    """A package's version, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def memory() -> float:
    """The machine's bytes of memory; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
