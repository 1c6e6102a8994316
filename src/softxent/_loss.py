"""The losses that the user calls: cross_entropy, its gradient, its labels' ranks, its Hessian's diagonal and products.

The two most used functions first try the plain call, ``_kernels.plain_cross_entropy``. All other calls, and most
errors, go through ``_problem.Problem``. The arithmetic is in the C library.
"""

from __future__ import annotations

from typing import Any, Literal, Never, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_direction, result_dtype, sample_shape
from ._labels import SparseTarget, label_error
from ._options import DEFAULTS, Options, unknown_keyword
from ._problem import Problem, Reduction
from ._threads import threads_for


class SharedOptions(TypedDict, total=False):
    """What every loss takes, for the types of the second overloads."""

    axis: int
    class_weight: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None
    where: npt.ArrayLike | None
    ignore_index: int | None
    label_smoothing: float
    temperature: npt.ArrayLike
    base: float | None
    normalizer: float | None
    n_threads: int | None


class LossOptions(SharedOptions, total=False):
    """What the losses without second derivatives take."""

    softcap: float | None
    z_loss: float


class UnreducedLoss(LossOptions, total=False):
    """What ``cross_entropy`` and ``cross_entropy_and_rank`` take with ``reduction="none"``."""

    out: Array | None


class UnreducedGradient(LossOptions, total=False):
    """What ``cross_entropy_and_grad`` takes."""

    grad_output: npt.ArrayLike | None
    out: Array | None
    accumulate: bool


class UnreducedHessian(SharedOptions, total=False):
    """What ``cross_entropy_grad_hess`` takes."""

    out: tuple[Array | None, Array | None] | None
    kind: Literal["exact", "xgboost", "lightgbm"]


# Each loss has two overloads. The first is for reductions that give a number, and names all parameters: type checkers
# compare it with the function. The second is for "none".
@overload
def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    out: None = None,
    n_threads: int | None = None,
) -> float: ...
@overload
def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    reduction: Literal["none"],
    **options: Unpack[UnreducedLoss],
) -> Array: ...
def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> float | Array:
    """Softmax cross-entropy ``-sum(t * log_softmax(z))`` of logits against labels, in nats.

    Parameters
    ----------
    logits : array_like of shape (..., C, ...)
        Unnormalised log-probabilities ``z``. float32, float64, float16 and ml_dtypes' bfloat16 are read in place,
        whatever the strides, the half types computed in float32; integers, bool and lists become float64.
    labels : array_like
        Class indices, of any integer dtype and of the shape of the sample axes (``logits.shape`` without ``axis``);
        or a target distribution ``t`` over the classes, of any real dtype and of the shape of the logits. No entry may
        be negative or nan; of integers or bools it must be one-hot. Or a :class:`softxent.SparseTarget`: a few classes
        of each sample, and their masses.
    axis : int, default -1
        The class axis. Every other axis is a sample axis.
    class_weight : array_like of shape (C,), optional
        Non-negative weights ``w``: class ``k``'s term of the sum is multiplied by ``w_k``.
    sample_weight : array_like of the sample axes' shape, optional
        Non-negative weights ``s`` that multiply each sample's loss. Of a sample of weight 0 neither logits nor target
        are looked at: its loss is 0, and its gradient exactly 0, whatever they hold.
    where : array_like of bool, optional
        Broadcasts to the logits. False removes that class of that sample: its probability and gradient are 0, it gets
        no smoothing mass, and its logit is not looked at. A target there makes the loss infinite.
    ignore_index : int, optional
        Samples with this label have loss 0 and count for nothing in the mean, whatever they hold. By default every
        label must be a class.
    label_smoothing : float in [0, 1], default 0
        The part ``e`` of the target that goes to the uniform distribution over the allowed classes:
        ``t <- (1 - e) t + e / C``.
    temperature : float or array_like of the sample axes' shape, default 1
        Divides the logits, after the softcap: one for all samples, or one for each.
    softcap : float, optional
        Logits become ``c tanh(z / c)``. Infinite ones stay what they are.
    z_loss : float, default 0
        Adds ``z_loss * logsumexp(z)**2`` to each sample's loss, in nats squared whatever the base; class weights do not
        apply to it.
    base : float, optional
        The base of the cross-entropy's logarithm: 2 gives bits.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean is the sum over the ``normalizer``. ``"none"`` gives the loss of each sample.
    normalizer : float, optional
        What the mean divides by. By default the sum of ``s_n w[label_n]`` over the samples that are not ignored, or of
        ``s_n`` if the labels are distributions: without weights, the number of samples. 0 is for the mean of nothing.
    out : ndarray, optional
        With ``reduction="none"``: where the losses go; shape of the sample axes, dtype of the logits, or float32 where
        the logits are of a half type.
    n_threads : int, optional
        The number of threads; by default :func:`softxent.get_num_threads`. The result is the same, to the bit, for any.

    Returns
    -------
    float or ndarray
        For ``"mean"`` and ``"sum"`` a float, summed in float64. For ``"none"`` an array of the sample axes' shape and
        the logits' dtype. Each loss is within ``4 eps (1 + d)`` of the exact one, relatively, where ``d`` is how far
        the label's logit leads the next class. The mean of nothing is nan, or 0.0 with a ``normalizer``.

    Raises
    ------
    IndexError
        If a label is neither in [0, C) nor ``ignore_index``. The message names the first.
    TypeError
        If an argument is of a kind that is none of the above, or carries more than its numbers: a masked array, a
        ``numpy.matrix``, a sparse or a dask array, a quantity with units, a tensor that needs grad. Or if ``out`` has
        another dtype.
    ValueError
        If shapes do not fit, there are no classes, a target has a negative or nan entry, or is of integers and not
        one-hot, ``out`` overlaps an input or is read-only, or an option is out of its range.
    numpy.exceptions.AxisError
        If ``axis`` is out of range.

    Notes
    -----
    With all options, and ``z`` the logits after softcap and temperature, the loss of a sample is ::

        s (sum_k w_k t_k (lse - z_k) / ln(base) + z_loss lse^2),    lse = log(sum_k exp(z_k))

    For an index label ``y`` and no option that is ``logsumexp(z) - z_y``; see C. Bishop, *Pattern Recognition and
    Machine Learning* (Springer, 2006), section 4.3.4. It is found as ``(max z - z_y) + log1p(...)``, so that a
    confident and right prediction has its small loss, and not 0. Class weights and label smoothing together are as in
    PyTorch's ``CrossEntropyLoss``; the z-loss is PaLM's (Chowdhery et al., 2022, section 5), the softcap Gemma 2's
    (2024, section 2). With a softcap the capped logits are rounded to the dtype once.

    PyTorch's tensors on the CPU are read as arrays, but for those of bfloat16, which NumPy does not know: give
    ``logits.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)``, which is no copy. For a masked array give its data
    and ``where=~numpy.ma.getmaskarray(logits)``; for masked labels ``labels.filled(-100)`` and ``ignore_index=-100``.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.cross_entropy(np.zeros((4, 10)), np.array([3, 1, 4, 1]))  # log(10)
    2.302585092994046
    >>> softxent.cross_entropy([[30.0, 0.0], [0.0, 0.0]], [0, 1], reduction="none")
    array([9.35762297e-14, 6.93147181e-01])
    >>> softxent.cross_entropy([[30.0, 0.0], [0.0, 0.0]], [0, 1], label_smoothing=0.1, base=2, reduction="none")
    array([2.16404256, 1.        ])
    """
    if unknown:
        raise unknown_keyword(cross_entropy, unknown)
    threads = threads_for(n_threads)
    options = (class_weight, sample_weight, where, label_smoothing, temperature, softcap, z_loss, base)
    if out is None:
        try:
            loss = _kernels.plain_cross_entropy(
                False, threads, logits, labels, axis, ignore_index, reduction, normalizer, None, options, DEFAULTS
            )
        except _kernels.BadSample as bad:
            raise label_error(np.asarray(labels), bad.args[0], np.shape(logits)[-1], ignore_index) from None
        if loss is not None:
            return loss  # type: ignore[no-any-return]
    problem = Problem(logits, labels, axis, ignore_index, reduction, normalizer, threads, options)
    return problem.solve(_kernels.CROSS_ENTROPY, out)


@overload
def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    wrt_temperature: Literal[False] = False,
    n_threads: int | None = None,
) -> tuple[float, Array]: ...
@overload
def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    wrt_temperature: Literal[True],
    n_threads: int | None = None,
) -> tuple[float, Array, float | Array]: ...
@overload
def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    reduction: Literal["none"],
    wrt_temperature: Literal[False] = False,
    **options: Unpack[UnreducedGradient],
) -> tuple[Array, Array]: ...
@overload
def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    reduction: Literal["none"],
    wrt_temperature: Literal[True],
    **options: Unpack[UnreducedGradient],
) -> tuple[Array, Array, Array]: ...
def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    wrt_temperature: bool = False,
    n_threads: int | None = None,
    **unknown: Never,
) -> tuple[Any, ...]:
    """Softmax cross-entropy and its gradient with respect to the logits, in one pass.

    The gradient of a sample is ``p - y``, with ``p = softmax(z)`` and ``y`` the one-hot label, divided by the number
    of samples for the mean: the teaching text's ``delta = softmax(z); delta[range(n), y] -= 1; delta /= n``.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for :func:`cross_entropy`. The gradient is exactly 0 for an ignored sample and where ``where`` is False.
    temperature, softcap, z_loss, base, reduction, normalizer, n_threads
        As for :func:`cross_entropy`. The gradient is with respect to the logits as they are given.
    grad_output : float or array_like, optional
        The upstream gradient, which multiplies this one: a number, or with ``reduction="none"`` one for each sample.
        Of float32 logits it should be 0 or at least 1e-25 in size: below, the products lose digits. A large one, as for
        loss scaling, costs none: also a probability below the smallest number counts, down to 2**-214.
    out : ndarray, optional
        Where the gradient goes: shape and dtype of the logits, any strides. It may be ``logits`` itself. A prepared
        array saves the time of the page faults of a new one, which is often longer than the computation. For logits of
        a half type it may be float32: see the notes.
    accumulate : bool, default False
        Add the gradient to what ``out`` holds.
    wrt_temperature : bool, default False
        Return the derivative with respect to the temperature too: to fit it, as for calibration.

    Returns
    -------
    loss : float or ndarray
        As from :func:`cross_entropy`.
    grad : ndarray
        Of the logits' shape and dtype (rounded to nearest even in a half type); ``out`` if that was given. With an
        index label each entry is within ``4 eps (1 + |z_k - max z|)`` of the exact one, relatively, and at the label
        within ``4 eps (1 + d)``.
    temperature_grad : float or ndarray
        With ``wrt_temperature``: the derivative of the loss with respect to the temperature. It has the samples' shape
        and the logits' dtype where ``temperature`` has that shape, or with ``reduction="none"``; else it is a float,
        for all samples together. It is multiplied by ``grad_output`` and divided by the mean's ``normalizer``, as the
        gradient is.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy`. On an error nothing has been written, unless it is that another thread wrote a
        bad label while the call was running.

    Notes
    -----
    The chain rule through the softmax Jacobian ``dp_i/dz_j = p_i (1 if i == j else 0) - p_i p_j`` collapses to
    ``p sum(t) - t``; see C. Bishop, *Pattern Recognition and Machine Learning* (Springer, 2006), equation 4.109. At the
    label, ``-(1 - p_y)`` is formed from the other classes' probabilities, and not by subtraction. With all options, and
    ``W = sum_k w_k t_k``, it is ::

        s ((p_k W - w_k t_k) / ln(base) + 2 z_loss lse p_k) / (temperature cosh(logits_k / softcap)^2)

    With respect to the temperature it is ``-sum(g z)``, with ``g`` this gradient before the softcap's factor, and ``z``
    the logits after softcap and temperature. Temperature scaling for calibration: Guo et al., *On Calibration of Modern
    Neural Networks* (ICML 2017), section 4.2.

    The gradient of a mean over many samples has entries that float16 cannot hold: below 3e-8 they become 0. Either let
    it be float32, by ``out``: these are the numbers that the halves are rounded from. Or scale the loss, by
    ``grad_output=2.0**k``, and divide by the same after conversion; no digit is lost in a power of two.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> loss, grad = softxent.cross_entropy_and_grad(np.zeros((1, 4)), np.array([2]))
    >>> grad
    array([[ 0.25,  0.25, -0.75,  0.25]])
    >>> loss, grad = softxent.cross_entropy_and_grad(np.zeros((1, 4)), np.array([2]), where=[True, True, True, False])
    >>> grad.round(3)
    array([[ 0.333,  0.333, -0.667,  0.   ]])

    Half precision, with a gradient in float32, or with a scaled loss:

    >>> logits, labels = np.array([[0, 18]], np.float16), np.array([1])
    >>> softxent.cross_entropy_and_grad(logits, labels)[1]
    array([[ 0., -0.]], dtype=float16)
    >>> softxent.cross_entropy_and_grad(logits, labels, out=np.empty((1, 2), np.float32))[1]
    array([[ 1.522998e-08, -1.522998e-08]], dtype=float32)
    >>> softxent.cross_entropy_and_grad(logits, labels, grad_output=2.0**16)[1].astype(np.float32) / 2**16
    array([[ 1.5235855e-08, -1.5235855e-08]], dtype=float32)
    """
    if unknown:
        raise unknown_keyword(cross_entropy_and_grad, unknown)
    threads = threads_for(n_threads)
    options = (class_weight, sample_weight, where, label_smoothing, temperature, softcap, z_loss, base)
    if grad_output is None and accumulate is False and wrt_temperature is False:
        try:
            result = _kernels.plain_cross_entropy(
                True, threads, logits, labels, axis, ignore_index, reduction, normalizer, out, options, DEFAULTS
            )
        except _kernels.BadSample as bad:
            raise label_error(np.asarray(labels), bad.args[0], np.shape(logits)[-1], ignore_index) from None
        if result is not None:
            return result  # type: ignore[no-any-return]
    problem = Problem(logits, labels, axis, ignore_index, reduction, normalizer, threads, options)
    problem.set_gradient(grad_output, out, accumulate)
    if not wrt_temperature:
        return problem.solve(_kernels.GRAD, out=out), problem.call.out
    call = problem.call
    call.temperature_grad = np.empty(sample_shape(call.logits, call.class_axis))
    loss = problem.solve(_kernels.GRAD, out=out)
    of_samples = call.temperature_grad
    if call.temperatures is None and reduction != "none":
        return loss, call.out, float(np.sum(of_samples))
    return loss, call.out, of_samples.astype(result_dtype(call.logits.dtype))


@overload
def cross_entropy_and_rank(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    out: None = None,
    n_threads: int | None = None,
) -> tuple[float, Array, Array]: ...
@overload
def cross_entropy_and_rank(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    reduction: Literal["none"],
    **options: Unpack[UnreducedLoss],
) -> tuple[Array, Array, Array]: ...
def cross_entropy_and_rank(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> tuple[float | Array, Array, Array]:
    """Softmax cross-entropy, the rank of each label and the top class, in one pass: loss and accuracies together.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for :func:`cross_entropy`.
    temperature, softcap, z_loss, base, reduction, normalizer, out, n_threads
        As for :func:`cross_entropy`. ``out`` is for the losses of ``reduction="none"``.

    Returns
    -------
    loss : float or ndarray
        What :func:`cross_entropy` returns, to the bit.
    rank : ndarray of int64, shape of the sample axes
        How many classes come before the label's: those with a larger logit, or with an equal one and a smaller index.
        0 is a right answer, less than 5 one of the five best. -1 for a sample that is ignored or whose logits hold a
        nan: count ``(rank >= 0) & (rank < 5)``.
    top : ndarray of int64, shape of the sample axes
        The first class with the largest logit. -1 for a sample that is ignored or whose logits hold a nan.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy`.

    Notes
    -----
    Logits are compared as they are given: no option changes their order, though a softcap may make two of them equal.
    Infinite ones have their place like others, also where the loss is nan. The label of a distribution is the first of
    its largest entries, before any smoothing or weights.

    With ``where`` only the classes that take part are counted, and a nan elsewhere is not looked at. A label that
    ``where`` removes comes behind all classes that take part: its rank is their number. Where no class takes part both
    are -1.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> logits = np.array([[2.0, 1.0, 3.0], [0.5, 0.5, 0.5], [1.0, np.nan, 0.0]])
    >>> loss, rank, top = softxent.cross_entropy_and_rank(logits, [1, 2, 0], reduction="none")
    >>> rank
    array([ 2,  2, -1])
    >>> top
    array([ 2,  0, -1])
    >>> float(np.mean(rank == 0)), float(np.mean((rank >= 0) & (rank < 3)))  # top-1 and top-3 accuracy
    (0.0, 0.6666666666666666)
    """
    if unknown:
        raise unknown_keyword(cross_entropy_and_rank, unknown)
    options = (class_weight, sample_weight, where, label_smoothing, temperature, softcap, z_loss, base)
    problem = Problem(logits, labels, axis, ignore_index, reduction, normalizer, threads_for(n_threads), options)
    return problem.solve(_kernels.RANK, out), problem.call.rank, problem.call.top


@overload
def cross_entropy_grad_hess(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    base: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    normalizer: float | None = None,
    out: tuple[Array | None, Array | None] | None = None,
    n_threads: int | None = None,
    kind: Literal["exact", "xgboost", "lightgbm"] = "exact",
) -> tuple[float, Array, Array]: ...
@overload
def cross_entropy_grad_hess(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    reduction: Literal["none"],
    **options: Unpack[UnreducedHessian],
) -> tuple[Array, Array, Array]: ...
def cross_entropy_grad_hess(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    out: tuple[Array | None, Array | None] | None = None,
    n_threads: int | None = None,
    kind: Literal["exact", "xgboost", "lightgbm"] = "exact",
    **unknown: Never,
) -> tuple[float | Array, Array, Array]:
    """Softmax cross-entropy, its gradient, and the diagonal of its Hessian, in one pass: what boosting asks for.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for :func:`cross_entropy`. Gradient and diagonal are exactly 0, of whatever kind, for an ignored sample and
        where ``where`` is False.
    temperature, base, reduction, normalizer, n_threads
        As for :func:`cross_entropy`. Boosting libraries want ``reduction="sum"``: each sample's own derivatives.
    out : pair of ndarray or None, optional
        Where the gradient and the diagonal go: shape and dtype of the logits (or float32 for a half type), any strides.
        The gradient's may be ``logits`` itself.
    kind : {"exact", "xgboost", "lightgbm"}, default "exact"
        With ``w = s sum_k w_k t_k / (temperature^2 ln(base))``, divided by the normalizer in a mean:
        ``"exact"`` is the diagonal, ``w p (1 - p)``; ``"xgboost"`` is ``max(2 w p (1 - p), 1e-16)``; ``"lightgbm"`` is
        ``w C / (C - 1) p (1 - p)``, which these libraries use in its place.

    Returns
    -------
    loss : float or ndarray
        As from :func:`cross_entropy`.
    grad : ndarray of the logits' shape and dtype
        As from :func:`cross_entropy_and_grad`.
    hess_diag : ndarray of the logits' shape and dtype
        ``1 - p`` is formed from the other classes' probabilities where ``p`` is more than a half.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy`; ValueError also if ``kind`` is none of the above.

    Notes
    -----
    The Hessian of a sample is ``w (diag(p) - p p^T)``; see C. Bishop, *Pattern Recognition and Machine Learning*
    (Springer, 2006), equation 4.110. The factors are those of XGBoost's ``multi:softprob`` (up to version 3.2) and
    LightGBM's ``multiclass`` objectives.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> loss, grad, hess = softxent.cross_entropy_grad_hess(np.log([1.0, 1.0, 2.0]), 2)
    >>> hess
    array([0.1875, 0.1875, 0.25  ])
    """
    if unknown:
        raise unknown_keyword(cross_entropy_grad_hess, unknown)
    options = Options(class_weight, sample_weight, where, label_smoothing, temperature, base=base)
    problem = Problem(logits, labels, axis, ignore_index, reduction, normalizer, threads_for(n_threads), options)
    grad_out, hess_out = _pair(out)
    if not isinstance(kind, str) or kind not in _kernels.HESS_KINDS:
        raise ValueError(f"kind must be 'exact', 'xgboost' or 'lightgbm'; got {kind!r}")
    problem.call.hess_kind = _kernels.HESS_KINDS[kind]
    loss = problem.solve(_kernels.GRAD_HESS, out=grad_out, hess=hess_out)
    return loss, problem.call.out, problem.call.hess


def cross_entropy_hvp(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike | SparseTarget,
    v: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: npt.ArrayLike = 1.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    out: Array | None = None,
    n_threads: int | None = None,
    **unknown: Never,
) -> Array:
    """Product of the cross-entropy's Hessian with ``v``: how its gradient changes when the logits change by ``v``.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for :func:`cross_entropy`. The product is exactly 0 for an ignored sample and where ``where`` is False.
    v : array_like of the logits' shape
        The direction, of any real dtype.
    temperature, base, reduction, normalizer, n_threads
        As for :func:`cross_entropy`. With ``"none"`` it is the Hessian of the losses' sum.
    out : ndarray, optional
        Where the product goes: shape and dtype of the logits (or float32 for a half type), any strides. It may be
        ``logits`` itself.

    Returns
    -------
    ndarray of the logits' shape and dtype

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As from :func:`cross_entropy`; ValueError also if ``v`` has another shape than the logits.

    Notes
    -----
    With the ``w`` of :func:`cross_entropy_grad_hess` it is ``w p (v - sum(p v))``; no matrix is formed. See
    C. Bishop, *Pattern Recognition and Machine Learning* (Springer, 2006), equation 4.110.

    Examples
    --------
    >>> import numpy as np, softxent
    >>> softxent.cross_entropy_hvp(np.log([1.0, 1.0, 2.0]), 2, [0, 0, 1])
    array([-0.125, -0.125,  0.25 ])
    """
    if unknown:
        raise unknown_keyword(cross_entropy_hvp, unknown)
    options = Options(class_weight, sample_weight, where, label_smoothing, temperature, base=base)
    problem = Problem(logits, labels, axis, ignore_index, reduction, normalizer, threads_for(n_threads), options)
    problem.call.direction = as_direction(v, "v", problem.call.logits)
    problem.solve(_kernels.HVP, out=out)
    product: Array = problem.call.out
    return product


def _pair(out: Any) -> tuple[Array | None, Array | None]:
    if out is None:
        return None, None
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a pair of arrays, for the gradient and the diagonal; got {type(out).__name__}")
    return out
