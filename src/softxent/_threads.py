"""The number of threads of a call. How work is divided among them is in ``_kernels.pyx``.

The default is decided once, at the first call that asks for it: ``SOFTXENT_NUM_THREADS``, else ``OMP_NUM_THREADS``,
else the number of processors that this process may use (by its affinity and its control group's quota). A fork or
threadpoolctl may lower any number: that is in ``_kernels.pyx`` too.
"""

from __future__ import annotations

import math
import operator
import os
from contextlib import AbstractContextManager

from . import _kernels

# More threads bring nothing. If the system has no more threads to give, the OpenMP runtime ends the process.
MOST_THREADS = max(16, 2 * (os.cpu_count() or 1))

_chosen: int | None = None  # what set_num_threads has set
_default: tuple[int, str] | None = None


class _Setting:
    """A number of threads that was set. At its end, as a context manager, it restores the setting before it."""

    def __init__(self, before: int | None) -> None:
        self._before = before

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        global _chosen
        _chosen = self._before


def set_num_threads(n: int | None) -> AbstractContextManager[None]:
    """Set the number of threads that calls without ``n_threads`` use: from now on, or for a ``with`` block.

    Parameters
    ----------
    n : int or None
        At least 1; ``None`` goes back to the default, which is described at :func:`get_num_threads`.

    Returns
    -------
    context manager
        At the end of ``with softxent.set_num_threads(n):`` the setting is again what it was before the call. It is the
        whole process's, in a ``with`` block too. Otherwise there is no need to keep what is returned.

    Raises
    ------
    ValueError
        If ``n`` is less than 1.
    TypeError
        If ``n`` is not an integer.

    Examples
    --------
    >>> import softxent
    >>> with softxent.set_num_threads(1):
    ...     softxent.get_num_threads()
    1
    """
    global _chosen
    before, _chosen = _chosen, None if n is None else min(check_n_threads(n, "n"), MOST_THREADS)
    return _Setting(before)


def get_num_threads() -> int:
    """Return the number of threads that calls without ``n_threads`` use.

    It is what :func:`set_num_threads` set; else the environment variable ``SOFTXENT_NUM_THREADS``; else
    ``OMP_NUM_THREADS``; else the number of processors that the process may run on, by its CPU affinity and its control
    group's quota; but no more than 16, or twice the machine's processors if these are more than 8. Where OpenMP's
    number of threads has been lowered since the import, by ``threadpoolctl.threadpool_limits`` or
    ``omp_set_num_threads``, no call has more than that, whatever it asks for. Small problems run on the calling thread,
    and so does everything in a forked child process, inside another OpenMP region, and in a build without OpenMP. Calls
    that run at the same time in several Python threads share the number among them.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import softxent
    >>> softxent.get_num_threads() >= 1
    True
    """
    return num_threads_and_reason()[0]


def check_n_threads(n: int, name: str = "n_threads") -> int:
    """``n`` as an int, or an error that names the argument."""
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be an integer, at least 1; got {n!r}") from None
    if n < 1:
        raise ValueError(f"{name} must be at least 1; got {n}")
    return n


def threads_for(n_threads: int | None) -> int:
    """The number of threads of one call, from its ``n_threads``."""
    if n_threads is not None:
        return min(check_n_threads(n_threads), MOST_THREADS)
    return _chosen or _found_default()[0]


def num_threads_and_reason() -> tuple[int, str]:
    """The default number of threads, and what decided it."""
    n, reason = (_chosen, "set_num_threads") if _chosen else _found_default()
    allowed, limit = _kernels.limit_of_threads(n)
    return allowed, limit or reason


def _found_default() -> tuple[int, str]:
    global _default
    if _default is None:
        n, reason = _from_environment() or _from_system()
        _default = min(n, MOST_THREADS), reason
    return _default


def _from_environment() -> tuple[int, str] | None:
    for name in ("SOFTXENT_NUM_THREADS", "OMP_NUM_THREADS"):
        # OpenMP allows a list, with one number for each level of nesting. OpenMP ignores what is no number, and so do
        # we.
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isascii() and first.isdigit() and int(first) >= 1:
            return int(first), name
    return None


def _from_system() -> tuple[int, str]:
    if hasattr(os, "sched_getaffinity"):
        n, reason = len(os.sched_getaffinity(0)), "CPU affinity"
    else:
        n, reason = os.cpu_count() or 1, "processors"
    quota = _cgroup_quota()
    return (quota, "control group quota") if quota is not None and quota < n else (n, reason)


def _cgroup_quota(root: str | os.PathLike[str] = "/sys/fs/cgroup") -> int | None:
    """The processors that the control group (version 2 or 1) allows, rounded up. None if there is no limit."""

    def words(*name: str) -> list[str]:
        with open(os.path.join(root, *name)) as file:
            return file.read().split()

    try:
        if os.path.exists(os.path.join(root, "cpu.max")):
            quota, period = words("cpu.max")[:2]
        else:
            (quota,), (period,) = words("cpu", "cpu.cfs_quota_us"), words("cpu", "cpu.cfs_period_us")
        # "max" (version 2) and -1 (version 1) mean that there is no limit.
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):
        return None
