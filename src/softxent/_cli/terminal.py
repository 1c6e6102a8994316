"""What a terminal shows: text, a framed picture, a progress bar, a curve drawn in dots.

`rich` adds colours and frames, if it is installed and stdout is a terminal. Otherwise the same is plain text. A pipe
gets no control characters. The subcommands decide what is shown.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Advance = Callable[[int, str], None]  # (how much is done, a note beside the bar)

BRAILLE = 0x2800
# The bit of the dot in (row, column) of a braille character. Dots 1, 2, 3 are on the left and 4, 5, 6 on the right.
# Dots 7 and 8 were added later, below them.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
ASCII: dict[int, int | str] = {
    **dict.fromkeys(range(BRAILLE + 1, BRAILLE + 256), "*"),
    **str.maketrans("┤└─│", "++-|"),
}


def say(text: str = "") -> None:
    """Print one or more lines at once."""
    print(_encodable(text), flush=True)


def note(text: str) -> None:
    """Print a note to stderr, so that stdout has nothing but results."""
    print(f"softxent: note: {text}", file=sys.stderr, flush=True)


def picture(title: str, drawing: str) -> None:
    """Print a drawing under its title, in a frame if `rich` is there."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.panel import Panel
            from rich.text import Text
        except ImportError:
            pass
        else:
            Console().print(Panel.fit(Text(_encodable(drawing), style="cyan", no_wrap=True), title=title))
            return
    say(f"{title}\n{drawing}")


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr while the block runs. Nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, note: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ImportError:
        with _plain_bar(title, total) as advance:
            yield advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    note_column = TextColumn("{task.fields[note]}", markup=False)
    with Progress(*columns, note_column, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


@contextlib.contextmanager
def _plain_bar(title: str, total: int, width: int = 30) -> Iterator[Advance]:
    shown = ""

    def advance(done: int, note: str) -> None:
        nonlocal shown
        share = done / total if total else 1.0
        line = f"{title} [{'#' * int(share * width):<{width}}] {share:4.0%} {note}"
        if line != shown:
            print(f"\r{line:<{len(shown)}}", end="", file=sys.stderr, flush=True)
            shown = line

    try:
        yield advance
    finally:
        print(file=sys.stderr)


def curve(values: Sequence[float], x_label: str, y_label: str, columns: int | None = None, height: int = 12) -> str:
    """Draw positive `values` against their index, on a logarithmic axis, in braille dots.

    No line is longer than `columns`, by default the terminal's width. A narrow curve has no numbers beside it.
    """
    if columns is None:
        columns = _columns()
    margin = " " * 9 if columns >= 20 else ""
    width = max(1, min(60, columns - len(margin) - 1))
    y = np.log(values)
    low, high = float(y.min()), float(y.max())

    ticks = dict.fromkeys(range(height), margin + "│")
    if margin:
        for row in (0, height // 2, height - 1):
            ticks[row] = f"{np.exp(high - (high - low) * row / (height - 1)):8.3f} ┤"
    drawn = _dots(y, low, high, width, height)
    last = str(len(y) - 1)
    lines = [
        f" {y_label}, log scale",
        *(ticks[row] + drawn[row] for row in range(height)),
        margin + "└" + "─" * width,
        margin + " 0" + x_label.center(width - 1 - len(last)) + last,
    ]
    return "\n".join(line[:columns] for line in lines)


def _dots(y: Array, low: float, high: float, width: int, height: int) -> list[str]:
    """A line through `y` in rows of characters. Each character has two by four dots."""
    columns = np.interp(np.linspace(0, len(y) - 1, 2 * width), np.arange(len(y)), y)
    rows = np.rint((high - columns) / ((high - low) or 1.0) * (4 * height - 1)).astype(int)
    dots = np.zeros((4 * height, 2 * width), dtype=bool)
    for column, (start, end) in enumerate(zip(np.r_[rows[0], rows[:-1]], rows, strict=True)):
        # from where the last column ended, so that a steep line has no gap
        dots[min(start, end) : max(start, end) + 1, column] = True
    characters = BRAILLE + (dots.reshape(height, 4, width, 2) * DOTS[:, np.newaxis]).sum(axis=(1, 3))
    return ["".join(map(chr, row)).replace(chr(BRAILLE), " ").rstrip() for row in characters]


def _columns() -> int:
    """The longest line: the terminal's width without the frame of a picture."""
    return shutil.get_terminal_size().columns - (4 if sys.stdout.isatty() else 0)


def _encodable(text: str) -> str:
    """The text in characters that stdout can encode: if need be, dots and lines become stars and dashes."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text
