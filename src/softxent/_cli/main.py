"""Runs one command. Its exit status says how it ended; any error is printed in one line."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from .files import CommandError
from .parser import parser

INTERRUPTED = 128 + 2  # the exit status that a shell reports for SIGINT
BROKEN_PIPE = 128 + 13  # the exit status that a shell reports for SIGPIPE
STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Stopped(BaseException):
    """A signal to end has come. It is an exception, so that the program can clean up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return its exit status: 0, 2 for any error, or 128 + n if signal n ended it."""
    try:
        with _signals_raise():
            status = _dispatch(argv)
        sys.stdout.flush()  # now, because a full disk or a closed pipe can still be reported
        return status
    except _Stopped as stop:
        print(f"softxent: stopped by {signal.Signals(stop.number).name}", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("softxent: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        _discard_stdout()
        return BROKEN_PIPE
    except (CommandError, OSError, MemoryError, RuntimeError) as error:  # SOFTXENT_ISA is the cause of a RuntimeError
        _discard_stdout()
        print(f"softxent: error: {_one_line(error)}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Make signals that would end the program raise in this block. A signal that nohup ignores stays ignored."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_IGN)  # a second signal does not interrupt the cleaning up
        raise _Stopped(number)

    taken = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _dispatch(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().parse_args(argv)
        arguments.run(arguments)
    except SystemExit as stop:  # argparse: --help, --version, or a usage error that it has printed
        return int(stop.code or 0)
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"out of memory {error}".rstrip()
    return " ".join(str(error).split())


def _discard_stdout() -> None:
    """Discard the buffer of stdout. Otherwise the interpreter would write it at exit, and fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
