"""How measurements are kept: a table for whoever watches, a CSV file for programs, and that file read again."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from . import contenders
from .machine import cpu_model
from .runner import Measurement

FOLDER = Path(__file__).parent / "results"

# Who is called what in a file: the limit, and this package with a prepared and with a fresh array for the gradient.
LIMIT, OURS, FRESH = contenders.LIMIT.name, contenders.SOFTXENT_OUT.name, "softxent"


def number(x: float) -> str:
    """Three digits, or the whole ones."""
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def default_path(date: str) -> Path:
    """Where a full run goes: named by its day and its processor."""
    cpu = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", cpu_model().lower())).strip("-")
    return FOLDER / f"{date}-{cpu}.csv"


def print_table(measurements: Sequence[Measurement], left_out: dict[str, str], seconds: float) -> None:
    """Print one cell: milliseconds per call, and multiples of the limit."""
    first = measurements[0]
    what = f"{first.group}: {first.cell} {first.dtype}, labels: {first.labels}, threads: {first.threads}"
    print(f"\n{what} ({seconds:.0f} s)")
    print(f"  {'task':10} {'contender':16} {'rounds':>6} {'median ms':>11} {'p20':>11} {'p80':>11} {'x limit':>9}")
    for m in measurements:
        times = f"{m.median_ms:11.4f} {m.p20_ms:11.4f} {m.p80_ms:11.4f}"
        print(f"  {m.task:10} {m.contender:16} {m.rounds:6} {times} {m.times_limit:9.2f}")
    for name, why in left_out.items():
        print(f"  without {name}: {why}")
    print(end="", flush=True)


def append(path: Path, measurements: Sequence[Measurement], about: dict[str, str]) -> None:
    """Add the rows of one cell, each with what there is to know about the machine."""
    names = [*(f.name for f in fields(Measurement)), *about]
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for measurement in measurements:
            row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(measurement).items()}
            writer.writerow(row | about)


def read(path: Path) -> tuple[list[Measurement], dict[str, str]]:
    """The measurements of a file, and what its first row says about the machine."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    types = {"int": int, "float": float, "str": str}
    measured = {f.name: types[str(f.type)] for f in fields(Measurement)}
    about = {name: text for name, text in rows[0].items() if name not in measured}
    return [Measurement(**{name: of(row[name]) for name, of in measured.items()}) for row in rows], about
