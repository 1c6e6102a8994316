"""One general call of a loss: checks its arguments, allocates its outputs, and computes it.

The public functions are in ``_loss.py``. How arrays become calls of the kernels is in ``_pieces.py``.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import Array, check_integer, sample_shape
from ._kernels import CHECK_TARGET, BadSample, Operation
from ._labels import (
    SparseTarget,
    for_kernels,
    label_error,
    labels_or_target,
    set_sparse_target,
    sparse_target_error,
    target_error,
)
from ._options import check_normalizer, set_grad_output, set_options
from ._pieces import call_of, compute, output, total_weight

# If all weights are below this, a mean multiplies them by a power of two.
TINY_WEIGHT = 2.0**-60

Reduction = Literal["mean"] | Literal["sum"] | Literal["none"]


class Problem:
    """A loss to be computed, by ``solve``. What only some losses have, such as a direction, is set in ``call``."""

    def __init__(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike | SparseTarget,
        axis: int,
        ignore_index: int | None,
        reduction: Reduction,
        normalizer: float | None,
        n_threads: int,
        options: tuple[Any, ...],
    ) -> None:
        self.call = call_of(logits, axis)
        self._take_labels(labels)
        self.labels, self.ignore_index = self.call.labels, ignore_index
        if ignore_index is not None:
            self.ignore_index = check_integer(ignore_index, "ignore_index")
            if self.labels is None:
                raise ValueError("ignore_index needs class indices as labels; these are distributions")
            self.call.labels, self.call.ignore_index = for_kernels(self.labels, self.ignore_index)
        set_options(self.call, options)
        self.normalizer = None if normalizer is None else check_normalizer(normalizer)
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
        self.reduction = reduction
        self.n_threads = n_threads

    def _take_labels(self, labels: npt.ArrayLike | SparseTarget) -> None:
        call = self.call
        self.sparse = labels if isinstance(labels, SparseTarget) else None
        if isinstance(labels, SparseTarget):
            set_sparse_target(call, labels)
        elif not call.take_labels(labels):
            call.labels, call.target = labels_or_target(labels, call.logits, call.class_axis)

    def set_gradient(self, grad_output: npt.ArrayLike | None, out: Array | None, accumulate: bool) -> None:
        """What the gradient is multiplied by (a number, or one for each sample), and whether it is added to ``out``."""
        if grad_output is not None:
            set_grad_output(self.call, grad_output)
        if self.call.grad_output is not None and self.reduction != "none":
            raise ValueError(
                f"grad_output must be a number with reduction={self.reduction!r}; got shape "
                f"{self.call.grad_output.shape}, which is for reduction='none'"
            )
        if accumulate and out is None:
            raise ValueError("accumulate=True adds to out; give out")
        self.call.accumulate = bool(accumulate)

    def solve(
        self, operation: Operation, losses: Array | None = None, out: Array | None = None, hess: Array | None = None
    ) -> float | Array:
        """Compute the operation. Returns its loss, if it has one; other results are in ``call``.

        ``losses``, ``out`` and ``hess`` are arrays of the user's for results; None stands for a new array.
        """
        if losses is not None and self.reduction != "none":
            raise ValueError(f"out takes the losses of reduction='none'; reduction is {self.reduction!r}")
        self.overwrites = losses is not None or out is not None or hess is not None
        try:
            return self._solve(operation, losses, out, hess)
        except BadSample as bad:
            raise self._bad_sample_error(bad.args[0]) from None

    def _solve(
        self, operation: Operation, losses: Array | None, out: Array | None, hess: Array | None
    ) -> float | Array:
        call = self.call
        # The target is checked before the call has outputs: if it is bad, no array of the user's is overwritten.
        if self.overwrites:
            self._check_target()
        if self.reduction == "none" and operation.has_losses:
            losses = call.loss = output(call, losses, with_classes=False)
        if operation.has_out:
            call.out = output(call, out, may_be_logits=True)
            if operation.has_hess:  # beside the gradient
                call.hess = output(call, hess)
        if operation.has_ranks:
            call.rank, call.top = (np.empty(sample_shape(call.logits, call.class_axis), np.int64) for _ in range(2))
        is_mean = self.reduction == "mean"
        divisor = self._divisor(is_mean) if is_mean or self.overwrites else 1.0
        if is_mean:
            # The mean of nothing is nan, but no logit can change it.
            call.grad_scale = call.grad_scale / divisor if divisor else 0.0
        compute(call, operation, self.n_threads)
        if losses is not None:
            return losses
        total = call.total
        if not is_mean:
            return total
        if divisor == 0:
            return math.nan if total == 0 else total * math.inf
        return total / divisor

    def _check_target(self) -> None:
        """Raises BadSample if a target has a bad entry."""
        if self.call.target is not None or self.call.classes is not None:
            compute(self.call, CHECK_TARGET, self.n_threads)

    def _divisor(self, is_mean: bool) -> float:
        """What a mean divides by.

        A bad label is found here if labels are counted. They are also counted before an array of the user's is
        overwritten.
        """
        call, normalizer = self.call, self.normalizer
        has_labels = self.labels is not None
        is_weighted = call.sample_weight is not None or (has_labels and call.class_weight is not None)
        if is_mean and normalizer is None and is_weighted:
            counted = total_weight(call)
            if counted < call.n_samples * TINY_WEIGHT and self._lift_weights():
                counted = total_weight(call)
        elif is_mean and normalizer == 0 and call.sample_weight is not None:
            class_weight, call.class_weight = call.class_weight, None
            counted = total_weight(call)
            call.class_weight = class_weight
        elif has_labels and (self.overwrites or (is_mean and call.ignore_index is not None)):
            counted = call.count_labels(self.n_threads)
        else:
            counted = call.n_samples
        if not is_mean or normalizer is None:
            return counted
        if normalizer == 0 and counted > 0:
            raise ValueError("normalizer is 0, but there are samples that count; give a positive number, or None")
        return normalizer or 1.0  # the mean of nothing, if it is to be 0 and not nan

    def _lift_weights(self) -> bool:
        """Multiply tiny weights by a power of two, and return whether there were any.

        A mean does not change by it. Without it, products with the weights could leave the range of the dtype.
        """
        call = self.call
        class_weight = call.originals.get("class_weight")
        of_classes, of_samples = tiny_exponent(class_weight), tiny_exponent(call.sample_weight)
        if of_classes:
            # Class weights do not weigh the z_loss, but the mean divides it by their sum.
            call.z_loss = math.ldexp(call.z_loss, min(-of_classes, 1023 - math.frexp(call.z_loss)[1]))
            call.class_weight = lifted(class_weight, of_classes, call.f32)
        if of_samples:
            call.sample_weight = lifted(call.sample_weight, of_samples, call.f32)
        return of_classes != 0 or of_samples != 0

    def _bad_sample_error(self, sample: tuple[int, ...]) -> IndexError | ValueError:
        call = self.call
        if self.sparse is not None:
            return sparse_target_error(self.sparse, sample, call.logits.shape[call.class_axis])
        if self.labels is None:
            assert call.target is not None
            return target_error(call.target, sample, call.class_axis)
        return label_error(self.labels, sample, call.logits.shape[call.class_axis], self.ignore_index)


def tiny_exponent(weights: Array | None) -> int:
    """The power of two just above the largest weight, if all are tiny and not all are 0; else 0."""
    largest = 0.0 if weights is None else float(np.max(weights, initial=0))
    return math.frexp(largest)[1] if largest < TINY_WEIGHT else 0


def lifted(weights: Array | None, exponent: int, f32: bool) -> Array:
    """The weights over this power of two, in the dtype that is computed in."""
    return np.ldexp(np.asarray(weights, np.float64), -exponent).astype(np.float32 if f32 else np.float64)
