"""The options of a loss: what the user gave, checked, in the form that the kernels take. What they mean is told by the
docstring of ``cross_entropy``; how they are computed, by the C library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array, as_number, as_real_array, class_axis_last

# What the kernels' arithmetic bears: a logit over the temperature, or over the softcap, is still an ordinary number.
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**100


@dataclass(frozen=True)
class Options:
    """Checked options; None or 0 where there is none."""

    class_weight: Array | None  # (C,), contiguous, in the dtype that is computed in
    given_class_weight: Array | None  # the user's own
    sample_weight: Array | None  # of the sample axes' shape
    where: Array | None  # bool, of the logits' shape, class axis last
    normalizer: float | None
    # label_smoothing, temperature, softcap, z_loss, ln(base)
    numbers: tuple[float, float, float, float, float] | None

    def arrays(self) -> dict[str, Array | None]:
        """Those with a value for each sample."""
        return {"where": self.where, "sample_weight": self.sample_weight}

    def inputs(self) -> dict[str, Array | None]:
        """The user's arrays, which no output may overlap."""
        return {**self.arrays(), "class_weight": self.given_class_weight}


def check_options(
    logits: Array,
    axis: int,
    dtype: np.dtype[Any],
    *,
    class_weight: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    where: npt.ArrayLike | None,
    label_smoothing: float,
    temperature: float,
    base: float | None,
    normalizer: float | None,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Options:
    """The options for logits with the class axis last that will be computed in ``dtype``, or an error."""
    weights = check_class_weight(class_weight, logits.shape[-1], dtype)
    numbers = (
        check_label_smoothing(label_smoothing),
        check_scale(temperature, "temperature"),
        0.0 if softcap is None else check_scale(softcap, "softcap"),
        check_z_loss(z_loss),
        check_base(base),
    )
    return Options(
        class_weight=None if weights is None else np.ascontiguousarray(weights, dtype),
        given_class_weight=weights,
        sample_weight=check_sample_weight(sample_weight, logits.shape[:-1], dtype),
        where=check_where(where, logits, axis),
        normalizer=None if normalizer is None else as_number(normalizer, "normalizer"),
        numbers=None if numbers == (0.0, 1.0, 0.0, 0.0, 0.0) else numbers,
    )


def check_label_smoothing(value: float) -> float:
    e = as_number(value, "label_smoothing")
    if not 0 <= e <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1]; got {e}")
    return e


def check_scale(value: float, name: str) -> float:
    scale = as_number(value, name)
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise ValueError(f"{name} must be positive (and between 2**-100 and 2**100); got {scale}")
    return scale


def check_z_loss(value: float) -> float:
    a = as_number(value, "z_loss")
    if not 0 <= a < math.inf:
        raise ValueError(f"z_loss must be at least 0 and finite; got {a}")
    return a


def check_base(value: float | None) -> float:
    """The natural logarithm of the base; 0 for None."""
    if value is None:
        return 0.0
    b = as_number(value, "base")
    if not 0 < b < math.inf or b == 1:
        raise ValueError(f"base must be positive, finite and not 1 (2 for bits, None for nats); got {b}")
    return math.log(b)


def check_class_weight(value: npt.ArrayLike | None, n_classes: int, dtype: np.dtype[Any]) -> Array | None:
    if value is None:
        return None
    given = as_real_array(value, "class_weight")
    if given.shape != (n_classes,):
        raise ValueError(f"class_weight must have one weight for each class, shape ({n_classes},); got {given.shape}")
    check_weights(given, "class_weight", dtype)
    return given


def check_sample_weight(value: npt.ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    if value is None:
        return None
    given = as_real_array(value, "sample_weight")
    if given.shape != shape:
        raise ValueError(f"sample_weight must have the samples' shape {shape}; got {given.shape}")
    check_weights(given, "sample_weight", dtype)
    return given


def check_weights(weights: Array, name: str, dtype: np.dtype[Any]) -> None:
    """None is negative, nan, or too large for the dtype that is computed in."""
    most = np.finfo(dtype).max
    with np.errstate(all="ignore"):
        if not weights.size or (weights.min() >= 0 and weights.max() <= most):  # not so if one is nan
            return
        bad = ~((weights >= 0) & (weights <= most))
    place = np.unravel_index(int(np.argmax(bad)), weights.shape)
    entry = f"{name}[{', '.join(str(int(i)) for i in place)}]" if place else name
    raise ValueError(f"{name} must be non-negative and finite; {entry} is {weights[place]}")


def check_where(value: npt.ArrayLike | None, logits: Array, axis: int) -> Array | None:
    """``where`` in the shape of the logits, the class axis last; not a copy."""
    if value is None:
        return None
    given = as_array(value, "where")
    if given.dtype != np.bool_:
        raise TypeError(f"where must hold bools, True for the classes that take part; got dtype {given.dtype}")
    shape = np.moveaxis(logits, -1, axis).shape
    try:
        return class_axis_last(np.broadcast_to(given, shape), axis)
    except ValueError:
        raise ValueError(f"where must broadcast to the logits' shape {shape}; got {given.shape}") from None
