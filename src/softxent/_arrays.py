"""From what the user gave to what the kernels take: dtypes, the class axis, `out`, and the folding of sample axes.

The kernels take native float32 or float64 in three axes: two of samples, one of classes. Sample axes that lie behind
each other in memory in every array are folded into one, without a copy; should more than two remain, the pieces of
the leading ones are taken in turn. Arrays in another dtype, byte order or alignment are converted in pieces of bounded
size, so that nothing of the logits' size is ever made. What is computed is in ``_loss.py`` and ``_softmax.py``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import byte_bounds

Array = npt.NDArray[Any]

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))

# Logits in a piece that is converted: it stays in the second-level cache.
PIECE_LOGITS = 1 << 16


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
    if array.dtype.kind in "bui" or array.dtype.newbyteorder("=") in FLOATS or is_bfloat16(array.dtype):
        return array
    raise TypeError(
        f"{name} must hold real numbers (float32, float64, float16, integers or bool); got dtype {array.dtype}"
    )


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """ml_dtypes' type, known by its name: that package is not needed here."""
    return dtype.name == "bfloat16"


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


def check_integer(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None


# ----------------------------------------------------------------------------------------------------------------------
# Folding and pieces.


def fold(n_sample_axes: int, *arrays: Array | None) -> list[Array | None]:
    """Views with the sample axes, which come first in every array, folded into as few as possible, but two at least.

    The first array decides their order, the largest stride first.
    """
    if n_sample_axes == 1:
        return [None if a is None else a[np.newaxis] for a in arrays]
    given = [a for a in arrays if a is not None]
    shape = given[0].shape[:n_sample_axes]
    axes = [axis for axis in range(n_sample_axes) if shape[axis] != 1]
    axes.sort(key=lambda axis: -abs(given[0].strides[axis]))
    groups: list[list[int]] = []
    for axis in axes:
        if groups and all(a.strides[groups[-1][-1]] == a.strides[axis] * shape[axis] for a in given):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    order = [axis for axis in range(n_sample_axes) if shape[axis] == 1] + [axis for group in groups for axis in group]
    sizes = [1] * max(0, 2 - len(groups)) + [math.prod(shape[axis] for axis in group) for group in groups]

    def folded(a: Array) -> Array:
        class_axis = range(n_sample_axes, a.ndim)
        return a.transpose(*order, *class_axis).reshape(*sizes, *a.shape[n_sample_axes:])  # always a view

    return [None if a is None else folded(a) for a in arrays]


def indices(shape: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """All indices into an array of the shape; np.ndindex takes long over none."""
    return np.ndindex(*shape) if shape else [()]


def pieces(logits: Array, whole: bool) -> Iterator[tuple[Any, ...]]:
    """Indices into folded arrays that leave two sample axes; of few samples each, unless ``whole``."""
    *leading, n_outer, n_inner, n_classes = logits.shape
    n_samples = max(1, PIECE_LOGITS // n_classes)
    outer_step = max(1, n_samples // n_inner)
    for index in indices(leading):
        if whole:
            yield index
            continue
        for outer in range(0, n_outer, outer_step):
            for inner in range(0, n_inner, n_samples):
                yield (*index, slice(outer, outer + outer_step), slice(inner, inner + n_samples))


def is_native(array: Array | None, dtype: np.dtype[Any]) -> bool:
    """Whether the kernels can take the array as it is."""
    if array is None:
        return True
    if array.dtype != dtype or not array.flags.aligned:
        return False
    # Aligned strides are whole elements, but where the processor wants less alignment than an element is long.
    return dtype.alignment == dtype.itemsize or all(stride % dtype.itemsize == 0 for stride in array.strides)


def input_piece(array: Array | None, index: tuple[Any, ...], dtype: np.dtype[Any]) -> Array | None:
    """A piece of an input in ``dtype``: a view where possible, else a copy."""
    if array is None:
        return None
    return array[index] if is_native(array, dtype) else converted(array[index], dtype)


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """A copy in ``dtype``; what is too large for it becomes infinite without a warning.

    In C order, whatever the size of the piece: a sample's bits depend on the stride of its classes.
    """
    with np.errstate(all="ignore"):
        return np.array(array, dtype=dtype, order="C")


class OutputPiece:
    """A piece of an output in the kernels' dtype, written back at the end where it had to be another array.

    ``with OutputPiece(...) as buffer`` gives None where there is no output. ``load`` if its old values count.
    """

    def __init__(self, array: Array | None, index: tuple[Any, ...], dtype: np.dtype[Any], load: bool = False) -> None:
        self.piece = None if array is None else array[index]
        self.buffer = self.piece
        if self.piece is not None and not is_native(array, dtype):
            self.buffer = converted(self.piece, dtype) if load else np.empty(self.piece.shape, dtype)

    def __enter__(self) -> Array | None:
        return self.buffer

    def __exit__(self, error: object, *_: object) -> None:
        if error is None and self.piece is not None and self.buffer is not self.piece:
            with np.errstate(all="ignore"):
                self.piece[...] = self.buffer
