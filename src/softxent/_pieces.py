"""From arrays of any type to calls of the kernels: converted piece by piece where they must be.

The kernels take native float32 or float64 (and float16 and bfloat16 beside float32) in any strides. Arrays in another
dtype, byte order or alignment are converted in pieces of bounded size: nothing of the logits' size is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from ._kernels import Call

# Logits in a piece that is converted: it stays in the second-level cache. Where so many are of few samples there may be
# more, up to a vector's width of samples: the kernels take as many at once if the classes do not lie side by side.
PIECE_LOGITS, MOST_LOGITS, PIECE_SAMPLES = 1 << 16, 1 << 18, 16
# Samples in a piece of which nothing but the weights is converted.
PIECE_WEIGHTS = 1 << 16

# The arrays of a Call that have an entry, or a row of them, for each sample. Weights come in the dtype that is computed
# in, the other reals in half precision too.
WEIGHTS = ("sample_weight", "grad_output")
REALS = ("logits", "target", "direction", *WEIGHTS, "loss", "out", "hess")
OUTPUTS = ("loss", "out", "hess", "rank", "top")
WITH_CLASSES = ("logits", "target", "where", "direction", "out", "hess")
ARRAYS = ("logits", "labels", "target", "where", "direction", *WEIGHTS, *OUTPUTS)


def call_of(logits: npt.ArrayLike, axis: int) -> Call:
    """A call that has its logits."""
    call = Call()
    if not call.take_logits(logits, axis):
        call.logits, call.class_axis = as_logits(logits, axis)
        call.f32 = is_computed_in_float32(call.logits.dtype)
    return call


def output(call: Call, given: Array | None, *, with_classes: bool = True, may_be_logits: bool = False) -> Array:
    """What the user gave for results, if these can go there; or a new array."""
    z = call.logits
    if given is None:
        new = call.new_output(with_classes)
        return new_output(z, call.class_axis, with_classes) if new is None else new
    if call.can_write(given, with_classes, may_be_logits):
        return given
    inputs = (
        ("logits", z),
        ("labels", call.target if call.labels is None else call.labels),
        ("grad_output", call.grad_output),
        ("v", call.direction),
        ("where", call.where),
        ("sample_weight", call.sample_weight),
        ("class_weight", call.given_class_weight),
        ("the gradient's", call.out),
    )
    shape, name = (z.shape, "the logits") if with_classes else (sample_shape(z, call.class_axis), "the samples")
    return check_out(given, shape, z.dtype, name, inputs, may_be=z if may_be_logits else None)


def compute(call: Call, op: str, n_threads: int) -> bool:
    """What ``op`` names, for arrays of any type. Returns whether every label was a class; if not, the outputs hold some
    of the results."""
    good = call.run(op, n_threads)
    if good is not None:
        return good
    return not call.logits.size or all(call.run(op, n_threads) for _ in in_pieces(call, ARRAYS))


def total_weight(call: Call) -> float:
    """The labels' class weights times the samples' weights, summed over those not ignored; -1 if one is no class."""
    total = call.total_weight()
    if total is not None:
        return total
    total = 0.0
    for _ in in_pieces(call, ("labels", "sample_weight")):
        part = call.total_weight()
        assert part is not None
        if part < 0:
            return -1.0
        total += part
    return total


def in_pieces(call: Call, names: Sequence[str]) -> Iterator[None]:
    """Makes these arrays of the call those of one piece of the samples after the other, and at last what they were.

    What a piece has written is put into its place when the next one is asked for.
    """
    given = {name: a for name in names if (a := getattr(call, name)) is not None}
    arrays = in_order(given, call.class_axis)
    new_types = types_to_convert_to(arrays, call.f32)
    class_axis, n_all = call.class_axis, call.n_all
    sample_shape, n_samples = next(iter(arrays.values())).shape, PIECE_WEIGHTS
    if "logits" in arrays:
        n_samples, sample_shape = piece_samples(sample_shape[-1], new_types), sample_shape[:-1]
        call.class_axis, call.n_all = len(sample_shape), math.prod(sample_shape)
    try:
        for index in pieces(sample_shape, n_samples):
            written = []
            for name, array in arrays.items():
                piece = array[index]
                if name in new_types:
                    is_new = name in OUTPUTS and not call.accumulate
                    copy = np.empty(piece.shape, new_types[name]) if is_new else converted(piece, new_types[name])
                    written += [(piece, copy)] if name in OUTPUTS else []
                    piece = copy
                setattr(call, name, piece)
            yield
            with np.errstate(all="ignore"):
                for piece, copy in written:
                    piece[...] = copy
    finally:
        call.class_axis, call.n_all = class_axis, n_all
        for name, array in given.items():
            setattr(call, name, array)


def in_order(arrays: dict[str, Array], class_axis: int) -> dict[str, Array]:
    """Views, their sample axes in the order in which the kernels go through those of the first, the classes after them.

    The losses are summed in that order: it decides the sum's last bit.
    """
    first = next(iter(arrays.values()))
    if "logits" not in arrays:
        class_axis = first.ndim
    order = _kernels.sample_axes(first, class_axis)
    order = [axis for axis in range(first.ndim) if axis != class_axis and axis not in order] + order
    views = {}
    for name, array in arrays.items():
        if name in WITH_CLASSES:
            axes = [*order, class_axis, *range(first.ndim, array.ndim)]
        else:
            axes = [axis - (axis > class_axis) for axis in order]
        views[name] = np.asarray(array).transpose(axes)  # of plain arrays: a subclass may have its own idea of axes
    return views


def types_to_convert_to(arrays: dict[str, Array], f32: bool) -> dict[str, np.dtype[Any]]:
    """For each array that the kernels cannot take as it is, the dtype in which they can."""
    working = np.dtype(np.float32 if f32 else np.float64)
    types = {name: kernel_dtype(name, a.dtype, working) for name, a in arrays.items() if name in REALS}
    if "hess" in types and types["hess"] != types["out"]:  # the kernels take it in the gradient's type
        types["hess"] = types["out"] = working
    return {name: t for name, t in types.items() if arrays[name].dtype != t or not _kernels.is_behaved(arrays[name])}


def kernel_dtype(name: str, dtype: np.dtype[Any], working: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which the kernels take an array of ``dtype``: a half type stays what it is wherever it may, as the
    results of the kernels for halves differ from others in the last bit."""
    native = dtype.newbyteorder("=")
    is_half = native in HALVES or is_bfloat16(dtype)
    return native if is_half and working == np.float32 and name not in WEIGHTS else working


def piece_samples(n_classes: int, new_types: dict[str, np.dtype[Any]]) -> int:
    """How many samples a piece may have."""
    if all(name in WEIGHTS for name in new_types):
        return PIECE_WEIGHTS
    return max(1, PIECE_LOGITS // n_classes, min(PIECE_SAMPLES, MOST_LOGITS // n_classes))


def pieces(shape: tuple[int, ...], n_samples: int) -> Iterator[Any]:
    """Indices of samples, in order, that together are all of this shape; so many in a piece at most."""
    if not shape:
        yield (...,)  # it makes a view of one entry too
        return
    step = max(1, n_samples // max(1, math.prod(shape[1:])))
    for begin in range(0, shape[0], step):
        for inner in pieces(shape[1:], n_samples):
            yield slice(begin, begin + step), *inner


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """A copy in ``dtype``; what is too large for it becomes infinite without a warning.

    In C order, whatever the size of the piece: a sample's bits depend on the stride of its classes.
    """
    with np.errstate(all="ignore"):
        return np.array(array, dtype=dtype, order="C")
