"""How a cell is timed: results checked once, then rounds in which every contender has its turn.

Nothing here knows what a contender computes with, or where the measurements go.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cells import Cell, Problem, make_problem
from .check import Truth, find_truth
from .contenders import LIMIT, TASKS, Contender

SHORTEST_TIMING = 200e-6  # seconds: shorter calls are timed several at a time
WARM_UP = 10e-3  # seconds of untimed calls: to wake OpenMP threads takes some; a longer call needs none
PAUSE = 10e-3  # seconds: OpenMP's idle threads spin for about 4 ms, on a processor that the next contender needs
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Effort:
    """How many rounds there are, and the seconds that one contender may take for one task in all of them."""

    rounds: int
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """One contender at one task in one cell; milliseconds per call."""

    group: str
    cell: str
    dtype: str
    labels: str
    threads: int
    task: str
    contender: str
    rounds: int
    calls_per_timing: int
    p20_ms: float
    median_ms: float
    p80_ms: float
    times_limit: float
    elements: int
    bytes_moved: int  # by the limit: what is read, and written


@dataclass
class Run:
    """One contender's call, how often it is called in a timing, and the seconds per call so far."""

    contender: Contender
    task: str
    call: Callable[[], Any]
    calls: int = 1
    is_long: bool = False  # longer than the warm-up
    seconds: list[float] = field(default_factory=list)

    def calibrate(self) -> None:
        """Choose the number of calls that makes a timing long enough."""
        self.contender.before()
        self._warm_up()
        while (seconds := self._time()) < SHORTEST_TIMING:
            self.calls *= 2
        self.is_long = seconds > WARM_UP

    def may_take_turn(self, i: int, effort: Effort) -> bool:
        """Whether it has had no more than its share in the rounds so far: of its seconds, or of the fewest rounds."""
        share = i / effort.rounds
        return sum(self.seconds) * self.calls <= effort.seconds * share or len(self.seconds) <= FEWEST_ROUNDS * share

    def take_turn(self) -> None:
        """One timing, in quiet."""
        time.sleep(PAUSE)
        self.contender.before()
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


def measure(
    group: str, cell: Cell, contenders: Sequence[Contender], n_threads: int, effort: Effort
) -> tuple[list[Measurement], dict[str, str]]:
    """Time the contenders, and the limit among them, on one cell; and what was wrong with those left out."""
    problem = make_problem(cell, n_threads)
    runs = [Run(LIMIT, task, call) for task, call in LIMIT.prepare(problem).items()]
    faults = {}
    for contender, asked, truth in with_truths(problem, contenders):
        try:
            runs += right_runs(contender, asked, truth)
        except Exception as error:  # of whatever library: the others' measurements shall not be lost
            faults[contender.name] = f"{type(error).__name__}: {error}"
    for run in runs:
        run.calibrate()
    gc.collect()
    gc.disable()
    for i in range(effort.rounds):
        first = i % len(runs)
        for run in runs[first:] + runs[:first]:
            if run.may_take_turn(i, effort):
                run.take_turn()
    gc.enable()
    return list(summarize(group, cell, problem, runs)), faults


def with_truths(problem: Problem, contenders: Sequence[Contender]) -> Iterator[tuple[Contender, Problem, Truth]]:
    """Each contender with what it is asked and should find, which is found out once for all who are asked the same."""
    truths: dict[tuple[str, ...], Truth] = {}
    for contender in contenders:
        asked = contender.adapt(problem)
        options = tuple(asked.options)
        if options not in truths:
            truths[options] = find_truth(asked)
        yield contender, asked, truths[options]


def right_runs(contender: Contender, problem: Problem, truth: Truth) -> list[Run]:
    """A contender's calls, if their results are right; else WrongResult: nobody wins by being wrong."""
    runs = []
    for task, call in contender.prepare(problem).items():
        contender.before()
        problem.prepared.fill(np.nan)  # nobody is right with what another left there
        result = call()
        loss, grad = result if task == "loss+grad" else (result, None)
        truth.check(loss, None if grad is None else contender.to_numpy(grad))
        runs.append(Run(contender, task, call))
    return runs


def summarize(group: str, cell: Cell, problem: Problem, runs: Sequence[Run]) -> Iterator[Measurement]:
    """The quantiles of every run, task by task, and the multiple of the limit's median."""
    limits = {run.task: 1e3 * float(np.median(run.seconds)) for run in runs if run.contender is LIMIT}
    read = problem.logits.nbytes + (problem.labels.nbytes if problem.distributions else 0)
    bytes_moved = {"loss": read, "loss+grad": read + problem.prepared.nbytes}
    for run in sorted(runs, key=lambda run: TASKS.index(run.task)):
        p20, median, p80 = (1e3 * float(q) for q in np.percentile(run.seconds, [20, 50, 80]))
        yield Measurement(
            group=group,
            cell=cell.name,
            dtype=cell.dtype,
            labels=cell.labels,
            threads=problem.n_threads,
            task=run.task,
            contender=run.contender.name,
            rounds=len(run.seconds),
            calls_per_timing=run.calls,
            p20_ms=p20,
            median_ms=median,
            p80_ms=p80,
            times_limit=median / limits[run.task],
            elements=problem.logits.size,
            bytes_moved=bytes_moved[run.task],
        )
