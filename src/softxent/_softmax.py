"""The softmax family and the softmax's derivatives: the public functions, their checks and their results' arrays."""

from __future__ import annotations

from typing import Never

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_direction, result_dtype, sample_shape
from ._options import check_scale, check_where, unknown_keyword
from ._pieces import call_of, compute, output
from ._threads import threads_for


def softmax(
    logits: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Softmax ``exp(z) / sum(exp(z))`` along one axis, of ``z = logits / temperature``.

    Parameters
    ----------
    logits : array_like of shape (..., C, ...)
        Real numbers. float32, float64, float16 and ml_dtypes' bfloat16 are read in place, whatever the strides, the
        half types computed in float32; integers, bool and lists become float64.
    axis : int, default -1
        The class axis.
    where : array_like of bool, optional
        Broadcasts to the logits. False takes a class out of its sample: its probability is 0, and its logit is not
        looked at.
    temperature : float, default 1
        Divides the logits: above 1 it flattens the distribution.
    out : ndarray, optional
        Where the result goes: shape and dtype of the logits (or float32 for a half type), any strides. It may be
        ``logits`` itself.
    n_threads : int, optional
        The number of threads; by default :func:`softxent.get_num_threads`.

    Returns
    -------
    ndarray of the logits' shape and dtype
        Each entry is within ``4 eps (1 + |z_k - max z|)`` of the exact value, relatively. A sample with a nan or +inf
        logit, or with nothing but -inf, is nan, but for what ``where`` removes.

    Raises
    ------
    TypeError
        If ``logits`` are not real numbers, or carry more than these (a mask, units: see
        :func:`softxent.cross_entropy`), ``where`` is not of bools, or ``out`` has another dtype.
    ValueError
        If there is no class axis, or it is empty; if ``where`` does not broadcast to the logits; if the temperature is
        not positive; if ``out`` does not fit, is read-only or overlaps ``logits`` in another way than being them; if
        ``n_threads`` is less than 1.
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
    >>> softxent.softmax(np.array([0.0, np.log(3.0), 7.0]), where=[True, True, False])
    array([0.25, 0.75, 0.  ])
    """
    if unknown:
        raise unknown_keyword(softmax, unknown)
    return _run(_kernels.SOFTMAX, logits, axis, where, temperature, out, n_threads)


def log_softmax(
    logits: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Logarithm of the softmax, ``z - logsumexp(z)``, along one axis, in nats.

    Parameters
    ----------
    logits, axis, where, temperature, out, n_threads
        As for :func:`softmax`.

    Returns
    -------
    ndarray of the logits' shape and dtype
        The entry of a class far above all others keeps its relative precision: it is minus the ``log1p`` of what the
        others add up to. The entry of a -inf logit, or of a class that ``where`` removes, is -inf.

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
    if unknown:
        raise unknown_keyword(log_softmax, unknown)
    return _run(_kernels.LOG_SOFTMAX, logits, axis, where, temperature, out, n_threads)


def logsumexp(
    logits: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """``log(sum(exp(z)))`` along one axis, in nats, without overflow.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`.
    out : ndarray, optional
        Where the result goes: shape of the sample axes, dtype of the logits (or float32 for a half type), not
        overlapping them.

    Returns
    -------
    ndarray of the sample axes' shape
        -inf for a sample of nothing but -inf, or of nothing at all; +inf for one with a +inf logit and no nan; nan with
        a nan.

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
    if unknown:
        raise unknown_keyword(logsumexp, unknown)
    return _run(_kernels.LOGSUMEXP, logits, axis, where, temperature, out, n_threads)


def softmax_jvp(
    logits: npt.ArrayLike, v: npt.ArrayLike, axis: int = -1, *, n_threads: int | None = None, **unknown: Never
) -> Array:
    """Change of the softmax when the logits change by ``v``: ``J v``, with the Jacobian ``J = diag(p) - p p^T``.

    Parameters
    ----------
    logits, axis, n_threads
        As for :func:`softmax`.
    v : array_like of the logits' shape
        The direction, of any real dtype.

    Returns
    -------
    ndarray of the logits' shape and dtype
        ``p (v - sum(p v))`` along the class axis, with ``v`` counted from its value at the likeliest class, so that
        nothing is lost where ``p`` is nearly 1.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`softmax`; ValueError also if ``v`` has another shape than the logits.

    Notes
    -----
    ``dp_i/dz_j = p_i (1 if i == j else 0) - p_i p_j``; see C. Bishop, *Pattern Recognition and Machine Learning*
    (Springer, 2006), equation 4.106. The matrix is not formed.

    Examples
    --------
    >>> import softxent
    >>> softxent.softmax_jvp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    if unknown:
        raise unknown_keyword(softmax_jvp, unknown)
    return _jacobian_times("v", logits, v, axis, n_threads)


def softmax_vjp(
    logits: npt.ArrayLike, g: npt.ArrayLike, axis: int = -1, *, n_threads: int | None = None, **unknown: Never
) -> Array:
    """Gradient with respect to the logits, ``J^T g``, from that with respect to the softmax, ``g``.

    Parameters
    ----------
    logits, axis, n_threads
        As for :func:`softmax`.
    g : array_like of the logits' shape
        The upstream gradient, of any real dtype.

    Returns
    -------
    ndarray of the logits' shape and dtype
        As from :func:`softmax_jvp`: the Jacobian is symmetric.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`softmax`; ValueError also if ``g`` has another shape than the logits.

    Examples
    --------
    >>> import softxent
    >>> softxent.softmax_vjp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    if unknown:
        raise unknown_keyword(softmax_vjp, unknown)
    return _jacobian_times("g", logits, g, axis, n_threads)


def softmax_jacobian(logits: npt.ArrayLike, axis: int = -1, *, n_threads: int | None = None, **unknown: Never) -> Array:
    """Jacobian of the softmax of each sample: ``J_ij = dp_i/dz_j = p_i (1 if i == j else 0) - p_i p_j``.

    Parameters
    ----------
    logits, axis, n_threads
        As for :func:`softmax`.

    Returns
    -------
    ndarray of the sample axes' shape followed by (C, C), and of the logits' dtype
        C times as large as the logits: :func:`softmax_jvp` gives its products without it.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`softmax`.
    MemoryError
        If there is no room for it.

    Examples
    --------
    >>> import softxent
    >>> softxent.softmax_jacobian([0.0, 0.0])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    if unknown:
        raise unknown_keyword(softmax_jacobian, unknown)
    call, threads = call_of(logits, axis), threads_for(n_threads)
    z = call.logits
    shape = (*sample_shape(z, call.class_axis), z.shape[call.class_axis], z.shape[call.class_axis])
    try:
        jacobian = np.empty(shape, result_dtype(z.dtype))
    except ValueError:  # NumPy's, for more bytes than an address can say
        raise MemoryError(f"the Jacobian would have the shape {shape}: more than any memory holds") from None
    # The Jacobian's two class axes are its last ones. The logits' class axis is moved there too.
    call.logits, call.class_axis, call.out = np.moveaxis(z, call.class_axis, -1), z.ndim - 1, jacobian
    compute(call, _kernels.JACOBIAN, threads)
    return jacobian


def _jacobian_times(name: str, logits: npt.ArrayLike, vector: npt.ArrayLike, axis: int, n_threads: int | None) -> Array:
    call = call_of(logits, axis)
    call.direction = as_direction(vector, name, call.logits)
    threads = threads_for(n_threads)
    product = call.out = output(call, None)
    compute(call, _kernels.JVP, threads)
    return product


def _run(
    operation: _kernels.Operation,
    logits: npt.ArrayLike,
    axis: int,
    where: npt.ArrayLike | None,
    temperature: float,
    out: Array | None,
    n_threads: int | None,
) -> Array:
    """Compute an operation that writes one number for each sample, or one for each class."""
    call = call_of(logits, axis)
    if where is not None:
        call.where = check_where(where, call.logits)
    if type(temperature) is not float or temperature != 1:
        call.temperature = check_scale(temperature, "temperature")
    threads = threads_for(n_threads)
    if operation.has_losses:
        result = call.loss = output(call, out, with_classes=False)
    else:
        result = call.out = output(call, out, may_be_logits=True)
    compute(call, operation, threads)
    return result
