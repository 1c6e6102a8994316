"""From whole arrays to calls of the kernels: sample axes folded, and converted piece by piece where they must be.

The kernels take native float32 or float64 (and float16 and bfloat16 beside float32) in three axes: two of samples, one
of classes. Sample axes that lie behind each other in memory in every array are folded into one, without a copy; should
more than two remain, the pieces of the leading ones are taken in turn. Arrays in another dtype, byte order or alignment
are converted in pieces of bounded size, so that nothing of the logits' size is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import _kernels
from ._arrays import Array, is_bfloat16

# The two compiled forms, looked up here because finding the form for the arguments takes longer than a small problem.
_COMPUTE = {
    np.dtype(np.float32): _kernels.compute["float"],
    np.dtype(np.float64): _kernels.compute["double"],
}
_TOTAL_WEIGHT = {
    np.dtype(np.float32): _kernels.total_weight["float"],
    np.dtype(np.float64): _kernels.total_weight["double"],
}

# Logits in a piece that is converted: it stays in the second-level cache. Where so many are of few samples there may be
# more, up to a vector's width of samples: the kernels take as many at once if the classes do not lie side by side.
PIECE_LOGITS, MOST_LOGITS, PIECE_SAMPLES = 1 << 16, 1 << 18, 16
# Samples in a piece of which nothing but the weights is converted.
PIECE_WEIGHTS = 1 << 16

# Outputs; every other array is an input. Weights come in the dtype that is computed in, the others in half too.
OUTPUTS = ("loss", "out", "hess", "rank", "top")
WEIGHTS = ("sample_weight", "grad_output")


def compute(
    op: str,
    dtype: np.dtype[Any],
    n_sample_axes: int,
    n_threads: int,
    arrays: Mapping[str, Array | None],
    *,
    accumulate: bool = False,
    **rest: Any,
) -> tuple[float, bool]:
    """What ``_kernels.compute`` does, for arrays of any sample axes, dtypes and strides, their class axis last.

    ``arrays`` has the logits first. Returns the sum of the losses that were not kept, and whether every label was a
    class; if not, the outputs hold some of the results.
    """
    folded = fold(n_sample_axes, arrays)
    logits = folded["logits"]
    ready = {name: is_ready(name, a, dtype) for name, a in folded.items()}
    if "hess" in ready:  # the kernels take it in the gradient's type
        ready["out"] = ready["hess"] = ready["out"] and ready["hess"]
    kernel, sums = _COMPUTE[dtype], []
    for index in pieces(logits, piece_samples(logits.shape[-1], ready)):
        outputs = {
            name: OutputPiece(folded[name][index], None if ready[name] else dtype, accumulate)
            for name in OUTPUTS
            if name in folded
        }
        buffers: dict[str, Any] = {name: piece.buffer for name, piece in outputs.items()}
        inputs: dict[str, Any] = {
            name: input_piece(a[index], None if ready[name] else dtype)
            for name, a in folded.items()
            if name not in outputs and name != "logits"
        }
        loss, labels_are_good = kernel(
            op,
            n_threads,
            input_piece(logits[index], None if ready["logits"] else dtype),
            **inputs,
            **buffers,
            accumulate=accumulate,
            **rest,
        )
        if not labels_are_good:
            return math.nan, False
        for piece in outputs.values():
            piece.write_back()
        sums.append(loss)
    # In order, and so the same for any number of threads. fsum would raise where infinities of both signs meet.
    return (sums[0] if len(sums) == 1 else float(np.sum(sums))), True


def count_labels(n_threads: int, labels: Array, n_classes: int, ignore_index: int | None) -> int:
    """The number of labels that are not ignored; -1 if one is no class."""
    counted = 0
    folded = fold(labels.ndim, {"labels": labels})["labels"]
    for index in indices(folded.shape[:-2]):
        n = _kernels.check_labels(n_threads, folded[index], n_classes, ignore_index)
        if n < 0:
            return -1
        counted += n
    return counted


def total_weight(
    labels: Array,
    n_classes: int,
    ignore_index: int | None,
    sample_weight: Array | None,
    class_weight: Array | None,
    dtype: np.dtype[Any],
) -> float:
    """The labels' class weights times the samples' weights, summed over those not ignored; -1 if one is no class."""
    total = 0.0
    folded = fold(labels.ndim, {"labels": labels, "sample_weight": sample_weight})
    weights = folded.get("sample_weight")
    ready = is_ready("sample_weight", weights, dtype)
    for index in pieces(folded["labels"][..., np.newaxis], None if ready else PIECE_WEIGHTS):
        weights_piece = None if weights is None else input_piece(weights[index], None if ready else dtype)
        part = _TOTAL_WEIGHT[dtype](folded["labels"][index], n_classes, ignore_index, weights_piece, class_weight)
        if part < 0:
            return -1.0
        total += part
    return total


# ----------------------------------------------------------------------------------------------------------------------
# Folding and pieces.


def fold(n_sample_axes: int, arrays: Mapping[str, Array | None]) -> dict[str, Array]:
    """Views of the arrays that there are, their leading sample axes folded into as few as possible, but two at least.

    The first array decides their order, the largest stride first.
    """
    given = {name: a for name, a in arrays.items() if a is not None}
    if n_sample_axes == 1:
        return {name: a[np.newaxis] for name, a in given.items()}
    first = next(iter(given.values()))
    shape = first.shape[:n_sample_axes]
    axes = [axis for axis in range(n_sample_axes) if shape[axis] != 1]
    axes.sort(key=lambda axis: -abs(first.strides[axis]))
    groups: list[list[int]] = []
    for axis in axes:
        if groups and all(a.strides[groups[-1][-1]] == a.strides[axis] * shape[axis] for a in given.values()):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    order = [axis for axis in range(n_sample_axes) if shape[axis] == 1] + [axis for group in groups for axis in group]
    sizes = [1] * max(0, 2 - len(groups)) + [math.prod(shape[axis] for axis in group) for group in groups]

    def folded(a: Array) -> Array:
        others = range(n_sample_axes, a.ndim)
        return a.transpose(*order, *others).reshape(*sizes, *a.shape[n_sample_axes:])  # always a view

    return {name: folded(a) for name, a in given.items()}


def indices(shape: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """All indices into an array of the shape; np.ndindex takes long over none."""
    return np.ndindex(*shape) if shape else [()]


def piece_samples(n_classes: int, ready: Mapping[str, bool]) -> int | None:
    """How many samples a piece may have; None for all of them, where nothing is to be converted."""
    if all(ready.values()):
        return None
    if all(is_ready for name, is_ready in ready.items() if name not in WEIGHTS):
        return PIECE_WEIGHTS
    return max(1, PIECE_LOGITS // n_classes, min(PIECE_SAMPLES, MOST_LOGITS // n_classes))


def pieces(logits: Array, n_samples: int | None) -> Iterator[tuple[Any, ...]]:
    """Indices into folded arrays that leave two sample axes, of so many samples at most."""
    *leading, n_outer, n_inner, _ = logits.shape
    outer_step = 1 if n_samples is None else max(1, n_samples // n_inner)
    for index in indices(leading):
        if n_samples is None:
            yield index
            continue
        for outer in range(0, n_outer, outer_step):
            for inner in range(0, n_inner, n_samples):
                yield (*index, slice(outer, outer + outer_step), slice(inner, inner + n_samples))


def is_native(array: Array | None, dtype: np.dtype[Any]) -> bool:
    """Whether the kernels can take the array as reals of this dtype."""
    if array is None:
        return True
    if array.dtype != dtype or not array.flags.aligned:
        return False
    # Aligned strides are whole elements, but where the processor wants less alignment than an element is long.
    return dtype.alignment == dtype.itemsize or all(stride % dtype.itemsize == 0 for stride in array.strides)


def is_ready(name: str, array: Array | None, dtype: np.dtype[Any]) -> bool:
    """Whether the kernels can take the array as it is."""
    if array is None or name in ("labels", "where", "rank", "top"):  # checked by those who made them
        return True
    if array.dtype == dtype:
        return is_native(array, dtype)
    is_half = array.dtype == np.float16 or is_bfloat16(array.dtype)
    return is_half and dtype == np.float32 and name not in WEIGHTS and is_native(array, array.dtype)


def input_piece(piece: Array, dtype: np.dtype[Any] | None) -> Array:
    """A piece of an input: itself, or a copy in a dtype that it needs."""
    return piece if dtype is None else converted(piece, dtype)


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """A copy in ``dtype``; what is too large for it becomes infinite without a warning.

    In C order, whatever the size of the piece: a sample's bits depend on the stride of its classes.
    """
    with np.errstate(all="ignore"):
        return np.array(array, dtype=dtype, order="C")


class OutputPiece:
    """A piece of an output as the kernels can write it: itself, or a buffer in a dtype that it needs, until
    ``write_back``. ``load`` if its old values count.
    """

    def __init__(self, piece: Array, dtype: np.dtype[Any] | None, load: bool) -> None:
        self.piece = self.buffer = piece
        if dtype is not None:
            self.buffer = converted(piece, dtype) if load else np.empty(piece.shape, dtype)

    def write_back(self) -> None:
        if self.buffer is not self.piece:
            with np.errstate(all="ignore"):
                self.piece[...] = self.buffer
