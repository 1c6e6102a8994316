"""How measurements are written down: a table for people, a CSV file for programs.

With them goes what there is to know about the machine and the versions.
"""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

from softxent._config import config

from .runner import Measurement


def circumstances() -> dict[str, str]:
    """What every row of a results file says: when, on what processor, with which versions."""
    ours = config()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": str(os.cpu_count()),
        "isa": str(ours["isa"]),
        "openmp": str(ours["openmp"]),
        "python": platform.python_version(),
        "softxent": str(ours["version"]),
        **{package: installed_version(package) for package in ("numpy", "scipy", "torch")},
    }


def cpu_model() -> str:
    """The processor's name as Linux has it; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def installed_version(package: str) -> str:
    """A package's version, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def print_table(measurements: Sequence[Measurement]) -> None:
    """Print one cell: milliseconds per call, and multiples of the limit."""
    first = measurements[0]
    print(f"\n{first.cell} {first.dtype}, {first.threads} threads, {first.rounds} rounds")
    print(f"  {'task':10} {'contender':13} {'median ms':>11} {'p20':>11} {'p80':>11} {'x limit':>9}")
    for m in measurements:
        times = f"{m.median_ms:11.4f} {m.p20_ms:11.4f} {m.p80_ms:11.4f}"
        print(f"  {m.task:10} {m.contender:13} {times} {m.times_limit:9.2f}", flush=True)


class ResultsFile:
    """A CSV file with one row per cell, task and contender, complete after every cell."""

    def __init__(self, file: TextIO, about: dict[str, str]) -> None:
        self.file = file
        self.about = about
        names = [f.name for f in fields(Measurement)]
        self.writer = csv.DictWriter(file, [*names, *about], lineterminator="\n")
        self.writer.writeheader()

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Add the rows of one cell."""
        for measurement in measurements:
            row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(measurement).items()}
            self.writer.writerow(row | self.about)
        self.file.flush()
