"""One general call of a loss: its arguments checked, its outputs allocated, and then computed, once.

The public functions in ``_loss.py`` say what they want by calling the methods of ``Problem``. How arrays become calls
of the kernels is in ``_pieces.py``.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_real_array, check_integer, sample_shape
from ._kernels import BadSample
from ._labels import for_kernels, label_error, labels_or_target, target_error
from ._options import check_normalizer, set_options
from ._pieces import call_of, compute, output, total_weight

# A mean of weights below this is taken of multiples of them.
TINY_WEIGHT = 2.0**-60

Reduction = Literal["mean"] | Literal["sum"] | Literal["none"]


class Problem:
    """A loss to be computed. What is wanted beside it is said by methods, in any order; ``solve`` comes last."""

    def __init__(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        axis: int,
        ignore_index: int | None,
        reduction: Reduction,
        normalizer: float | None,
        n_threads: int,
        options: tuple[Any, ...],
    ) -> None:
        # Set here and not in the class: an instance's own attributes are read faster.
        # Arrays of the caller's for the losses, the gradient (or the product) and the Hessian's diagonal.
        self.given_loss: Array | None = None
        self.given_out: Array | None = None
        self.given_hess: Array | None = None
        self.overwrites = False  # whether one of these is given
        self.wants_out = self.wants_hess = self.wants_ranks = False
        call = self.call = call_of(logits, axis)
        if not call.take_labels(labels):
            call.labels, call.target = labels_or_target(labels, call.logits, call.class_axis)
        self.labels, self.ignore_index = call.labels, ignore_index
        if ignore_index is not None:
            self.ignore_index = check_integer(ignore_index, "ignore_index")
            if self.labels is None:
                raise ValueError(
                    "ignore_index needs class indices as labels; these have the logits' shape: distributions"
                )
            call.labels, call.ignore_index = for_kernels(self.labels, self.ignore_index)
        set_options(call, options)
        self.normalizer = None if normalizer is None else check_normalizer(normalizer)
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
        self.reduction = reduction
        self.n_threads = n_threads

    # ------------------------------------------------------------------------------------------------------------------
    # What is wanted.

    def write_losses_to(self, out: Array) -> None:
        """Write the losses to an array of the caller's."""
        if self.reduction != "none":
            raise ValueError(f"out takes the losses of reduction='none'; reduction is {self.reduction!r}")
        self.given_loss, self.overwrites = out, True

    def multiply_gradient(self, grad_output: npt.ArrayLike | None) -> None:
        """By a number, or by one for each sample."""
        if grad_output is None:
            return
        if type(grad_output) is float:
            self.call.grad_scale = grad_output
            return
        upstream = as_real_array(grad_output, "grad_output")
        if upstream.ndim == 0:
            self.call.grad_scale = float(upstream)
            return
        shape = sample_shape(self.call.logits, self.call.class_axis)
        if self.reduction != "none":
            raise ValueError(f"grad_output must be a number with reduction={self.reduction!r}; got {upstream.shape}")
        if upstream.shape != shape:
            raise ValueError(f"grad_output must have the samples' shape {shape}; got {upstream.shape}")
        self.call.grad_output = upstream

    def write_gradient_to(self, out: Array | None, accumulate: bool = False) -> None:
        """Compute the gradient too, into ``out`` or a new array."""
        if accumulate and out is None:
            raise ValueError("accumulate=True adds to out; give out")
        if accumulate:
            self.call.accumulate = True
        self.given_out, self.wants_out = out, True
        self.overwrites |= out is not None

    def write_hessian_to(self, out: Array | None, kind: str) -> None:
        """Compute the Hessian's diagonal beside the gradient, into ``out`` or a new array."""
        if not isinstance(kind, str) or kind not in ("exact", "xgboost", "lightgbm"):
            raise ValueError(f"kind must be 'exact', 'xgboost' or 'lightgbm'; got {kind!r}")
        self.call.hess_kind = kind
        self.given_hess, self.wants_hess = out, True
        self.overwrites |= out is not None

    def multiply_hessian(self, v: npt.ArrayLike, out: Array | None) -> None:
        """Compute the Hessian's product with ``v`` instead, into ``out`` or a new array."""
        given = as_real_array(v, "v")
        if given.shape != self.call.logits.shape:
            raise ValueError(f"v must have the logits' shape {self.call.logits.shape}; got {given.shape}")
        self.call.direction = given
        self.given_out, self.wants_out = out, True
        self.overwrites |= out is not None

    def write_ranks(self) -> None:
        """Find out where the labels stand too, if the op is "rank"."""
        self.wants_ranks = True

    # ------------------------------------------------------------------------------------------------------------------
    # The answer.

    def solve(self, op: str = "cross_entropy") -> float | Array:
        """The loss, for an op that has one; the other outputs are in the call."""
        try:
            return self._solve(op)
        except BadSample as bad:
            raise self._bad_sample_error(bad.args[0]) from None

    def _solve(self, op: str) -> float | Array:
        call = self.call
        # Before the call has outputs: nothing of the caller's is overwritten where the target is bad.
        if self.overwrites and call.target is not None:
            compute(call, "check_target", self.n_threads)
        if self.reduction == "none" and op != "hvp":
            call.loss = output(call, self.given_loss, with_classes=False)
        if self.wants_out:
            call.out = output(call, self.given_out, may_be_logits=True)
        if self.wants_hess:
            call.hess = output(call, self.given_hess)
        if self.wants_ranks:
            call.rank, call.top = (np.empty(sample_shape(call.logits, call.class_axis), np.int64) for _ in range(2))
        is_mean = self.reduction == "mean"
        divisor = self._divisor(is_mean) if is_mean or self.overwrites else 1.0
        if is_mean:
            # The mean of nothing is nan, but no logit can change it.
            call.grad_scale = call.grad_scale / divisor if divisor else 0.0
        compute(call, op, self.n_threads)
        if call.loss is not None:
            loss: Array = call.loss
            return loss
        total = call.total
        if not is_mean:
            return total
        if divisor == 0:
            return math.nan if total == 0 else total * math.inf
        return total / divisor

    def _divisor(self, is_mean: bool) -> float:
        """What a mean divides by. A bad label is found here where its samples are counted, or where it would be found
        after something of the caller's was overwritten."""
        call, normalizer = self.call, self.normalizer
        has_labels = self.labels is not None
        counted: float
        if (
            is_mean
            and normalizer is None
            and (call.sample_weight is not None or (has_labels and call.class_weight is not None))
        ):
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
        """Multiplies tiny weights by a power of two, which a mean does not see: products with them could leave the
        range of the dtype. Returns whether there were such."""
        call = self.call
        dtype = np.float32 if call.f32 else np.float64
        lifted = False
        for name, given in (("class_weight", call.given_class_weight), ("sample_weight", call.sample_weight)):
            largest = 0.0 if given is None else float(np.max(given, initial=0))
            if not 0 < largest < TINY_WEIGHT:
                continue
            exponent = math.frexp(largest)[1]
            if name == "class_weight":  # does not weigh the z_loss
                call.z_loss = math.ldexp(call.z_loss, min(-exponent, 1023 - math.frexp(call.z_loss)[1]))
            setattr(call, name, np.ldexp(np.asarray(given, np.float64), -exponent).astype(dtype))
            lifted = True
        return lifted

    def _bad_sample_error(self, sample: tuple[int, ...]) -> IndexError | ValueError:
        call = self.call
        if self.labels is None:
            assert call.target is not None
            return target_error(call.target, sample, call.class_axis)
        return label_error(self.labels, sample, call.logits.shape[call.class_axis], self.ignore_index)
