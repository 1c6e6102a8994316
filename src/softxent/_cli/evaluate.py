"""``evaluate``: what there is to say of logits in a file beside the labels in another, one block of samples at a time.

Here live the options, the one way through the files, and the report. The losses, ranks and gradients come from the
public functions of `softxent`; how files are read and paired, what is measured of them and what may be the matter with
them, from the modules below.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

import softxent
from softxent import _arrays

from . import diagnosis, plots, terminal
from .files import Array, CommandError, Output, new_npy, whole_file
from .formats import open_array, split_name
from .measures import Calibration, Losses
from .pair import Box, Pair


@dataclass(frozen=True)
class Report:
    """What there is to say about a file of logits. Losses are means over the samples that are not ignored."""

    samples: int
    ignored: int
    loss: float
    standard_error: float
    top1_accuracy: float
    top5_accuracy: float
    calibration_error: float | None

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
        names = ["samples", "ignored", "loss", "standard_error", "perplexity", "bits", "top1_accuracy", "top5_accuracy"]
        if self.calibration_error is not None:
            names.append("calibration_error")
        values = {name: getattr(self, name) for name in names}
        # JSON has neither nan nor inf
        return json.dumps({name: value if math.isfinite(value) else None for name, value in values.items()})

    def as_text(self) -> str:
        lines = [
            f"samples         {self.samples}",
            f"ignored         {self.ignored}",
            f"loss            {self.loss:.9g} nats",
            f"standard error  {self.standard_error:.2g} nats",
            f"perplexity      {self.perplexity:.9g}",
            f"bits            {self.bits:.9g}",
            f"top-1 accuracy  {self.top1_accuracy:.2%}",
            f"top-5 accuracy  {self.top5_accuracy:.2%}",
        ]
        if self.calibration_error is not None:
            lines.append(f"calib. error    {self.calibration_error:.4g} (ECE, 15 bins)")
        return "\n".join(lines)


def evaluate(
    logits: str,
    labels: str,
    *,
    axis: int = -1,
    shift: bool = False,
    dtype: str | None = None,
    ignore_index: int | None = None,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    class_weight: str | None = None,
    calibration: bool = False,
    grad: str | None = None,
    per_sample: str | None = None,
    plot: str | None = None,
    n_threads: int | None = None,
) -> Report:
    """Measure the logits in one file against the labels in another. The last three paths name files to write."""
    wanted = {"grad": grad, "per_sample": per_sample, "plot": plot}
    _refuse_to_overwrite([path for path in wanted.values() if path], [logits, labels, class_weight])
    if plot is not None:
        plots.check(plot)
    pair = Pair(logits, labels, axis, ignore_index, shift, bfloat16=dtype == "bfloat16")
    weight = _open_class_weight(class_weight, pair.n_classes) if class_weight is not None else None
    options = {
        "class_weight": weight,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "temperature": temperature,
        "n_threads": n_threads,
    }
    evaluation = _Evaluation(pair, options, calibration or plot is not None)
    with contextlib.ExitStack() as stack:
        outputs = {name: stack.enter_context(whole_file(path)) for name, path in wanted.items() if path}
        evaluation.stream(outputs.get("grad"), outputs.get("per_sample"))
        if plot is not None and evaluation.calibration is not None:
            plots.reliability(outputs["plot"], evaluation.calibration)
    evaluation.tell_doubts()
    return evaluation.report()


class _Evaluation:
    """One pass over a pair of files, and its results."""

    def __init__(self, pair: Pair, options: dict[str, Any], calibrate: bool) -> None:
        self.pair, self.options = pair, options
        self.n_kept, self.normalizer = pair.check_labels(options["class_weight"])
        dtype = _arrays.result_dtype(pair.logits.dtype)
        self.dtype = np.dtype(np.float32) if dtype.itemsize == 2 else dtype  # the dtype of the results
        self.losses = Losses()
        self.right = np.zeros(2, dtype=np.int64)  # first, and among the first five
        self.calibration = Calibration() if calibrate else None
        self.not_finite, self.first_not_finite = diagnosis.NotFinite(), ""
        self.probabilities = diagnosis.Probabilities(pair.n_classes)

    def stream(self, grad_file: Output | None, losses_file: Output | None) -> None:
        """Read the files once, block by block."""
        pair, done = self.pair, 0
        grad = self._new_grad(grad_file) if grad_file is not None else None
        per_sample = self._new_losses(losses_file) if losses_file is not None else None
        with terminal.progress("evaluating", pair.n_samples) as advance:
            for box in pair.boxes():
                try:
                    losses = self._measure(box)
                    if grad is not None:
                        self._differentiate(box, grad)
                except (TypeError, ValueError, IndexError, OverflowError) as error:
                    raise self._as_told(error, box) from error
                if per_sample is not None:
                    per_sample[box] = losses
                done += losses.size
                advance(done, "")

    def _measure(self, box: Box) -> Array:
        """Measure a block; return the losses of its samples."""
        logits, labels = self.pair.logits[box], self.pair.labels_of(box)
        losses = np.empty(logits.shape[:-1], self.dtype)
        _, rank, top = softxent.cross_entropy_and_rank(logits, labels, **self.options, reduction="none", out=losses)
        weights, kept_losses = None, losses
        if self.pair.indexed:
            kept = self.pair.kept(labels)
            kept_losses = losses[kept]
            if self.options["class_weight"] is not None:
                weights = self.options["class_weight"][labels[kept]]
        self.losses.add(kept_losses, weights)
        self.right += [np.count_nonzero(rank == 0), np.count_nonzero((rank >= 0) & (rank < 5))]
        if self.calibration is not None:
            self.calibration.add(self._losses_of_top(logits, top), rank == 0)
        self._look(box, logits, labels, losses)
        return losses

    def _losses_of_top(self, logits: Array, top: Array) -> Array:
        """`-log` of the first class's probability; nan where there is none."""
        same = {name: self.options[name] for name in ("temperature", "n_threads")}
        losses = np.empty(top.shape, self.dtype)
        softxent.cross_entropy(logits, top, ignore_index=-1, reduction="none", out=losses, **same)
        losses[top < 0] = math.nan
        return losses

    def _differentiate(self, box: Box, grad: Array) -> None:
        softxent.cross_entropy_and_grad(
            self.pair.logits[box],
            self.pair.labels_of(box),
            **self.options,
            reduction="sum",
            grad_output=1 / self.normalizer if self.normalizer else 0.0,
            out=grad[box],
        )

    def _new_grad(self, output: Output) -> Array:
        like, flags = self.pair.as_stored, self.pair.as_stored.flags
        dtype = like.dtype if like.dtype.newbyteorder("=") == self.dtype else self.dtype  # in its own byte order
        return self.pair.view(new_npy(output, dtype, like.shape, flags.f_contiguous and not flags.c_contiguous))

    def _new_losses(self, output: Output) -> Array:
        return self.pair.samples_as_stored(new_npy(output, self.dtype, self.pair.stored_samples))

    # What may be the matter ----------------------------------------------------------------------

    def _look(self, box: Box, logits: Array, labels: Array, losses: Array) -> None:
        self.probabilities.look(logits)
        where = self.not_finite.look(losses)
        if where is not None:
            place = self.pair.place(box, where)
            k, what = diagnosis.culprit(logits[tuple(where)], labels[tuple(where)], self.options["label_smoothing"] > 0)
            self.first_not_finite = f"{self.pair.logit_at(place, ':' if k is None else k)} {what}"

    def _as_told(self, error: Exception, box: Box) -> CommandError:
        """An error of a block as an error of the file: a place in the block becomes a place in the file."""
        labels = self.pair.labels_of(box)
        found = None if self.pair.indexed else diagnosis.of_distribution(labels)
        if found is None:
            return CommandError(f"{self.pair.logits_name}, {self.pair.labels_name}: {error}")
        (*where, k), what = found
        place = self.pair.place(box, np.array(where, dtype=np.intp))
        if diagnosis.are_distributions(self.pair.logits[box]):
            what += "; the files seem to be swapped: the logits come first"
        return CommandError(f"{self.pair.labels_name}: {self.pair.target_at(place, int(k))} is {what}")

    def tell_doubts(self) -> None:
        """Print notes to stderr on what is strange about files that were measured."""
        if self.probabilities.seen and self.probabilities.possible:
            terminal.note(
                f"{self.pair.logits_name}: these look like probabilities: all are in [0, 1], and each sample's sum is "
                "1. They were taken as logits. Save np.log of them instead: log-probabilities are fine as logits"
            )
        if self.first_not_finite:
            terminal.note(
                f"{self.pair.logits_name}: of {self.n_kept} losses {self.not_finite.counts()}, the first because "
                + self.first_not_finite
            )

    def report(self) -> Report:
        top1, top5 = self.right / self.n_kept if self.n_kept else (math.nan, math.nan)
        return Report(
            samples=self.pair.n_samples,
            ignored=self.pair.n_samples - self.n_kept,
            loss=self.losses.mean(self.normalizer),
            standard_error=self.losses.standard_error(self.normalizer),
            top1_accuracy=float(top1),
            top5_accuracy=float(top5),
            calibration_error=self.calibration.error() if self.calibration is not None else None,
        )


def _open_class_weight(path: str, n_classes: int) -> Array:
    weight = open_array(path)
    if weight.shape != (n_classes,) or not _arrays.is_real(weight.dtype):
        raise CommandError(
            f"--class-weight {path}: holds {weight.dtype} of shape {weight.shape}: "
            f"one real number for each of the {n_classes} classes is wanted"
        )
    bad = ~((weight >= 0) & np.isfinite(weight))
    if bad.any():
        first = int(bad.argmax())
        raise CommandError(
            f"--class-weight {path}: the weight of class {first} is {weight[first]}: it must be at least 0"
        )
    return np.array(weight, dtype=np.float64)


def _refuse_to_overwrite(outputs: list[str], inputs: list[str | None]) -> None:
    """Refuse an output that is an input or another output."""
    read = [split_name(name)[0] for name in inputs if name is not None]
    for i, path in enumerate(outputs):
        for other in read:
            if os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other):
                raise CommandError(f"{path}: would overwrite {other}, which is read: name another file")
        if any(os.path.realpath(path) == os.path.realpath(other) for other in outputs[:i]):
            raise CommandError(f"{path}: would be written twice: name another file for one of the two")
