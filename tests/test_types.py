"""What type checkers read about the package is true and complete, for a user's program and for the extension's stub."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

import softxent

PROGRAM = pathlib.Path(__file__).with_name("typed_program.py")

# Each line is an error. The message has one of our words, or one of the checker's.
WRONG = """\
import numpy as np
import softxent
z, y = np.zeros((2, 3)), np.zeros(2, int)
a: float = softxent.cross_entropy(z, y, reduction="none")
b: str = softxent.cross_entropy(z, y)
softxent.cross_entropy(z, y, reduction="average")
softxent.cross_entropy(z, y, weight=[1, 2, 3])
softxent.cross_entropy(z, y, reduction="none", weight=[1, 2, 3])
softxent.cross_entropy(z, y, out=np.zeros(2))
softxent.cross_entropy(z, y, axis="rows")
softxent.cross_entropy(z, y, reduction="none", axis="rows")
softxent.cross_entropy_grad_hess(z, y, reduction="none", softcap=3.0)
softxent.cross_entropy_and_grad(z, y, reduction="none")[0].no_such_method()
softxent.softmax(z, dim=-1)
softxent.cross_entropy_hvp(z, y, z, weight=None)
softxent.entropy(z, out=1.0)
c: tuple[float, object] = softxent.cross_entropy_and_grad(z, y, wrt_temperature=True)
softxent.cross_entropy_and_rank(z, y, wrt_temperature=True)
softxent.kl_divergence(z, z, class_weight=[1, 2, 3])
d: float = softxent.kl_divergence(z, z, reduction="none")
softxent.SparseTarget([[0]])
"""
FIRST_WRONG = 4


def run(tmp_path, module, *arguments):
    """Run a checker without configuration. From a source tree, it must find the package there."""
    pytest.importorskip(module.partition(".")[0])
    source = pathlib.Path(softxent.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(source), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    if source.name != "site-packages":
        env["MYPYPATH"] = str(source)
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)


CHECKERS = {"mypy": ("--strict",), "pyright": ("--pythonpath", sys.executable)}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_program_passes(checker, tmp_path):
    done = run(tmp_path, checker, *CHECKERS[checker], PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_wrong_line_is_an_error(checker, tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    done = run(tmp_path, checker, *CHECKERS[checker], "wrong.py")
    lines = {int(line) for line in re.findall(r"wrong\.py:(\d+).*error", done.stdout)}
    assert lines == set(range(FIRST_WRONG, WRONG.count("\n") + 1)), done.stdout + done.stderr


def test_a_users_program_runs():
    subprocess.run([sys.executable, PROGRAM], check=True, capture_output=True)


def test_the_package_is_as_its_types_say(tmp_path):
    done = run(tmp_path, "mypy.stubtest", "softxent")
    assert done.returncode == 0, done.stdout + done.stderr
