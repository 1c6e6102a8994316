"""What is made of a results file: a page of tables in Markdown, and the plots, beside it.

``python -m benchmarks report FILE.csv``. Nothing is measured here, and nothing is shown that is not in the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from . import results
from .contenders import TASKS
from .results import FRESH, LIMIT, OURS, number
from .runner import Measurement

Row = Sequence[Measurement]  # one cell, one task, one number of threads
Cells = Callable[[Row], list[str]]


def rows(measurements: Sequence[Measurement], **wanted: object) -> Iterator[Row]:
    """The measurements that have these values, put together by what they share."""
    shared: dict[tuple[object, ...], list[Measurement]] = {}
    for m in measurements:
        if all(getattr(m, name) == value for name, value in wanted.items()):
            shared.setdefault((m.group, m.cell, m.dtype, m.labels, m.task, m.threads), []).append(m)
    yield from shared.values()


def contenders(measurements: Sequence[Measurement], group: str) -> list[str]:
    """Who takes part in a group, less the limit, in the file's order."""
    return [name for name in dict.fromkeys(m.contender for m in measurements if m.group == group) if name != LIMIT]


def of(row: Row, contender: str) -> Measurement | None:
    """A contender's measurement in a row, if it has one."""
    return next((m for m in row if m.contender == contender), None)


def ratio(a: Measurement | None, b: Measurement | None) -> str:
    """How many times b's time a takes; nothing where one is missing."""
    return number(a.median_ms / b.median_ms) if a and b else ""


def milliseconds(m: Measurement | None) -> str:
    """A median."""
    return number(m.median_ms) if m else ""


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(title: str, text: str, tables: Sequence[str]) -> str:
    """A heading, what the numbers are, and the tables; nothing without tables."""
    return "\n\n".join([f"## {title}", text, *tables]) if any(tables) else ""


def label(row: Row) -> str:
    """What a line of a table is called: the cell, and its dtype where it is not the usual one."""
    return row[0].cell if row[0].dtype == "float32" else f"{row[0].cell} {row[0].dtype}"


def multiples(measurements: Sequence[Measurement], group: str, **wanted: object) -> list[str]:
    """A table for each task: multiples of the limit, and milliseconds of the limit and of this package."""
    tables = []
    for task in TASKS:
        these = list(rows(measurements, group=group, task=task, **wanted))
        names = [name for name in contenders(measurements, group) if any(of(row, name) for row in these)]
        body = []
        for row in these:
            limit, ours = of(row, LIMIT), of(row, OURS)
            peers = [m for m in row if m.contender not in (LIMIT, OURS, FRESH)]
            fastest = min(peers, key=lambda m: m.median_ms, default=None)
            figures = [ratio(of(row, name), limit) for name in names]
            body.append([label(row), milliseconds(limit), milliseconds(ours), *figures, ratio(fastest, ours)])
        if body:
            head = [task, "limit, ms", f"{OURS}, ms", *names, f"fastest peer / {OURS}"]
            tables.append(table(head, body))
    return tables


def against(measurements: Sequence[Measurement], group: str, first: str) -> list[str]:
    """A table for each task of a group of variants: times as multiples of the first of them."""
    names = contenders(measurements, group)
    tables = []
    for task in TASKS:
        body = [
            [label(row), milliseconds(of(row, first)), ratio(of(row, first), of(row, LIMIT))]
            + [ratio(of(row, name), of(row, first)) for name in names[1:]]
            for row in rows(measurements, group=group, task=task)
        ]
        if body:
            head = [task, f"{first}, ms", f"{first} / limit", *(f"{name} / {first}" for name in names[1:])]
            tables.append(table(head, body))
    return tables


def speed_ups(measurements: Sequence[Measurement]) -> list[str]:
    """A table for each task: by how much all threads are faster than one."""
    most = max(m.threads for m in measurements)
    tables = []
    for task in TASKS:
        alone = list(rows(measurements, group="main", task=task, threads=1))
        together = {label(row): row for row in rows(measurements, group="main", task=task, threads=most)}
        names = [LIMIT, *(name for name in contenders(measurements, "main") if any(of(row, name) for row in alone))]
        body = [
            [label(row), *(ratio(of(row, name), of(together[label(row)], name)) for name in names)]
            for row in alone
            if label(row) in together
        ]
        if body and most > 1:
            tables.append(table([f"{task}, {most} threads", *names], body))
    return tables


def scaling(measurements: Sequence[Measurement]) -> list[str]:
    """Nanoseconds per element of ever larger problems."""
    body = []
    for row in rows(measurements, group="scaling"):
        per_element = (f"{1e6 * m.median_ms / m.elements:.3g}" if m else "" for m in (of(row, LIMIT), of(row, OURS)))
        body.append(
            [f"{row[0].elements:.0e} elements, {row[0].task}", *per_element, ratio(of(row, OURS), of(row, LIMIT))]
        )
    return [table(["", "limit, ns", f"{OURS}, ns", f"{OURS} / limit"], body)] if body else []


def page(measurements: Sequence[Measurement], about: dict[str, str], plots: Sequence[Path]) -> str:
    """All tables and plots on one page."""
    most = max(m.threads for m in measurements)
    rounds = sorted(m.rounds for m in measurements)
    spread = median(m.p80_ms / m.p20_ms for m in measurements)
    variants = contenders(measurements, "isas")
    main = [
        section(
            f"{dtype}, {n} thread{'s' * (n > 1)}",
            "Multiples of the limit.",
            multiples(measurements, "main", dtype=dtype, threads=n),
        )
        for n in sorted({m.threads for m in measurements}, reverse=True)
        for dtype in ("float32", "float64")
    ]
    everything = [
        f"# {about['cpu']}, {most} thread{'s' * (most > 1)}, {about['isa']}, {about['date'][:10]}",
        "Medians; what is timed, and how, is in [the method](../README.md). The limit is the time to move the bytes.",
        "\n".join(f"- {name}: {text}" for name, text in about.items()),
        f"{rounds[0]} to {rounds[-1]} rounds; the 80th percentile is typically {spread:.2f} times the 20th.",
        "\n\n".join(f"![{plot.stem}]({plot.name})" for plot in plots),
        *main,
        section("Target distributions", "Multiples of the limit.", multiples(measurements, "targets", threads=most)),
        section("Half precision", "Multiples of the limit.", multiples(measurements, "half", threads=most)),
        section("Options", "Multiples of the plain call.", against(measurements, "options", "plain")),
        section("Instruction sets", f"Multiples of {variants[0]}.", against(measurements, "isas", variants[0]))
        if variants
        else "",
        section("Threads", "How many times faster than on one thread.", speed_ups(measurements)),
        section("Size", "Nanoseconds per element, of 1000 classes in float32.", scaling(measurements)),
    ]
    return "\n\n".join(part for part in everything if part) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the page and the plots of a results file beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE.csv", help="what python -m benchmarks wrote")
    path = parser.parse_args(arguments).file
    measurements, about = results.read(path)
    from .plots import draw  # matplotlib: only here

    plots = draw(measurements, about, path)
    path.with_suffix(".md").write_text(page(measurements, about, plots), encoding="utf-8")
    print(f"written: {', '.join(str(p) for p in (path.with_suffix('.md'), *plots))}")
    return 0
