"""What memory allows: every byte read once for the loss; read once, and the gradient's written once, for the gradient.

The computation is the cheapest there is, a maximum or a copy, and of all the ways tried the fastest counts: NumPy on
one thread, NumPy on several, and Numba's parallel loops where Numba is installed (handing work to another thread takes
a few microseconds there, and some fifty in Python). Bytes are taken as 32-bit integers, whatever the dtype: NumPy's
maximum of floats looks for nan, and its half precision is slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np

from .cells import Array, Problem

Call = Callable[[], object]

TRIALS = 5
SMALLEST_TO_SHARE = 2**12  # words: below, no way of sharing is worth trying


def limit(problem: Problem) -> dict[str, Call]:
    """The fastest way to move the bytes of each task."""
    inputs = [words(problem.logits), *([words(problem.labels)] if problem.distributions else [])]
    arrays = (*inputs, words(problem.prepared))
    ways = [in_threads(arrays, 1)]
    if inputs[0].size >= SMALLEST_TO_SHARE:
        ways.append(in_threads(arrays, problem.n_threads))
        if find_spec("numba"):
            ways.append(in_numba(arrays))
    return {task: min((way[task] for way in ways), key=shortest_time) for task in ("loss", "loss+grad")}


def words(array: Array) -> Array:
    """The same bytes as 32-bit integers, or as what their number divides into."""
    whole = next(dtype for dtype in (np.int32, np.int16, np.int8) if array.nbytes % np.dtype(dtype).itemsize == 0)
    return array.reshape(-1).view(whole)


def read(*inputs_and_out: Array) -> None:
    """Look at all that comes in."""
    for array in inputs_and_out[:-1]:
        array.max()


def move(*inputs_and_out: Array) -> None:
    """Copy the logits; with a target, add it on the way, as both have to be read."""
    logits, *target, out = inputs_and_out
    if target:
        np.add(logits, target[0], out=out)
    else:
        np.copyto(out, logits)


def in_threads(arrays: Sequence[Array], n_parts: int) -> dict[str, Call]:
    """NumPy, which lets the GIL go, on a part for each thread; the calling thread takes one itself."""
    parts = list(zip(*(np.array_split(array, n_parts) for array in arrays), strict=True))
    pool = ThreadPoolExecutor(n_parts)

    def shared(work: Callable[..., None]) -> Call:
        def call() -> None:
            others = [pool.submit(work, *part) for part in parts[1:]]
            work(*parts[0])
            for other in others:
                other.result()

        return call

    return {"loss": shared(read), "loss+grad": shared(move)}


def in_numba(arrays: Sequence[Array]) -> dict[str, Call]:
    """Numba's parallel loops."""
    from . import numba_kernels

    move = numba_kernels.copy if len(arrays) == 2 else numba_kernels.add
    return {
        "loss": lambda: [numba_kernels.largest(array) for array in arrays[:-1]],
        "loss+grad": lambda: move(*arrays),
    }


def shortest_time(call: Call) -> float:
    """Seconds, the best of a few, after one call that may compile."""
    times = []
    call()
    for _ in range(TRIALS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
