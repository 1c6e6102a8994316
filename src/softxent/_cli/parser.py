"""The arguments of the command line: each subcommand is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

import softxent


class _Parser(argparse.ArgumentParser):
    """argparse, with every error under the same name, whichever subcommand it is in."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"softxent: error: {message}\n")


def parser() -> argparse.ArgumentParser:
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


def _demo(arguments: argparse.Namespace) -> None:
    from . import demo

    demo.run(arguments.steps, arguments.seed, arguments.plot, arguments.threads)


def _evaluate(arguments: argparse.Namespace) -> None:
    from . import evaluate

    report = evaluate.evaluate(
        arguments.logits,
        arguments.labels,
        axis=arguments.axis,
        ignore_index=arguments.ignore_index,
        grad=arguments.grad,
        n_threads=arguments.threads,
    )
    print(report.as_json() if arguments.json else report.as_text())


def _info(arguments: argparse.Namespace) -> None:
    from . import info

    info.info(arguments)


def _config(arguments: argparse.Namespace) -> None:
    from . import info

    info.config(arguments)
