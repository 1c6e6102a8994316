"""The likely cause if files do not fit or a loss is not finite, and what was probably meant.

Advice is the end of an error's line, or empty. Notes are about files that are measured in spite of what they note.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .files import Array

PYTORCH_IGNORES = -100


# Errors: what would do -----------------------------------------------------------------------------


def of_shapes(logits: Array, labels: Array, as_indices: tuple[int, ...]) -> str:
    """Advice on shapes that do not fit, where class indices would have the shape `as_indices`."""

    def without(array: Array, axis: int) -> tuple[int, ...]:
        return array.shape[:axis] + array.shape[axis + 1 :]

    fitting = [axis for axis in range(logits.ndim) if without(logits, axis) == labels.shape]
    if fitting:
        return "; the labels fit " + " and ".join(f"--axis {axis}" for axis in fitting)
    if logits.dtype.kind in "iu" and any(without(labels, axis) == logits.shape for axis in range(labels.ndim)):
        return "; the files seem to be swapped: the logits come first"
    if labels.ndim == logits.ndim and labels.T.shape == logits.shape:
        return "; the labels seem to be transposed: save labels.T"
    if labels.dtype.kind in "iu" and labels.size == math.prod(as_indices):
        how = "labels[:, 0]" if labels.ndim == 2 and labels.shape[1:] == (1,) else f"labels.reshape{as_indices}"
        return f"; there are as many labels as samples: save {how}"
    if as_indices and labels.shape == (*as_indices[:-1], as_indices[-1] - 1):
        return "; labels that are shifted already want logits without the last; --shift takes labels of full length"
    return ""


def of_logits_dtype(logits: Array) -> str:
    """What is wrong with a dtype that logits cannot have, and advice."""
    if logits.dtype.kind == "u":
        return "may be the bits of bfloat16: --dtype bfloat16 reads them so; if numbers, save logits.astype(float)"
    if logits.dtype.kind == "V" and logits.dtype.itemsize == 2 and logits.dtype.names is None:
        return "is how NumPy saves bfloat16: --dtype bfloat16 reads it"
    return "logits are real numbers, of up to 64 bits"


def of_labels_dtype(labels: Array) -> str:
    """Advice on labels that have the shape of class indices but are no integers."""
    start = labels.reshape(-1)[:1000] if labels.flags.c_contiguous else labels[:1000]
    if labels.dtype.kind == "b" or (labels.dtype.kind == "f" and bool((start == np.floor(start)).all())):
        return "; these seem to be whole numbers: save labels.astype(int)"
    return ""


def of_labels(blocks: Iterator[Array], n_classes: int) -> str:
    """Advice on class indices of which some are no class. They are read block by block."""
    low, high = math.inf, -math.inf
    strange: set[int] = set()  # some of the values that are no class
    for labels in blocks:
        if len(strange) < 3:
            strange.update(np.unique(labels[(labels < 0) | (labels >= n_classes)]).tolist())
        labels = labels[labels != PYTORCH_IGNORES]
        if labels.size:
            low, high = min(low, int(labels.min())), max(high, int(labels.max()))
    if PYTORCH_IGNORES in strange:
        return f"; {PYTORCH_IGNORES} marks what PyTorch ignores: use --ignore-index {PYTORCH_IGNORES}"
    if (low, high) == (1, n_classes):
        return f"; the labels go from 1 to {n_classes}: they seem to count from 1: save labels - 1"
    if len(strange) == 1:
        return f"; it is the only such value: --ignore-index {strange.pop()} leaves these samples out"
    return ""


def of_distribution(target: Array) -> tuple[Array, str] | None:
    """Where a block, with the class axis last, has its first entry that no distribution has, and what that entry is."""
    bad = ~(target >= 0)
    if not bad.any():
        return None
    where = np.argwhere(bad)[0]
    return where, f"{target[tuple(where)]}: a distribution's entries are at least 0"


# Notes: what is measured all the same ----------------------------------------------------------------


class NotFinite:
    """Counts losses that are nan or infinite, and remembers the first."""

    def __init__(self) -> None:
        self.n_nan = self.n_inf = 0

    def look(self, losses: Array) -> Array | None:
        """Count those of a block. Return the place of the first one if no block before had one."""
        if np.isfinite(losses).all():
            return None
        is_first = self.n_nan + self.n_inf == 0
        self.n_nan += int(np.count_nonzero(np.isnan(losses)))
        self.n_inf += int(np.count_nonzero(np.isinf(losses)))
        return np.argwhere(~np.isfinite(losses))[0] if is_first else None

    def counts(self) -> str:
        """The numbers of nan and infinite losses, in words."""
        parts = [
            f"{n} {'is' if n == 1 else 'are'} {what}" for n, what in ((self.n_nan, "nan"), (self.n_inf, "inf")) if n
        ]
        return " and ".join(parts)


def culprit(logits: Array, target: Array, smoothed: bool) -> tuple[int | None, str]:
    """Which logit of one sample makes its loss nan or infinite, and why.

    `target` is a class index or a distribution, smoothed or not. The class is None if all classes or none in particular
    are the cause.
    """
    logits = logits.astype(np.float64)
    for is_wrong, what in ((np.isnan(logits), "nan"), (logits == math.inf, "inf")):
        if is_wrong.any():
            return int(is_wrong.argmax()), f"is {what}"
    absent = logits == -math.inf
    if absent.all():
        return None, "are all -inf"
    wanted = target > 0 if target.ndim else np.arange(len(logits)) == target
    if (absent & wanted).any():
        return int((absent & wanted).argmax()), "is -inf, and its class is the label's"
    if absent.any() and smoothed:
        return int(absent.argmax()), "is -inf, and label smoothing wants every class"
    return None, "are too far apart for the loss to be held"


class Probabilities:
    """Whether the logits may be probabilities: all of them are in [0, 1], and the sum of every sample is 1."""

    def __init__(self, n_classes: int) -> None:
        self.possible = n_classes > 1
        self.seen = False

    def look(self, logits: Array) -> None:
        """Look at a block with the class axis last, unless an earlier sample was no distribution."""
        if not self.possible:
            return
        first = logits[(0,) * (logits.ndim - 1)]
        self.possible = are_distributions(first) and are_distributions(logits)
        self.seen = True


def are_distributions(values: Array) -> bool:
    """Whether all entries are in [0, 1], and each sample's sum over the last axis is 1 to the dtype's precision."""
    if not (values.min() >= 0 and values.max() <= 1):
        return False
    exact = values.dtype.kind == "f" and values.dtype.itemsize >= 4
    sums = values.sum(axis=-1, dtype=np.float64)
    return bool((np.abs(sums - 1) <= (1e-4 if exact else 2e-2)).all())
