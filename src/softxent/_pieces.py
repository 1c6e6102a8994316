"""From arrays of any type to calls of the kernels: arrays are converted, piece by piece, where they must be.

The kernels take native float32 or float64 (and float16 and bfloat16 beside float32) in any strides. Arrays in another
dtype, byte order or alignment are converted in pieces of bounded size: nothing of the logits' size is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels
from ._arrays import (
    HALVES,
    Array,
    as_logits,
    check_out,
    is_bfloat16,
    is_computed_in_float32,
    new_output,
    sample_shape,
)
from ._kernels import FIELDS, BadSample, Call, Field, Operation

# Logits in a piece that is converted: it stays in the second-level cache. Where so many are less than 16 samples, a
# piece may have more: the kernels take a vector's width of samples at once if the classes do not lie side by side.
PIECE_LOGITS, MOST_LOGITS, PIECE_SAMPLES = 1 << 16, 1 << 18, 16
# Samples in a piece if only weights are converted.
PIECE_WEIGHTS = 1 << 16


def call_of(logits: npt.ArrayLike, axis: int) -> Call:
    """A call that has its logits."""
    call = Call()
    if not call.take_logits(logits, axis):
        call.logits, call.class_axis = as_logits(logits, axis)
        call.f32 = is_computed_in_float32(call.logits.dtype)
    return call


def output(call: Call, given: Array | None, *, with_classes: bool = True, may_be_logits: bool = False) -> Array:
    """The user's array for results, if they can be written to it; or a new array."""
    z = call.logits
    if given is None:
        new = call.new_output(with_classes)
        return new_output(z, call.class_axis, with_classes) if new is None else new
    if call.can_write(given, with_classes, may_be_logits):
        return given
    inputs = [*call.originals.items(), *((f.name, a) for f, a in zip(FIELDS, call.arrays(), strict=True))]
    shape, name = (z.shape, "the logits") if with_classes else (sample_shape(z, call.class_axis), "the samples")
    return check_out(given, shape, z.dtype, name, inputs, may_be=z if may_be_logits else None)


def compute(call: Call, operation: Operation, n_threads: int) -> None:
    """Do the operation for arrays of any type. After a ``BadSample`` the outputs hold some of the results."""
    if not call.run(operation, n_threads) and call.logits.size:
        in_pieces(call, call.arrays(), lambda arrays: call.run(operation, n_threads, arrays))


def total_weight(call: Call) -> float:
    """``Call.total_weight`` for weights of any type."""
    total = call.total_weight()
    if total is None:
        arrays = [a if a is call.labels or a is call.sample_weight else None for a in call.arrays()]
        total = sum(in_pieces(call, arrays, call.total_weight))
    return total


def in_pieces(call: Call, arrays: list[Array | None], do: Callable[[list[Array | None]], Any]) -> list[Any]:
    """Call ``do`` for one piece of the samples after the other, with these arrays in types that the kernels can read.

    The first array decides the order of the samples. What a piece has written is copied into the outputs when the piece
    is done. Returns the results of ``do``.
    """
    first = next(a for a in arrays if a is not None)
    class_axis = call.class_axis if first is call.logits else first.ndim
    axes = sample_axes(first, class_axis)
    views = [a if a is None else in_order(f, a, axes, class_axis) for f, a in zip(FIELDS, arrays, strict=True)]
    new_types = types_to_convert_to(call, views)
    results = []
    for index in pieces(tuple(first.shape[axis] for axis in axes), piece_samples(call, new_types)):
        operands, written = [], []
        for field, view, new_type in zip(FIELDS, views, new_types, strict=True):
            operand = None if view is None else view[index]
            if operand is not None and new_type is not None:
                place, is_new = operand, field.is_output and not call.accumulate
                operand = np.empty(place.shape, new_type) if is_new else converted(place, new_type)
                if field.is_output:
                    written.append((place, operand))
            operands.append(operand)
        try:
            results.append(do(operands))
        except BadSample as bad:
            number = [i + part.start for i, part in zip(bad.args[0], index[:-1], strict=True)]
            raise BadSample(tuple(i for _, i in sorted(zip(axes, number, strict=True)))) from None
        with np.errstate(all="ignore"):
            for place, operand in written:
                place[...] = operand
    return results


def sample_axes(first: Array, class_axis: int) -> list[int]:
    """The sample axes, in the order in which the kernels go through them.

    The losses are summed in that order: it decides the sum's last bit.
    """
    order = _kernels.sample_axes(first, class_axis)
    return [axis for axis in range(first.ndim) if axis != class_axis and axis not in order] + order


def in_order(field: Field, array: Array, axes: list[int], class_axis: int) -> Array:
    """A view of the array with its sample axes in this order, the classes after them."""
    if field.has_classes:
        order = [*axes, class_axis, *range(len(axes) + 1, array.ndim)]
    else:
        order = [*(axis - (axis > class_axis) for axis in axes), *range(len(axes), array.ndim)]
    return np.asarray(array).transpose(order)  # a subclass may have its own idea of axes


def types_to_convert_to(call: Call, arrays: list[Array | None]) -> list[np.dtype[Any] | None]:
    """For each array that the kernels cannot read as it is, a dtype that they can read; else None.

    Half precision is kept wherever the kernels can read it: a result may differ in its last bit between their versions
    for half precision and for float32. The Hessian's diagonal must have the gradient's type.
    """
    working = np.dtype(np.float32 if call.f32 else np.float64)

    def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
        native = dtype.newbyteorder("=")
        return native if call.f32 and (native in HALVES or is_bfloat16(dtype)) else working

    mixed = call.hess is not None and kernel_dtype(call.hess.dtype) != kernel_dtype(call.out.dtype)
    new_types: list[np.dtype[Any] | None] = []
    for field, array in zip(FIELDS, arrays, strict=True):
        new_type = None
        if array is not None and field.is_real:
            stays_half = field.may_be_half and not (mixed and field.is_output and field.has_classes)
            wanted = kernel_dtype(array.dtype) if stays_half else working
            new_type = None if array.dtype == wanted and _kernels.is_behaved(array) else wanted
        new_types.append(new_type)
    return new_types


def piece_samples(call: Call, new_types: list[np.dtype[Any] | None]) -> int:
    """How many samples a piece may have."""
    if not any(new_type and field.may_be_half for field, new_type in zip(FIELDS, new_types, strict=True)):
        return PIECE_WEIGHTS
    n_classes: int = call.logits.shape[call.class_axis]
    return max(1, PIECE_LOGITS // n_classes, min(PIECE_SAMPLES, MOST_LOGITS // n_classes))


def pieces(shape: tuple[int, ...], n_samples: int) -> Iterator[Any]:
    """Indices that cut samples of this shape into pieces, in order, each of at most ``n_samples`` samples."""
    if not shape:
        yield (...,)  # this index makes a view of a single entry too
        return
    step = max(1, n_samples // max(1, math.prod(shape[1:])))
    for begin in range(0, shape[0], step):
        for inner in pieces(shape[1:], n_samples):
            yield slice(begin, begin + step), *inner


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """A copy in ``dtype``, in C order. Numbers that are too large for it become infinite, without a warning.

    The order is the same for pieces of any size: a sample's bits depend on the stride of its classes.
    """
    with np.errstate(all="ignore"):
        return np.array(array, dtype=dtype, order="C")
