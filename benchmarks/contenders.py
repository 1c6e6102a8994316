"""Who computes it: each library the best way its users could honestly write; here NumPy, SciPy and this package.

A contender is a function of a ``Problem`` that prepares what may be prepared and returns a call for each task.
``"loss"`` returns the mean loss, ``"loss+grad"`` the pair of it and the gradient. The libraries with their own arrays,
threads or compilers are in ``peers``; how calls are timed is in ``runner``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import softxent
from softxent import _kernels

from . import peers
from .cells import DTYPES, FLOATS, Array, Cell, Problem
from .limit import limit

Calls = dict[str, Callable[[], Any]]  # by task

TASKS = ("loss", "loss+grad")


@dataclass(frozen=True)
class Contender:
    """A name for the table, the function that prepares its calls, the packages it needs, and the cells it can do."""

    name: str
    prepare: Callable[[Problem], Calls]
    packages: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = DTYPES
    channels_first: bool = True
    distributions: bool = True
    distributions_channels_first: bool = True
    adapt: Callable[[Problem], Problem] = lambda problem: problem  # to what it is asked
    before: Callable[[], None] = lambda: None  # what has to be set, untimed, before its calls
    to_numpy: Callable[[Any], Array] = np.asarray  # its gradient, untimed, for the check

    def missing(self) -> list[str]:
        """The packages that are not installed here."""
        return [package for package in self.packages if find_spec(package) is None]

    def cannot_do(self, cell: Cell) -> str:
        """What about this cell is beyond it; nothing if it can do it."""
        if cell.dtype not in self.dtypes:
            return cell.dtype
        if cell.channels_first and not self.channels_first:
            return "channels first"
        if cell.distributions and not self.distributions:
            return "distributions"
        if cell.channels_first and cell.distributions and not self.distributions_channels_first:
            return "distributions, channels first"
        return ""


def numpy_idiom(problem: Problem, *, prepared: bool) -> Calls:
    """The teaching text's idiom, in place after its first line, with the mean's 1/n in the normalisation.

    Half precision is converted first: NumPy computes it one number at a time.
    """
    axis, n, halves = problem.axis, problem.n_samples, problem.logits.itemsize == 2
    work = problem.prepared if prepared else None
    if prepared and halves:
        work = np.full(problem.logits.shape, 0, np.float32)
    target = problem.labels.astype(np.float32) if halves and problem.distributions else problem.labels
    at_label = () if problem.distributions else problem.at_label

    def exps_sums_and_loss() -> tuple[Array, Array, Any]:
        z = problem.logits.astype(np.float32) if halves else problem.logits
        p = np.subtract(z, z.max(axis, keepdims=True), out=work)
        label_logits = np.vdot(p, target) / n if problem.distributions else p[at_label].mean()
        np.exp(p, out=p)
        sums = p.sum(axis, keepdims=True)
        return p, sums, np.log(sums).mean() - label_logits

    def loss_and_grad() -> tuple[Any, Array]:
        p, sums, loss = exps_sums_and_loss()
        if problem.distributions:
            p /= sums
            p -= target
            p *= 1 / n
        else:
            p *= 1 / (n * sums)
            p[at_label] -= 1 / n
        if halves and prepared:
            problem.prepared[...] = p
            return loss, problem.prepared
        return loss, p.astype(problem.logits.dtype, copy=False)

    return {"loss": lambda: exps_sums_and_loss()[-1], "loss+grad": loss_and_grad}


def scipy_special(problem: Problem) -> Calls:
    """``scipy.special``: log_softmax, and its exponential in place. For the loss, logsumexp is slower."""
    from scipy.special import log_softmax

    z, axis, n, target = problem.logits, problem.axis, problem.n_samples, problem.labels
    at_label = () if problem.distributions else problem.at_label

    def loss_of(log_p: Array) -> Any:
        return -(np.vdot(log_p, target) / n) if problem.distributions else -log_p[at_label].mean()

    def loss_and_grad() -> tuple[Any, Array]:
        p = log_softmax(z, axis)
        loss = loss_of(p)
        np.exp(p, out=p)
        if problem.distributions:
            p -= target
        else:
            p[at_label] -= 1
        p *= 1 / n
        return loss, p

    return {"loss": lambda: loss_of(log_softmax(z, axis)), "loss+grad": loss_and_grad}


def softxent_fresh(problem: Problem) -> Calls:
    """This package, with a new array for the gradient. The loss alone makes none, and is timed below."""
    arguments: dict[str, Any] = {"axis": problem.axis, "n_threads": problem.n_threads, **problem.options}
    z, y = problem.logits, problem.labels
    return {"loss+grad": lambda: softxent.cross_entropy_and_grad(z, y, **arguments)}


def softxent_out(problem: Problem) -> Calls:
    """This package, with a prepared array for the gradient."""
    arguments: dict[str, Any] = {"axis": problem.axis, "n_threads": problem.n_threads, **problem.options}
    z, y, out = problem.logits, problem.labels, problem.prepared
    return {
        "loss": lambda: softxent.cross_entropy(z, y, **arguments),
        "loss+grad": lambda: softxent.cross_entropy_and_grad(z, y, out=out, **arguments),
    }


def with_option(option: str, problem: Problem) -> Problem:
    """The same problem, asked with an option, or with all of them."""
    n_classes, labels, options = problem.n_classes, problem.labels, dict[str, Any]()
    if option in ("label_smoothing", "all four"):
        options["label_smoothing"] = 0.1
    if option in ("class_weight", "all four"):
        options["class_weight"] = np.linspace(0.5, 1.5, n_classes).astype(problem.logits.dtype)
    if option in ("ignore_index", "all four"):
        options["ignore_index"] = -100
        labels = np.where(np.random.default_rng(3).random(labels.shape) < 0.05, -100, labels)
    if option in ("z_loss", "all four"):
        options["z_loss"] = 1e-4
    return replace(problem, labels=labels, options=options)


LIMIT = Contender("limit", limit)
SOFTXENT_OUT = Contender("softxent-out", softxent_out, before=partial(_kernels.use_isa, None))
SLOW_TO_COMPILE = "torch-compile"
CONTENDERS = (
    Contender("numpy", partial(numpy_idiom, prepared=False)),
    Contender("numpy-out", partial(numpy_idiom, prepared=True)),
    Contender("scipy", scipy_special, ("scipy",), FLOATS),
    Contender("torch", peers.torch_eager, ("torch",), to_numpy=peers.numpy_of_tensor),
    Contender(SLOW_TO_COMPILE, peers.torch_compile, ("torch",), to_numpy=peers.numpy_of_tensor),
    Contender("jax", peers.jax_jit, ("jax", "optax")),
    Contender("sklearn", peers.sklearn_loss, ("sklearn",), FLOATS, channels_first=False, distributions=False),
    Contender("numba", peers.numba_loops, ("numba",), FLOATS, distributions_channels_first=False),
    Contender("softxent", softxent_fresh, before=partial(_kernels.use_isa, None)),
    SOFTXENT_OUT,
)
OPTIONS = tuple(
    Contender(option, softxent_out, adapt=partial(with_option, option), before=partial(_kernels.use_isa, None))
    for option in ("plain", "label_smoothing", "class_weight", "ignore_index", "z_loss", "all four")
)
ISAS = tuple(Contender(isa, softxent_out, before=partial(_kernels.use_isa, isa)) for isa in _kernels.usable_isas())
