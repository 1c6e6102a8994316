"""The drawing of ``--plot``, by matplotlib. matplotlib is imported here alone, and only for a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .files import CommandError, Output, unwritable
from .measures import N_BINS, Calibration


def check(path: str) -> None:
    """Refuse a plot that cannot be drawn, before anything is computed."""
    if not path.lower().endswith(".png"):
        raise CommandError(f"--plot {path}: a PNG file is written: give it a name that ends in .png")
    try:
        import matplotlib.backends.backend_agg  # noqa: F401
    except ImportError:
        raise CommandError("--plot needs matplotlib: pip install matplotlib") from None


def learning_curve(output: Output, losses: Sequence[float]) -> None:
    figure = _figure(6.4, 4)
    axes = figure.add_subplot(title="softmax regression on handwritten digits")
    axes.set(xlabel="step", ylabel="loss (nats)", yscale="log")
    axes.plot(losses)
    axes.grid(alpha=0.3)
    _save(figure, output)


def reliability(output: Output, calibration: Calibration) -> None:
    """Draw how often the first class is right, over its probability; and below, the number of samples."""
    figure = _figure(4.8, 6)
    upper, lower = figure.subplots(2, height_ratios=[3, 1], sharex=True)
    left = np.arange(N_BINS) / N_BINS
    filled = calibration.counts > 0
    accuracy = calibration.right[filled] / calibration.counts[filled]
    upper.bar(left[filled], accuracy, width=1 / N_BINS, align="edge", edgecolor="white", label="accuracy")
    upper.plot([0, 1], [0, 1], "--", color="gray", label="as often as said")
    upper.plot(calibration.confidence[filled] / calibration.counts[filled], accuracy, "k.", label="mean confidence")
    upper.set(title=f"calibration error {calibration.error():.4g}", ylabel="share that is right", ylim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(left, calibration.counts, width=1 / N_BINS, align="edge", edgecolor="white")
    lower.set(xlabel="probability of the first class", ylabel="samples", xlim=(0, 1))
    _save(figure, output)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, output: Output) -> None:
    with unwritable(output.path):
        figure.savefig(output.temporary, format="png")
