"""From arrays of any type to calls of the kernels: converted piece by piece where they must be.

The kernels take native float32 or float64 (and float16 and bfloat16 beside float32) in any strides. Arrays in another
dtype, byte order or alignment are converted in pieces of bounded size: nothing of the logits' size is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
from ._kernels import BadSample, Call

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


def compute(call: Call, op: str, n_threads: int) -> None:
    """What ``op`` names, for arrays of any type. After a ``BadSample`` the outputs hold some of the results."""
    if not call.run(op, n_threads) and call.logits.size:
        in_pieces(call, ARRAYS, lambda: call.run(op, n_threads))


def total_weight(call: Call) -> float:
    """The labels' class weights times the samples' weights, summed over those not ignored, for weights of any type."""
    total = call.total_weight()
    return sum(in_pieces(call, ("labels", "sample_weight"), call.total_weight)) if total is None else total


def in_pieces(call: Call, names: Sequence[str], do: Callable[[], Any]) -> list[Any]:
    """Does it for one piece of the samples after the other, while these arrays of the call are those of the piece.

    What a piece has written is put into its place when it is done. Returns what ``do`` returns.
    """
    given = {name: a for name in names if (a := getattr(call, name)) is not None}
    axes = sample_axes(given, call.class_axis)
    arrays = in_order(given, axes, call.class_axis)
    new_types = types_to_convert_to(arrays, call.f32)
    class_axis, n_all = call.class_axis, call.n_all
    shape, n_samples = tuple(first_of(given).shape[axis] for axis in axes), PIECE_WEIGHTS
    if "logits" in arrays:
        n_samples = piece_samples(call.logits.shape[class_axis], new_types)
        call.class_axis, call.n_all = len(shape), math.prod(shape)
    results = []
    try:
        for index in pieces(shape, n_samples):
            written = []
            for name, array in arrays.items():
                piece = array[index]
                if name in new_types:
                    is_new = name in OUTPUTS and not call.accumulate
                    copy = np.empty(piece.shape, new_types[name]) if is_new else converted(piece, new_types[name])
                    written += [(piece, copy)] if name in OUTPUTS else []
                    piece = copy
                setattr(call, name, piece)
            try:
                results.append(do())
            except BadSample as bad:
                place = [i + part.start for i, part in zip(bad.args[0], index[:-1], strict=True)]
                raise BadSample(tuple(i for _, i in sorted(zip(axes, place, strict=True)))) from None
            with np.errstate(all="ignore"):
                for piece, copy in written:
                    piece[...] = copy
    finally:
        call.class_axis, call.n_all = class_axis, n_all
        for name, array in given.items():
            setattr(call, name, array)
    return results


def first_of(arrays: dict[str, Array]) -> Array:
    """The array whose layout decides the order of the samples."""
    return next(arrays[name] for name in ("logits", "labels", "sample_weight") if name in arrays)


def sample_axes(arrays: dict[str, Array], class_axis: int) -> list[int]:
    """The axes of samples of the first of these arrays, in the order in which the kernels go through them.

    The losses are summed in that order: it decides the sum's last bit.
    """
    first = first_of(arrays)
    if "logits" not in arrays:
        class_axis = first.ndim
    order = _kernels.sample_axes(first, class_axis)
    return [axis for axis in range(first.ndim) if axis != class_axis and axis not in order] + order


def in_order(arrays: dict[str, Array], axes: list[int], class_axis: int) -> dict[str, Array]:
    """Views, their sample axes in this order, the classes after them."""
    views = {}
    for name, array in arrays.items():
        if name in WITH_CLASSES:
            order = [*axes, class_axis, *range(len(axes) + 1, array.ndim)]
        elif "logits" in arrays:
            order = [axis - (axis > class_axis) for axis in axes]
        else:
            order = axes
        views[name] = np.asarray(array).transpose(order)  # of plain arrays: a subclass may have its own idea of axes
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
