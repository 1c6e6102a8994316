"""What `evaluate` promises of the files that it writes: they are whole, or not there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import softxent
from command_line import absent, posix, snapshot
from softxent._cli import evaluate, pair
from softxent._cli.main import main


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


OUTPUTS = {"--grad": "grad.npy", "--per-sample": "losses.npy", "--plot": "plot.png"}


def all_outputs(folder):
    pytest.importorskip("matplotlib")
    return [word for option, name in OUTPUTS.items() for word in (option, folder / name)]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
@pytest.mark.parametrize("option", OUTPUTS)
def test_a_file_that_is_replaced_keeps_its_mode(run, files, tmp_path, option, mode):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    target = tmp_path / OUTPUTS[option]
    target.write_bytes(b"of an earlier run")
    target.chmod(mode)
    assert run("evaluate", *files, option, target)[0] == 0
    assert target.read_bytes() != b"of an earlier run"
    assert target.stat().st_mode & 0o7777 == mode


@posix
def test_a_new_file_has_the_mode_of_new_files(run, files, tmp_path):
    (tmp_path / "new").write_bytes(b"")
    run("evaluate", *files, "--per-sample", tmp_path / "losses.npy")
    assert (tmp_path / "losses.npy").stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize("option", OUTPUTS)
def test_a_read_only_file_is_not_replaced(refused, files, tmp_path, monkeypatch, option):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    monkeypatch.setattr(evaluate._Evaluation, "stream", None)  # the error comes before anything is computed
    target = tmp_path / OUTPUTS[option]
    target.write_bytes(b"precious")
    target.chmod(0o444)
    message = refused("evaluate", *files, option, target)
    assert f"{target}: is there and read-only (mode 0444): make it writable, or name another file" in message
    assert target.stat().st_mode & 0o777 == 0o444


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_nothing_is_left_behind_by_a_signal(files, tmp_path, name):
    before = snapshot(tmp_path)
    code = f"""
        import os, signal, sys
        from softxent._cli import pair
        from softxent._cli.main import main

        # As it is in a terminal; under nohup, say, a program begins with the signal ignored.
        signal.signal(signal.{name}, signal.{"default_int_handler" if name == "SIGINT" else "SIG_DFL"})
        taken, calls = pair.Pair.labels_of, []

        def labels_of(self, box):
            calls.append(box)
            if len(calls) == 3:
                print([name for name in os.listdir() if name.endswith(".tmp")], flush=True)
                os.kill(os.getpid(), signal.{name})
            return taken(self, box)

        pair.Pair.labels_of, pair.BLOCK_BYTES = labels_of, 100
        sys.exit(main())
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), "evaluate", *files, *all_outputs(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    number = getattr(signal, name)
    assert result.returncode == 128 + number
    assert result.stdout.count(".tmp") == 3  # these files were there before
    words = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert result.stderr == f"softxent: {words}\n"
    assert snapshot(tmp_path) == before


@posix
def test_a_signal_that_is_ignored_stays_ignored(files, tmp_path):
    code = """
        import os, signal, sys
        from softxent._cli import evaluate
        from softxent._cli.main import main

        report = evaluate._Evaluation.report

        def hung_up(self):
            os.kill(os.getpid(), signal.SIGHUP)
            return report(self)

        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        evaluate._Evaluation.report = hung_up
        sys.exit(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), "evaluate", *files, "--grad", tmp_path / "grad.npy"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert np.load(tmp_path / "grad.npy").shape == (20, 5)


@posix
def test_the_handlers_of_signals_are_as_they_were(run, files, tmp_path):
    numbers = signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    run("evaluate", *files, "--grad", tmp_path / "grad.npy")
    run("evaluate", *files, "--axis", 7)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_command_can_be_run_in_a_thread_that_is_not_the_main_one(files):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        assert pool.submit(main, ["evaluate", *map(str, files)]).result() == 0


@pytest.mark.parametrize("second", ["--per-sample", "--plot"])
def test_two_outputs_in_one_file_are_refused(refused, files, tmp_path, second):
    same = tmp_path / "x.png"
    message = refused("evaluate", *files, "--grad", same, second, tmp_path / "." / "x.png")
    assert "x.png: would be written twice: name another file for one of the two" in message


def test_no_output_overwrites_an_archive_or_the_class_weights(refused, files, tmp_path):
    np.savez(tmp_path / "z.npz", z=np.load(files[0]))
    np.save(tmp_path / "w.npy", np.ones(5))
    arguments = ["evaluate", f"{tmp_path / 'z.npz'}:z", files[1], "--class-weight", tmp_path / "w.npy"]
    for name in ("z.npz", "w.npy"):
        message = refused(*arguments, "--per-sample", tmp_path / name)
        assert f"would overwrite {tmp_path / name}, which is read: name another file" in message


def test_an_error_leaves_no_output_of_any_kind(refused, files, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("no")

    monkeypatch.setattr(softxent, "cross_entropy_and_grad", broken)
    refused("evaluate", *files, *all_outputs(tmp_path))


def test_a_plot_that_cannot_be_drawn_is_refused_before_anything_is_computed(refused, files, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate._Evaluation, "stream", None)
    assert "a name that ends in .png" in refused("evaluate", *files, "--plot", tmp_path / "plot.pdf")
    assert "cannot be written" in refused("evaluate", *files, "--plot", tmp_path / "nowhere" / "plot.png")
    absent(monkeypatch, "matplotlib")
    assert "--plot needs matplotlib: pip install matplotlib" in refused(
        "evaluate", *files, "--plot", tmp_path / "plot.png"
    )
