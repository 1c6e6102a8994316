"""Whether a contender is right: its results beside ``softxent.reference``, which computes in float64.

The whole loss is compared, and the gradient in a sample of the samples: a cell of a hundred million logits is checked
in about a second. How fast anybody is has no place here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from softxent import reference

from .cells import Array, Problem

TOLERANCE = {
    4: 1e-3,
    8: 1e-6,
    2: 1e-2,
}  # by itemsize, of the largest entry: tells wrong from right, not good from better
BLOCK = 2**16  # logits: what the reference is given at once, as it is generous with memory
MOST_CHECKED = 2**21  # logits whose gradient is compared


class WrongResult(Exception):
    """A contender's result is not what the reference finds."""


@dataclass(frozen=True)
class Truth:
    """The mean loss, and the gradient of the samples at ``at`` (an index into the sample axes)."""

    loss: float
    at: tuple[Array, ...]
    grad: Array
    axis: int
    tolerance: float

    def check(self, loss: Any, grad: Array | None) -> None:
        """WrongResult, with what is wrong; nothing if they are right."""
        if not abs(float(loss) - self.loss) <= self.tolerance * self.loss:
            raise WrongResult(f"loss {float(loss)} instead of {self.loss}")
        if grad is None:
            return
        error, largest = np.abs(at_samples(grad, self.axis, self.at) - self.grad).max(), np.abs(self.grad).max()
        if not error <= self.tolerance * largest:
            raise WrongResult(f"a gradient that is off by {error:.2g}, where the largest entry is {largest:.2g}")


def find_truth(problem: Problem) -> Truth:
    """What the reference makes of a problem."""
    labels, axis, options = problem.labels, problem.axis, problem.options
    normalizer = counted_weight(problem)
    n_blocks = min(len(labels), -(-problem.logits.size // BLOCK))
    blocks = (np.array_split(array, n_blocks) for array in (problem.logits, labels))
    block_loss = partial(reference.cross_entropy, axis=axis, reduction="sum", **options)
    with ThreadPoolExecutor() as pool:
        loss = sum(float(part) for part in pool.map(block_loss, *blocks)) / normalizer

    at = some_samples(problem)
    _, grad = reference.cross_entropy_and_grad(
        at_samples(problem.logits, axis, at),
        at_samples(labels, axis, at) if problem.distributions else labels[at],
        reduction="sum",
        **options,
    )
    return Truth(loss, at, grad / normalizer, axis, TOLERANCE[problem.logits.itemsize])


def counted_weight(problem: Problem) -> float:
    """What the mean divides by: the class weights of the labels that are not ignored."""
    if problem.distributions:
        return problem.n_samples
    counted = problem.labels[problem.labels != problem.options.get("ignore_index")]
    class_weight = problem.options.get("class_weight")
    return counted.size if class_weight is None else float(class_weight[counted].sum(dtype=np.float64))


def some_samples(problem: Problem) -> tuple[Array, ...]:
    """All samples of a small problem, evenly spread ones of a large one, the first and the last among them."""
    n = min(problem.n_samples, max(2, MOST_CHECKED // problem.n_classes))
    flat = np.linspace(0, problem.n_samples - 1, n).astype(np.intp)
    return np.unravel_index(flat, np.delete(problem.logits.shape, problem.axis))


def at_samples(array: Array, axis: int, at: tuple[Array, ...]) -> Array:
    """Those samples' entries, class axis last, in float64."""
    return np.moveaxis(np.asarray(array), axis, -1)[at].astype(np.float64)
