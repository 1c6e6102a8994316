"""The arguments of the command line: each subcommand is imported when it runs."""

from __future__ import annotations

import argparse
import math
import sys
from typing import NoReturn

import softxent


class _Parser(argparse.ArgumentParser):
    """argparse, but every error starts with the same name in all subcommands."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"softxent: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    text = "Softmax cross-entropy and its gradient, on the CPU."
    parser = _Parser(prog="softxent", description=text)
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

    _add_evaluate(commands)

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


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = (
        "Cross-entropy, perplexity and accuracy of files of any size, which are read in blocks: .npy, .npz and "
        ".safetensors. Where a file holds several arrays, FILE:NAME says which."
    )
    evaluate = commands.add_parser("evaluate", help="measure logits against labels", description=text)
    evaluate.set_defaults(run=_evaluate)
    add = evaluate.add_argument
    add("logits", metavar="LOGITS", help="real numbers, any axes, any memory order")
    add("labels", metavar="LABELS", help="class indices, or a distribution of the logits' shape")
    add("--axis", type=int, default=-1, metavar="N", help="the class axis (-1)")
    add("--shift", action="store_true", help="language models: logits at t are of the label at t + 1, last sample axis")
    add("--dtype", choices=["bfloat16"], help="the logits' 2-byte entries are bfloat16")
    add("--ignore-index", type=int, metavar="N", help="leave out samples with this label")
    add("--temperature", type=_above_zero, default=1.0, metavar="T", help="divide the logits by it (1)")
    add("--label-smoothing", type=_share, default=0.0, metavar="E", help="part of the target that is uniform (0)")
    add("--class-weight", metavar="FILE", help="a weight for each class: the mean is a weighted one")
    add("--calibration", action="store_true", help="expected calibration error, 15 bins; a second pass of each block")
    add("--plot", metavar="FILE.png", help="draw a reliability diagram there (needs matplotlib)")
    add("--per-sample", metavar="OUT.npy", help="write the loss of each sample there (ignored: 0)")
    add("--grad", metavar="OUT.npy", help="write the gradient of the mean loss there; half precision as float32")
    add("--json", action="store_true", help="print one JSON object (nan, inf: null)")
    add("--threads", dest="n_threads", type=_positive, metavar="N", help="threads of the kernels")


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


def _above_zero(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _share(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return number


# argparse names the type in "invalid <name> value". So the name says what was wanted, and not what the function is.
_positive.__name__ = _natural.__name__ = "integer"
_above_zero.__name__ = _share.__name__ = "number"


def _demo(arguments: argparse.Namespace) -> None:
    from . import demo

    demo.run(arguments.steps, arguments.seed, arguments.plot, arguments.threads)


def _evaluate(arguments: argparse.Namespace) -> None:
    from . import evaluate

    options = vars(arguments).copy()
    del options["run"]
    as_json = options.pop("json")
    report = evaluate.evaluate(**options)
    print(report.as_json() if as_json else report.as_text())


def _info(arguments: argparse.Namespace) -> None:
    from . import info

    info.info(arguments)


def _config(arguments: argparse.Namespace) -> None:
    from . import info

    info.config(arguments)
