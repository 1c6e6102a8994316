"""Softmax cross-entropy in plain NumPy: the definition that the tests hold the kernels against.

Here live the same functions as in `softxent` itself, written to be read next to a textbook: `p = softmax(z)`,
`L = -sum(y * log(p))`, `dL/dz = p - y`, and then what weights, masks and smoothing do to those three lines.
Not here: speed, frugality with memory, and the checking of arguments, which are assumed to be valid; but what would
be wrong without a word (masked arrays and their like, integer targets that are not one-hot, a normalizer that is no
divisor) is refused as in `softxent` itself. Left out are the arguments that only say where a result goes or how fast
it comes: `out`, `accumulate`, `n_threads`.

Everything is computed in float64, or in the logits' own type where that is wider (`numpy.longdouble`), and
returned in that type. Two rules keep the digits that the textbook formulas lose:

- A difference of logits is taken before anything else is added, so a common offset costs nothing.
- What is left of one when a probability is taken away, `1 - p_k`, is the sum of the other classes'
  probabilities. A label that leads by 40 has a loss of about 4e-18, and `1.0 - p` would call that zero.

Inside, the class axis is always the last one; arrays are moved there on the way in and back on the way out.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ._arrays import as_array
from ._labels import check_one_hot, native, target_error
from ._options import check_normalizer

__all__ = [
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_and_rank",
    "cross_entropy_grad_hess",
    "cross_entropy_hvp",
    "log_softmax",
    "logsumexp",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]
Loss: TypeAlias = float | np.longdouble | Floats
Reduction: TypeAlias = Literal["none"] | Literal["sum"] | Literal["mean"]
HessianKind: TypeAlias = Literal["exact"] | Literal["xgboost"] | Literal["lightgbm"]


# --- Getting in: one dtype, class axis last ---------------------------------------------------------------


def _working_dtype(logits: npt.ArrayLike) -> np.dtype[Any]:
    """Return the wider of float64 and the logits' own dtype."""
    return np.result_type(as_array(logits, "logits").dtype, np.float64)


def _classes_last(array: npt.ArrayLike, axis: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return `array` in `dtype` with the class axis last, and contiguous there.

    Contiguous because NumPy sums pairwise, with an error that hardly grows with C, only along such an axis.
    """
    return np.ascontiguousarray(np.moveaxis(np.asarray(array), axis, -1), dtype=dtype)


def _allowed(where: npt.ArrayLike | None, logits: npt.ArrayLike, axis: int) -> Bools:
    """Return which class of which sample takes part, class axis last."""
    everywhere = np.broadcast_to(True if where is None else as_array(where, "where"), np.shape(logits))
    return _classes_last(everywhere, axis, np.bool_)


# --- The softmax -------------------------------------------------------------------------------------------


def _sum_of_others(x: Floats) -> Floats:
    """Return, for every entry of the last axis, the sum of all the other entries (all non-negative).

    Taking an entry from the total is harmless as long as at least half of the total remains. That holds for
    all entries but the largest, and there the others are summed without it.
    """
    largest = np.argmax(x, axis=-1, keepdims=True)
    rest = x.copy()
    np.put_along_axis(rest, largest, 0, axis=-1)
    sum_rest = rest.sum(axis=-1, keepdims=True)
    others: Floats = np.take_along_axis(x, largest, axis=-1) + sum_rest - x
    np.put_along_axis(others, largest, sum_rest, axis=-1)
    return others


@dataclass(frozen=True)
class _Softmax:
    """The softmax of each sample, class axis last; nan where the largest logit of a sample is not finite."""

    p: Floats  # probabilities, 0 where the class is not allowed
    not_p: Floats  # 1 - p, without the subtraction
    minus_log_p: Floats  # lse - z, +inf where the class is not allowed but another one is
    lse: Floats  # log(sum(exp(z))), no class axis


def _softmax(z: Floats, allowed: Bools, temperature: float) -> _Softmax:
    z = np.where(allowed, z, -np.inf)
    row_max = z.max(axis=-1, keepdims=True)
    finite_max = np.where(np.isfinite(row_max), row_max, np.nan)

    # The temperature divides the difference: z / temperature would first round z, however large its offset.
    below_max = (finite_max - z) / temperature
    exps = np.exp(-below_max)
    other_exps = _sum_of_others(exps)
    # The largest term is exp(0) = 1, so the sum is 1 + what that term leaves.
    top = np.argmax(z, axis=-1, keepdims=True)
    sum_rest = np.take_along_axis(other_exps, top, axis=-1)
    log_sum_exp = np.log1p(sum_rest)

    return _Softmax(
        p=np.where(allowed, exps / (1 + sum_rest), 0),
        not_p=np.where(allowed, other_exps / (1 + sum_rest), 1),
        minus_log_p=below_max + log_sum_exp,
        # A sum over nothing, or over zeros only, is zero, and one with an infinite term is infinite: these have a
        # logarithm, although their softmax is 0/0 or inf/inf.
        lse=np.where(np.isinf(row_max), row_max, finite_max / temperature + log_sum_exp)[..., 0],
    )


def _softmax_of(
    logits: npt.ArrayLike, axis: int, where: npt.ArrayLike | None = None, temperature: float = 1.0
) -> _Softmax:
    z = _classes_last(logits, axis, _working_dtype(logits))
    return _softmax(z, _allowed(where, logits, axis), temperature)


def _jacobian_times(p: Floats, v: Floats) -> Floats:
    """Return `(diag(p) - p p^T) v` for each sample.

    A constant added to `v` changes nothing, as every row of the Jacobian sums to zero. Counting `v` from its
    value at the likeliest class takes that class, whose p may round to 1, out of the sum.
    """
    likeliest = np.argmax(p, axis=-1, keepdims=True)
    from_likeliest = v - np.take_along_axis(v, likeliest, axis=-1)
    product: Floats = p * (from_likeliest - (p * from_likeliest).sum(axis=-1, keepdims=True))
    return product


@np.errstate(all="ignore")
def softmax(
    logits: npt.ArrayLike, axis: int = -1, *, where: npt.ArrayLike | None = None, temperature: float = 1.0
) -> Floats:
    """Return the probabilities `p_k = exp(z_k) / sum_j exp(z_j)`, with `z = logits / temperature`.

    Parameters
    ----------
    logits : array_like, at least one axis
        Unnormalised log-probabilities, in nats.
    axis : int
        The class axis; every other axis is a sample axis.
    where : array_like of bool, broadcast to the logits
        False takes a class out of its sample: it gets p = 0, and its logit is not looked at.
    temperature : float
        Divides the logits; above one it flattens the distribution.

    Returns
    -------
    ndarray, shape of the logits
        nan for a sample with a nan or +inf logit, or with nothing but -inf.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> reference.softmax(np.log([1, 2, 5])).round(6)
    array([0.125, 0.25 , 0.625])
    """
    return np.moveaxis(_softmax_of(logits, axis, where, temperature).p, -1, axis)


@np.errstate(all="ignore")
def log_softmax(
    logits: npt.ArrayLike, axis: int = -1, *, where: npt.ArrayLike | None = None, temperature: float = 1.0
) -> Floats:
    """Return the log-probabilities `log p_k = z_k - log(sum_j exp(z_j))`, with `z = logits / temperature`.

    Parameters
    ----------
    logits, axis, where, temperature
        As for `softmax`.

    Returns
    -------
    ndarray, shape of the logits
        In nats; -inf for a logit of -inf and where `where` is False; nan where `softmax` is nan.

    Examples
    --------
    >>> from softxent import reference
    >>> reference.log_softmax([0.0, 40.0])
    array([-4.00000000e+01, -4.24835426e-18])
    """
    z, allowed = _classes_last(logits, axis, _working_dtype(logits)), _allowed(where, logits, axis)
    # 0 - x and not -x: a certain class has log p = 0, not -0.
    log_p = np.where(allowed, 0 - _softmax(z, allowed, temperature).minus_log_p, -np.inf)
    return np.moveaxis(log_p, -1, axis)


@np.errstate(all="ignore")
def logsumexp(
    logits: npt.ArrayLike, axis: int = -1, *, where: npt.ArrayLike | None = None, temperature: float = 1.0
) -> Floats:
    """Return `lse = log(sum_k exp(z_k)) = m + log(sum_k exp(z_k - m))`, with `z = logits / temperature`.

    Parameters
    ----------
    logits, axis, where, temperature
        As for `softmax`.

    Returns
    -------
    ndarray, shape of the sample axes
        In nats; -inf for a sample with nothing but -inf, +inf for one with a +inf logit and no nan, nan with one.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> np.exp(reference.logsumexp(np.log([[1, 2, 5], [10, 20, 30]]))).round(6)
    array([ 8., 60.])
    """
    return np.asarray(_softmax_of(logits, axis, where, temperature).lse)


@np.errstate(all="ignore")
def softmax_jvp(logits: npt.ArrayLike, v: npt.ArrayLike, axis: int = -1) -> Floats:
    """Return the change of the softmax when the logits change by `v`: `J v`, with `J = diag(p) - p p^T`.

    Parameters
    ----------
    logits : array_like, at least one axis
    v : array_like, shape of the logits
        The direction in which the logits change.
    axis : int
        The class axis.

    Returns
    -------
    ndarray, shape of the logits

    Examples
    --------
    >>> from softxent import reference
    >>> reference.softmax_jvp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    p = _softmax_of(logits, axis).p
    return np.moveaxis(_jacobian_times(p, _classes_last(as_array(v, "v"), axis, p.dtype)), -1, axis)


def softmax_vjp(logits: npt.ArrayLike, g: npt.ArrayLike, axis: int = -1) -> Floats:
    """Return the gradient with respect to the logits, `J^T g`, from the one with respect to the softmax, `g`.

    Parameters
    ----------
    logits : array_like, at least one axis
    g : array_like, shape of the logits
        The upstream gradient.
    axis : int
        The class axis.

    Returns
    -------
    ndarray, shape of the logits

    Examples
    --------
    >>> from softxent import reference
    >>> reference.softmax_vjp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    # J is symmetric.
    return softmax_jvp(logits, as_array(g, "g"), axis)


@np.errstate(all="ignore")
def softmax_jacobian(logits: npt.ArrayLike, axis: int = -1) -> Floats:
    """Return the matrix `J_ij = dp_i/dz_j = p_i (1 if i == j else 0) - p_i p_j` of each sample.

    Parameters
    ----------
    logits : array_like, at least one axis
    axis : int
        The class axis.

    Returns
    -------
    ndarray, shape of the sample axes followed by (C, C)

    Examples
    --------
    >>> from softxent import reference
    >>> reference.softmax_jacobian([0.0, 0.0])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    softmax = _softmax_of(logits, axis)
    jacobian = -softmax.p[..., :, None] * softmax.p[..., None, :]
    i = np.arange(softmax.p.shape[-1])
    jacobian[..., i, i] = softmax.p * softmax.not_p
    return np.asarray(jacobian)


# --- The cross-entropy of each sample ----------------------------------------------------------------------


def _softcap(z: Floats, cap: float | None) -> tuple[Floats, Floats]:
    """Return `cap * tanh(z / cap)` and its derivative. Infinite logits stay what they are."""
    if cap is None:
        return z, np.ones_like(z)
    # 1 / cosh^2 = 1 - tanh^2, which would round to 0 long before it is.
    return np.where(np.isinf(z), z, cap * np.tanh(z / cap)), 1 / np.cosh(z / cap) ** 2


def _smooth(t: Floats, allowed: Bools, smoothing: float) -> Floats:
    """Move the part `smoothing` of the target to the uniform distribution over the allowed classes."""
    n_allowed = np.maximum(allowed.sum(axis=-1, keepdims=True), 1)
    # The one is as wide as t: 1 - smoothing in Python would round to float64.
    return (t.dtype.type(1) - smoothing) * t + np.where(allowed, smoothing / n_allowed.astype(t.dtype), 0)


def _mass_times(mass: Floats, value: Floats) -> Floats:
    """Return the product in which no mass makes nothing of an infinite value: 0 * log(0) = 0."""
    return np.where((mass == 0) & np.isinf(value), 0, mass * value)


@dataclass(frozen=True)
class _Samples:
    """What is known of the samples before it is said how they are added up, class axis last."""

    softmax: _Softmax
    target: Floats  # class_weight_k t_k, after smoothing
    slope: Floats  # d(what enters the softmax) / d(the logits as given)
    weight: Floats  # sample_weight, 0 where ignored, no class axis
    used: Bools  # False where a class is removed or the whole sample is ignored: nothing flows back there
    log_base: np.floating[Any]  # ln(base)
    total_weight: np.floating[Any]  # what the mean divides by unless told otherwise


def _samples(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    where: npt.ArrayLike | None,
    ignore_index: int | None,
    label_smoothing: float,
    temperature: float,
    softcap: float | None = None,
    base: float | None,
) -> _Samples:
    dtype = _working_dtype(logits)
    z = _classes_last(logits, axis, dtype)
    allowed = _allowed(where, logits, axis)
    sample_axes, n_classes = z.shape[:-1], z.shape[-1]
    labels = native(as_array(labels, "labels"))
    are_indices = labels.ndim == z.ndim - 1

    if are_indices:
        # A label that is to be ignored is in general no class: such a row of t is all zeros or unused.
        t = (labels[..., None] == np.arange(n_classes)).astype(dtype)
        ignored = np.asarray(labels == ignore_index) if ignore_index is not None else np.zeros(sample_axes, bool)
    else:
        if labels.dtype.kind in "biu":
            check_one_hot(labels, axis % labels.ndim)
        else:
            is_bad = np.any(~(np.moveaxis(labels, axis, -1) >= 0), axis=-1)
            if np.any(is_bad):
                raise target_error(labels, tuple(int(i) for i in np.argwhere(is_bad)[0]), axis % labels.ndim)
        t = _classes_last(labels, axis, dtype)
        ignored = np.zeros(sample_axes, bool)

    s = np.ones(sample_axes, dtype) if sample_weight is None else as_array(sample_weight, "sample_weight").astype(dtype)
    s = np.where(ignored, 0, s)
    w = np.ones(n_classes, dtype) if class_weight is None else as_array(class_weight, "class_weight").astype(dtype)
    # Index labels: PyTorch's mean divides by the weights of the labels' classes. The sum has one term.
    total_weight = (s * (w * t).sum(axis=-1)).sum() if are_indices else s.sum()

    # An ignored sample may hold anything at all. Finite numbers in its place leave nothing but its weight, 0.
    in_ignored = ignored[..., None]
    z, slope = _softcap(np.where(in_ignored, 0, z), softcap)
    return _Samples(
        softmax=_softmax(z, allowed | in_ignored, temperature),
        target=w * _smooth(t, allowed, label_smoothing),
        slope=slope / temperature,
        weight=s,
        used=allowed & ~in_ignored,
        log_base=dtype.type(1) if base is None else np.log(dtype.type(base)),
        total_weight=total_weight,
    )


def _losses(samples: _Samples, z_loss: float) -> Floats:
    """Return `s (sum_k target_k (lse - z_k) / ln(base) + z_loss lse^2)` of each sample: -sum(y * log(p))."""
    losses = _mass_times(samples.target, samples.softmax.minus_log_p).sum(axis=-1) / samples.log_base
    if z_loss:
        losses = losses + z_loss * samples.softmax.lse**2
    return _mass_times(samples.weight, losses)


def _divisor(samples: _Samples, reduction: Reduction, normalizer: float | None) -> float | np.floating[Any]:
    """Return what the sum over the samples is divided by. A normalizer of 0 leaves a sum of nothing, 0, as it is."""
    given = None if normalizer is None else check_normalizer(normalizer)
    if reduction != "mean":
        return 1.0
    if given == 0 and np.any(samples.weight > 0):
        raise ValueError("normalizer is 0, but there are samples that count")
    return samples.total_weight if given is None else given or 1.0


def _reduce(samples: _Samples, losses: Floats, reduction: Reduction, normalizer: float | None) -> Loss:
    divisor = _divisor(samples, reduction, normalizer)
    if reduction == "none":
        return np.asarray(losses)
    # A Python float, but for longdouble, which stays itself.
    return (losses.sum() / divisor).item()  # type: ignore[no-any-return]


def _scale(
    samples: _Samples,
    reduction: Reduction,
    normalizer: float | None,
    grad_output: npt.ArrayLike | None = None,
) -> Floats:
    """Return by how much a change of each sample's unweighted loss changes the result, shape (..., 1)."""
    scale, divisor = samples.weight, _divisor(samples, reduction, normalizer)
    if grad_output is not None:
        scale = scale * as_array(grad_output, "grad_output").astype(scale.dtype)
    # The mean of nothing is nan, but no logit can change it.
    return np.asarray(scale / divisor if divisor != 0 else np.zeros_like(scale))[..., None]


def _gradient(samples: _Samples, z_loss: float, scale: Floats) -> Floats:
    """Return the gradient with respect to the logits, class axis last: p - y, scaled.

    With `W = sum_k target_k` it is `p W - target`. Written as `p (W - target) - target (1 - p)`, with both
    brackets summed from the other classes, it keeps its digits where p comes close to 1.
    """
    softmax, target = samples.softmax, samples.target
    gradient = (softmax.p * _sum_of_others(target) - target * softmax.not_p) / samples.log_base
    if z_loss:
        gradient = gradient + 2 * z_loss * softmax.lse[..., None] * softmax.p
    return np.where(samples.used, scale * samples.slope * gradient, 0)


# --- The cross-entropy, in public --------------------------------------------------------------------------


@np.errstate(all="ignore")
def cross_entropy(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
) -> Loss:
    """Return the softmax cross-entropy `L = -sum_k t_k log p_k` with `p = softmax(logits)`.

    For each sample, with the logits `z` after softcap and temperature, the target `t` after smoothing and the
    options' defaults being those that change nothing::

        lse = log(sum_k exp(z_k))
        L = s (sum_k class_weight_k t_k (lse - z_k) / ln(base) + z_loss lse^2)

    Parameters
    ----------
    logits : array_like, at least one axis
        Unnormalised log-probabilities, in nats. C is the length of the class axis.
    labels : array_like
        With one axis fewer than the logits: class indices, of any integer dtype, in the sample axes' shape.
        With as many axes: a target distribution, in the logits' shape.
    axis : int
        The class axis; every other axis is a sample axis.
    class_weight : array_like, shape (C,)
        Weights each class's term of the sum. It does not weight the z-loss.
    sample_weight : array_like, shape of the sample axes
        The `s` above: weights each sample, z-loss and all.
    where : array_like of bool, broadcast to the logits
        False takes a class out of its sample: p = 0, no smoothing mass, and its logit is not looked at. A
        target there makes the loss infinite, as it does at a logit of -inf.
    ignore_index : int
        Index labels of this value mark samples that add nothing and are divided by nothing.
    label_smoothing : float in [0, 1]
        `t` becomes `(1 - label_smoothing) t + label_smoothing / C`; where `where` removes classes, the second
        term goes to the allowed ones only, and C counts those.
    temperature : float
        Divides the logits, after the softcap.
    softcap : float
        Logits become `softcap tanh(logits / softcap)`. Infinite ones stay what they are.
    z_loss : float
        Adds `z_loss lse^2`, in nats squared, which keeps the logits from drifting.
    base : float
        The base of the logarithm: 2 for bits, None for nats.
    reduction : {"none", "sum", "mean"}
        The samples' losses, their sum, or their sum divided by the normalizer.
    normalizer : float
        What the mean divides by. None: the sum of `s class_weight[label]` over the samples that are not
        ignored if labels are indices, the sum of `s` if they are distributions.

    Returns
    -------
    float or ndarray
        "none": an array in the sample axes' shape. Otherwise a float. The mean of nothing is nan.

    Notes
    -----
    Class weights under label smoothing follow PyTorch's CrossEntropyLoss, the z-loss PaLM (Chowdhery et al.,
    2022, section 5), the softcap Gemma 2 (2024, section 2).

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> logits = np.log([[1, 1, 2], [1, 6, 1]])
    >>> reference.cross_entropy(logits, [2, 1], base=2, reduction="none").round(6)
    array([1.      , 0.415037])
    >>> f"{reference.cross_entropy([0.0, 40.0], 1):.6g}"
    '4.24835e-18'
    """
    samples = _samples(
        logits,
        labels,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        base=base,
    )
    return _reduce(samples, _losses(samples, z_loss), reduction, normalizer)


@np.errstate(all="ignore")
def cross_entropy_and_grad(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
) -> tuple[Loss, Floats]:
    """Return the cross-entropy and its gradient with respect to the logits, `p - y`.

    With the options, and `W = sum_k class_weight_k t_k`, the gradient of a sample's loss is::

        s ((p_k W - class_weight_k t_k) / ln(base) + 2 z_loss lse p_k) slope_k
        slope_k = 1 / (temperature cosh(logits_k / softcap)^2)

    The mean divides it by the normalizer.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for `cross_entropy`.
    temperature, softcap, z_loss, base, reduction, normalizer
        As for `cross_entropy`.
    grad_output : float or, with reduction="none", array_like in the sample axes' shape
        The upstream gradient, by which the gradient (not the loss) is multiplied; None stands for one.

    Returns
    -------
    loss : float or ndarray
        As from `cross_entropy`.
    grad : ndarray, shape of the logits
        Exactly zero for ignored samples, where `where` is False, and for the mean of nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> loss, grad = reference.cross_entropy_and_grad(np.log([1, 1, 2]), 2)
    >>> grad
    array([ 0.25,  0.25, -0.5 ])
    """
    samples = _samples(
        logits,
        labels,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        base=base,
    )
    loss = _reduce(samples, _losses(samples, z_loss), reduction, normalizer)
    grad = _gradient(samples, z_loss, _scale(samples, reduction, normalizer, grad_output))
    return loss, np.moveaxis(grad, -1, axis)


def _stands_before(z: Floats, allowed: Bools, label: npt.NDArray[np.int64]) -> Bools:
    """Return which classes come before the label's: larger, or equal and earlier. A removed label is behind all."""
    at_label = label[..., None]
    z_label = np.take_along_axis(z, at_label, axis=-1)
    is_removed = ~np.take_along_axis(allowed, at_label, axis=-1)
    is_earlier = np.arange(z.shape[-1]) < at_label
    return np.asarray(allowed & (is_removed | (z > z_label) | ((z == z_label) & is_earlier)))


@np.errstate(all="ignore")
def cross_entropy_and_rank(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int = -1,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    **options: Any,
) -> tuple[Loss, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the cross-entropy, the rank of each label, and the first class with the largest logit.

    Parameters
    ----------
    logits, labels, axis, where, ignore_index, **options
        As for `cross_entropy`. No option changes the order of the logits, which are compared as they are given. The
        label of a distribution is the first of its largest entries.

    Returns
    -------
    loss : float or ndarray
        As from `cross_entropy`.
    rank : ndarray of int64, shape of the sample axes
        How many of the classes that take part come before the label's: with a larger logit, or with an equal one and a
        smaller index. A label that `where` removes comes behind all of them. -1 for a sample that is ignored, has a nan
        among the logits that take part, or has no class that does.
    top : ndarray of int64, shape of the sample axes
        The first of the classes that take part with the largest logit; -1 as above.

    Examples
    --------
    >>> from softxent import reference
    >>> loss, rank, top = reference.cross_entropy_and_rank([[2.0, 3.0, 2.0], [0.0, 0.0, 0.0]], [2, 0])
    >>> rank, top
    (array([2, 0]), array([1, 0]))
    """
    loss = cross_entropy(logits, labels, axis=axis, where=where, ignore_index=ignore_index, **options)
    z = _classes_last(logits, axis, _working_dtype(logits))
    allowed = _allowed(where, logits, axis)
    labels = native(as_array(labels, "labels"))
    if labels.ndim == z.ndim:
        label = np.moveaxis(labels, axis, -1).argmax(axis=-1)
        is_ranked = np.ones(label.shape, bool)
    else:
        is_ranked = np.asarray(labels != ignore_index if ignore_index is not None else np.ones(labels.shape, bool))
        label = np.where(is_ranked, labels, 0)
    is_ranked &= allowed.any(axis=-1) & ~(np.isnan(z) & allowed).any(axis=-1)
    rank = _stands_before(z, allowed, label.astype(np.int64)).sum(axis=-1)
    top = (allowed & (z == np.where(allowed, z, -np.inf).max(axis=-1, keepdims=True))).argmax(axis=-1)
    return loss, np.where(is_ranked, rank, -1), np.where(is_ranked, top, -1)


def _curvature(samples: _Samples, scale: Floats) -> Floats:
    """Return the `w` of a sample's Hessian `w (diag(p) - p p^T)`, shape (..., 1).

    There is one per sample because without a softcap the slope, which enters twice, is 1 / temperature at
    every class.
    """
    sum_target: Floats = samples.target.sum(axis=-1, keepdims=True)
    return sum_target * scale * samples.slope[..., :1] ** 2 / samples.log_base


@np.errstate(all="ignore")
def cross_entropy_grad_hess(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    kind: HessianKind = "exact",
) -> tuple[Loss, Floats, Floats]:
    """Return the cross-entropy, its gradient, and the diagonal of its Hessian.

    With `w = s sum_k class_weight_k t_k / temperature^2 / ln(base)`, divided by the normalizer in a mean::

        exact      w p (1 - p)
        xgboost    max(2 w p (1 - p), 1e-16)
        lightgbm   w C / (C - 1) p (1 - p)

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for `cross_entropy`.
    temperature, base, reduction, normalizer
        As for `cross_entropy`.
    kind : {"exact", "xgboost", "lightgbm"}
        The second derivative, or what gradient boosting libraries put in its place.

    Returns
    -------
    loss : float or ndarray
    grad : ndarray, shape of the logits
    hess_diag : ndarray, shape of the logits
        Exactly zero, of whatever kind, for ignored samples and where `where` is False.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> loss, grad, hess_diag = reference.cross_entropy_grad_hess(np.log([1, 1, 2]), 2)
    >>> hess_diag
    array([0.1875, 0.1875, 0.25  ])
    """
    samples = _samples(
        logits,
        labels,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        base=base,
    )
    loss = _reduce(samples, _losses(samples, 0.0), reduction, normalizer)
    scale = _scale(samples, reduction, normalizer)
    grad = _gradient(samples, 0.0, scale)

    hess = _curvature(samples, scale) * samples.softmax.p * samples.softmax.not_p
    n_classes = hess.shape[-1]
    if kind == "xgboost":
        hess = np.maximum(2 * hess, 1e-16)
    elif kind == "lightgbm" and n_classes > 1:  # of one class there is no curvature to scale
        hess = hess * n_classes / (n_classes - 1)
    hess = np.where(samples.used, hess, 0)
    return loss, np.moveaxis(grad, -1, axis), np.moveaxis(hess, -1, axis)


@np.errstate(all="ignore")
def cross_entropy_hvp(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    v: npt.ArrayLike,
    *,
    axis: int = -1,
    class_weight: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
) -> Floats:
    """Return the cross-entropy's Hessian times `v`: how the gradient changes when the logits change by `v`.

    The Hessian of a sample is `w (diag(p) - p p^T)`, with the `w` of `cross_entropy_grad_hess`, and samples
    do not touch each other. With reduction="none" it is that of the losses' sum.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for `cross_entropy`.
    v : array_like, shape of the logits
        The direction.
    temperature, base, reduction, normalizer
        As for `cross_entropy`.

    Returns
    -------
    ndarray, shape of the logits

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> reference.cross_entropy_hvp(np.log([1, 1, 2]), 2, [0, 0, 1])
    array([-0.125, -0.125,  0.25 ])
    """
    samples = _samples(
        logits,
        labels,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        base=base,
    )
    p = samples.softmax.p
    # Where nothing flows back, the direction may be anything too.
    direction = np.where(samples.used, _classes_last(as_array(v, "v"), axis, p.dtype), 0)
    product = _curvature(samples, _scale(samples, reduction, normalizer)) * _jacobian_times(p, direction)
    return np.moveaxis(np.where(samples.used, product, 0), -1, axis)
