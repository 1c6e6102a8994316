"""softmax, log_softmax and logsumexp: what the user asked, checked, allocated and handed to the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import (
    Array,
    OutputPiece,
    as_array,
    as_logits,
    check_out,
    class_axis_last,
    fold,
    input_piece,
    is_native,
    pieces,
    result_dtype,
    working_dtype,
)
from ._threads import threads_for

# As in _loss.py.
_KERNEL = {
    np.dtype(np.float32): _kernels.softmax["float"],
    np.dtype(np.float64): _kernels.softmax["double"],
}


def softmax(logits: npt.ArrayLike, axis: int = -1, *, out: Array | None = None, n_threads: int | None = None) -> Array:
    """Softmax ``exp(z) / sum(exp(z))`` along one axis.

    Parameters
    ----------
    logits : array_like of shape (..., C, ...)
        Real numbers ``z``. float32 and float64 are read in place, whatever the strides; float16 is computed in
        float32; integers, bool and lists become float64.
    axis : int, default -1
        The class axis.
    out : ndarray, optional
        Where the result goes: shape and dtype of the result, any strides. It may be ``logits`` itself.
    n_threads : int, optional
        The number of threads; by default :func:`softxent.get_num_threads`.

    Returns
    -------
    ndarray of the logits' shape and dtype
        Each entry is within ``4 eps (1 + |z_k - max z|)`` of the exact value, relatively. A sample with a nan or +inf
        logit, or with nothing but -inf, is nan.

    Raises
    ------
    TypeError
        If ``logits`` are not real numbers, or ``out`` has another dtype.
    ValueError
        If there is no class axis, or it is empty; if ``out`` does not fit, is read-only or overlaps ``logits`` in
        another way than being them; if ``n_threads`` is less than 1.
    numpy.exceptions.AxisError
        If ``axis`` is out of range.

    Notes
    -----
    The maximum is subtracted first, as in I. Goodfellow, Y. Bengio and A. Courville, *Deep Learning* (MIT Press,
    2016), section 4.1.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.softmax(np.array([0.0, np.log(3.0)]))
    array([0.25, 0.75])
    """
    return _run("softmax", logits, axis, out, n_threads)


def log_softmax(
    logits: npt.ArrayLike, axis: int = -1, *, out: Array | None = None, n_threads: int | None = None
) -> Array:
    """Logarithm of the softmax, ``z - logsumexp(z)``, along one axis, in nats.

    Parameters
    ----------
    logits, axis, out, n_threads
        As for :func:`softmax`.

    Returns
    -------
    ndarray of the logits' shape and dtype
        The entry of a class far above all others keeps its relative precision: it is minus the ``log1p`` of what the
        others add up to. The entry of a -inf logit is -inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.log_softmax(np.array([0.0, 40.0]))
    array([-4.00000000e+01, -4.24835426e-18])
    """
    return _run("log_softmax", logits, axis, out, n_threads)


def logsumexp(
    logits: npt.ArrayLike, axis: int = -1, *, out: Array | None = None, n_threads: int | None = None
) -> Array:
    """``log(sum(exp(z)))`` along one axis, in nats, without overflow.

    Parameters
    ----------
    logits, axis, n_threads
        As for :func:`softmax`.
    out : ndarray, optional
        Where the result goes: shape of the sample axes, dtype of the logits, not overlapping them.

    Returns
    -------
    ndarray of the sample axes' shape
        -inf for a sample of nothing but -inf; nan for one with a nan or +inf logit.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.logsumexp(np.array([[1000.0, 1000.0], [0.0, -np.inf]]))
    array([1000.69314718,    0.        ])
    """
    return _run("logsumexp", logits, axis, out, n_threads)


def _run(op: str, logits: npt.ArrayLike, axis: int, out: Array | None, n_threads: int | None) -> Array:
    given = as_array(logits, "logits")
    z = as_logits(given, axis)
    threads = threads_for(n_threads)
    dtype = result_dtype(z.dtype)
    like = z[..., 0] if op == "logsumexp" else given
    if out is None:
        result = np.empty_like(like, dtype=dtype, subok=False)
    else:
        result = check_out(out, like, "the samples" if op == "logsumexp" else "the logits", {"logits": given})
    plain = np.asarray(result)  # a subclass may have its own idea of axes
    lse = plain if op == "logsumexp" else None
    probabilities = None if op == "logsumexp" else class_axis_last(plain, axis)
    if z.size:
        _run_pieces(op, fold(z.ndim - 1, z, probabilities, lse), working_dtype(z.dtype), threads)
    return result


def _run_pieces(op: str, arrays: list[Any], dtype: np.dtype[Any], threads: int) -> None:
    z, out, lse = arrays
    whole = all(is_native(a, dtype) for a in arrays)
    for index in pieces(z, whole):
        with OutputPiece(out, index, dtype) as out_piece, OutputPiece(lse, index, dtype) as lse_piece:
            _KERNEL[dtype](input_piece(z, index, dtype), op, out_piece, lse_piece, threads)
