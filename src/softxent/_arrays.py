"""What the user gave, as arrays: dtypes, the class axis, and whether an `out` will do.

How the kernels are handed what is here is in ``_pieces.py``; what is computed, in ``_loss.py`` and ``_softmax.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels

Array = npt.NDArray[Any]

# In native byte order.
FLOATS = frozenset(np.dtype(t) for t in (np.float16, np.float32, np.float64))
HALVES = frozenset([np.dtype(np.float16)])  # and ml_dtypes' type


def as_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as an array; NumPy's own error does not know the argument's name."""
    if type(value) is np.ndarray:
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array, or lists of one length; got {type(value).__name__}: {error}"
        ) from None


def as_real_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as an array of real numbers, or a TypeError that says what it was."""
    if type(value) is np.ndarray and value.dtype in FLOATS:
        return value
    array = as_array(value, name)
    if is_real(array.dtype):
        return array
    raise TypeError(
        f"{name} must hold real numbers (float32, float64, float16, integers or bool); got dtype {array.dtype}"
    )


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether it is of real numbers that are taken here."""
    return dtype.kind in "bui" or dtype.newbyteorder("=") in FLOATS or is_bfloat16(dtype)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """ml_dtypes' type, known by its name: that package is not needed here. NumPy takes long to tell names."""
    return dtype.itemsize == 2 and dtype.name == "bfloat16"


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of losses and gradients: the logits' own if it is a float's, else float64."""
    if dtype in FLOATS:
        return dtype
    if dtype.kind == "f" or is_bfloat16(dtype):
        return dtype.newbyteorder("=")
    return np.dtype(np.float64)


def is_computed_in_float32(dtype: np.dtype[Any]) -> bool:
    """Whether the kernels compute with logits of this dtype in float32; else it is float64."""
    return result_dtype(dtype).itemsize < 8


def as_logits(logits: npt.ArrayLike, axis: int) -> tuple[Array, int]:
    """The logits as a real array, and its class axis, counted from the first."""
    z = as_real_array(logits, "logits")
    n_axes = z.ndim
    if n_axes == 0:
        raise ValueError("logits must have at least one axis, the classes; got a single number")
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer; got {axis!r}") from None
    if not -n_axes <= axis < n_axes:
        raise np.exceptions.AxisError(axis, n_axes)
    axis %= n_axes
    if z.shape[axis] == 0:
        raise ValueError("logits must have at least one class; their class axis is empty")
    return z, axis


def sample_shape(logits: Array, class_axis: int) -> tuple[int, ...]:
    """The shape without the class axis."""
    shape = logits.shape
    return shape[:class_axis] + shape[class_axis + 1 :]


def new_output(logits: Array, class_axis: int, with_classes: bool) -> Array:
    """An array for results of the logits' shape, in the same order in memory; or of the samples'."""
    dtype = result_dtype(logits.dtype)
    if with_classes:
        return np.empty_like(logits, dtype=dtype, subok=False)
    return np.empty(sample_shape(logits, class_axis), dtype)


def check_out(
    out: Array,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name_of_shape: str,
    inputs: Iterable[tuple[str, Array | None]],
    may_be: Array | None = None,
) -> Array:
    """``out`` itself, if results of this shape for logits of this dtype can be written to it.

    It may not overlap the inputs, but that it may be the array ``may_be``, entry by entry.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array; got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of {name_of_shape}, {shape}; got {out.shape}")
    if out.dtype != dtype or dtype not in FLOATS:
        check_out_dtype(out.dtype, result_dtype(dtype))
    if not out.flags.writeable:
        raise ValueError("out is read-only; give an array that can be written to")
    if _kernels.extent(out) < out.nbytes:
        raise ValueError(f"out has entries that share their memory (strides {out.strides}); give an array of its own")
    for name, array in inputs:
        if array is None or _kernels.are_apart(out, array) or (array is may_be and _kernels.is_same_view(out, array)):
            continue
        if overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; give an array of its own, or the logits themselves")
    return out


def check_out_dtype(dtype: np.dtype[Any], result: np.dtype[Any]) -> None:
    """The results' own, in any byte order; or float32 for those that would be halves: it is what they are formed in."""
    native = dtype.newbyteorder("=")
    if native == result or (native == np.float32 and result.itemsize == 2):
        return
    raise TypeError(f"out must have dtype {result}{' or float32' if result.itemsize == 2 else ''}; got {dtype}")


def overlap(a: Array, b: Array) -> bool:
    """Whether they share memory; where that is too hard to tell, yes."""
    try:
        return bool(np.shares_memory(a, b, max_work=100_000))  # type: ignore[arg-type]  # the stub is too narrow
    except np.exceptions.TooHardError:
        return True


def as_number(value: float, name: str) -> float:
    """``value`` as a float, if it is one real number."""
    if type(value) is float:
        return value
    array = as_array(value, name)
    if array.ndim:
        raise TypeError(f"{name} must be a number; got an array of shape {array.shape}")
    if not is_real(array.dtype):
        raise TypeError(f"{name} must be a number; got {value!r}")
    return float(array)


def check_integer(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None
