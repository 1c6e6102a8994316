"""What the command line promises: the demo learns, a terminal and a pipe are served, errors are one line."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import softxent
from command_line import CONTROL, absent, posix, shell
from softxent._cli import demo, terminal
from softxent._cli.main import main

# demo ---------------------------------------------------------------------------------------------


def test_demo_reads_at_least_95_percent_of_the_unseen_digits(run):
    status, out, err = run("demo")
    assert (status, err) == (0, "")
    assert float(re.search(r"test accuracy +([\d.]+)%", out)[1]) >= 95


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_demo_does_not_owe_its_accuracy_to_the_split(seed):
    split = demo.load_digits(seed)
    weights, _ = demo.train(split.x_train, split.y_train, 200, softxent.cross_entropy_and_grad)
    assert np.mean(np.argmax(split.x_test @ weights, axis=1) == split.y_test) >= 0.95


def test_demo_holds_out_a_third_that_it_does_not_train_on():
    split = demo.load_digits(0)
    assert len(split.y_train) == 2 * len(split.y_test) == 1198
    assert split.x_train.shape == (1198, 65)
    assert split.x_train.min() == 0
    assert split.x_train.max() == 1
    pixels = np.concatenate([split.x_train, split.x_test]).sum(axis=0)
    every = np.concatenate([demo.load_digits(1).x_train, demo.load_digits(1).x_test]).sum(axis=0)
    np.testing.assert_array_equal(pixels, every)


def test_demo_reaches_the_loss_of_the_numpy_idiom_and_gives_both_times(run):
    _, out, _ = run("demo", "--steps", 30, "--threads", 1)
    lines = re.findall(r"^(softxent|NumPy idiom) +[\d.]+ ms +loss ([\d.]+)$", out, re.MULTILINE)
    assert [name for name, _ in lines] == ["softxent", "NumPy idiom"]
    assert float(lines[0][1]) == pytest.approx(float(lines[1][1]), rel=1e-8)
    assert re.search(r"^ratio +[\d.]+ x +the same loss", out, re.MULTILINE)


def test_demo_shows_the_loss_as_it_falls(run):
    _, out, _ = run("demo", "--steps", 50)
    losses = [float(loss) for loss in re.findall(r"^step +\d+ +loss ([\d.]+)$", out, re.MULTILINE)]
    assert losses[0] == pytest.approx(math.log(10), abs=1e-4)
    assert losses == sorted(losses, reverse=True)


def test_demo_repeats_itself_with_the_same_seed_and_not_with_another(run):
    accuracy = [re.search("test accuracy.*", run("demo", "--steps", 20, "--seed", seed)[1])[0] for seed in "778"]
    assert accuracy[0] == accuracy[1] != accuracy[2]


def test_demo_draws_the_learning_curve_in_a_pipe_without_control_characters():
    result = shell("demo", "--steps", 20, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "loss (nats)" in result.stdout
    assert re.search(r"└─+\n +0 +step +19\n", result.stdout)
    assert re.search("[\u2801-\u28ff]", result.stdout)
    assert not CONTROL.search(result.stdout)


def test_demo_draws_in_ascii_where_the_output_has_nothing_else():
    result = shell("demo", "--steps", 20, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.isascii()
    assert "****" in result.stdout


def test_demo_needs_no_rich(run, monkeypatch):
    absent(monkeypatch, "rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = run("demo", "--steps", 20)
    assert status == 0
    assert "└──" in out
    assert re.search(r"training \[#{30}\] 100% loss [\d.]+", err)


def test_demo_writes_its_plot_as_png(run, tmp_path):
    pytest.importorskip("matplotlib")
    assert run("demo", "--steps", 5, "--plot", tmp_path / "curve.png")[0] == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert os.listdir(tmp_path) == ["curve.png"]


def test_demo_says_in_one_line_that_the_plot_needs_matplotlib(refused, monkeypatch, tmp_path):
    absent(monkeypatch, "matplotlib")
    assert "needs matplotlib" in refused("demo", "--plot", tmp_path / "curve.png")


def test_demo_refuses_a_plot_that_is_not_a_png(refused, tmp_path):
    assert ".png" in refused("demo", "--plot", tmp_path / "curve.pdf")


def test_demo_does_not_train_for_a_plot_that_cannot_be_written(refused, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(demo, "train", None)
    assert "cannot be written" in refused("demo", "--plot", tmp_path / "nowhere" / "curve.png")
    (tmp_path / "curve.png").write_bytes(b"precious")
    (tmp_path / "curve.png").chmod(0o444)
    assert "read-only (mode 0444)" in refused("demo", "--plot", tmp_path / "curve.png")


def test_demo_leaves_no_plot_when_it_is_stopped(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", stopped)
    assert run("demo", "--plot", tmp_path / "curve.png")[0] == 130
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("steps", [1, 2, 1_000_000])
@pytest.mark.parametrize("columns", [1, 2, 10, 19, 20, 21, 30, 50, 70, 71, 72, 100])
def test_curve_fits_any_width(columns, steps):
    lines = terminal.curve(np.geomspace(1000, 1, steps), "step", "loss (nats)", columns).splitlines()
    assert max(map(len, lines)) <= columns
    if columns > 2:
        assert re.search("[\u2801-\u28ff]", "".join(lines))
    if columns > 30:
        assert lines[1].startswith("1000.000 ┤")
        assert lines[-1].split() == ["0", "step", str(steps - 1)]


@posix
@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("columns", [24, 50])
def test_demo_draws_no_wider_than_the_terminal(columns, rich):
    import pty

    if rich:
        pytest.importorskip("rich")
    code = "import sys;" + ("" if rich else "sys.modules['rich'] = None;")
    code += "from softxent._cli.main import main; sys.exit(main())"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code, "demo", "--steps", "2"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the program has ended
            while more := os.read(ours, 4096):
                shown += more
    os.close(ours)
    assert process.returncode == 0
    drawn = [line for line in shown.decode().splitlines() if re.search("[└─\u2801-\u28ff]", line)]
    assert len(drawn) > 10
    assert max(len(line.rstrip()) for line in drawn) <= columns


def test_curve_falls_from_the_top_left_to_the_bottom_right():
    lines = terminal.curve(np.exp(-np.arange(50.0)), "step", "loss", columns=30, height=5).splitlines()
    drawn = [re.sub("^.{9}[┤│]", "", line) for line in lines[1:6]]
    assert drawn[0][0] != " "
    assert len(drawn[4]) == 20
    starts = [len(row) - len(row.lstrip()) for row in drawn]
    assert starts == sorted(starts)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [3.0, 1.0]])
def test_curve_can_be_drawn_of_very_little(values):
    assert "step" in terminal.curve(values, "step", "loss")


# as a program ------------------------------------------------------------------------------------


@posix
def test_a_reader_that_stops_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "softxent", "demo", "--steps", "2"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert result.stderr == b""
    assert result.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_line(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "softxent", "info"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60)
    assert result.returncode == 2
    assert re.fullmatch(rb"softxent: error: .*\s+", result.stderr)


# info, arguments ----------------------------------------------------------------------------------


def test_info_tells_what_this_build_uses(run):
    status, out, err = run("info")
    assert (status, err) == (0, "")
    assert out.startswith(f"softxent         {softxent.__version__}\n")
    for words in ("Python", f"NumPy            {np.__version__}", "instruction set", "OpenMP", "threads"):
        assert words in out


def test_info_is_json_on_request(run):
    facts = json.loads(run("info", "--json")[1])
    assert facts["version"] == softxent.__version__
    assert facts["isa"] in facts["isa_usable"]
    assert facts["num_threads"] >= 1


def test_info_refuses_an_instruction_set_that_is_none(tmp_path):
    result = shell("info", env={**os.environ, "SOFTXENT_ISA": "abacus"}, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch("softxent: error: .*abacus.*\n", result.stderr)


def test_version_is_told():
    result = shell("--version")
    assert (result.returncode, result.stdout) == (0, f"softxent {softxent.__version__}\n")


def test_no_command_prints_the_help_and_fails(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "usage: softxent" in err
    assert "evaluate" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["evaluate"],
        ["evaluate", "a.npy", "b.npy", "--axis", "x"],
        ["evaluate", "a.npy", "b.npy", "--threads", "0"],
        ["demo", "--steps", "0"],
        ["demo", "--seed", "-1"],
        ["info", "--colour"],
    ],
)
def test_wrong_arguments_end_with_one_line_after_the_usage(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: softxent")
    assert err.splitlines()[-1].startswith("softxent: error: ")


def test_importing_the_library_does_not_import_the_command_line():
    names = {
        "softxent._cli",
        "rich",
        "matplotlib",
    }
    code = f"import sys, softxent; sys.exit(bool({names} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_console_script_is_what_python_m_runs():
    pyproject = tomllib.loads((pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text())
    module, _, name = pyproject["project"]["scripts"]["softxent"].partition(":")
    assert getattr(importlib.import_module(module), name) is main
    assert importlib.import_module("softxent.__main__").main is main
