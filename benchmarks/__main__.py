"""The command line: ``python -m benchmarks``, from the repository's root.

Measuring is done by a process for each number of threads, started with its processors and settings; this one starts
it, and makes the report of a results file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import softxent

from . import plan, results
from .cells import DTYPES, FLOATS, Cell, has_dtype
from .contenders import CONTENDERS, SLOW_TO_COMPILE, Contender
from .machine import circumstances, environment, memory, pinned, release_memory
from .runner import Effort, measure


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
        epilog="See benchmarks/README.md. `python -m benchmarks report FILE.csv` makes tables and plots of results.",
    )
    names = [contender.name for contender in CONTENDERS]
    which = p.add_mutually_exclusive_group()
    which.add_argument("--short", action="store_true", help="a handful of cells, about two minutes (the default)")
    which.add_argument("--full", action="store_true", help="every cell, about twenty minutes; takes 12 GB of memory")
    which.add_argument(
        "--cell", action="append", type=shape, help="samples x classes, as in 8192x1000; may be repeated"
    )
    p.add_argument(
        "--group", action="append", choices=plan.GROUPS, help="this part of --full, or its --cell; may be repeated"
    )
    p.add_argument("--dtype", action="append", choices=DTYPES, help="this dtype; may be repeated")
    p.add_argument("--distributions", action="store_true", help="with --cell: labels are target distributions")
    p.add_argument("--only", action="append", choices=names, help="this contender; may be repeated")
    p.add_argument("--without", action="append", choices=names, default=[], help="all but this one; may be repeated")
    p.add_argument("--threads", type=positive, help="for everyone (all processors; --full then adds one thread)")
    p.add_argument("--rounds", type=positive, help="timings of each contender (11; --short 7)")
    p.add_argument("--seconds", type=float, default=1.0, help="for these; who is slower has fewer rounds (%(default)s)")
    p.add_argument("--output", metavar="FILE.csv", type=Path, help="write there (--full: to benchmarks/results/)")
    p.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    return p


def processes(options: argparse.Namespace) -> Iterator[tuple[int, list[str]]]:
    """The number of threads of each process that measures, and what it is asked besides."""
    yield options.threads or softxent.get_num_threads(), []
    if options.full and not (options.threads or options.group or options.dtype):
        yield 1, ["--group", "main", "--dtype", "float32", "--without", SLOW_TO_COMPILE]


def start(arguments: Sequence[str], options: argparse.Namespace) -> int:
    """Measure in processes of their own; the exit code of the first that fails, or 0."""
    output = options.output
    if options.full and output is None:
        output = results.default_path(f"{datetime.now(UTC):%Y-%m-%d}")
    if output is not None:
        output.unlink(missing_ok=True)
    for n_threads, more in processes(options):
        command = [sys.executable, "-m", "benchmarks", *arguments, *more, f"--threads={n_threads}", "--in-this-process"]
        if output is not None:
            command.append(f"--output={output}")
        with pinned(n_threads):
            code = subprocess.run(command, env=environment(n_threads), check=False).returncode
        if code:
            return code
    if output is not None:
        print(f"\nwritten to {output}; for tables and plots: python -m benchmarks report {output}")
    return 0


def chosen_groups(options: argparse.Namespace) -> Iterator[plan.Group]:
    """The groups that the options ask for, with the cells and contenders that they leave."""
    groups = plan.FULL if options.full or options.group else plan.SHORT
    if options.cell and not options.group:
        cells = plan.cells(options.cell, options.dtype or FLOATS, options.distributions)
        groups = (plan.Group("main", cells),)
    for group in groups:
        if group.name in (options.group or plan.GROUPS):
            cells = tuple(
                cell
                for cell in group.cells
                if cell.dtype in (options.dtype or DTYPES) and (not options.cell or cell.name in options.cell)
            )
            yield plan.Group(group.name, cells, chosen_contenders(options, group.contenders))


def chosen_contenders(options: argparse.Namespace, those: Sequence[Contender]) -> tuple[Contender, ...]:
    """The ones asked for; a group's own variants of this package are always."""
    named = set(options.only or (c.name for c in CONTENDERS)) - set(options.without)
    return tuple(c for c in those if c not in CONTENDERS or c.name in named)


def why_not(contender: Contender, cell: Cell) -> str:
    """Why this contender does not take part in this cell; nothing if it does."""
    if missing := contender.missing():
        return f"{' and '.join(missing)} not installed"
    return contender.cannot_do(cell)


def run(options: argparse.Namespace) -> None:
    """Measure cell by cell, in this process."""
    about = circumstances()
    is_short = not (options.full or options.cell or options.group)
    effort = Effort(options.rounds or (7 if is_short else 11), options.seconds)
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    for group in chosen_groups(options):
        for cell in group.cells:
            reasons = {c.name: why for c in group.contenders if (why := why_not(c, cell))}
            able = [c for c in group.contenders if c.name not in reasons]
            if obstacle := beyond_this_machine(cell, len(able)):
                print(f"\n{group.name}: {cell.name} {cell.dtype} is left out: {obstacle}")
                continue
            start = time.monotonic()
            measurements, faults = measure(group.name, cell, able, options.threads, effort)
            release_memory()
            results.print_table(measurements, reasons | faults, time.monotonic() - start)
            if options.output:
                results.append(options.output, measurements, about)


def beyond_this_machine(cell: Cell, n_contenders: int) -> str:
    """What a cell would need, if each contender keeps an array; nothing if it is there."""
    if not has_dtype(cell.dtype):
        return "ml_dtypes is not installed"
    return "not enough memory" if (3 + n_contenders) * cell.nbytes > memory() else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or report what was measured."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "report":
        from .report import main as report

        return report(arguments[1:])
    options = parser().parse_args(arguments)
    if options.in_this_process:
        run(options)
        return 0
    return start(arguments, options)


if __name__ == "__main__":
    sys.exit(main())
