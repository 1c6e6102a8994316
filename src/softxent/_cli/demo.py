"""``demo``: softmax regression on handwritten digits, trained with softxent and with the NumPy idiom.

The whole of it: load, split, train, look at the curve, test, and time the two ways of computing the loss and
its gradient in otherwise the same training. How things are drawn lives in ``terminal.py``.
"""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import softxent

from . import plots, terminal
from .files import whole_file

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
LossAndGrad = Callable[[Floats, Labels], tuple[float, Floats]]  # the mean loss of logits, and its gradient
Watch = Callable[[int, float], None]  # called with each step and its loss

# The Hessian is at most half of X'X / n, whose largest eigenvalue is 11.5 for these pixels; with Nesterov's
# momentum m, steps are stable up to (2 + 2m) / (1 + 2m) over that: 0.23.
RATE, MOMENTUM = 0.2, 0.95
TIMED_RUNS = 3


class Split(NamedTuple):
    """Pixels in [0, 1] and a column of ones for the bias; the digits. Two thirds to train, one to test."""

    x_train: Floats
    y_train: Labels
    x_test: Floats
    y_test: Labels


def run(steps: int, seed: int, plot: str | None, threads: int | None) -> None:
    if plot is None:
        _run(steps, seed, threads)
        return
    plots.check(plot)
    with whole_file(plot) as output:  # a missing encoding fails here, and not after the training
        plots.learning_curve(output, _run(steps, seed, threads))
    terminal.say(f"learning curve  {plot}")


def _run(steps: int, seed: int, threads: int | None) -> list[float]:
    """Do and show all of it; return the loss at every step."""
    split = load_digits(seed)
    n_train, n_test = len(split.y_train), len(split.y_test)
    terminal.say("Softmax regression on handwritten digits, 8 x 8 pixels each")
    terminal.say(f"{n_train + n_test} samples, 10 classes: {n_train} to train, {n_test} to test\n")

    def fused(logits: Floats, labels: Labels) -> tuple[float, Floats]:
        loss, grad = softxent.cross_entropy_and_grad(logits, labels, n_threads=threads)
        return float(loss), grad

    weights, losses = _train_watched(split, steps, fused)
    terminal.picture("learning curve", terminal.curve(losses, "step", "loss (nats)"))
    accuracy = np.mean(np.argmax(split.x_test @ weights, axis=1) == split.y_test)
    terminal.say(f"\ntest accuracy   {accuracy:.2%} ({n_test} images that the training never saw)\n")

    _compare(split, steps, fused)
    return losses


def load_digits(seed: int) -> Split:
    with (importlib.resources.files("softxent.data") / "digits.npz").open("rb") as file:
        digits = np.load(file, allow_pickle=False)
        images, labels = digits["images"], digits["labels"].astype(np.int64)
    pixels = np.column_stack([images / 16, np.ones(len(images))])
    test, train = np.split(np.random.default_rng(seed).permutation(len(labels)), [len(labels) // 3])
    return Split(pixels[train], labels[train], pixels[test], labels[test])


def train(
    x: Floats, y: Labels, steps: int, loss_and_grad: LossAndGrad, watch: Watch | None = None
) -> tuple[Floats, list[float]]:
    """Gradient descent with Nesterov's momentum from zero weights; also returns the loss at every step."""
    weights = np.zeros((x.shape[1], 10))
    velocity = np.zeros_like(weights)
    losses = []
    for step in range(steps):
        ahead = weights + MOMENTUM * velocity
        loss, grad = loss_and_grad(x @ ahead, y)
        velocity = MOMENTUM * velocity - RATE * (x.T @ grad)
        weights = weights + velocity
        losses.append(loss)
        if watch is not None:
            watch(step, loss)
    return weights, losses


def numpy_idiom(logits: Floats, labels: Labels) -> tuple[float, Floats]:
    """The loss and its gradient as textbooks and lecture notes write them."""
    n = len(labels)
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = exps / exps.sum(axis=1, keepdims=True)
    loss = -np.log(p[range(n), labels]).mean()
    p[range(n), labels] -= 1
    p /= n
    return float(loss), p


def _train_watched(split: Split, steps: int, loss_and_grad: LossAndGrad) -> tuple[Floats, list[float]]:
    every = max(1, steps // 8)
    lines = []
    with terminal.progress("training", steps) as advance:

        def watch(step: int, loss: float) -> None:
            advance(step + 1, f"loss {loss:.4f}")
            if step % every == 0 or step == steps - 1:
                lines.append(f"step {step:5d}   loss {loss:.4f}")

        weights, losses = train(split.x_train, split.y_train, steps, loss_and_grad, watch)
    terminal.say("\n".join(lines) + "\n")
    return weights, losses


def _compare(split: Split, steps: int, fused: LossAndGrad) -> None:
    """Time the same training with both ways, in turn. The best of a few runs counts, without the progress bar."""
    best = dict.fromkeys(("softxent", "NumPy"), np.inf)
    loss: dict[str, Any] = {}
    for _ in range(TIMED_RUNS):
        for name, loss_and_grad in (("softxent", fused), ("NumPy", numpy_idiom)):
            start = time.perf_counter()
            _, losses = train(split.x_train, split.y_train, steps, loss_and_grad)
            best[name] = min(best[name], time.perf_counter() - start)
            loss[name] = losses[-1]
    terminal.say(f"the same {steps} steps, best of {TIMED_RUNS} runs:")
    terminal.say(f"softxent        {best['softxent'] * 1e3:8.1f} ms   loss {loss['softxent']:.10f}")
    terminal.say(f"NumPy idiom     {best['NumPy'] * 1e3:8.1f} ms   loss {loss['NumPy']:.10f}")
    difference = abs(loss["softxent"] - loss["NumPy"])
    verdict = "the same loss" if difference <= 1e-9 * loss["NumPy"] else "NOT THE SAME LOSS"
    ratio = best["NumPy"] / best["softxent"]
    terminal.say(f"ratio           {ratio:8.2f} x    {verdict} (they differ by {difference:.1e})")
