"""The command line: ``python -m benchmarks``, from the repository's root. Which cells, whom, and where to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import softxent

from .cells import DTYPES, FULL, SHAPES, SHORT, Cell
from .contenders import CONTENDERS, Contender
from .report import ResultsFile, circumstances, print_table
from .runner import measure


def shape(text: str) -> str:
    """A cell's shape, for argparse."""
    return Cell.parse(text, DTYPES[0]).name


def positive(text: str) -> int:
    """A count, for argparse."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Softmax cross-entropy: contenders x cells.",
        epilog="See README.md.",
    )
    which = p.add_mutually_exclusive_group()
    which.add_argument("--short", action="store_true", help="a handful of cells, about two minutes (the default)")
    which.add_argument("--full", action="store_true", help="every cell; needs 8 GB of memory")
    which.add_argument("--cell", action="append", type=shape, help=f"this shape: {', '.join(SHAPES)}, or any other")
    p.add_argument("--dtype", choices=DTYPES, help="this dtype only")
    p.add_argument(
        "--only",
        action="append",
        choices=[c.name for c in CONTENDERS],
        help="this contender; may be repeated",
    )
    p.add_argument("--threads", type=positive, default=softxent.get_num_threads(), help="for everyone (%(default)s)")
    p.add_argument("--rounds", type=positive, default=11, help="timings of each contender (%(default)s)")
    p.add_argument("--output", metavar="FILE.csv", help="write the measurements there too")
    return p


def chosen_cells(options: argparse.Namespace) -> list[Cell]:
    """The cells that the options ask for."""
    if options.cell:
        cells = [Cell.parse(text, dtype) for text in options.cell for dtype in DTYPES]
    else:
        cells = list(FULL if options.full else SHORT)
    return [cell for cell in cells if options.dtype in (None, cell.dtype)]


def chosen_contenders(options: argparse.Namespace) -> list[Contender]:
    """The contenders that the options ask for, less those that are not installed, which are named."""
    asked = [c for c in CONTENDERS if not options.only or c.name in options.only]
    for contender in asked:
        if not contender.is_installed:
            print(f"{contender.name} is skipped: {contender.package} is not installed", file=sys.stderr)
    return [contender for contender in asked if contender.is_installed]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure cell by cell."""
    options = parser().parse_args(arguments)
    about = circumstances()
    contenders = chosen_contenders(options)
    print(", ".join(f"{name} {value}" for name, value in about.items() if value))
    with ExitStack() as stack:
        results = None
        if options.output:
            file = stack.enter_context(open(options.output, "w", newline="", encoding="utf-8"))
            results = ResultsFile(file, about)
        for cell in chosen_cells(options):
            measurements = measure(cell, contenders, options.threads, options.rounds)
            print_table(measurements)
            if results:
                results.write(measurements)


if __name__ == "__main__":
    main()
