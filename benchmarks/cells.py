"""What is computed: the cells (a shape and a dtype each), as data, and the arrays of one cell.

Who computes it is in ``contenders``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES = ("float32", "float64")
SHAPES = (
    "32x10",
    "1024x10",
    "65536x10",
    "1048576x10",
    "65536x100",
    "8192x1000",
    "1024x32000",
    "2048x50257",
    "512x128256",
    "8x21x512x512",
)
SHORT_SHAPES = ("32x10", "1024x10", "65536x10", "8192x1000")


@dataclass(frozen=True)
class Cell:
    """Logits of one shape and dtype. Axis 1 is the class axis: the last one of two, the channels of more."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def parse(cls, shape: str, dtype: str) -> Cell:
        """The cell of a shape written as in ``8192x1000``; ValueError if it is not one."""
        sizes = tuple(int(size) for size in shape.split("x"))
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"a cell is samples x classes, as in 8192x1000; got {shape!r}")
        return cls(sizes, dtype)

    @property
    def name(self) -> str:
        """The shape as it is written: ``8192x1000``."""
        return "x".join(map(str, self.shape))

    @property
    def axis(self) -> int:
        """The class axis; -1 where it is the last, which is how a caller would leave it."""
        return -1 if len(self.shape) == 2 else 1


FULL = tuple(Cell.parse(shape, dtype) for shape, dtype in product(SHAPES, DTYPES))
SHORT = (
    *(Cell.parse(shape, dtype) for shape, dtype in product(SHORT_SHAPES, DTYPES)),
    Cell.parse("1024x32000", "float32"),
)


@dataclass(frozen=True)
class Problem:
    """The arrays of one cell, allocated and touched, and the number of threads to use on them."""

    logits: Array
    labels: Array  # int64, which every contender takes as it is
    axis: int
    prepared: Array  # like the logits: where results go, the same memory for every contender that takes one
    n_threads: int

    @property
    def at_label(self) -> tuple[Array, ...]:
        """The index of each sample's label in the logits: ``(range(n), labels)`` for any number of axes."""
        index: list[Array] = list(np.indices(self.labels.shape, sparse=True))
        index.insert(self.axis % self.logits.ndim, self.labels)
        return tuple(index)


def make_problem(cell: Cell, n_threads: int) -> Problem:
    """Logits with a standard deviation of 3, as of a half-trained model; uniform labels; always the same."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(math.prod(cell.shape), dtype=np.dtype(cell.dtype)).reshape(cell.shape)
    logits *= 3
    n_samples, n_classes, *rest = cell.shape
    labels = rng.integers(n_classes, size=(n_samples, *rest), dtype=np.int64)
    return Problem(logits, labels, cell.axis, np.full_like(logits, 0), n_threads)
