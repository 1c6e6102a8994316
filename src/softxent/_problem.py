"""One general call of a loss: its arguments checked, its outputs allocated, and then computed, once.

The public functions in ``_loss.py`` say what they want by calling the methods of ``Problem`` one after the other. How
arrays become calls of the kernels is in ``_pieces.py``.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import (
    Array,
    as_array,
    as_logits,
    as_real_array,
    check_integer,
    check_out,
    class_axis_last,
    result_dtype,
    working_dtype,
)
from ._labels import for_kernels, label_error, labels_or_target
from ._options import check_options
from ._pieces import compute, count_labels, total_weight
from ._threads import threads_for

Reduction = Literal["mean", "sum", "none"]

# Outputs that have no class axis.
OF_SAMPLES = ("loss", "rank", "top")


class Problem:
    """A loss to be computed; ``options`` are those of ``check_options``.

    Arrays are kept with the class axis last; ``outputs`` are as the user sees them: the losses, the gradient (or a
    product with the Hessian), the Hessian's diagonal.
    """

    def __init__(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        axis: int,
        ignore_index: int | None,
        reduction: Reduction,
        n_threads: int | None,
        **options: Any,
    ) -> None:
        self.given_logits = as_array(logits, "logits")
        self.axis = axis
        self.logits = as_logits(self.given_logits, axis)
        self.n_classes = self.logits.shape[-1]
        self.sample_shape = self.logits.shape[:-1]
        self.dtype = working_dtype(self.logits.dtype)
        self.labels, self.target = labels_or_target(labels, self.given_logits, self.logits, axis)
        self.ignore_index = None if ignore_index is None else check_integer(ignore_index, "ignore_index")
        if self.ignore_index is not None and self.labels is None:
            raise ValueError("ignore_index needs class indices as labels; these have the logits' shape: distributions")
        self.given_labels, self.given_ignore_index = self.labels, self.ignore_index
        if self.labels is not None:
            self.labels, self.ignore_index = for_kernels(self.labels, self.ignore_index)
        self.options = check_options(self.logits, axis, self.dtype, **options)
        if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
        self.reduction = reduction
        self.threads = threads_for(n_threads)
        self.outputs: dict[str, Array] = {}
        self.grad_output: Array | None = None
        self.direction: Array | None = None
        self.grad_scale = 1.0
        self.rest: dict[str, Any] = {}
        self.keeps_old_arrays = True  # no array of the caller's will be written

    # ------------------------------------------------------------------------------------------------------------------
    # What is wanted.

    def write_losses_to(self, out: Array) -> None:
        """Write the losses to an array of the caller's."""
        if self.reduction != "none":
            raise ValueError(f"out takes the losses of reduction='none'; reduction is {self.reduction!r}")
        self.outputs["loss"] = check_out(out, self.logits[..., 0], "the samples", self._inputs("the logits"))
        self.keeps_old_arrays = False

    def multiply_gradient(self, grad_output: npt.ArrayLike | None) -> None:
        """By a number, or by one for each sample."""
        if grad_output is None:
            return
        upstream = as_real_array(grad_output, "grad_output")
        if upstream.ndim == 0:
            self.grad_scale = float(upstream)
        elif self.reduction != "none":
            raise ValueError(f"grad_output must be a number with reduction={self.reduction!r}; got {upstream.shape}")
        elif upstream.shape != self.sample_shape:
            raise ValueError(f"grad_output must have the samples' shape {self.sample_shape}; got {upstream.shape}")
        else:
            self.grad_output = upstream

    def write_gradient_to(self, out: Array | None, accumulate: bool = False) -> None:
        """Compute the gradient too, into ``out`` or a new array."""
        if accumulate and out is None:
            raise ValueError("accumulate=True adds to out; give out")
        self.rest["accumulate"] = bool(accumulate)
        self._write_to("out", out, self._inputs("logits"))

    def write_hessian_to(self, out: Array | None, kind: str) -> None:
        """Compute the Hessian's diagonal too, into ``out`` or a new array; to be called after write_gradient_to."""
        if not isinstance(kind, str) or kind not in ("exact", "xgboost", "lightgbm"):
            raise ValueError(f"kind must be 'exact', 'xgboost' or 'lightgbm'; got {kind!r}")
        self.rest["hess_kind"] = kind
        self._write_to("hess", out, self._inputs("the logits") | {"the gradient's": self.outputs["out"]})

    def multiply_hessian(self, v: npt.ArrayLike, out: Array | None) -> None:
        """Compute the Hessian's product with ``v`` instead, into ``out`` or a new array."""
        given = as_real_array(v, "v")
        if given.shape != self.given_logits.shape:
            raise ValueError(f"v must have the logits' shape {self.given_logits.shape}; got {given.shape}")
        self.direction = class_axis_last(given, self.axis)
        self._write_to("out", out, self._inputs("logits"))

    def write_ranks(self) -> None:
        """Find out where the labels stand too, if the op is "rank"."""
        self.outputs |= {name: np.empty(self.sample_shape, np.int64) for name in ("rank", "top")}

    def _write_to(self, name: str, out: Array | None, inputs: dict[str, Array | None]) -> None:
        if out is None:
            dtype = result_dtype(self.logits.dtype)
            self.outputs[name] = np.empty_like(self.given_logits, dtype=dtype, subok=False)
        else:
            self.outputs[name] = check_out(out, self.given_logits, "the logits", inputs)
            self.keeps_old_arrays = False

    def _inputs(self, logits_name: str) -> dict[str, Array | None]:
        return {
            logits_name: self.given_logits,
            "labels": self.target if self.labels is None else self.labels,
            "grad_output": self.grad_output,
            "v": self.direction,
            **self.options.inputs(),
        }

    # ------------------------------------------------------------------------------------------------------------------
    # The answer.

    def solve(self, op: str = "cross_entropy") -> float | Array:
        """The loss, for that op; the other outputs are in ``outputs``."""
        divisor, has_loss = self._divisor(), op in ("cross_entropy", "rank")
        if has_loss and self.reduction == "none" and "loss" not in self.outputs:
            self.outputs["loss"] = np.empty(self.sample_shape, result_dtype(self.logits.dtype))
        if self.reduction == "mean":
            # The mean of nothing is nan, but no logit can change it.
            self.grad_scale = self.grad_scale / divisor if divisor else 0.0
        total = self._run(op) if self.logits.size else 0.0
        if self.reduction == "none" and has_loss:
            return self.outputs["loss"]
        if self.reduction != "mean":
            return total
        with np.errstate(all="ignore"):
            return float(np.divide(total, divisor))

    def _divisor(self) -> float:
        """What a mean divides by. The labels are looked at beforehand where that needs it, or where a bad one would be
        found after something of the caller's was overwritten."""
        o = self.options
        n_samples = math.prod(self.sample_shape)
        divisor = float(n_samples)
        if self.labels is None:
            if o.sample_weight is not None and self.reduction == "mean":
                divisor = float(np.sum(o.sample_weight, dtype=np.float64))
        elif n_samples and self.reduction == "mean" and (o.sample_weight is not None or o.class_weight is not None):
            divisor = total_weight(
                self.labels, self.n_classes, self.ignore_index, o.sample_weight, o.class_weight, self.dtype
            )
        elif n_samples and not (self.keeps_old_arrays and (self.ignore_index is None or self.reduction != "mean")):
            divisor = count_labels(self.threads, self.labels, self.n_classes, self.ignore_index)
        if divisor < 0:
            raise label_error(self.given_labels, self.n_classes, self.given_ignore_index)
        return divisor if o.normalizer is None else o.normalizer

    def _run(self, op: str) -> float:
        """Everything; the sum of the losses, if they are not kept."""
        # As plain arrays: a subclass may have its own idea of axes.
        outputs = {name: np.asarray(a) for name, a in self.outputs.items()}
        arrays = {
            "logits": self.logits,
            "labels": self.labels,
            "target": self.target,
            "direction": self.direction,
            "grad_output": self.grad_output,
            **self.options.arrays(),
            **{name: a if name in OF_SAMPLES else class_axis_last(a, self.axis) for name, a in outputs.items()},
        }
        total, labels_are_good = compute(
            op,
            self.dtype,
            len(self.sample_shape),
            self.threads,
            arrays,
            class_weight=self.options.class_weight,
            options=self.options.numbers,
            ignore_index=self.ignore_index,
            grad_scale=self.grad_scale,
            **self.rest,
        )
        if not labels_are_good:
            raise label_error(self.given_labels, self.n_classes, self.given_ignore_index)
        return total
