"""One general call of a loss: its arguments checked, its outputs allocated, and then computed, once.

The public functions in ``_loss.py`` say what they want by calling the methods of ``Problem``. How arrays become calls
of the kernels is in ``_pieces.py``.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from ._arrays import (
    Array,
    as_logits,
    as_number,
    as_real_array,
    check_integer,
    check_out,
    is_computed_in_float32,
    new_output,
    result_dtype,
    sample_shape,
)
from ._kernels import Call
from ._labels import for_kernels, label_error, labels_or_target
from ._options import Options, set_options
from ._pieces import compute, total_weight

Reduction = Literal["mean", "sum", "none"]


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
        options: Options,
    ) -> None:
        call = self.call = Call()
        self.logits, call.class_axis = as_logits(logits, axis)
        call.logits = self.logits
        call.f32 = is_computed_in_float32(self.logits.dtype)
        self.labels, call.target = labels_or_target(labels, self.logits, call.class_axis)
        self.ignore_index = ignore_index
        if self.labels is None:
            if ignore_index is not None:
                check_integer(ignore_index, "ignore_index")
                raise ValueError(
                    "ignore_index needs class indices as labels; these have the logits' shape: distributions"
                )
        else:
            call.labels = self.labels
            if ignore_index is not None:
                self.ignore_index = check_integer(ignore_index, "ignore_index")
                call.labels, call.ignore_index = for_kernels(self.labels, self.ignore_index)
        self.class_weight = set_options(call, options)
        self.normalizer = None if normalizer is None else as_number(normalizer, "normalizer")
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
        self.reduction = reduction
        self.n_threads = n_threads
        # Arrays of the caller's for the losses, the gradient (or the product) and the Hessian's diagonal.
        self.given_loss: Array | None = None
        self.given_out: Array | None = None
        self.given_hess: Array | None = None
        self.wants_out = self.wants_hess = self.wants_ranks = False

    # ------------------------------------------------------------------------------------------------------------------
    # What is wanted.

    def write_losses_to(self, out: Array) -> None:
        """Write the losses to an array of the caller's."""
        if self.reduction != "none":
            raise ValueError(f"out takes the losses of reduction='none'; reduction is {self.reduction!r}")
        self.given_loss = out

    def multiply_gradient(self, grad_output: npt.ArrayLike | None) -> None:
        """By a number, or by one for each sample."""
        if grad_output is None:
            return
        upstream = as_real_array(grad_output, "grad_output")
        if upstream.ndim == 0:
            self.call.grad_scale = float(upstream)
            return
        shape = sample_shape(self.logits, self.call.class_axis)
        if self.reduction != "none":
            raise ValueError(f"grad_output must be a number with reduction={self.reduction!r}; got {upstream.shape}")
        if upstream.shape != shape:
            raise ValueError(f"grad_output must have the samples' shape {shape}; got {upstream.shape}")
        self.call.grad_output = upstream

    def write_gradient_to(self, out: Array | None, accumulate: bool = False) -> None:
        """Compute the gradient too, into ``out`` or a new array."""
        if accumulate and out is None:
            raise ValueError("accumulate=True adds to out; give out")
        self.call.accumulate = bool(accumulate)
        self.given_out, self.wants_out = out, True

    def write_hessian_to(self, out: Array | None, kind: str) -> None:
        """Compute the Hessian's diagonal beside the gradient, into ``out`` or a new array."""
        if not isinstance(kind, str) or kind not in ("exact", "xgboost", "lightgbm"):
            raise ValueError(f"kind must be 'exact', 'xgboost' or 'lightgbm'; got {kind!r}")
        self.call.hess_kind = kind
        self.given_hess, self.wants_hess = out, True

    def multiply_hessian(self, v: npt.ArrayLike, out: Array | None) -> None:
        """Compute the Hessian's product with ``v`` instead, into ``out`` or a new array."""
        given = as_real_array(v, "v")
        if given.shape != self.logits.shape:
            raise ValueError(f"v must have the logits' shape {self.logits.shape}; got {given.shape}")
        self.call.direction = given
        self.given_out, self.wants_out = out, True

    def write_ranks(self) -> None:
        """Find out where the labels stand too, if the op is "rank"."""
        self.wants_ranks = True

    # ------------------------------------------------------------------------------------------------------------------
    # The answer.

    def solve(self, op: str = "cross_entropy") -> float | Array:
        """The loss, for an op that has one; the other outputs are in the call."""
        call = self.call
        self._make_outputs(has_loss=op != "hvp")
        divisor = self._divisor()
        if self.reduction == "mean":
            # The mean of nothing is nan, but no logit can change it.
            call.grad_scale = call.grad_scale / divisor if divisor else 0.0
        if self.logits.size and not compute(call, op, self.n_threads):
            raise label_error(self.labels, self.logits.shape[call.class_axis], self.ignore_index)
        if call.loss is not None:
            return call.loss
        total = call.total
        if self.reduction != "mean":
            return total
        if divisor == 0:
            return math.nan if total == 0 else total * math.inf
        return total / divisor

    def _make_outputs(self, has_loss: bool) -> None:
        """Checks the outputs that were given, and allocates the others."""
        call, z = self.call, self.logits
        if self.reduction == "none" and has_loss:
            shape = sample_shape(z, call.class_axis)
            if self.given_loss is None:
                call.loss = np.empty(shape, result_dtype(z.dtype))
            else:
                call.loss = check_out(self.given_loss, shape, z.dtype, "the samples", self._inputs("the logits"))
        if self.given_out is not None:
            call.out = check_out(self.given_out, z.shape, z.dtype, "the logits", self._inputs("logits"), may_be=z)
        elif self.wants_out:
            call.out = new_output(z)
        if self.given_hess is not None:
            inputs = [*self._inputs("the logits"), ("the gradient's", call.out)]
            call.hess = check_out(self.given_hess, z.shape, z.dtype, "the logits", inputs)
        elif self.wants_hess:
            call.hess = new_output(z)
        if self.wants_ranks:
            call.rank, call.top = (np.empty(sample_shape(z, call.class_axis), np.int64) for _ in range(2))

    def _inputs(self, name_of_logits: str) -> tuple[tuple[str, Array | None], ...]:
        """The user's arrays, with the names to be called by in an error."""
        call = self.call
        return (
            (name_of_logits, self.logits),
            ("labels", call.target if self.labels is None else self.labels),
            ("grad_output", call.grad_output),
            ("v", call.direction),
            ("where", call.where),
            ("sample_weight", call.sample_weight),
            ("class_weight", self.class_weight),
        )

    def _divisor(self) -> float:
        """What a mean divides by. The labels are looked at beforehand where that needs it, or where a bad one would be
        found after something of the caller's was overwritten."""
        call, is_mean = self.call, self.reduction == "mean"
        n_samples = self.logits.size // self.logits.shape[call.class_axis]
        divisor: float | None = n_samples
        has_old_outputs = not (self.given_loss is None and self.given_out is None and self.given_hess is None)
        if n_samples == 0:
            pass
        elif is_mean and (
            call.sample_weight is not None or (self.labels is not None and call.class_weight is not None)
        ):
            divisor = total_weight(call)
        elif self.labels is not None and (has_old_outputs or (is_mean and call.ignore_index is not None)):
            divisor = call.count_labels(self.n_threads)
        assert divisor is not None  # labels are of a type that the kernels take
        if divisor < 0:
            raise label_error(self.labels, self.logits.shape[call.class_axis], self.ignore_index)
        return divisor if self.normalizer is None else self.normalizer
