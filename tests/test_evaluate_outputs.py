"""What `evaluate` promises of the files that it writes: they are whole, or not there."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

import softxent
from command_line import posix, snapshot
from softxent._cli import pair


@pytest.mark.parametrize("which", [0, 1])
def test_evaluate_refuses_to_overwrite_what_it_reads(refused, files, tmp_path, which):
    assert "overwrite" in refused("evaluate", *files, "--grad", tmp_path / "." / files[which].name)


def test_evaluate_refuses_an_output_that_is_no_file_or_in_no_folder(refused, files, tmp_path):
    assert "not a regular file" in refused("evaluate", *files, "--grad", tmp_path)
    assert "cannot be written" in refused("evaluate", *files, "--grad", tmp_path / "nowhere" / "grad.npy")
    assert "cannot be written" in refused("evaluate", *files, "--grad", files[0] / "grad.npy")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError("SOFTXENT_ISA"), ValueError("no")])
def test_evaluate_leaves_nothing_behind_when_it_is_stopped(run, files, tmp_path, monkeypatch, error):
    monkeypatch.setattr(pair, "BLOCK_BYTES", 100)
    library, calls = softxent.cross_entropy_and_grad, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return library(*arguments, **options)

    monkeypatch.setattr(softxent, "cross_entropy_and_grad", stopped)
    before = snapshot(tmp_path)
    status, out, err = run("evaluate", *files, "--grad", tmp_path / "grad.npy")
    assert (status, out) == (130 if error is KeyboardInterrupt else 2, "")
    assert err.startswith("softxent: ")
    assert err.count("\n") == 1
    assert snapshot(tmp_path) == before


@posix
def test_evaluate_replaces_an_earlier_gradient_and_follows_a_link_to_it(run, files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "grad.npy").rename(tmp_path / "elsewhere" / "grad.npy")
    (tmp_path / "grad.npy").symlink_to(tmp_path / "elsewhere" / "grad.npy")
    assert run("evaluate", *files, "--grad", tmp_path / "grad.npy")[0] == 0
    assert (tmp_path / "grad.npy").is_symlink()
    assert np.load(tmp_path / "elsewhere" / "grad.npy").shape == (20, 5)


@posix
def test_evaluate_tells_a_full_disk_in_one_line_before_it_starts(files, tmp_path):
    np.save(files[0], np.zeros((20_000, 5)))
    np.save(files[1], np.zeros(20_000, dtype=int))
    before = snapshot(tmp_path)
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999));"
    code += "from softxent._cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "evaluate", *files, "--grad", tmp_path / "grad.npy"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"softxent: error: .*grad.npy: cannot be written: .*\n", result.stderr)
    assert snapshot(tmp_path) == before
