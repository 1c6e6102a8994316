"""The loops of the Numba contender, and of the limit: imported only where Numba is installed.

They are what a careful user of Numba writes: three sweeps over a row that stays in cache, fastmath, no checks. The exp
is the C library's, one at a time: Numba has no vector one (Intel's SVML is not supported since Numba 0.62).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from .cells import Array

SMALL = 1024  # logits: for fewer, starting threads takes longer than one thread takes for all
WIDTH = 512  # positions whose classes are gone through together where the class axis is not the last


def for_any_size(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled twice, for one thread and for all; the first argument's size decides."""
    serial = njit(fastmath=True, nogil=True)(function)
    parallel = njit(fastmath=True, nogil=True, parallel=True)(function)
    return lambda logits, *others: (serial if logits.size < SMALL else parallel)(logits, *others)


@for_any_size
def loss_rows(logits: Array, labels: Array) -> float:
    """The mean loss, class axis last."""
    n, n_classes = logits.shape
    total = 0.0
    for i in prange(n):
        row_max = logits[i, 0]
        for k in range(1, n_classes):
            row_max = max(row_max, logits[i, k])
        sum_exp = logits.dtype.type(0)
        for k in range(n_classes):
            sum_exp += np.exp(logits[i, k] - row_max)
        total += np.log(sum_exp) + row_max - logits[i, labels[i]]
    return total / n


@for_any_size
def loss_and_grad_rows(logits: Array, labels: Array, grad: Array) -> float:
    """The mean loss and its gradient, class axis last."""
    n, n_classes = logits.shape
    scale = logits.dtype.type(1 / n)
    total = 0.0
    for i in prange(n):
        row_max = logits[i, 0]
        for k in range(1, n_classes):
            row_max = max(row_max, logits[i, k])
        sum_exp = logits.dtype.type(0)
        for k in range(n_classes):
            grad[i, k] = np.exp(logits[i, k] - row_max)
            sum_exp += grad[i, k]
        factor = scale / sum_exp
        for k in range(n_classes):
            grad[i, k] *= factor
        grad[i, labels[i]] -= scale
        total += np.log(sum_exp) + row_max - logits[i, labels[i]]
    return total / n


@for_any_size
def loss_rows_distribution(logits: Array, target: Array) -> float:
    """The mean loss for distributions that sum to 1, class axis last."""
    n, n_classes = logits.shape
    total = 0.0
    for i in prange(n):
        row_max = logits[i, 0]
        for k in range(1, n_classes):
            row_max = max(row_max, logits[i, k])
        sum_exp = dot = logits.dtype.type(0)
        for k in range(n_classes):
            below_max = logits[i, k] - row_max
            sum_exp += np.exp(below_max)
            dot += target[i, k] * below_max
        total += np.log(sum_exp) - dot
    return total / n


@for_any_size
def loss_and_grad_rows_distribution(logits: Array, target: Array, grad: Array) -> float:
    """The mean loss and its gradient for distributions that sum to 1, class axis last."""
    n, n_classes = logits.shape
    scale = logits.dtype.type(1 / n)
    total = 0.0
    for i in prange(n):
        row_max = logits[i, 0]
        for k in range(1, n_classes):
            row_max = max(row_max, logits[i, k])
        sum_exp = dot = logits.dtype.type(0)
        for k in range(n_classes):
            below_max = logits[i, k] - row_max
            grad[i, k] = np.exp(below_max)
            sum_exp += grad[i, k]
            dot += target[i, k] * below_max
        factor = scale / sum_exp
        for k in range(n_classes):
            grad[i, k] = grad[i, k] * factor - target[i, k] * scale
        total += np.log(sum_exp) - dot
    return total / n


@for_any_size
def loss_channels(logits: Array, labels: Array) -> float:
    """The mean loss of logits (samples, classes, positions): the inner loops go along the positions."""
    n, n_classes, n_positions = logits.shape
    n_blocks = -(-n_positions // WIDTH)
    total = 0.0
    for job in prange(n * n_blocks):
        i, start = job // n_blocks, job % n_blocks * WIDTH
        z, y = logits[i, :, start : start + WIDTH], labels[i, start : start + WIDTH]
        top, sum_exp = z[0].copy(), np.zeros_like(z[0])
        for k in range(1, n_classes):
            for j in range(y.size):
                top[j] = max(top[j], z[k, j])
        for k in range(n_classes):
            for j in range(y.size):
                sum_exp[j] += np.exp(z[k, j] - top[j])
        for j in range(y.size):
            total += np.log(sum_exp[j]) + top[j] - z[y[j], j]
    return total / (n * n_positions)


@for_any_size
def loss_and_grad_channels(logits: Array, labels: Array, grad: Array) -> float:
    """The mean loss of logits (samples, classes, positions) and its gradient."""
    n, n_classes, n_positions = logits.shape
    n_blocks = -(-n_positions // WIDTH)
    scale = logits.dtype.type(1 / (n * n_positions))
    total = 0.0
    for job in prange(n * n_blocks):
        i, start = job // n_blocks, job % n_blocks * WIDTH
        z, y = logits[i, :, start : start + WIDTH], labels[i, start : start + WIDTH]
        g = grad[i, :, start : start + WIDTH]
        top, sum_exp = z[0].copy(), np.zeros_like(z[0])
        for k in range(1, n_classes):
            for j in range(y.size):
                top[j] = max(top[j], z[k, j])
        for k in range(n_classes):
            for j in range(y.size):
                g[k, j] = np.exp(z[k, j] - top[j])
                sum_exp[j] += g[k, j]
        for j in range(y.size):
            total += np.log(sum_exp[j]) + top[j] - z[y[j], j]
            sum_exp[j] = scale / sum_exp[j]  # from here on the factor
        for k in range(n_classes):
            for j in range(y.size):
                g[k, j] *= sum_exp[j]
        for j in range(y.size):
            g[y[j], j] -= scale
    return total / (n * n_positions)


@njit(nogil=True, parallel=True)
def largest(array: Array) -> int:
    """The maximum of integers: a part for each thread."""
    n = numba.get_num_threads()
    result = array[0]
    for j in prange(n):
        result = max(result, array[j * array.size // n : (j + 1) * array.size // n].max())
    return result


@njit(nogil=True, parallel=True)
def copy(source: Array, out: Array) -> None:
    """The same numbers there: a part for each thread."""
    n = numba.get_num_threads()
    for j in prange(n):
        part = slice(j * out.size // n, (j + 1) * out.size // n)
        out[part] = source[part]


@njit(nogil=True, parallel=True)
def add(a: Array, b: Array, out: Array) -> None:
    """The sums there."""
    for i in prange(out.size):
        out[i] = a[i] + b[i]
