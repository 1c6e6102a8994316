"""The options of a loss: checks of what the user gave. What they mean is in the docstring of ``cross_entropy``; how
they are computed, in the C library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import Array, as_array, as_number, as_real_array, name_of_entry, sample_shape, without_axis

# The range of temperature and softcap: a logit divided by one of them is still a normal number.
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**100

# The largest weight that is allowed, for computation in float32 (True) and in float64 (False).
LARGEST_WEIGHT = {is_f32: float(np.finfo(np.float32 if is_f32 else np.float64).max) for is_f32 in (False, True)}

# The smallest normal number. One divided by less may be infinite.
LEAST_NORMALIZER = float(np.finfo(np.float64).tiny)


class Options(NamedTuple):
    """The options as the user gives them. In a plain call all of them are at their defaults."""

    class_weight: npt.ArrayLike | None = None
    sample_weight: npt.ArrayLike | None = None
    where: npt.ArrayLike | None = None
    label_smoothing: float = 0.0
    temperature: npt.ArrayLike = 1.0
    softcap: float | None = None
    z_loss: float = 0.0
    base: float | None = None


DEFAULTS = tuple(Options())


def set_options(call: _kernels.Call, options: tuple[Any, ...]) -> None:
    """Check the options, which are in the order of ``Options``, and set those that are given in the call.

    The call must have its logits.
    """
    for i in _kernels.not_defaults(options, DEFAULTS):
        SETTERS[i](call, options[i])


def set_class_weight(call: _kernels.Call, value: npt.ArrayLike) -> None:
    if call.take_class_weight(value):
        return
    n_classes = call.logits.shape[call.class_axis]
    if isinstance(value, str) and value == "balanced":
        raise TypeError(
            "class_weight must hold real numbers; got 'balanced': give len(labels) / (C * numpy.bincount(labels, "
            f"minlength=C)) with C = {n_classes}"
        )
    if isinstance(value, Mapping):
        raise TypeError(
            f"class_weight must be an array with one weight for each class; got {type(value).__name__}: give "
            f"[class_weight.get(k, 1.0) for k in range({n_classes})]"
        )
    given = as_real_array(value, "class_weight")
    if given.shape != (n_classes,):
        hint = "; None stands for no weights" if given.size == 0 else ""
        raise ValueError(
            f"class_weight must have one weight for each class, shape ({n_classes},); got {given.shape}{hint}"
        )
    check_weights(given, "class_weight", call.f32)
    call.originals["class_weight"] = given
    # The kernels want them contiguous, aligned, and in the type that is computed in.
    call.class_weight = np.require(given, np.float32 if call.f32 else np.float64, ["C", "A", "W"])


def set_sample_weight(call: _kernels.Call, value: npt.ArrayLike) -> None:
    if call.take_sample_weight(value):
        return
    shape = sample_shape(call.logits, call.class_axis)
    given = as_real_array(value, "sample_weight")
    if given.shape != shape:
        hint = "; None stands for no weights" if given.size == 0 else without_axis("sample_weight", given.shape, shape)
        raise ValueError(f"sample_weight must have the samples' shape {shape}; got {given.shape}{hint}")
    check_weights(given, "sample_weight", call.f32)
    call.sample_weight = given


def set_where(call: _kernels.Call, value: npt.ArrayLike) -> None:
    call.where = check_where(value, call.logits)


def set_label_smoothing(call: _kernels.Call, value: float) -> None:
    e = call.label_smoothing = as_number(value, "label_smoothing")
    if not 0 <= e <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1]; got {e}")


def set_temperature(call: _kernels.Call, value: float | npt.ArrayLike) -> None:
    if isinstance(value, float):
        call.temperature = check_scale(value, "temperature")
        return
    array, shape = as_array(value, "temperature"), sample_shape(call.logits, call.class_axis)
    if array.ndim == 0:
        call.temperature = check_scale(value, "temperature")  # type: ignore[arg-type]  # one number, or an error
        return
    given = as_real_array(array, "temperature")
    if given.shape != shape:
        raise ValueError(f"temperature must be a number, or have the samples' shape {shape}; got {given.shape}")
    with np.errstate(all="ignore"):
        temperatures = np.require(given, np.float64, ["A"])
        bad = ~((temperatures >= SMALLEST_SCALE) & (temperatures <= LARGEST_SCALE))
    if bad.any():
        place = np.unravel_index(int(np.argmax(bad)), shape)
        raise ValueError(
            "temperature must be positive (and between 2**-100 and 2**100); "
            f"{name_of_entry(place, 'temperature')} is {float(given[place])}"
        )
    call.temperatures = temperatures
    call.originals["temperature"] = given


def set_softcap(call: _kernels.Call, value: float) -> None:
    call.softcap = check_scale(value, "softcap")


def set_z_loss(call: _kernels.Call, value: float) -> None:
    a = call.z_loss = as_number(value, "z_loss")
    if not 0 <= a < math.inf:
        raise ValueError(f"z_loss must be at least 0 and finite; got {a}")


def set_base(call: _kernels.Call, value: float) -> None:
    b = as_number(value, "base")
    if not 0 < b < math.inf or b == 1:
        raise ValueError(f"base must be positive, finite and not 1 (2 for bits, None for nats); got {b}")
    call.log_base = math.log(b)


# In the order of Options.
SETTERS = tuple(globals()[f"set_{name}"] for name in Options._fields)


def check_scale(value: float, name: str) -> float:
    scale = value if type(value) is float else as_number(value, name)
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise ValueError(f"{name} must be positive (and between 2**-100 and 2**100); got {scale}")
    return scale


def check_normalizer(value: float) -> float:
    """A normalizer as a float. 0 is allowed, for the mean of no samples."""
    n = as_number(value, "normalizer")
    if not (n == 0 or LEAST_NORMALIZER <= n < math.inf):
        raise ValueError(f"normalizer must be positive and finite, at least 2**-1022 (or 0 if nothing counts); got {n}")
    return n


def check_weights(weights: Array, name: str, f32: bool) -> None:
    """Raise an error if a weight is negative, nan, or too large for the dtype that is computed in."""
    most = LARGEST_WEIGHT[f32]
    with np.errstate(all="ignore"):
        if not weights.size or (weights.min() >= 0 and weights.max() <= most):  # not so if one is nan
            return
        bad = ~((weights >= 0) & (weights <= most))
    place = np.unravel_index(int(np.argmax(bad)), weights.shape)
    raise ValueError(f"{name} must be non-negative and finite; {name_of_entry(place, name)} is {weights[place]}")


def check_where(value: npt.ArrayLike, logits: Array) -> Array:
    """``where`` in the shape of the logits; not a copy."""
    given = as_array(value, "where")
    if given.dtype != np.bool_:
        raise TypeError(f"where must hold bools, True for the classes that take part; got dtype {given.dtype}")
    if given.shape == logits.shape:
        return given
    try:
        return np.broadcast_to(given, logits.shape)
    except ValueError:
        raise ValueError(f"where must broadcast to the logits' shape {logits.shape}; got {given.shape}") from None


def set_grad_output(call: _kernels.Call, value: float | npt.ArrayLike) -> None:
    """The upstream gradient of a call: a number, or one for each sample."""
    if isinstance(value, float):
        call.grad_scale = value
        return
    upstream, shape = as_real_array(value, "grad_output"), sample_shape(call.logits, call.class_axis)
    if upstream.ndim == 0:
        call.grad_scale = float(upstream)
        return
    if upstream.shape != shape:
        raise ValueError(f"grad_output must have the samples' shape {shape}; got {upstream.shape}")
    call.grad_output = upstream


# ----------------------------------------------------------------------------------------------------------------------
# Names that PyTorch, TensorFlow, Keras, JAX, scikit-learn and SciPy have for our parameters.

OUR_WORDS = {
    "logits": "a input inputs logit predictions preds scores x y_pred",
    "labels": "label target targets y y_true",
    "target": "labels q soft_targets targets teacher teacher_logits y_true",
    "axis": "dim class_axis",
    "class_weight": "class_weights pos_weight weight weights",
    "sample_weight": "sample_weights weight weights",
    "where": "logits_mask mask",
    "ignore_index": "ignore_class ignore_label ignore_value padding_idx",
    "label_smoothing": "epsilon label_smooth smoothing",
    "temperature": "T tau",
    "softcap": "cap final_logit_softcapping logit_softcap soft_cap",
    "z_loss": "lse_square_scale z_loss_coefficient z_loss_weight",
    "reduction": "average normalize reduce size_average",
    "normalizer": "avg_factor denominator num_items_in_batch",
    "grad_output": "dy grad_out upstream",
    "n_threads": "n_jobs nthread num_threads threads workers",
    "v": "tangent tangents u vector",
    "g": "cotangent grad_output v",
}
NO_WORD = {
    "from_logits": "logits are what it takes; for probabilities p give numpy.log(p)",
    "dtype": "the result has the logits' dtype; convert these",
    "log_target": "for log-probabilities give target_logits=True: these are logits too",
    "b": "for weights of the classes add numpy.log(b) to the logits",
}


def unknown_keyword(function: Callable[..., Any], unknown: Mapping[str, object]) -> TypeError:
    """The error for a keyword that the function does not have; it names the one that may be meant."""
    import difflib

    name = next(iter(unknown))
    code = function.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    words = [word for word in known if name in OUR_WORDS.get(word, "").split()]
    words = words or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"; here it is {' or '.join(f'{word}=' for word in words)}" if words else ""
    if name in NO_WORD:
        hint = f"; {NO_WORD[name]}"
    return TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{hint}")
