"""Who meets in which cell: the groups of cells, each of which answers one question, in the short and the full form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from .cells import FLOATS, HALVES, Cell
from .contenders import CONTENDERS, ISAS, OPTIONS, SOFTXENT_OUT, Contender

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
TARGET_SHAPES = ("65536x10", "8192x1000", "1024x32000", "8x21x512x512")
HALF_SHAPES = ("65536x10", "8192x1000", "1024x32000")
OPTION_SHAPES = ("8192x1000", "1024x32000")
SCALING_SHAPES = ("1000x1000", "10000x1000", "100000x1000", "1000000x1000")
SHORT_SHAPES = ("32x10", "1024x10", "65536x10", "8192x1000", "1024x32000")


@dataclass(frozen=True)
class Group:
    """Cells and those who meet there, beside the limit."""

    name: str
    cells: tuple[Cell, ...]
    contenders: tuple[Contender, ...] = CONTENDERS


def cells(shapes: Sequence[str], dtypes: Sequence[str], distributions: bool = False) -> tuple[Cell, ...]:
    """Every shape in every dtype."""
    return tuple(Cell.parse(shape, dtype, distributions) for shape, dtype in product(shapes, dtypes))


FULL: tuple[Group, ...] = (
    Group("main", cells(SHAPES, FLOATS)),
    Group("targets", cells(TARGET_SHAPES, ("float32",), distributions=True)),
    Group("half", cells(HALF_SHAPES, HALVES)),
    Group("options", cells(OPTION_SHAPES, ("float32",)), OPTIONS),
    Group("isas", cells(SHAPES, FLOATS), ISAS),
    Group("scaling", cells(SCALING_SHAPES, ("float32",)), (SOFTXENT_OUT,)),
)
SHORT: tuple[Group, ...] = (
    Group("main", (*cells(SHORT_SHAPES, ("float32",)), *cells(("8192x1000",), ("float64",)))),
    Group("targets", cells(("8192x1000",), ("float32",), distributions=True)),
    Group("half", cells(("8192x1000",), ("bfloat16",))),
    Group("options", cells(("8192x1000",), ("float32",)), OPTIONS),
    Group("isas", cells(("8192x1000",), ("float32",)), ISAS),
)
GROUPS = tuple(group.name for group in FULL)
