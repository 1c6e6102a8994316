"""The two files of an evaluation, as a pair that fits together: the axes, blocks of samples, and labels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from softxent import _arrays

from . import diagnosis
from .files import BLOCK_BYTES, Array, CommandError
from .formats import as_bfloat16, open_array

RESULT_BYTES = 64  # bytes per sample: loss, rank, first class, and what is measured of them

Box = tuple[slice, ...]
Place = tuple[int, ...]  # the indices of a sample or a logit, in the order of the files' axes


class Pair:
    """Both files, with the class axis last and the sample axes in the order they have on the disk.

    `logits` has shape `(*samples, n_classes)`. `labels` has that shape too for a distribution, and shape `samples` for
    class indices. With `shift`, the logits at `t` belong to the labels at `t + 1` of the last sample axis. The last
    logits and the first labels then belong to nothing.
    """

    def __init__(
        self, logits_name: str, labels_name: str, axis: int, ignore_index: int | None, shift: bool, bfloat16: bool
    ) -> None:
        self.logits_name, self.labels_name, self.ignore_index = logits_name, labels_name, ignore_index
        logits, labels = open_array(logits_name), open_array(labels_name)
        if bfloat16:
            logits = as_bfloat16(logits, logits_name)
        if logits.ndim == 0:
            raise CommandError(f"{logits_name}: a single number: logits need a class axis")
        if not -logits.ndim <= axis < logits.ndim:
            raise CommandError(f"--axis {axis}: {logits_name} has axes -{logits.ndim} to {logits.ndim - 1}")
        self.as_stored = logits
        self.axis = axis % logits.ndim
        self.n_classes = logits.shape[self.axis]
        self.indexed = labels.ndim < logits.ndim
        self._check_shapes(logits, labels)
        self._check_dtypes(logits, labels)
        self._shifted = self._last_sample_axis() if shift else None

        # If a Fortran-ordered file were read along its first axis, every block would touch every page again.
        strides = np.delete(logits.strides, self.axis)
        self._order = np.argsort(-np.abs(strides), kind="stable")
        self.logits, self.labels = self.view(logits, slice(None, -1)), self.view(labels, slice(1, None))
        self.samples = self.logits.shape[:-1]
        self.n_samples = math.prod(self.samples)

    def view(self, array: Array, of_shift: slice = slice(None, -1)) -> Array:
        """An array with the shape of one of the files, seen as `logits` and `labels` are. With a shift, the part that
        is used.
        """
        has_classes = array.ndim > len(self._order)
        if self._shifted is not None:
            axis = self._shifted + (has_classes and self._shifted >= self.axis)
            array = array[(slice(None),) * axis + (of_shift,)]
        if not has_classes:
            return array.transpose(self._order)
        return np.moveaxis(array, self.axis, -1).transpose(*self._order, -1)

    def samples_as_stored(self, array: Array) -> Array:
        """An array with the samples in the order of the files' axes, seen as `labels` are."""
        return array.transpose(self._order)

    @property
    def stored_samples(self) -> tuple[int, ...]:
        """The shape of an array for samples_as_stored."""
        return tuple(self.samples[i] for i in np.argsort(self._order))

    def _last_sample_axis(self) -> int:
        if self.as_stored.ndim < 2:
            raise CommandError(f"--shift: {self.logits_name} holds one sample: there is no axis to shift along")
        return self.as_stored.ndim - 2

    # What does not fit -------------------------------------------------------------------------

    def _check_shapes(self, logits: Array, labels: Array) -> None:
        as_indices = logits.shape[: self.axis] + logits.shape[self.axis + 1 :]
        if labels.shape not in (as_indices, logits.shape):
            raise CommandError(
                f"{self.labels_name}: shape {labels.shape} does not fit {self.logits_name}, {logits.shape}: "
                f"class indices would be {as_indices} (axis {self.axis}), a distribution {logits.shape}"
                + diagnosis.of_shapes(logits, labels, as_indices)
            )
        if self.n_classes == 0:
            raise CommandError(f"{self.logits_name}: shape {logits.shape} has no class on axis {self.axis}")

    def _check_dtypes(self, logits: Array, labels: Array) -> None:
        if not _arrays.is_real(logits.dtype) or logits.dtype.newbyteorder("=") == np.uint16:
            raise CommandError(f"{self.logits_name}: dtype {logits.dtype}: {diagnosis.of_logits_dtype(logits)}")
        if self.indexed and labels.dtype.kind not in "iu":
            advice = diagnosis.of_labels_dtype(labels)
            raise CommandError(f"{self.labels_name}: dtype {labels.dtype}: class indices are integers{advice}")
        if not _arrays.is_real(labels.dtype):
            raise CommandError(f"{self.labels_name}: dtype {labels.dtype}: a distribution is of real numbers")
        if not self.indexed and self.ignore_index is not None:
            raise CommandError(f"--ignore-index: {self.labels_name} holds a distribution, not class indices")

    def check_labels(self, class_weight: Array | None) -> tuple[int, float]:
        """Refuse the first label that is no class. Return the number of samples that are not ignored, and their total
        weight.
        """
        if not self.indexed:
            return self.n_samples, float(self.n_samples)
        n_kept, weights = 0, []
        for box in self.label_boxes():
            labels = self.labels_of(box)
            kept = self.kept(labels)
            bad = ((labels < 0) | (labels >= self.n_classes)) & kept
            if bad.any():
                self._refuse(self.place(box, np.argwhere(bad)[0]))
            n_kept += int(np.count_nonzero(kept))
            if class_weight is not None:
                weights.append(float(class_weight[labels[kept]].sum(dtype=np.float64)))
        return n_kept, n_kept if class_weight is None else math.fsum(weights)

    def _refuse(self, place: Place) -> None:
        value = int(self.label_in(place))
        what = f"{self.label_at(place)} is {value}: not a class in [0, {self.n_classes})"
        if self.ignore_index is not None:
            what += f", nor the ignored {self.ignore_index}"
        every = (labels[self.kept(labels)] for labels in map(self.labels_of, self.label_boxes()))
        raise CommandError(f"{self.labels_name}: {what}{diagnosis.of_labels(every, self.n_classes)}")

    # Blocks and places -------------------------------------------------------------------------

    def boxes(self) -> Iterator[Box]:
        """Blocks of samples whose logits, labels and results take no more than about BLOCK_BYTES."""
        bytes_per_class = self.logits.itemsize + (0 if self.indexed else self.labels.itemsize)
        return boxes(self.samples, BLOCK_BYTES // (self.n_classes * bytes_per_class + RESULT_BYTES))

    def label_boxes(self) -> Iterator[Box]:
        """Blocks of samples as in boxes, of class indices alone."""
        return boxes(self.samples, BLOCK_BYTES // self.labels.itemsize)

    def labels_of(self, box: Box) -> Array:
        """The labels of a block, in the machine's byte order and in C order.

        NumPy before 2.2 cannot compare other arrays with numbers out of their range.
        """
        labels = self.labels[box]
        return np.asarray(labels, labels.dtype.newbyteorder("="), order="C")

    def kept(self, labels: Array) -> Array:
        """Which class indices are not the one to ignore."""
        if self.ignore_index is None:
            return np.ones(labels.shape, dtype=bool)
        return np.asarray(np.not_equal(labels, self.ignore_index))

    def place(self, box: Box, within: Array) -> Place:
        """The indices of the sample at `within` in a block, in the order of the files' axes."""
        seen = [part.start + int(i) for part, i in zip(box, within, strict=True)]
        return tuple(seen[i] for i in np.argsort(self._order))

    def label_in(self, place: Place) -> Array:
        """The label of one sample."""
        return np.asarray(self.labels[tuple(place[i] for i in self._order)])

    def label_at(self, place: Place) -> str:
        """The name of a sample's label in its file."""
        return f"labels[{', '.join(map(str, self._of_label(place))) or '()'}]"

    def target_at(self, place: Place, k: int) -> str:
        """The name of the entry of class `k` in a file of distributions."""
        return f"labels[{self._with_class(self._of_label(place), k)}]"

    def logit_at(self, place: Place, k: int | str) -> str:
        """The name of a sample's logit of class `k` in its file."""
        return f"logits[{self._with_class(place, k)}]"

    def _with_class(self, place: Place, k: int | str) -> str:
        return ", ".join(map(str, (*place[: self.axis], k, *place[self.axis :])))

    def _of_label(self, place: Place) -> Place:
        if self._shifted is None:
            return place
        return (*place[: self._shifted], place[self._shifted] + 1, *place[self._shifted + 1 :])


def boxes(shape: tuple[int, ...], most: int) -> Iterator[Box]:
    """Cut an array of `shape` into boxes. Each has one element or up to `most` of them. The last axes stay whole."""
    if 0 in shape:
        return
    axis, inner = len(shape), 1  # the axes from `axis` on fit into one box: together they have `inner` elements
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
