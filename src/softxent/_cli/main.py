"""Runs one command, and tells how it ended: by an exit status, and in one line whatever went wrong."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from .files import CommandError
from .parser import parser

INTERRUPTED = 128 + 2  # what a shell reports for SIGINT
BROKEN_PIPE = 128 + 13  # and for SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for any error, 130 when interrupted."""
    try:
        status = _dispatch(argv)
        sys.stdout.flush()  # while a full disk or a closed pipe can still be told
        return status
    except KeyboardInterrupt:
        print("softxent: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read us has seen enough: `| head`
        _discard_stdout()
        return BROKEN_PIPE
    except (CommandError, OSError, MemoryError, RuntimeError) as error:  # RuntimeError: SOFTXENT_ISA
        _discard_stdout()
        print(f"softxent: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _dispatch(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().parse_args(argv)
        arguments.run(arguments)
    except SystemExit as stop:  # argparse: --help, --version, or a usage error that it has already told
        return int(stop.code or 0)
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"out of memory {error}".rstrip()
    return " ".join(str(error).split())


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would try it again, and fail, at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
