"""What is computed: a cell (shape, dtype and kind of labels), and the arrays of one.

Who computes it is in ``contenders``, which cells there are in ``plan``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FLOATS = ("float32", "float64")
HALVES = ("float16", "bfloat16")
DTYPES = (*FLOATS, *HALVES)
BLOCK = 2**20  # entries that are drawn at once


@dataclass(frozen=True)
class Cell:
    """Logits of one shape and dtype. Axis 1 is the class axis: the last one of two, the channels of more."""

    shape: tuple[int, ...]
    dtype: str
    distributions: bool = False  # what the labels are: target distributions, or the indices of classes

    @classmethod
    def parse(cls, shape: str, dtype: str, distributions: bool = False) -> Cell:
        """The cell of a shape written as in ``8192x1000``; ValueError if it is not one."""
        sizes = tuple(int(size) for size in shape.split("x"))
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"a cell is samples x classes, as in 8192x1000; got {shape!r}")
        return cls(sizes, dtype, distributions)

    @property
    def name(self) -> str:
        """The shape as it is written: ``8192x1000``."""
        return "x".join(map(str, self.shape))

    @property
    def labels(self) -> str:
        """The kind of labels, as the results have it."""
        return "distribution" if self.distributions else "index"

    @property
    def axis(self) -> int:
        """The class axis; -1 where it is the last, which is how a caller would leave it."""
        return 1 if self.channels_first else -1

    @property
    def channels_first(self) -> bool:
        """Whether axes follow the class axis."""
        return len(self.shape) > 2

    @property
    def nbytes(self) -> int:
        """The bytes of the logits."""
        return math.prod(self.shape) * (2 if self.dtype in HALVES else int(self.dtype.removeprefix("float")) // 8)


@dataclass(frozen=True)
class Problem:
    """The arrays of one cell, allocated and touched, and the number of threads to use on them."""

    logits: Array
    labels: Array  # int64, or distributions in the logits' shape and dtype
    axis: int
    prepared: Array  # like the logits: where results go, the same memory for every contender that takes one
    n_threads: int
    options: dict[str, Any] = field(default_factory=dict)  # what softxent alone is asked for, and the reference

    @property
    def n_classes(self) -> int:
        return int(self.logits.shape[self.axis])

    @property
    def n_samples(self) -> int:
        return self.logits.size // self.n_classes

    @property
    def distributions(self) -> bool:
        return self.labels.shape == self.logits.shape

    @property
    def at_label(self) -> tuple[Array, ...]:
        """The index of each sample's label in the logits: ``(range(n), labels)`` for any number of axes."""
        index: list[Array] = list(np.indices(self.labels.shape, sparse=True))
        index.insert(self.axis % self.logits.ndim, self.labels)
        return tuple(index)


def make_problem(cell: Cell, n_threads: int) -> Problem:
    """Logits with a standard deviation of 3, as of a half-trained model, labels uniform; always the same."""
    if cell.dtype == "bfloat16":
        import_module("ml_dtypes")  # teaches NumPy the name
    dtype = np.dtype(cell.dtype)
    logits, prepared = np.empty(cell.shape, dtype), np.full(cell.shape, 0, dtype)

    def draw_logits(rng: np.random.Generator, block: Array) -> None:
        block[...] = rng.standard_normal(block.shape, np.float32 if block.itemsize < 8 else np.float64) * 3

    def draw_distributions(rng: np.random.Generator, block: Array) -> None:
        weights = rng.standard_exponential(block.shape)
        block[...] = weights / weights.sum(cell.axis, keepdims=True)

    fill(logits, draw_logits, seed=0)
    if cell.distributions:
        labels = np.empty(cell.shape, dtype)
        fill(labels, draw_distributions, seed=1)
    else:
        n_samples, n_classes, *rest = cell.shape
        labels = np.random.default_rng(2).integers(n_classes, size=(n_samples, *rest), dtype=np.int64)
    return Problem(logits, labels, cell.axis, prepared, n_threads)


def fill(array: Array, draw: Callable[[np.random.Generator, Array], None], seed: int) -> None:
    """Fill an array block by block, in threads; each block has random numbers of its own."""
    blocks = np.array_split(array, min(len(array), -(-array.size // BLOCK)))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda j: draw(np.random.default_rng((seed, j)), blocks[j]), range(len(blocks))))


def has_dtype(dtype: str) -> bool:
    """Whether NumPy can hold this type here: bfloat16 takes the package ml_dtypes."""
    return dtype != "bfloat16" or find_spec("ml_dtypes") is not None
