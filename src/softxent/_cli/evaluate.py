"""``evaluate``: the loss, the accuracy and the gradient of logits in a file, one block of samples at a time.

Both files are memory-mapped and only a block of them is ever worked on, so they may be larger than memory.
Here live opening and checking the files, cutting them into blocks, ranking, and the report. The losses and
gradients themselves come from the public functions of `softxent`.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import softxent

from . import terminal
from .files import CommandError, whole_file

Array = NDArray[Any]
Box = tuple[slice, ...]

BLOCK_BYTES = 1 << 24  # of input at a time: long enough to keep every thread busy, soon enough for Ctrl-C


@dataclass(frozen=True)
class Report:
    """What there is to say about a file of logits. Losses are means over the samples that are not ignored."""

    samples: int
    ignored: int
    loss: float
    top1_accuracy: float
    top5_accuracy: float

    @property
    def perplexity(self) -> float:
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits(self) -> float:
        return self.loss / math.log(2)

    def as_json(self) -> str:
        names = ("samples", "ignored", "loss", "perplexity", "bits", "top1_accuracy", "top5_accuracy")
        values = {name: getattr(self, name) for name in names}
        # JSON has no nan and no inf
        return json.dumps({name: value if math.isfinite(value) else None for name, value in values.items()})

    def as_text(self) -> str:
        return "\n".join(
            (
                f"samples         {self.samples}",
                f"ignored         {self.ignored}",
                f"loss            {self.loss:.9g} nats",
                f"perplexity      {self.perplexity:.9g}",
                f"bits            {self.bits:.9g}",
                f"top-1 accuracy  {self.top1_accuracy:.2%}",
                f"top-5 accuracy  {self.top5_accuracy:.2%}",
            )
        )


def evaluate(
    logits_path: str,
    labels_path: str,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    grad: str | None = None,
    n_threads: int | None = None,
) -> Report:
    """Measure the logits in one file against the labels in another; `grad` names a file for the gradient."""
    files = _Files(logits_path, labels_path, axis, ignore_index)
    n_kept = files.check_labels()
    if grad is None:
        return _stream(files, n_kept, None, n_threads)
    for path in (logits_path, labels_path):
        if os.path.exists(grad) and os.path.samefile(grad, path):
            raise CommandError(f"{grad}: the gradient would overwrite {path}: name another file")
    with whole_file(grad) as temporary:
        return _stream(files, n_kept, temporary, n_threads)


class _Files:
    """The two files, seen with the class axis last and the sample axes in the order they lie on disk.

    `logits` has shape `(*samples, n_classes)`; `labels` too for a distribution, `samples` for class indices.
    """

    def __init__(self, logits_path: str, labels_path: str, axis: int, ignore_index: int | None) -> None:
        self.logits_path, self.labels_path, self.ignore_index = logits_path, labels_path, ignore_index
        self.as_stored = logits = _open(logits_path)
        labels = _open(labels_path)
        if logits.ndim == 0:
            raise CommandError(f"{logits_path}: a single number: logits need a class axis")
        if not -logits.ndim <= axis < logits.ndim:
            raise CommandError(f"--axis {axis}: {logits_path} has axes -{logits.ndim} to {logits.ndim - 1}")
        self.axis = axis % logits.ndim
        self.n_classes = logits.shape[self.axis]
        self.indexed = labels.ndim < logits.ndim
        self._check_kinds(logits, labels)

        # Reading a Fortran-ordered file along its first axis would touch every page again for every block.
        strides = np.delete(logits.strides, self.axis)
        self._order = np.argsort(-np.abs(strides), kind="stable")
        self.logits, self.labels = self.view(logits), self.view(labels)
        self.samples = self.logits.shape[:-1]

    def view(self, array: Array) -> Array:
        """An array shaped like one of the files, seen as `logits` and `labels` are."""
        if array.ndim == len(self._order):
            return array.transpose(self._order)
        return np.moveaxis(array, self.axis, -1).transpose(*self._order, -1)

    def _check_kinds(self, logits: Array, labels: Array) -> None:
        as_indices = logits.shape[: self.axis] + logits.shape[self.axis + 1 :]
        if labels.shape not in (as_indices, logits.shape):
            raise CommandError(
                f"{self.labels_path}: shape {labels.shape} does not fit {self.logits_path}, {logits.shape}: "
                f"class indices would be {as_indices} (axis {self.axis}), a distribution {logits.shape}"
            )
        if self.n_classes == 0:
            raise CommandError(f"{self.logits_path}: shape {logits.shape} has no class on axis {self.axis}")
        if logits.dtype.kind not in "fiub":
            raise CommandError(f"{self.logits_path}: dtype {logits.dtype}: logits are real numbers")
        if self.indexed and labels.dtype.kind not in "iu":
            raise CommandError(f"{self.labels_path}: dtype {labels.dtype}: class indices are integers")
        if labels.dtype.kind not in "fiub":
            raise CommandError(f"{self.labels_path}: dtype {labels.dtype}: a distribution is of real numbers")
        if not self.indexed and self.ignore_index is not None:
            raise CommandError(f"--ignore-index: {self.labels_path} holds a distribution, not class indices")

    def check_labels(self) -> int:
        """Refuse the first label that is no class; return the number of samples that count."""
        n_kept = math.prod(self.samples)
        if not self.indexed:
            return n_kept
        for box in _boxes(self.samples, BLOCK_BYTES // self.labels.itemsize):
            labels = self.labels[box]
            ignored = np.equal(labels, self.ignore_index) if self.ignore_index is not None else np.False_
            bad = ((labels < 0) | (labels >= self.n_classes)) & ~ignored
            if bad.any():
                self._refuse(box, np.argwhere(bad)[0])
            n_kept -= int(np.count_nonzero(ignored))
        return n_kept

    def _refuse(self, box: Box, within: NDArray[np.intp]) -> None:
        seen = [part.start + int(i) for part, i in zip(box, within, strict=True)]
        stored = [seen[i] for i in np.argsort(self._order)]
        where = f"labels[{', '.join(map(str, stored)) or '()'}]"
        what = f"{self.labels[tuple(seen)]}: not a class in [0, {self.n_classes})"
        if self.ignore_index is not None:
            what += f", nor the ignored {self.ignore_index}"
        raise CommandError(f"{self.labels_path}: {where} is {what}")


def _stream(files: _Files, n_kept: int, grad_path: Path | None, n_threads: int | None) -> Report:
    """Go through the files once, block by block."""
    n_samples, ignore_index = math.prod(files.samples), files.ignore_index
    bytes_per_class = files.logits.itemsize + (0 if files.indexed else files.labels.itemsize)
    most = BLOCK_BYTES // (files.n_classes * bytes_per_class)
    grad = files.view(_create(grad_path, files.as_stored)) if grad_path is not None else None
    losses: list[float] = []
    right = np.zeros(2, dtype=np.int64)
    done = 0
    with terminal.progress("evaluating", n_samples) as advance:
        for box in _boxes(files.samples, most):
            logits, labels = files.logits[box], files.labels[box]
            try:
                if grad is None:
                    loss = softxent.cross_entropy(
                        logits, labels, ignore_index=ignore_index, reduction="sum", n_threads=n_threads
                    )
                else:
                    loss, grad[box] = softxent.cross_entropy_and_grad(
                        logits,
                        labels,
                        ignore_index=ignore_index,
                        reduction="sum",
                        grad_output=1 / n_kept if n_kept else 0.0,
                        n_threads=n_threads,
                    )
            except (TypeError, ValueError, IndexError, OverflowError) as error:
                raise CommandError(f"{files.logits_path}, {files.labels_path}: {error}") from error
            losses.append(float(loss))
            right += _count_right(logits, labels, ignore_index)
            done += math.prod(labels.shape[: len(files.samples)])
            advance(done, "")
    top1, top5 = right / n_kept if n_kept else (math.nan, math.nan)
    loss = _total(losses) / n_kept if n_kept else math.nan
    return Report(n_samples, n_samples - n_kept, loss, float(top1), float(top5))


def _count_right(logits: Array, labels: Array, ignore_index: int | None) -> tuple[int, int]:
    """How many samples have their label first, and how many among the first five.

    A class comes before the label's if its logit is larger, or equal and earlier. With a nan, none is right.
    """
    if labels.ndim == logits.ndim:
        kept, target = np.True_, labels.argmax(axis=-1)
    else:
        kept = labels != ignore_index if ignore_index is not None else np.True_
        target = np.where(kept, labels, 0).astype(np.intp)
    target = target[..., np.newaxis]
    at_target = np.take_along_axis(logits, target, axis=-1)
    before = logits > at_target
    before |= (logits == at_target) & (np.arange(logits.shape[-1]) < target)
    rank = np.count_nonzero(before, axis=-1)
    valid = kept & ~np.isnan(logits.max(axis=-1))  # the maximum is nan if any of them is
    return int(np.sum(valid & (rank < 1))), int(np.sum(valid & (rank < 5)))


def _boxes(shape: tuple[int, ...], most: int) -> Iterator[Box]:
    """Cut an array of `shape` into boxes of at most `most` elements, or one: the last axes stay whole."""
    if 0 in shape:
        return
    axis, inner = len(shape), 1  # axes from `axis` on, `inner` elements together, fit into one box
    while axis and inner * shape[axis - 1] <= most:
        axis -= 1
        inner *= shape[axis]
    whole = tuple(slice(0, n) for n in shape[axis:])
    if axis == 0:
        yield whole
        return
    rows = max(1, most // inner)
    for outer in np.ndindex(*shape[: axis - 1]):
        for start in range(0, shape[axis - 1], rows):
            yield (*(slice(i, i + 1) for i in outer), slice(start, start + rows), *whole)


def _total(losses: list[float]) -> float:
    """The exact sum, rounded once; where it overflows or is not finite, whatever addition makes of it."""
    try:
        return math.fsum(losses)
    except (OverflowError, ValueError):
        return sum(losses)


def _open(path: str) -> Array:
    """Map the array of a .npy file."""
    magic = np.lib.format.MAGIC_PREFIX
    try:
        with open(path, "rb") as file:
            if file.read(len(magic)) != magic:
                raise CommandError(f"{path}: not a .npy file")
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror or error}") from error
    except CommandError:
        raise
    except Exception as error:  # a damaged header can fail in any way a Python literal can
        raise CommandError(f"{path}: not a readable .npy file, or cut short: {error}") from error


def _create(path: Path, like: Array) -> Array:
    """A new mapped .npy file for the gradient of `like`, with room on the disk for all of it."""
    dtype = like.dtype if like.dtype.kind == "f" else np.dtype(np.float64)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": like.flags.f_contiguous and not like.flags.c_contiguous,
        "shape": like.shape,
    }
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        _reserve(file, like.size * dtype.itemsize)
    return np.asarray(np.lib.format.open_memmap(path, mode="r+"))


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Take the disk space now: writing to a mapped file on a disk that is full kills the process."""
    if hasattr(os, "posix_fallocate") and n_bytes > 0:
        try:
            os.posix_fallocate(file.fileno(), file.tell(), n_bytes)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system may not know how
                raise
    for start in range(0, n_bytes, BLOCK_BYTES):
        file.write(bytes(min(BLOCK_BYTES, n_bytes - start)))
