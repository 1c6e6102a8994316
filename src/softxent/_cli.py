"""The command line: its arguments, which subcommand runs, and how anything that goes wrong is told.

What the subcommands do lives in ``_demo.py`` and ``_evaluate.py``, how it looks in ``_terminal.py``; each is
imported when its subcommand runs. Here too is what both need: the error for the user, and the file that
appears whole or not at all. Nothing in the library imports this module.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import softxent

INTERRUPTED = 128 + 2  # what a shell reports for SIGINT
BROKEN_PIPE = 128 + 13  # and for SIGPIPE


class CommandError(Exception):
    """Something the user can put right: told in one line, without a traceback."""


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
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except SystemExit as stop:  # argparse: --help, --version, or a usage error that it has already told
        return int(stop.code or 0)
    return 0


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Path]:
    """Give the name of a temporary file beside `path`; it takes the place of `path` if the block succeeds.

    After an error or Ctrl-C the temporary file is gone and `path` is as it was. A symbolic link is followed.
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not final.is_file():
        raise CommandError(f"{path}: cannot be written: it is not a regular file")
    temporary = final.with_name(f".softxent-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, final)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # drops its map: Windows does not remove a mapped file
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CommandError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def _demo(arguments: argparse.Namespace) -> None:
    from softxent import _demo

    _demo.run(arguments.steps, arguments.seed, arguments.plot, arguments.threads)


def _evaluate(arguments: argparse.Namespace) -> None:
    from softxent import _evaluate

    report = _evaluate.evaluate(
        arguments.logits,
        arguments.labels,
        axis=arguments.axis,
        ignore_index=arguments.ignore_index,
        grad=arguments.grad,
        n_threads=arguments.threads,
    )
    print(report.as_json() if arguments.json else report.as_text())


def _info(arguments: argparse.Namespace) -> None:
    from softxent import _config

    facts = _config.config()
    if arguments.json:
        print(json.dumps(facts, default=str))
        return
    usable = facts["isa_usable"]
    names = ", ".join(usable) if isinstance(usable, list) else usable
    print(f"softxent         {facts['version']}")
    print(f"Python           {facts['python']}")
    print(f"NumPy            {facts['numpy']}")
    print(f"instruction set  {facts['isa']} (usable here: {names})")
    print(f"OpenMP           {facts['openmp']}")
    print(f"threads          {facts['num_threads']} ({facts['num_threads_from']})")


def _config(arguments: argparse.Namespace) -> None:
    from softxent import _config

    if not arguments.wanted:
        raise CommandError("config: nothing is asked for: --cflags, --libs, --cmakedir or --pkgconfigdir")
    include, library = shlex.quote(softxent.get_include()), shlex.quote(softxent.get_library_dir())
    answers = {
        "cflags": f"-I{include}",
        "libs": f"-L{library} -lsoftxent",
        "cmakedir": softxent.get_cmake_dir(),
        "pkgconfigdir": _config.pkgconfig_dir(),
    }
    print(*(answers[name] for name in arguments.wanted))


class _Parser(argparse.ArgumentParser):
    """argparse, with every error under the same name, whichever subcommand it is in."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"softxent: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    text = "Softmax cross-entropy and its gradient, on the CPU."
    parser = _Parser(prog="python -m softxent", description=text)
    parser.add_argument("--version", action="version", version=f"softxent {softxent.__version__}")
    parser.set_defaults(run=lambda arguments: _help(parser))
    commands = parser.add_subparsers(metavar="command")

    text = "Train softmax regression on 1,797 handwritten digits, here and as NumPy texts write it."
    demo = commands.add_parser("demo", help="train a classifier of handwritten digits", description=text)
    demo.set_defaults(run=_demo)
    demo.add_argument("--steps", type=_positive, default=200, metavar="N", help="gradient steps (200)")
    demo.add_argument("--seed", type=_natural, default=0, metavar="N", help="of the shuffled split (0)")
    demo.add_argument("--plot", metavar="FILE.png", help="also draw the curve there (needs matplotlib)")
    demo.add_argument("--threads", type=_positive, metavar="N", help="threads of the kernels")

    text = "Cross-entropy, perplexity and accuracy of .npy files of any size: they are read in blocks."
    evaluate = commands.add_parser("evaluate", help="measure logits against labels", description=text)
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("logits", metavar="LOGITS.npy", help="real numbers, any axes, any memory order")
    evaluate.add_argument("labels", metavar="LABELS.npy", help="class indices, or a distribution of the logits' shape")
    evaluate.add_argument("--axis", type=int, default=-1, metavar="N", help="the class axis (-1)")
    evaluate.add_argument("--ignore-index", type=int, metavar="N", help="leave out samples with this label")
    evaluate.add_argument("--grad", metavar="OUT.npy", help="write the gradient of the mean loss there")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object (nan, inf: null)")
    evaluate.add_argument("--threads", type=_positive, metavar="N", help="threads of the kernels")

    text = "What this build of softxent is, and what it uses on this machine."
    info = commands.add_parser("info", help="version, instruction sets, threads", description=text)
    info.set_defaults(run=_info)
    info.add_argument("--json", action="store_true", help="print one JSON object")

    text = "Where the C library is, in the words of compilers and build systems: cc program.c $(... --cflags --libs)."
    config = commands.add_parser("config", help="flags to build C and C++ programs with", description=text)
    config.set_defaults(run=_config)
    for name, meaning in (
        ("cflags", "to compile with"),
        ("libs", "to link with"),
        ("cmakedir", "the folder to set softxent_DIR to, for CMake"),
        ("pkgconfigdir", "the folder to add to PKG_CONFIG_PATH"),
    ):
        config.add_argument(f"--{name}", dest="wanted", action="append_const", const=name, help=meaning)
    return parser


def _help(parser: argparse.ArgumentParser) -> NoReturn:
    parser.print_help(sys.stderr)
    raise SystemExit(2)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


# argparse names the type in "invalid <name> value": say what was wanted, not what the function is called.
_positive.__name__ = _natural.__name__ = "integer"


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
