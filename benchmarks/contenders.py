"""Who computes it: each library the best way its users could honestly write, and the limit that memory sets.

A contender is a function of a ``Problem`` that prepares what may be prepared and returns a call for each task
it can do. ``"loss"`` returns the mean loss, ``"loss+grad"`` the pair of it and the gradient. How calls are timed
is in ``runner``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import softxent

from .cells import Problem

Call = Callable[[], Any]
Calls = dict[str, Call]  # by task

TASKS = ("loss", "loss+grad")

# Handing work to another Python thread takes tens of microseconds; below this one thread is the faster limit.
SMALLEST_TO_SHARE = 2**20  # bytes


def limit(problem: Problem) -> Calls:
    """What no contender can beat: reading the logits once for the loss, copying them once for the gradient.

    The maximum is the cheapest computation that reads everything. The calling thread takes a part itself.
    """
    n_parts = problem.n_threads if problem.logits.nbytes >= SMALLEST_TO_SHARE else 1
    sources = np.array_split(problem.logits.reshape(-1), n_parts)
    targets = np.array_split(problem.prepared.reshape(-1), n_parts)
    pool = ThreadPoolExecutor(n_parts)

    def in_parts(work: Callable[[int], object]) -> None:
        others = [pool.submit(work, part) for part in range(1, n_parts)]
        work(0)
        for other in others:
            other.result()

    return {
        "loss": lambda: in_parts(lambda part: sources[part].max()),
        "loss+grad": lambda: in_parts(lambda part: np.copyto(targets[part], sources[part])),
    }


def numpy_idiom(problem: Problem, *, prepared: bool) -> Calls:
    """The teaching text's idiom, in place after its first line, with the mean's 1/n in the normalisation."""
    z, axis, at_label, n = problem.logits, problem.axis, problem.at_label, problem.labels.size
    out = problem.prepared if prepared else None

    def exps_sums_and_loss() -> tuple[Any, Any, Any]:
        p = np.subtract(z, z.max(axis, keepdims=True), out=out)
        label_logits = p[at_label]
        np.exp(p, out=p)
        sums = p.sum(axis, keepdims=True)
        return p, sums, (np.log(sums.squeeze(axis)) - label_logits).mean()

    def loss_and_grad() -> tuple[Any, Any]:
        p, sums, loss = exps_sums_and_loss()
        p *= 1 / (n * sums)
        p[at_label] -= 1 / n
        return loss, p

    return {"loss": lambda: exps_sums_and_loss()[-1], "loss+grad": loss_and_grad}


def scipy_special(problem: Problem) -> Calls:
    """``scipy.special``: log_softmax, and its exponential in place. For the loss, logsumexp is slower."""
    from scipy.special import log_softmax

    z, axis, at_label, n = problem.logits, problem.axis, problem.at_label, problem.labels.size

    def loss_and_grad() -> tuple[Any, Any]:
        p = log_softmax(z, axis)
        loss = -p[at_label].mean()
        np.exp(p, out=p)
        p[at_label] -= 1
        p *= 1 / n
        return loss, p

    return {"loss": lambda: -log_softmax(z, axis)[at_label].mean(), "loss+grad": loss_and_grad}


def torch_eager(problem: Problem) -> Calls:
    """PyTorch, eager, on the same memory. A ``.grad`` of None is fastest: nothing is added."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(problem.n_threads)
    labels = torch.from_numpy(problem.labels)
    constant = torch.from_numpy(problem.logits)
    leaf = torch.from_numpy(problem.logits).requires_grad_()

    def loss_and_grad() -> tuple[Any, Any]:
        leaf.grad = None
        loss = cross_entropy(leaf, labels)
        loss.backward()
        return loss.detach(), leaf.grad

    return {"loss": lambda: cross_entropy(constant, labels), "loss+grad": loss_and_grad}


def softxent_fresh(problem: Problem) -> Calls:
    """This package, with a new array for the gradient."""
    arguments: dict[str, Any] = {"axis": problem.axis, "n_threads": problem.n_threads}
    z, y = problem.logits, problem.labels
    return {
        "loss": lambda: softxent.cross_entropy(z, y, **arguments),
        "loss+grad": lambda: softxent.cross_entropy_and_grad(z, y, **arguments),
    }


def softxent_out(problem: Problem) -> Calls:
    """This package, with a prepared array for the gradient. The loss alone makes no array."""
    arguments: dict[str, Any] = {"axis": problem.axis, "n_threads": problem.n_threads, "out": problem.prepared}
    z, y = problem.logits, problem.labels
    return {"loss+grad": lambda: softxent.cross_entropy_and_grad(z, y, **arguments)}


@dataclass(frozen=True)
class Contender:
    """A name for the table, the package it needs, and the function that prepares its calls."""

    name: str
    package: str
    prepare: Callable[[Problem], Calls]

    @property
    def is_installed(self) -> bool:
        """Whether its package can be imported here."""
        return find_spec(self.package) is not None


LIMIT = Contender("limit", "numpy", limit)
CONTENDERS = (
    Contender("numpy", "numpy", partial(numpy_idiom, prepared=False)),
    Contender("numpy-out", "numpy", partial(numpy_idiom, prepared=True)),
    Contender("scipy", "scipy", scipy_special),
    Contender("torch", "torch", torch_eager),
    Contender("softxent", "softxent", softxent_fresh),
    Contender("softxent-out", "softxent", softxent_out),
)
