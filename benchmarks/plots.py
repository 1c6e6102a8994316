"""The plots of a results file: bars as multiples of the limit, and time against bytes moved.

Both show float32 with all threads, and of those who can be given memory for the gradient only that way. The peers'
colours are Paul Tol's "muted" set, made for the colour-blind; this package is black.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .contenders import TASKS
from .results import LIMIT, OURS, number
from .runner import Measurement

# Contender: colour, marker. In the order of the bars, from the top.
STYLES = {
    "numpy-out": ("#DDCC77", "^"),
    "scipy": ("#CC6677", "P"),
    "torch": ("#AA4499", "X"),
    "torch-compile": ("#882255", "d"),
    "sklearn": ("#88CCEE", "s"),
    "numba": ("#44AA99", "D"),
    "jax": ("#332288", "o"),
    OURS: ("#000000", "*"),
}
BAR = 0.1  # of the distance between two cells


def draw(measurements: Sequence[Measurement], about: dict[str, str], path: Path) -> list[Path]:
    """Draw both beside the results file; nothing if it has no float32 in its main group."""
    most = max(m.threads for m in measurements)
    shown = [m for m in measurements if m.group == "main" and m.dtype == "float32" and m.threads == most]
    if not shown:
        return []
    title = f"{about['cpu']}, {most} threads, {about['isa']}, float32: "
    matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    return [
        save(bars(shown, title + "multiples of the time to move the bytes"), path, "bars"),
        save(roofline(shown, title + "time against bytes"), path, "roofline"),
    ]


def save(figure: Figure, path: Path, name: str) -> Path:
    """Write a figure beside the results file."""
    target = path.with_name(f"{path.stem}-{name}.png")
    figure.savefig(target, dpi=130, metadata={"Software": None})
    plt.close(figure)
    return target


def bars(shown: Sequence[Measurement], title: str) -> Figure:
    """A panel for each task, a cluster for each cell, a bar for each contender."""
    cells = list(dict.fromkeys(m.cell for m in shown))
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.5 + 1.05 * len(cells)), sharey=True, layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        cluster_bars(axis, [m for m in shown if m.task == task], cells)
        axis.set_title(task, loc="left")
        axis.set_xlabel("times the limit")
    axes[0].set_yticks(range(len(cells)), cells)
    axes[0].set_ylim(len(cells) - 0.4, -0.6)
    add_title_and_legend(figure, axes[1], title)
    return figure


def cluster_bars(axis: Axes, shown: Sequence[Measurement], cells: Sequence[str]) -> None:
    """The bars of one task, with this package's figures; a line at the limit."""
    for position, (name, (colour, _)) in enumerate(STYLES.items()):
        these = [m for m in shown if m.contender == name]
        where = [cells.index(m.cell) + (position - (len(STYLES) - 1) / 2) * BAR for m in these]
        axis.barh(where, [m.times_limit for m in these], BAR, color=colour, label=name)
        for y, m in zip(where, these, strict=True):
            if name == OURS:
                corner = (m.times_limit * 1.05, y - BAR / 2)
                axis.text(*corner, number(m.times_limit), va="top", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(left=0.5)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)


def roofline(shown: Sequence[Measurement], title: str) -> Figure:
    """A panel for each task: time against the bytes that have to be moved, and the lines that memory draws."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.6), sharey=True, layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        these = sorted((m for m in shown if m.task == task), key=lambda m: m.bytes_moved)
        for name, (colour, marker) in STYLES.items():
            points(axis, [m for m in these if m.contender == name], marker, color=colour, label=name, linestyle="")
        limits = [m for m in these if m.contender == LIMIT]
        points(axis, limits, "", color="black", linewidth=1.2, label=LIMIT, zorder=1)
        bytes_per_ms = limits[-1].bytes_moved / limits[-1].median_ms
        ends = [m.bytes_moved for m in (limits[0], limits[-1])]
        label = "bandwidth of the largest cell"
        axis.plot(ends, [b / bytes_per_ms for b in ends], "--", color="#888888", linewidth=0.9, label=label, zorder=0)
        axis.annotate(f"{bytes_per_ms / 1e6:.0f} GB/s", (ends[0], ends[0] / bytes_per_ms), color="#666666", va="top")
        axis.set(xscale="log", yscale="log", xlabel="bytes read and written")
        axis.set_title(task, loc="left")
        axis.grid(color="#dddddd", linewidth=0.6)
    axes[0].set_ylabel("milliseconds")
    axes[0].yaxis.set_major_formatter("{x:g}")
    add_title_and_legend(figure, axes[1], title)
    return figure


def points(axis: Axes, these: Sequence[Measurement], marker: str, **style: Any) -> None:
    """One contender's times."""
    size = 9 if marker == "*" else 5
    axis.plot([m.bytes_moved for m in these], [m.median_ms for m in these], marker=marker, markersize=size, **style)


def add_title_and_legend(figure: Figure, axis: Axes, title: str) -> None:
    """Above and below all panels."""
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=(len(names) + 1) // 2, frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
