"""The softmax family and the softmax's derivatives: the public functions, their checks and their results' arrays."""

from __future__ import annotations

import math
import operator
from typing import Never

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_direction, as_real_array, check_out, result_dtype, sample_shape
from ._options import check_scale, check_where, set_grad_output, unknown_keyword
from ._pieces import PIECE_LOGITS, call_of, compute, output, pieces
from ._threads import threads_for

Axes = int | tuple[int, ...] | None


def softmax(
    logits: npt.ArrayLike,
    axis: Axes = -1,
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
    axis : int, tuple of int or None, default -1
        The class axis. Several are taken for one, and None for all axes.
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
    axis: Axes = -1,
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
    axis: Axes = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
    n_threads: int | None = None,
    keepdims: bool = False,
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
    keepdims : bool, default False
        Keep the class axes, with length 1, in the result and in ``out``.

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
    return _run(_kernels.LOGSUMEXP, logits, axis, where, temperature, out, n_threads, keepdims)


def entropy(
    logits: npt.ArrayLike,
    axis: Axes = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    out: Array | None = None,
    n_threads: int | None = None,
    keepdims: bool = False,
    **unknown: Never,
) -> Array:
    """Entropy ``-sum(p log(p))`` of the softmax ``p`` of the logits, in nats.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`.
    out, keepdims
        As for :func:`logsumexp`.

    Returns
    -------
    ndarray of the sample axes' shape
        From 0 to ``log(C)``. A small entropy keeps its relative precision: each term of
        ``log(S) + sum(p (max(z) - z))`` is within ``4 eps (1 + max(z) - z)`` of the exact one. A class of logit -inf
        counts as absent. nan for a sample with a nan or +inf logit, or of nothing but -inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`.

    Notes
    -----
    C. Shannon, *A Mathematical Theory of Communication* (1948), section 6. ``logsumexp(z) - sum(p z)`` would be the
    same, but for cancellation.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.entropy(np.array([[0.0, 0.0], [0.0, 40.0]]))
    array([6.93147181e-01, 1.74182524e-16])
    """
    if unknown:
        raise unknown_keyword(entropy, unknown)
    return _run(_kernels.ENTROPY, logits, axis, where, temperature, out, n_threads, keepdims)


def entropy_and_grad(
    logits: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> tuple[Array, Array]:
    """Entropy of the softmax and its gradient with respect to the logits, in one pass.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`, but ``axis`` is one axis.
    grad_output : float or array_like of the sample axes' shape, optional
        The upstream gradient, which multiplies this one.
    out : ndarray, optional
        Where the gradient goes: shape and dtype of the logits (or float32 for a half type), any strides. It may be
        ``logits`` itself.

    Returns
    -------
    entropy : ndarray of the sample axes' shape
        As from :func:`entropy`.
    grad : ndarray of the logits' shape and dtype
        ``-p (log(p) + H) / temperature`` for the entropy ``H``. Exactly 0 where ``where`` is False.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`.

    Notes
    -----
    From the chain rule: ``dH/dp_k = -(log p_k + 1)``, through the softmax Jacobian.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> H, grad = softxent.entropy_and_grad(np.log([1.0, 1.0, 2.0]))
    >>> grad.round(4)
    array([ 0.0866,  0.0866, -0.1733])
    """
    if unknown:
        raise unknown_keyword(entropy_and_grad, unknown)
    call = _call_of(logits, axis, where, temperature)
    if grad_output is not None:
        set_grad_output(call, grad_output)
    threads = threads_for(n_threads)
    gradient = call.out = output(call, out, may_be_logits=True)
    losses = call.loss = output(call, None, with_classes=False)
    compute(call, _kernels.ENTROPY_GRAD, threads)
    return losses, gradient


def softmax_jvp(
    logits: npt.ArrayLike,
    v: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Change of the softmax when the logits change by ``v``: ``J v``, with the Jacobian ``J``.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`, but ``axis`` is one axis.
    v : array_like of the logits' shape
        The direction, of any real dtype. It is not looked at where ``where`` is False.

    Returns
    -------
    ndarray of the logits' shape and dtype
        ``p (v - sum(p v)) / temperature`` along the class axis, with ``v`` counted from its value at the likeliest
        class, so that nothing is lost where ``p`` is nearly 1. 0 where ``where`` is False.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`softmax`; ValueError also if ``v`` has another shape than the logits.

    Notes
    -----
    ``J = (diag(p) - p p^T) / temperature``, that is ``dp_i/dz_j = p_i (1 if i == j else 0) - p_i p_j``; see C. Bishop,
    *Pattern Recognition and Machine Learning* (Springer, 2006), equation 4.106. The matrix is not formed.

    Examples
    --------
    >>> import softxent
    >>> softxent.softmax_jvp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    if unknown:
        raise unknown_keyword(softmax_jvp, unknown)
    return _jacobian_times(_kernels.JVP, "v", logits, v, axis, where, temperature, n_threads)


def softmax_vjp(
    logits: npt.ArrayLike,
    g: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Gradient with respect to the logits, ``J^T g``, from that with respect to the softmax, ``g``.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`, but ``axis`` is one axis.
    g : array_like of the logits' shape
        The upstream gradient, of any real dtype. It is not looked at where ``where`` is False.

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
    return _jacobian_times(_kernels.JVP, "g", logits, g, axis, where, temperature, n_threads)


def log_softmax_jvp(
    logits: npt.ArrayLike,
    v: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Change of the log-softmax when the logits change by ``v``: ``J v``, with its Jacobian ``J``.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`, but ``axis`` is one axis.
    v : array_like of the logits' shape
        The direction, of any real dtype. It is not looked at where ``where`` is False.

    Returns
    -------
    ndarray of the logits' shape and dtype
        ``(v - sum(p v)) / temperature`` along the class axis. 0 where ``where`` is False.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`softmax`; ValueError also if ``v`` has another shape than the logits.

    Notes
    -----
    ``J_ij = ((1 if i == j else 0) - p_j) / temperature``, from the chain rule through ``z - logsumexp(z)``.

    Examples
    --------
    >>> import softxent
    >>> softxent.log_softmax_jvp([0.0, 0.0], [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    if unknown:
        raise unknown_keyword(log_softmax_jvp, unknown)
    return _jacobian_times(_kernels.LOG_JVP, "v", logits, v, axis, where, temperature, n_threads)


def log_softmax_vjp(
    logits: npt.ArrayLike,
    g: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Gradient with respect to the logits, ``J^T g``, from that with respect to the log-softmax, ``g``.

    Parameters
    ----------
    logits, axis, where, temperature, n_threads
        As for :func:`softmax`, but ``axis`` is one axis.
    g : array_like of the logits' shape
        The upstream gradient, of any real dtype. It is not looked at where ``where`` is False.

    Returns
    -------
    ndarray of the logits' shape and dtype
        ``(g - p sum(g)) / temperature`` along the class axis. 0 where ``where`` is False.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`softmax`; ValueError also if ``g`` has another shape than the logits.

    Notes
    -----
    It is the cross-entropy's gradient with ``-g`` for the target: the cross-entropy is ``-sum(t log_softmax(z))``.

    Examples
    --------
    >>> import softxent
    >>> softxent.log_softmax_vjp([0.0, 0.0], [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    if unknown:
        raise unknown_keyword(log_softmax_vjp, unknown)
    return _jacobian_times(_kernels.LOG_VJP, "g", logits, g, axis, where, temperature, n_threads)


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


def _jacobian_times(
    operation: _kernels.Operation,
    name: str,
    logits: npt.ArrayLike,
    vector: npt.ArrayLike,
    axis: int,
    where: npt.ArrayLike | None,
    temperature: float,
    n_threads: int | None,
) -> Array:
    call = _call_of(logits, axis, where, temperature)
    call.direction = as_direction(vector, name, call.logits)
    threads = threads_for(n_threads)
    product = call.out = output(call, None)
    compute(call, operation, threads)
    return product


def _call_of(logits: npt.ArrayLike, axis: int, where: npt.ArrayLike | None, temperature: float) -> _kernels.Call:
    call = call_of(logits, axis)
    if where is not None:
        call.where = check_where(where, call.logits)
    if type(temperature) is not float or temperature != 1:
        call.temperature = check_scale(temperature, "temperature")
    return call


def _run(
    operation: _kernels.Operation,
    logits: npt.ArrayLike,
    axis: Axes,
    where: npt.ArrayLike | None,
    temperature: float,
    out: Array | None,
    n_threads: int | None,
    keepdims: bool = False,
) -> Array:
    """Compute an operation that writes one number for each sample, or one for each class."""
    if axis is None or isinstance(axis, tuple):
        return _run_along(operation, logits, axis, where, temperature, out, n_threads, keepdims)
    call = _call_of(logits, _integer(axis, axis), where, temperature)
    threads = threads_for(n_threads)
    place = _without_axes(out, call.logits, (call.class_axis,)) if keepdims and out is not None else out
    if operation.has_losses:
        result = call.loss = output(call, place, with_classes=False)
    else:
        result = call.out = output(call, place, may_be_logits=True)
    compute(call, operation, threads)
    if keepdims:
        return np.expand_dims(result, call.class_axis) if out is None else out
    return result


# ----------------------------------------------------------------------------------------------------------------------
# Several class axes: they are taken for one, as numpy.reshape takes them.


def _run_along(
    operation: _kernels.Operation,
    logits: npt.ArrayLike,
    axis: tuple[int, ...] | None,
    where: npt.ArrayLike | None,
    temperature: float,
    out: Array | None,
    n_threads: int | None,
    keepdims: bool,
) -> Array:
    z = as_real_array(logits, "logits")
    axes, threads = class_axes(z, axis), threads_for(n_threads)
    samples = tuple(length for i, length in enumerate(z.shape) if i not in axes)
    n_classes = math.prod(z.shape[i] for i in axes)
    shape, name = (samples, "the samples") if operation.has_losses else (z.shape, "the logits")
    dtype = result_dtype(z.dtype)
    if out is None:
        result = np.empty(shape, dtype)
    else:
        place = _without_axes(out, z, axes) if keepdims else out
        result = check_out(place, shape, dtype, name, [("logits", z)], None if operation.has_losses else z)
    scores, allowed = _classes_last(z, axes), None if where is None else _classes_last(check_where(where, z), axes)
    results = result if operation.has_losses else _classes_last(result, axes)
    # A sample whose classes do not lie in one line is copied: so samples are done in pieces.
    for index in pieces(samples, max(1, PIECE_LOGITS // n_classes)):
        flat = (*scores[index].shape[: len(samples)], n_classes)
        part = _run(
            operation,
            scores[index].reshape(flat),
            -1,
            None if allowed is None else allowed[index].reshape(flat),
            temperature,
            None,
            threads,
        )
        results[index] = part.reshape(results[index].shape)
    if operation.has_losses and keepdims:
        return np.expand_dims(result, axes) if out is None else out
    return result


def _integer(value: int, axis: Axes) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"axis must be an integer, a tuple of integers or None; got {axis!r}") from None


def class_axes(logits: Array, axis: tuple[int, ...] | None) -> tuple[int, ...]:
    """The class axes, counted from the first."""
    axes = tuple(range(logits.ndim)) if axis is None else tuple(_integer(i, axis) for i in axis)
    if logits.ndim == 0:
        raise ValueError("logits must have at least one axis, the classes; got a single number")
    if not axes:
        raise ValueError("axis must name at least one axis, or be None for all of them; got ()")
    for i in axes:
        if not -logits.ndim <= i < logits.ndim:
            raise np.exceptions.AxisError(i, logits.ndim)
    counted = tuple(i % logits.ndim for i in axes)
    if len(set(counted)) < len(counted):
        raise ValueError(f"axis must name each axis once; got {axis}")
    if any(logits.shape[i] == 0 for i in counted):
        raise ValueError("logits must have at least one class; one of their class axes is empty")
    return tuple(sorted(counted))


def _classes_last(array: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(array).transpose([*(i for i in range(array.ndim) if i not in axes), *axes])


def _without_axes(out: Array, logits: Array, axes: tuple[int, ...]) -> Array:
    """A view of an ``out`` that has the class axes, each of length 1."""
    shape = tuple(1 if i in axes else length for i, length in enumerate(logits.shape))
    if not isinstance(out, np.ndarray) or out.shape != shape:
        got = out.shape if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must have the shape of the samples, {shape} with keepdims; got {got}")
    return out[(*(0 if i in axes else slice(None) for i in range(out.ndim)), ...)]
