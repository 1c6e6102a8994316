"""What the user gave, as arrays: dtypes, the class axis, and whether an `out` will do.

How the kernels are handed what is here is in ``_pieces.py``; what is computed, in ``_loss.py`` and ``_softmax.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import byte_bounds

Array = npt.NDArray[Any]

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def as_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as an array; NumPy's own error does not know the argument's name."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array, or lists of one length; got {type(value).__name__}: {error}"
        ) from None


def as_real_array(value: npt.ArrayLike, name: str) -> Array:
    """``value`` as an array of real numbers, or a TypeError that says what it was."""
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
    if dtype.kind == "f" or is_bfloat16(dtype):
        return dtype.newbyteorder("=")
    return np.dtype(np.float64)


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that the kernels compute in."""
    return np.dtype(np.float64 if result_dtype(dtype).itemsize == 8 else np.float32)


def as_logits(logits: npt.ArrayLike, axis: int) -> Array:
    """The logits as a real array with its class axis moved last."""
    z = as_real_array(logits, "logits")
    if z.ndim == 0:
        raise ValueError("logits must have at least one axis, the classes; got a single number")
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer; got {axis!r}") from None
    if not -z.ndim <= axis < z.ndim:
        raise np.exceptions.AxisError(axis, z.ndim)
    z = class_axis_last(z, axis)
    if z.shape[-1] == 0:
        raise ValueError("logits must have at least one class; their class axis is empty")
    return z


def class_axis_last(array: Array, axis: int) -> Array:
    """A view with the class axis moved last; np.moveaxis takes ten times as long to find that it is there."""
    return array if axis in (-1, array.ndim - 1) else np.moveaxis(array, axis, -1)


def check_out(out: Array, like: Array, name_of_like: str, inputs: Mapping[str, Array | None]) -> Array:
    """``out`` itself, if results of the shape and dtype of ``like`` can be written to it.

    It may be one of the ``inputs`` where that is the logits, entry by entry; it may not overlap them otherwise.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array; got {type(out).__name__}")
    if out.shape != like.shape:
        raise ValueError(f"out must have the shape of {name_of_like}, {like.shape}; got {out.shape}")
    if out.dtype.newbyteorder("=") != result_dtype(like.dtype):
        raise TypeError(f"out must have dtype {result_dtype(like.dtype)}; got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; give an array that can be written to")
    if spans_less_than_it_holds(out):
        raise ValueError(f"out has entries that share their memory (strides {out.strides}); give an array of its own")
    for name, array in inputs.items():
        if array is None or (name == "logits" and is_same_view(out, array)):
            continue
        if overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; give an array of its own, or the logits themselves")
    return out


def spans_less_than_it_holds(array: Array) -> bool:
    """Whether there are fewer bytes between its first and last entry than its entries need: some share theirs."""
    low, high = byte_bounds(array)
    return array.size > 0 and high - low < array.size * array.itemsize


def is_same_view(a: Array, b: Array) -> bool:
    """Whether both are the same entries of the same memory, in the same order."""
    same_place = a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
    return same_place and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


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
