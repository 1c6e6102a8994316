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
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_tuple

from ._arrays import as_array, name_of_entry
from ._labels import SparseTarget, check_one_hot, native, target_error
from ._options import check_normalizer

__all__ = [
    "SparseTarget",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_and_rank",
    "cross_entropy_grad_hess",
    "cross_entropy_hvp",
    "entropy",
    "entropy_and_grad",
    "kl_divergence",
    "kl_divergence_and_grad",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]
Axes: TypeAlias = int | tuple[int, ...] | None
Loss: TypeAlias = float | np.longdouble | Floats
Reduction: TypeAlias = Literal["none"] | Literal["sum"] | Literal["mean"]
HessianKind: TypeAlias = Literal["exact"] | Literal["xgboost"] | Literal["lightgbm"]


# --- Getting in: one dtype, class axis last ---------------------------------------------------------------


def _working_dtype(logits: npt.ArrayLike) -> np.dtype[Any]:
    """Return the wider of float64 and the logits' own dtype."""
    return np.result_type(as_array(logits, "logits").dtype, np.float64)


def _class_axes(axis: Axes, n_axes: int) -> tuple[int, ...]:
    """Return the axes that hold the classes, in the order in which the logits have them; None stands for all."""
    return tuple(range(n_axes)) if axis is None else tuple(sorted(normalize_axis_tuple(axis, n_axes, "axis")))


def _classes_last(array: npt.ArrayLike, axis: Axes, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return `array` in `dtype` with the class axis last, and contiguous there. Several of them become one.

    Contiguous because NumPy sums pairwise, with an error that hardly grows with C, only along such an axis.
    """
    array = np.asarray(array)
    axes = _class_axes(axis, array.ndim)
    moved = np.moveaxis(array, axes, range(-len(axes), 0))
    n_classes = prod(array.shape[i] for i in axes)
    return np.ascontiguousarray(moved, dtype=dtype).reshape(*moved.shape[: -len(axes)], n_classes)


def _classes_back(result: Floats, axis: Axes, shape: tuple[int, ...]) -> Floats:
    """Undo `_classes_last` for a result with an entry for each class, where the logits have this shape."""
    axes = _class_axes(axis, len(shape))
    moved = result.reshape(*result.shape[:-1], *(shape[i] for i in axes))
    return np.moveaxis(moved, range(-len(axes), 0), axes)


def _without_classes(result: Floats, axis: Axes, shape: tuple[int, ...], keepdims: bool) -> Floats:
    """Return a result with an entry for each sample; with `keepdims` the class axes stay, of length 1."""
    return np.expand_dims(result, _class_axes(axis, len(shape))) if keepdims else np.asarray(result)


def _allowed(where: npt.ArrayLike | None, logits: npt.ArrayLike, axis: Axes) -> Bools:
    """Return which class of which sample takes part, class axis last."""
    everywhere = np.broadcast_to(True if where is None else as_array(where, "where"), np.shape(logits))
    return _classes_last(everywhere, axis, np.bool_)


# --- The softmax -------------------------------------------------------------------------------------------


def _sum_of_others(x: Floats, largest: npt.NDArray[np.intp] | None = None) -> Floats:
    """Return, for every entry of the last axis, the sum of all the other entries.

    Taking an entry from a total of non-negative ones is harmless as long as at least half of the total remains. That
    holds for all entries but the largest, and there the others are summed without it. `largest` is the place of
    the one that is treated so; by default that of the largest.
    """
    if largest is None:
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

    below_max: Floats  # (max z - z) / temperature, +inf where the class is not allowed but another one is
    p: Floats  # probabilities, 0 where the class is not allowed
    not_p: Floats  # 1 - p, without the subtraction
    minus_log_p: Floats  # lse - z, +inf where the class is not allowed but another one is
    lse: Floats  # log(sum(exp(z))), no class axis


def _temperature(temperature: npt.ArrayLike, dtype: np.dtype[Any]) -> Floats:
    """Return a temperature for all samples, or the one of each, so that it broadcasts against the classes."""
    return np.asarray(as_array(temperature, "temperature").astype(dtype)[..., None])


def _softmax(z: Floats, allowed: Bools, temperature: Floats) -> _Softmax:
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
        below_max=below_max,
        p=np.where(allowed, exps / (1 + sum_rest), 0),
        not_p=np.where(allowed, other_exps / (1 + sum_rest), 1),
        minus_log_p=below_max + log_sum_exp,
        # A sum over nothing, or over zeros only, is zero, and one with an infinite term is infinite: these have a
        # logarithm, although their softmax is 0/0 or inf/inf.
        lse=np.where(np.isinf(row_max), row_max, finite_max / temperature + log_sum_exp)[..., 0],
    )


def _softmax_of(
    logits: npt.ArrayLike, axis: Axes, where: npt.ArrayLike | None = None, temperature: float = 1.0
) -> _Softmax:
    z = _classes_last(logits, axis, _working_dtype(logits))
    return _softmax(z, _allowed(where, logits, axis), _temperature(temperature, z.dtype))


def _from_mean(p: Floats, v: Floats) -> Floats:
    """Return `v_k - sum_j p_j v_j` for each sample.

    A constant added to `v` changes nothing, as the probabilities sum to one. Counting `v` from its value at
    the likeliest class takes that class, whose p may round to 1, out of the sum.
    """
    likeliest = np.argmax(p, axis=-1, keepdims=True)
    from_likeliest = v - np.take_along_axis(v, likeliest, axis=-1)
    return np.asarray(from_likeliest - (p * from_likeliest).sum(axis=-1, keepdims=True))


def _jacobian_times(p: Floats, v: Floats) -> Floats:
    """Return `(diag(p) - p p^T) v` for each sample."""
    return p * _from_mean(p, v)


@np.errstate(all="ignore")
def softmax(
    logits: npt.ArrayLike, axis: Axes = -1, *, where: npt.ArrayLike | None = None, temperature: float = 1.0
) -> Floats:
    """Return the probabilities `p_k = exp(z_k) / sum_j exp(z_j)`, with `z = logits / temperature`.

    Parameters
    ----------
    logits : array_like, at least one axis
        Unnormalised log-probabilities, in nats.
    axis : int, tuple of int, or None
        The class axis; every other axis is a sample axis. Several axes together hold the classes; None: all axes.
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
    return _classes_back(_softmax_of(logits, axis, where, temperature).p, axis, np.shape(logits))


@np.errstate(all="ignore")
def log_softmax(
    logits: npt.ArrayLike, axis: Axes = -1, *, where: npt.ArrayLike | None = None, temperature: float = 1.0
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
    log_p = np.where(allowed, 0 - _softmax(z, allowed, _temperature(temperature, z.dtype)).minus_log_p, -np.inf)
    return _classes_back(log_p, axis, np.shape(logits))


@np.errstate(all="ignore")
def logsumexp(
    logits: npt.ArrayLike,
    axis: Axes = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
) -> Floats:
    """Return `lse = log(sum_k exp(z_k)) = m + log(sum_k exp(z_k - m))`, with `z = logits / temperature`.

    Parameters
    ----------
    logits, axis, where, temperature
        As for `softmax`.
    keepdims : bool
        Leave the class axes where they are, of length 1.

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
    return _without_classes(_softmax_of(logits, axis, where, temperature).lse, axis, np.shape(logits), keepdims)


def _vector(vector: npt.ArrayLike, name: str, axis: int, allowed: Bools, dtype: np.dtype[Any]) -> Floats:
    """Return a vector in the shape of the logits, class axis last; 0 where a class is removed, whatever it holds."""
    return np.where(allowed, _classes_last(as_array(vector, name), axis, dtype), 0)


@np.errstate(all="ignore")
def softmax_jvp(
    logits: npt.ArrayLike,
    v: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
) -> Floats:
    """Return the change of the softmax when the logits change by `v`: `J v`, `J = (diag(p) - p p^T) / temperature`.

    Parameters
    ----------
    logits : array_like, at least one axis
    v : array_like, shape of the logits
        The direction in which the logits change. It is not looked at where `where` is False.
    axis : int
        The class axis.
    where, temperature
        As for `softmax`.

    Returns
    -------
    ndarray, shape of the logits
        Exactly zero where `where` is False.

    Examples
    --------
    >>> from softxent import reference
    >>> reference.softmax_jvp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    p, allowed = _softmax_of(logits, axis, where, temperature).p, _allowed(where, logits, axis)
    product = _jacobian_times(p, _vector(v, "v", axis, allowed, p.dtype)) / temperature
    return np.moveaxis(np.where(allowed, product, 0), -1, axis)


def softmax_vjp(
    logits: npt.ArrayLike,
    g: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
) -> Floats:
    """Return the gradient with respect to the logits, `J^T g`, from the one with respect to the softmax, `g`.

    Parameters
    ----------
    logits : array_like, at least one axis
    g : array_like, shape of the logits
        The upstream gradient. It is not looked at where `where` is False.
    axis, where, temperature
        As for `softmax_jvp`.

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
    return softmax_jvp(logits, as_array(g, "g"), axis, where=where, temperature=temperature)


@np.errstate(all="ignore")
def log_softmax_jvp(
    logits: npt.ArrayLike,
    v: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
) -> Floats:
    """Return the change of the log-softmax when the logits change by `v`: `(v_k - sum_j p_j v_j) / temperature`.

    Parameters
    ----------
    logits, v, axis, where, temperature
        As for `softmax_jvp`.

    Returns
    -------
    ndarray, shape of the logits
        Exactly zero where `where` is False.

    Notes
    -----
    `d(log p_i)/dz_j = (1 if i == j else 0) - p_j`: the softmax's Jacobian over p_i.

    Examples
    --------
    >>> from softxent import reference
    >>> reference.log_softmax_jvp([0.0, 0.0], [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    p, allowed = _softmax_of(logits, axis, where, temperature).p, _allowed(where, logits, axis)
    product = _from_mean(p, _vector(v, "v", axis, allowed, p.dtype)) / temperature
    return np.moveaxis(np.where(allowed, product, 0), -1, axis)


@np.errstate(all="ignore")
def log_softmax_vjp(
    logits: npt.ArrayLike,
    g: npt.ArrayLike,
    axis: int = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
) -> Floats:
    """Return the gradient with respect to the logits from the one with respect to the log-softmax, `g`.

    It is `(g_k - p_k sum_j g_j) / temperature`.

    Parameters
    ----------
    logits, g, axis, where, temperature
        As for `softmax_vjp`.

    Returns
    -------
    ndarray, shape of the logits
        Exactly zero where `where` is False.

    Examples
    --------
    >>> from softxent import reference
    >>> reference.log_softmax_vjp([0.0, 0.0], [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    softmax, allowed = _softmax_of(logits, axis, where, temperature), _allowed(where, logits, axis)
    upstream = _vector(g, "g", axis, allowed, softmax.p.dtype)
    # g_k - p_k sum(g) is g_k (1 - p_k) - p_k (the others' sum): with brackets that keep their digits where p nears 1.
    others = _sum_of_others(upstream, np.argmax(softmax.p, axis=-1, keepdims=True))
    product = (upstream * softmax.not_p - softmax.p * others) / temperature
    return np.moveaxis(np.where(allowed, product, 0), -1, axis)


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


# --- The entropy -------------------------------------------------------------------------------------------


def _mass_times(mass: Floats, value: Floats) -> Floats:
    """Return the product in which no mass makes nothing of an infinite value: 0 * log(0) = 0."""
    return np.where((mass == 0) & np.isinf(value), 0, mass * value)


@np.errstate(all="ignore")
def entropy(
    logits: npt.ArrayLike,
    axis: Axes = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    keepdims: bool = False,
) -> Floats:
    """Return the entropy `H = -sum_k p_k log p_k` of `p = softmax(logits / temperature)`.

    Parameters
    ----------
    logits, axis, where, temperature
        As for `softmax`.
    keepdims : bool
        Leave the class axes where they are, of length 1.

    Returns
    -------
    ndarray, shape of the sample axes
        In nats. nan for a sample with a nan or +inf logit, with nothing but -inf, or with no class that takes part.

    Notes
    -----
    C. E. Shannon, "A Mathematical Theory of Communication" (Bell System Technical Journal 27, 1948), section 6;
    T. M. Cover and J. A. Thomas, *Elements of Information Theory* (Wiley, 2006), section 2.1. Every term is
    positive and has all its digits, so that the sum has.

    Examples
    --------
    >>> from softxent import reference
    >>> f"{reference.entropy([0.0, 0.0]):.6g} {reference.entropy([0.0, 40.0]):.6g}"
    '0.693147 1.74183e-16'
    """
    softmax = _softmax_of(logits, axis, where, temperature)
    sums = _mass_times(softmax.p, softmax.minus_log_p).sum(axis=-1)
    return _without_classes(sums, axis, np.shape(logits), keepdims)


@np.errstate(all="ignore")
def entropy_and_grad(
    logits: npt.ArrayLike,
    axis: Axes = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    grad_output: npt.ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Return the entropy `H` and its gradient, `dH/dz_k = -p_k (log p_k + H) / temperature`.

    Parameters
    ----------
    logits, axis, where, temperature
        As for `entropy`.
    grad_output : float or array_like in the sample axes' shape
        The upstream gradient, by which the gradient (not the entropy) is multiplied; None stands for one.

    Returns
    -------
    entropy : ndarray, shape of the sample axes
    grad : ndarray, shape of the logits
        Of the sum of all entropies. Exactly zero where `where` is False.

    Notes
    -----
    `-log p_k - H` is how far `-log p_k` lies above its mean, and no constant changes that. So it is also how far
    `(max z - z_k) / temperature` does: without the logarithms, nothing is lost where p is nearly uniform.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> reference.entropy_and_grad(np.log([1.0, 3.0]))[1].round(6)
    array([ 0.20599, -0.20599])
    """
    softmax, allowed = _softmax_of(logits, axis, where, temperature), _allowed(where, logits, axis)
    # A class without probability has no part in the sum, however far it lies below.
    below_max = np.where(softmax.p == 0, 0, softmax.below_max)
    scale = np.asarray(1 if grad_output is None else as_array(grad_output, "grad_output")).astype(softmax.p.dtype)
    grad = scale[..., None] * _jacobian_times(softmax.p, below_max) / temperature
    return (
        entropy(logits, axis, where=where, temperature=temperature),
        _classes_back(np.where(allowed, grad, 0), axis, np.shape(logits)),
    )


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


def _is_sparse(labels: object) -> bool:
    return isinstance(labels, tuple) and getattr(labels, "_fields", ()) == SparseTarget._fields


def _dense(labels: Any, weight: Floats, n_classes: int) -> Floats:
    """Return the distribution that a SparseTarget stands for, class axis last, in the dtype of the samples' weights.

    A sample without weight has none.
    """
    indices, values = native(as_array(labels.indices, "labels.indices")), as_array(labels.values, "labels.values")
    is_bad = (indices < -1) | (indices >= n_classes)
    if np.any(is_bad):
        name = name_of_entry(np.argwhere(is_bad)[0], "labels.indices")
        raise IndexError(
            f"{name} is {indices[is_bad][0]}, which is not a class in [0, {n_classes}), nor -1 for padding"
        )
    masses = np.where((indices == -1) | (weight[..., None] == 0), 0, values.astype(weight.dtype))
    _check_masses(masses, "labels.values")
    dense = np.zeros((*weight.shape, n_classes), weight.dtype)
    samples = np.ix_(*(np.arange(n) for n in (*weight.shape, 1)))[:-1]
    np.add.at(dense, (*samples, indices.astype(np.intp)), masses)  # padding adds zero to the last class
    return dense


def _check_masses(masses: Floats, name: str) -> None:
    """Refuse a negative or nan entry, and name the first."""
    is_bad = ~(masses >= 0)
    if np.any(is_bad):
        raise ValueError(
            f"{name_of_entry(np.argwhere(is_bad)[0], name)} is {float(masses[is_bad][0])}; a mass must be 0 or more"
        )


@dataclass(frozen=True)
class _Weights:
    """How the samples are added up."""

    weight: Floats  # sample_weight, 0 where ignored, no class axis
    total_weight: np.floating[Any]  # what the mean divides by unless told otherwise


@dataclass(frozen=True)
class _Samples(_Weights):
    """What is known of the samples before it is said how they are added up, class axis last."""

    softmax: _Softmax
    target: Floats  # class_weight_k t_k, after smoothing
    temperature: Floats  # shape (..., 1), or (1,) where it is one for all
    slope: Floats  # d(what enters the softmax) / d(the logits as given)
    used: Bools  # False where a class is removed or the whole sample is left out: nothing flows back there
    log_base: np.floating[Any]  # ln(base)


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
    temperature: npt.ArrayLike,
    softcap: float | None = None,
    base: float | None,
) -> _Samples:
    dtype = _working_dtype(logits)
    z = _classes_last(logits, axis, dtype)
    allowed = _allowed(where, logits, axis)
    sample_axes, n_classes = z.shape[:-1], z.shape[-1]
    s = np.ones(sample_axes, dtype) if sample_weight is None else as_array(sample_weight, "sample_weight").astype(dtype)
    are_indices = False

    if _is_sparse(labels):
        t = _dense(labels, s, n_classes)
    else:
        labels = native(as_array(labels, "labels"))
        are_indices = labels.ndim == z.ndim - 1
        if are_indices:
            # A label that is to be ignored is in general no class: such a row of t is all zeros or unused.
            t = (labels[..., None] == np.arange(n_classes)).astype(dtype)
            if ignore_index is not None:
                s = np.where(labels == ignore_index, 0, s)
        else:
            if labels.dtype.kind in "biu":
                check_one_hot(labels, axis % labels.ndim)
            t = np.where(s[..., None] == 0, 0, _classes_last(labels, axis, dtype))
            is_bad = np.any(~(t >= 0), axis=-1)
            if np.any(is_bad):
                raise target_error(labels, tuple(int(i) for i in np.argwhere(is_bad)[0]), axis % labels.ndim)

    w = np.ones(n_classes, dtype) if class_weight is None else as_array(class_weight, "class_weight").astype(dtype)
    # Index labels: PyTorch's mean divides by the weights of the labels' classes. The sum has one term.
    total_weight = (s * (w * t).sum(axis=-1)).sum() if are_indices else s.sum()

    # A sample that is ignored, or has no weight, may hold anything. Finite numbers in its place leave only that weight.
    left_out = s[..., None] == 0
    z, slope = _softcap(np.where(left_out, 0, z), softcap)
    each_temperature = _temperature(temperature, dtype)
    return _Samples(
        softmax=_softmax(z, allowed | left_out, each_temperature),
        target=w * _smooth(t, allowed, label_smoothing),
        temperature=each_temperature,
        slope=slope / each_temperature,
        weight=s,
        used=allowed & ~left_out,
        log_base=dtype.type(1) if base is None else np.log(dtype.type(base)),
        total_weight=total_weight,
    )


def _losses(samples: _Samples, z_loss: float) -> Floats:
    """Return `s (sum_k target_k (lse - z_k) / ln(base) + z_loss lse^2)` of each sample: -sum(y * log(p))."""
    losses = _mass_times(samples.target, samples.softmax.minus_log_p).sum(axis=-1) / samples.log_base
    if z_loss:
        losses = losses + z_loss * samples.softmax.lse**2
    return _mass_times(samples.weight, losses)


def _divisor(samples: _Weights, reduction: Reduction, normalizer: float | None) -> float | np.floating[Any]:
    """Return what the sum over the samples is divided by. A normalizer of 0 leaves a sum of nothing, 0, as it is."""
    given = None if normalizer is None else check_normalizer(normalizer)
    if reduction != "mean":
        return 1.0
    if given == 0 and np.any(samples.weight > 0):
        raise ValueError("normalizer is 0, but there are samples that count")
    return samples.total_weight if given is None else given or 1.0


def _reduce(samples: _Weights, losses: Floats, reduction: Reduction, normalizer: float | None) -> Loss:
    divisor = _divisor(samples, reduction, normalizer)
    if reduction == "none":
        return np.asarray(losses)
    # A Python float, but for longdouble, which stays itself.
    return (losses.sum() / divisor).item()  # type: ignore[no-any-return]


def _scale(
    samples: _Weights,
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


def _gradient_of_temperature(samples: _Samples, z_loss: float, scale: Floats) -> Floats:
    """Return the derivative of each sample's loss with respect to its temperature, scaled, no class axis.

    Of what enters the softmax, `z / temperature`, it is `-z / temperature^2`. With `y_k = (max z - z_k) / temperature`,
    `lse - z_k / temperature` is `log sum_j exp(-y_j) + y_k`, whose derivative is `(sum_j p_j y_j - y_k) / temperature`:
    differences only, so that a common offset of the logits costs nothing.
    """
    softmax, target = samples.softmax, samples.target
    mean: Floats = _mass_times(softmax.p, softmax.below_max).sum(axis=-1, keepdims=True)
    derivative = _mass_times(target, mean - softmax.below_max).sum(axis=-1, keepdims=True) / samples.log_base
    if z_loss:
        # d(lse)/dT = -sum_j p_j z_j / T^2; lse is max z / T and -log p of the largest class.
        lse = softmax.lse[..., None]
        row_max = lse - softmax.minus_log_p.min(axis=-1, keepdims=True)
        derivative = derivative + 2 * z_loss * lse * (mean - row_max)
    return np.asarray(_mass_times(scale, derivative / samples.temperature)[..., 0])


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
    temperature: npt.ArrayLike = 1.0,
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
        With as many axes: a target distribution, in the logits' shape. Or a SparseTarget, which stands for one.
    axis : int
        The class axis; every other axis is a sample axis.
    class_weight : array_like, shape (C,)
        Weights each class's term of the sum. It does not weight the z-loss.
    sample_weight : array_like, shape of the sample axes
        The `s` above: weights each sample, z-loss and all. A sample of weight 0 adds nothing, whatever its logits
        and its target hold: they are not looked at.
    where : array_like of bool, broadcast to the logits
        False takes a class out of its sample: p = 0, no smoothing mass, and its logit is not looked at. A
        target there makes the loss infinite, as it does at a logit of -inf.
    ignore_index : int
        Index labels of this value mark samples that add nothing and are divided by nothing.
    label_smoothing : float in [0, 1]
        `t` becomes `(1 - label_smoothing) t + label_smoothing / C`; where `where` removes classes, the second
        term goes to the allowed ones only, and C counts those.
    temperature : float or array_like in the sample axes' shape
        Divides the logits, after the softcap: all of them, or each sample's.
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
    2022, section 5), the softcap Gemma 2 (2024, section 2). A temperature that is fitted so that the confidences fit
    the frequencies is Guo et al.'s, "On Calibration of Modern Neural Networks" (2017), section 4.2.

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
    temperature: npt.ArrayLike = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    base: float | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
    wrt_temperature: bool = False,
) -> tuple[Loss, Floats] | tuple[Loss, Floats, Loss]:
    """Return the cross-entropy and its gradient with respect to the logits, `p - y`.

    With the options, and `W = sum_k class_weight_k t_k`, the gradient of a sample's loss is::

        s ((p_k W - class_weight_k t_k) / ln(base) + 2 z_loss lse p_k) slope_k
        slope_k = 1 / (temperature cosh(logits_k / softcap)^2)

    and its derivative with respect to the temperature, with the logits z after softcap and temperature, is::

        s sum_k (class_weight_k t_k / ln(base) - (W / ln(base) + 2 z_loss lse) p_k) z_k / temperature

    The mean divides both by the normalizer.

    Parameters
    ----------
    logits, labels, axis, class_weight, sample_weight, where, ignore_index, label_smoothing
        As for `cross_entropy`.
    temperature, softcap, z_loss, base, reduction, normalizer
        As for `cross_entropy`.
    grad_output : float or, with reduction="none", array_like in the sample axes' shape
        The upstream gradient, by which the gradient (not the loss) is multiplied; None stands for one.
    wrt_temperature : bool
        Return the derivative with respect to the temperature too.

    Returns
    -------
    loss : float or ndarray
        As from `cross_entropy`.
    grad : ndarray, shape of the logits
        Exactly zero for ignored samples, those of weight 0, where `where` is False, and for the mean of nothing.
    temperature_grad : float or ndarray, with wrt_temperature
        An array in the sample axes' shape if the temperature has that shape or the reduction is "none": each sample's
        own part. Otherwise a float, the sum over the samples. Multiplied by `grad_output`, as the gradient is.

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
    scale = _scale(samples, reduction, normalizer, grad_output)
    grad = np.moveaxis(_gradient(samples, z_loss, scale), -1, axis)
    if not wrt_temperature:
        return loss, grad
    of_temperature = _gradient_of_temperature(samples, z_loss, scale)
    is_each = reduction == "none" or np.ndim(temperature) > 0
    return loss, grad, of_temperature if is_each else of_temperature.sum().item()


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
    sample_weight: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    **options: Any,
) -> tuple[Loss, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the cross-entropy, the rank of each label, and the first class with the largest logit.

    Parameters
    ----------
    logits, labels, axis, sample_weight, where, ignore_index, **options
        As for `cross_entropy`. No option changes the order of the logits, which are compared as they are given. The
        label of a distribution is the first of its largest entries.

    Returns
    -------
    loss : float or ndarray
        As from `cross_entropy`.
    rank : ndarray of int64, shape of the sample axes
        How many of the classes that take part come before the label's: with a larger logit, or with an equal one and a
        smaller index. A label that `where` removes comes behind all of them. -1 for a sample that is ignored, has no
        weight, has a nan among the logits that take part, or has no class that does.
    top : ndarray of int64, shape of the sample axes
        The first of the classes that take part with the largest logit; -1 as above.

    Examples
    --------
    >>> from softxent import reference
    >>> loss, rank, top = reference.cross_entropy_and_rank([[2.0, 3.0, 2.0], [0.0, 0.0, 0.0]], [2, 0])
    >>> rank, top
    (array([2, 0]), array([1, 0]))
    """
    options |= {"axis": axis, "sample_weight": sample_weight, "where": where, "ignore_index": ignore_index}
    loss = cross_entropy(logits, labels, **options)
    z = _classes_last(logits, axis, _working_dtype(logits))
    allowed = _allowed(where, logits, axis)
    weight = np.ones(z.shape[:-1]) if sample_weight is None else np.asarray(sample_weight, np.float64)
    is_ranked = np.asarray(weight != 0)
    if _is_sparse(labels):
        label = _dense(labels, weight, z.shape[-1]).argmax(axis=-1)
    else:
        labels = native(as_array(labels, "labels"))
        if labels.ndim == z.ndim:
            label = np.moveaxis(labels, axis, -1).argmax(axis=-1)
        else:
            is_ranked &= labels != ignore_index if ignore_index is not None else True
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
    temperature: npt.ArrayLike = 1.0,
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
    temperature: npt.ArrayLike = 1.0,
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


# --- The divergence ----------------------------------------------------------------------------------------


def _exp_minus_line(x: Floats) -> Floats:
    """Return `exp(-x) - 1 + x`, which is never negative, with all its digits also where x is nearly 0."""
    near = np.where(np.abs(x) < 0.5, x, 0)
    series, term = np.zeros_like(near), -near
    for n in range(2, 20):  # 0.5^20 / 20! is 4e-25 of the first term
        term = term * -near / n
        series += term
    return np.where(np.abs(x) < 0.5, series, np.expm1(-x) + x)


def _difference(a: Floats, b: Floats, at: npt.NDArray[np.intp]) -> Floats:
    """Return `a - b`, counted from what it is at a place of the last axis.

    The difference is taken as its rounded value and what rounding left (O. Moller, 1965; D. Knuth, *The Art of
    Computer Programming*, volume 2, section 4.2.2), so that neither nearby arrays nor a common offset cost a digit.
    """
    high = a - b
    back = high - a
    low = np.where(np.isfinite(high), (a - (high - back)) - (b + back), 0)
    return np.asarray((high - np.take_along_axis(high, at, axis=-1)) + (low - np.take_along_axis(low, at, axis=-1)))


def _log_ratio(teacher: _Softmax, student: _Softmax, change: Floats) -> Floats:
    """Return `log t_k - log p_k` of two softmaxes, without what rounding leaves of the difference of two logarithms.

    `change` is how far the teacher's logits are from the student's, over the temperature, counted from any number. With
    that number `e` the result is `e_k - log(sum_j p_j exp(e_j))`. Counted from their mean, the sum is nearly one.
    """
    plain = student.minus_log_p - teacher.minus_log_p
    has_both = np.isfinite(change)
    p = np.where(has_both, student.p, 0)
    mean = (p * np.where(has_both, change, 0)).sum(axis=-1, keepdims=True) / p.sum(axis=-1, keepdims=True)
    e = np.where(has_both, change - mean, np.where(change == np.inf, np.inf, -np.inf))
    sum_left = np.where(student.p == 0, 0, student.p * np.expm1(e)).sum(axis=-1, keepdims=True)
    # Beyond that, a probability that is 0, or is rounded to it, counts; and no digit is lost without the above.
    is_near = np.max(e, axis=-1, keepdims=True) < 100
    return np.where(is_near & has_both & np.isfinite(mean), e - np.log1p(sum_left), plain)


@dataclass(frozen=True)
class _Divergences(_Weights):
    """The weighted divergence of each sample, and its gradient before it is weighted, class axis last."""

    losses: Floats
    gradient: Floats
    used: Bools  # False where a class is removed or the sample has no weight


def _divergences(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    axis: int,
    target_logits: bool,
    temperature: float,
    where: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
) -> _Divergences:
    dtype = _working_dtype(logits)
    z, allowed = _classes_last(logits, axis, dtype), _allowed(where, logits, axis)
    s = np.ones(z.shape[:-1]) if sample_weight is None else as_array(sample_weight, "sample_weight")
    s = s.astype(dtype)
    left_out = s[..., None] == 0
    counts = allowed | left_out
    given = as_array(target, "target")
    t = np.where(left_out | ~allowed, 0, _classes_last(given, axis, dtype))
    each_temperature = _temperature(temperature, dtype)
    z = np.where(left_out, 0, z)
    student = _softmax(z, counts, each_temperature)
    p = student.p
    if target_logits:
        teacher = _softmax(t, counts, each_temperature)
        top = np.argmax(p, axis=-1, keepdims=True)
        x = _log_ratio(teacher, student, _difference(t, z, top) / each_temperature)
        t = teacher.p
        gradient = np.where(np.abs(x) < 1, t * np.expm1(-x), p - t)
    else:
        _check_masses(np.moveaxis(t, -1, axis), "target")
        if given.dtype.kind in "biu" and np.any((t.sum(axis=-1) != 1) & (s != 0)):
            raise ValueError(
                f"target of dtype {given.dtype} must be 1 for one class of each sample and 0 for the others"
            )
        x = np.log(t) + student.minus_log_p
        gradient = p * _sum_of_others(t) - t * student.not_p
    # t (x - 1) + p, and p where there is no mass: no term is negative.
    terms = np.where(np.abs(x) < 1, t * _exp_minus_line(x), np.where(t == 0, p, t * (x - 1) + p))
    losses = np.where(counts.any(axis=-1), np.where(counts, terms, 0).sum(axis=-1), np.nan)
    return _Divergences(
        weight=s,
        total_weight=s.sum(),
        losses=_mass_times(s, losses),
        gradient=gradient / each_temperature,
        used=allowed & ~left_out,
    )


@np.errstate(all="ignore")
def kl_divergence(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    axis: int = -1,
    target_logits: bool = False,
    temperature: float = 1.0,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
) -> Loss:
    """Return how far `p = softmax(logits / temperature)` diverges from `t`: `sum_k t_k log(t_k / p_k) + 1 - sum_k t_k`.

    Where t sums to one it is Kullback and Leibler's. The last two terms are those of the divergence of masses that do
    not; they keep it from going negative where t is rounded. Term by term, with `x_k = log t_k - log p_k`, it is::

        sum_k t_k (exp(-x_k) - 1 + x_k)        p_k where t_k = 0, +inf where t_k > 0 and p_k = 0

    Parameters
    ----------
    logits : array_like, at least one axis
    target : array_like, shape of the logits
        The probabilities t; with `target_logits`, the teacher's logits, and `t = softmax(target / temperature)`.
    axis : int
        The class axis; every other axis is a sample axis.
    target_logits : bool
        What the target is.
    temperature : float
        Divides the logits, and the teacher's.
    where : array_like of bool, broadcast to the logits
        False takes a class out of its sample: nothing there is looked at, and the sums are over the others.
    sample_weight : array_like, shape of the sample axes
        Weights each sample. Nothing of a sample of weight 0 is looked at.
    reduction : {"none", "sum", "mean"}
    normalizer : float
        What the mean divides by. None: the sum of the sample weights.

    Returns
    -------
    float or ndarray
        In nats. "none": an array in the sample axes' shape. Otherwise a float. The mean of nothing is nan.

    Notes
    -----
    S. Kullback and R. A. Leibler, "On Information and Sufficiency" (Annals of Mathematical Statistics 22, 1951). With a
    teacher and a temperature it is the loss of G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural
    Network" (2015), section 2, without their factor of `temperature^2`.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> f"{reference.kl_divergence(np.log([1.0, 3.0]), [0.5, 0.5]):.6f}"
    '0.143841'
    """
    samples = _divergences(logits, target, axis, target_logits, temperature, where, sample_weight)
    return _reduce(samples, samples.losses, reduction, normalizer)


@np.errstate(all="ignore")
def kl_divergence_and_grad(
    logits: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    axis: int = -1,
    target_logits: bool = False,
    temperature: float = 1.0,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad_output: npt.ArrayLike | None = None,
) -> tuple[Loss, Floats]:
    """Return the divergence and its gradient with respect to the logits, `(p sum_k t_k - t) / temperature`.

    Parameters
    ----------
    logits, target, axis, target_logits, temperature, where, sample_weight, reduction, normalizer
        As for `kl_divergence`.
    grad_output : float or, with reduction="none", array_like in the sample axes' shape
        The upstream gradient, by which the gradient (not the loss) is multiplied; None stands for one.

    Returns
    -------
    loss : float or ndarray
        As from `kl_divergence`.
    grad : ndarray, shape of the logits
        Exactly zero for samples of weight 0, where `where` is False, and for the mean of nothing. Of two softmaxes
        `p_k - t_k` is `t_k (exp(-x_k) - 1)`, which keeps its digits where they are nearly the same.

    Examples
    --------
    >>> import numpy as np
    >>> from softxent import reference
    >>> reference.kl_divergence_and_grad(np.log([1.0, 3.0]), [0.5, 0.5])[1]
    array([-0.25,  0.25])
    """
    samples = _divergences(logits, target, axis, target_logits, temperature, where, sample_weight)
    scale = _scale(samples, reduction, normalizer, grad_output)
    grad = np.where(samples.used, scale * samples.gradient, 0)
    return _reduce(samples, samples.losses, reduction, normalizer), np.moveaxis(grad, -1, axis)
