"""How a cell is timed: results checked once, then rounds in which every contender has its turn.

Nothing here knows what a contender computes with, or where the measurements go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from softxent import reference

from .cells import Array, Cell, Problem, make_problem
from .contenders import LIMIT, TASKS, Call, Contender

SHORTEST_TIMING = 200e-6  # seconds: shorter calls are timed several at a time
WARM_UP = 10e-3  # seconds of untimed calls: to wake OpenMP threads takes some; a longer call needs none
PAUSE = 10e-3  # seconds: OpenMP's idle threads spin for about 4 ms, on a processor that the next contender needs
TOLERANCE = 1e-3  # of the largest entry: tells wrong from right, not good from better
BLOCK = 2**20  # logits: what the reference is given at once, as it is generous with memory


@dataclass(frozen=True)
class Measurement:
    """One contender at one task in one cell; milliseconds per call."""

    cell: str
    dtype: str
    threads: int
    task: str
    contender: str
    rounds: int
    calls_per_timing: int
    p20_ms: float
    median_ms: float
    p80_ms: float
    times_limit: float


@dataclass
class Run:
    """One contender's call, how often it is called in a timing, and the seconds per call so far."""

    contender: str
    task: str
    call: Call
    calls: int = 1
    is_long: bool = False  # longer than the warm-up
    seconds: list[float] = field(default_factory=list)

    def calibrate(self) -> None:
        """Choose the number of calls that makes a timing long enough."""
        self._warm_up()
        while (seconds := self._time()) < SHORTEST_TIMING:
            self.calls *= 2
        self.is_long = seconds > WARM_UP

    def take_turn(self) -> None:
        """One timing, in quiet."""
        time.sleep(PAUSE)
        if not self.is_long:
            self._warm_up()
        self.seconds.append(self._time() / self.calls)

    def _warm_up(self) -> None:
        end = time.perf_counter() + WARM_UP
        while time.perf_counter() < end:
            self.call()

    def _time(self) -> float:
        start = time.perf_counter()
        for _ in range(self.calls):
            self.call()
        return time.perf_counter() - start


def measure(cell: Cell, contenders: Sequence[Contender], n_threads: int, rounds: int) -> list[Measurement]:
    """Time the contenders, and the limit among them, on one cell."""
    problem = make_problem(cell, n_threads)
    runs = [
        Run(contender.name, task, call)
        for contender in (LIMIT, *contenders)
        for task, call in contender.prepare(problem).items()
    ]
    check(problem, [run for run in runs if run.contender != LIMIT.name])
    for run in runs:
        run.calibrate()
    for i in range(rounds):
        first = i % len(runs)
        for run in runs[first:] + runs[:first]:
            run.take_turn()
    return summarize(cell, n_threads, runs)


def summarize(cell: Cell, n_threads: int, runs: Sequence[Run]) -> list[Measurement]:
    """The quantiles of every run, task by task, and the multiple of the limit's median."""
    limits = {run.task: 1e3 * float(np.median(run.seconds)) for run in runs if run.contender == LIMIT.name}
    measurements = []
    for run in sorted(runs, key=lambda run: TASKS.index(run.task)):
        p20, median, p80 = (1e3 * float(q) for q in np.percentile(run.seconds, [20, 50, 80]))
        measurements.append(
            Measurement(
                cell=cell.name,
                dtype=cell.dtype,
                threads=n_threads,
                task=run.task,
                contender=run.contender,
                rounds=len(run.seconds),
                calls_per_timing=run.calls,
                p20_ms=p20,
                median_ms=median,
                p80_ms=p80,
                times_limit=median / limits[run.task],
            )
        )
    return measurements


def check(problem: Problem, runs: Sequence[Run]) -> None:
    """RuntimeError if a result is not the truth, within the tolerance: nobody wins by being wrong."""
    true_loss, true_grad = truth(problem)
    largest = max(-true_grad.min(), true_grad.max())
    for run in runs:
        result = run.call()
        loss, grad = result if run.task == "loss+grad" else (result, None)
        good = abs(float(loss) - true_loss) <= TOLERANCE * true_loss
        if grad is not None:
            good &= np.allclose(grad, true_grad, rtol=0, atol=TOLERANCE * largest)
        if not good:
            raise RuntimeError(f"{run.contender} gives a wrong {run.task} for {problem.logits.shape}")


def truth(problem: Problem) -> tuple[float, Array]:
    """The mean loss and its gradient by the reference, which computes in float64, block by block."""
    n_blocks = min(len(problem.logits), -(-problem.logits.size // BLOCK))
    grad = np.empty_like(problem.logits)
    total = 0.0
    for z, y, g in zip(
        *(np.array_split(array, n_blocks) for array in (problem.logits, problem.labels, grad)), strict=True
    ):
        loss, block_grad = reference.cross_entropy_and_grad(z, y, axis=problem.axis, reduction="sum")
        total += float(loss)
        np.divide(block_grad, problem.labels.size, out=g, casting="same_kind")
    return total / problem.labels.size, grad
