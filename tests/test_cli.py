"""What `python -m softxent` promises: the demo learns, files of any size are measured, errors are one line.

Numbers are held against plain NumPy on the whole array. What the kernels compute is tested elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import softxent
from softxent._cli import demo, evaluate, terminal
from softxent._cli.main import main

posix = pytest.mark.skipif(os.name != "posix", reason="a POSIX notion")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")  # all but the newline


def shell(*arguments, **options):
    command = [sys.executable, "-m", "softxent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, **options)


@pytest.fixture
def run(capsys):
    """Run a command in this process: its exit status, stdout and stderr."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must fail: one line on stderr, no stdout, no file that was not there before."""

    def refused(*arguments):
        before = snapshot(tmp_path)
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("softxent: error: ")
        assert err.count("\n") == 1
        assert snapshot(tmp_path) == before
        return err

    return refused


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def absent(monkeypatch, package):
    for name in [*sys.modules, package]:
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)


def store(folder, logits, labels, order="C"):
    paths = folder / "logits.npy", folder / "labels.npy"
    for path, array in zip(paths, (logits, labels), strict=True):
        np.save(path, np.asarray(array, order=order))
    return paths


def sample(shape, axis, seed=0, dtype=np.float64):
    """Logits, some of them tied, and labels."""
    rng = np.random.default_rng(seed)
    logits = np.round(3 * rng.standard_normal(shape), 1).astype(dtype)
    labels = rng.integers(shape[axis], size=np.delete(shape, axis))
    return logits, labels


def expected(logits, labels, axis=-1, ignore_index=None):
    """Everything `evaluate` reports, and the gradient, from the definitions and the whole array at once."""
    z = np.moveaxis(logits, axis, -1).astype(np.float64)
    n_classes = z.shape[-1]
    if labels.ndim == logits.ndim:
        t = np.moveaxis(labels, axis, -1).astype(np.float64)
        kept = np.ones(z.shape[:-1], dtype=bool)
    else:
        kept = labels != ignore_index if ignore_index is not None else np.ones(labels.shape, dtype=bool)
        t = np.eye(n_classes)[np.where(kept, labels, 0)]
    shifted = z - z.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    n_kept = np.count_nonzero(kept)
    gradient = (np.exp(log_p) * t.sum(axis=-1, keepdims=True) - t) * kept[..., np.newaxis] / n_kept
    ranking = np.argsort(-z, axis=-1, kind="stable")  # ties: the earlier class first
    hit = ranking == t.argmax(axis=-1)[..., np.newaxis]
    loss = -(t * log_p).sum(axis=-1)[kept].mean()
    report = {
        "samples": kept.size,
        "ignored": kept.size - n_kept,
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits": loss / math.log(2),
        "top1_accuracy": hit[..., :1].any(axis=-1)[kept].mean(),
        "top5_accuracy": hit[..., :5].any(axis=-1)[kept].mean(),
    }
    return report, np.moveaxis(gradient, -1, axis)


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


def test_curve_falls_from_the_top_left_to_the_bottom_right():
    lines = terminal.curve(np.exp(-np.arange(50.0)), "step", "loss", width=20, height=5).splitlines()
    drawn = [re.sub("^.{9}[┤│]", "", line) for line in lines[1:6]]
    assert drawn[0][0] != " "
    assert len(drawn[4]) == 20
    starts = [len(row) - len(row.lstrip()) for row in drawn]
    assert starts == sorted(starts)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [3.0, 1.0]])
def test_curve_can_be_drawn_of_very_little(values):
    assert "step" in terminal.curve(values, "step", "loss")


# evaluate: the numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7,), 0),
        ((50, 3), -1),
        ((50, 7), 1),
        ((7, 50), 0),
        ((4, 6, 5, 9), 1),
        ((4, 5, 9, 6), -1),
        ((6, 4, 5), 0),
    ],
)
@pytest.mark.parametrize("block", [1, 100, 700, 1 << 24])
@pytest.mark.parametrize("ignore_index", [None, -100, 2])
def test_evaluate_equals_the_whole_array_at_once(run, tmp_path, monkeypatch, order, shape, axis, block, ignore_index):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", block)
    logits, labels = sample(shape, axis)
    if ignore_index is not None and labels.ndim > 0:
        labels[labels == 1] = ignore_index
    files = store(tmp_path, logits, labels, order)
    options = ["--ignore-index", ignore_index] if ignore_index is not None else []
    out = tmp_path / "grad.npy"
    status, stdout, stderr = run("evaluate", *files, "--axis", axis, *options, "--grad", out, "--json")
    assert (status, stderr) == (0, "")
    report, gradient = expected(logits, labels, axis, ignore_index)
    assert json.loads(stdout) == pytest.approx(report, rel=1e-12)
    found = np.load(out)
    assert (found.dtype, found.flags.f_contiguous) == (np.float64, np.load(files[0]).flags.f_contiguous)
    np.testing.assert_allclose(found, gradient, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("block", [100, 1 << 24])
@pytest.mark.parametrize(
    ("dtype", "found_dtype", "tolerance"),
    [
        ("f2", "f2", 1e-3),
        ("f4", "f4", 1e-5),
        (">f4", ">f4", 1e-5),
        (">f8", ">f8", 1e-12),
        ("i2", "f8", 1e-12),
    ],
)
@pytest.mark.parametrize("label_dtype", ["i8", ">i4", "u1", "u8"])
def test_evaluate_takes_every_real_dtype(run, tmp_path, monkeypatch, block, dtype, found_dtype, tolerance, label_dtype):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", block)
    logits, labels = sample((40, 6), -1, dtype=dtype)
    files = store(tmp_path, logits, labels.astype(label_dtype))
    out = tmp_path / "grad.npy"
    _, stdout, stderr = run("evaluate", *files, "--ignore-index", -1, "--grad", out, "--json")
    assert stderr == ""
    report, gradient = expected(logits, labels)
    assert json.loads(stdout) == pytest.approx(report, rel=tolerance)
    assert np.load(out).dtype == np.dtype(found_dtype)
    np.testing.assert_allclose(np.load(out), gradient, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("block", [1, 300, 1 << 24])
def test_evaluate_takes_a_distribution_and_ranks_its_largest(run, tmp_path, monkeypatch, axis, block):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", block)
    logits, _ = sample((6, 7, 8), axis)
    target = np.random.default_rng(1).random(logits.shape)
    target /= target.sum(axis=axis, keepdims=True)
    files = store(tmp_path, logits, target)
    _, stdout, _ = run("evaluate", *files, "--axis", axis, "--grad", tmp_path / "grad.npy", "--json")
    report, gradient = expected(logits, target, axis)
    assert json.loads(stdout) == pytest.approx(report, rel=1e-12)
    np.testing.assert_allclose(np.load(tmp_path / "grad.npy"), gradient, rtol=1e-11, atol=1e-17)


def test_evaluate_writes_the_gradient_that_the_library_gives_for_the_whole_array(run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", 1000)
    logits, labels = sample((3, 11, 5, 4), 1, dtype=np.float32)
    labels[:, 2] = 99
    files = store(tmp_path, logits, labels)
    run("evaluate", *files, "--axis", 1, "--ignore-index", 99, "--grad", tmp_path / "grad.npy")
    _, gradient = softxent.cross_entropy_and_grad(logits, labels, axis=1, ignore_index=99)
    np.testing.assert_allclose(np.load(tmp_path / "grad.npy"), gradient, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_evaluate_never_counts_a_nan_as_right(run, tmp_path, dtype):
    nan = math.nan
    logits = [[nan, 1.0], [1.0, nan], [nan, nan], [1.0, 0.0]]
    files = store(tmp_path, np.array(logits, dtype=dtype), np.zeros(4, dtype=int))
    _, stdout, stderr = run("evaluate", *files, "--json")
    report = json.loads(stdout)
    assert stderr == ""
    assert (report["top1_accuracy"], report["top5_accuracy"]) == (0.25, 0.25)
    assert report["loss"] is report["perplexity"] is report["bits"] is None


def test_evaluate_gives_a_tie_to_the_earlier_class(run, tmp_path):
    files = store(tmp_path, np.zeros((10, 10)), np.arange(10))
    report = json.loads(run("evaluate", *files, "--json")[1])
    assert (report["top1_accuracy"], report["top5_accuracy"]) == (0.1, 0.5)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_evaluate_of_no_sample_has_no_loss(run, tmp_path, shape):
    files = store(tmp_path, np.zeros(shape, dtype=np.float32), np.zeros(shape[:-1], dtype=int))
    status, stdout, _ = run("evaluate", *files, "--grad", tmp_path / "grad.npy", "--json")
    assert status == 0
    assert json.loads(stdout)["samples"] == 0
    assert json.loads(stdout)["loss"] is json.loads(stdout)["top1_accuracy"] is None
    assert np.load(tmp_path / "grad.npy").shape == shape
    assert "nan nats" in run("evaluate", *files)[1]


def test_evaluate_of_ignored_samples_has_no_loss_and_no_gradient(run, tmp_path):
    files = store(tmp_path, np.full((4, 5), math.nan), np.full(4, -1))
    options = ["--ignore-index", -1, "--grad", tmp_path / "grad.npy", "--json"]
    report = json.loads(run("evaluate", *files, *options)[1])
    assert (report["samples"], report["ignored"], report["loss"]) == (4, 4, None)
    assert not np.load(tmp_path / "grad.npy").any()


def test_evaluate_prints_what_the_json_holds(run, tmp_path):
    logits, labels = sample((100, 10), -1)
    files = store(tmp_path, logits, labels)
    status, out, err = run("evaluate", *files, "--threads", 1)
    report, _ = expected(logits, labels)
    assert (status, err) == (0, "")
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        *("samples", "ignored", "loss", "perplexity", "bits", "top-1 accuracy", "top-5 accuracy")
    ]
    assert f"{report['loss']:.9g} nats" in out
    assert f"{report['top5_accuracy']:.2%}" in out


def test_evaluate_never_holds_more_than_a_few_blocks(run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", 1 << 18)
    logits, labels = sample((50_000, 100), -1, dtype=np.float32)  # 20 MB
    files = store(tmp_path, logits, labels)
    run("evaluate", *files)  # imports what there is to import
    tracemalloc.start()
    status, _, _ = run("evaluate", *files, "--grad", tmp_path / "grad.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 0
    assert peak < 8 << 18


@pytest.mark.parametrize("most", [1, 2, 7, 12, 59, 60, 1000])
@pytest.mark.parametrize("shape", [(), (5,), (1, 1), (3, 4, 5), (4, 0, 2)])
def test_blocks_cover_every_sample_once_and_stay_small(shape, most):
    seen = np.zeros(shape, dtype=int)
    for box in evaluate._boxes(shape, most):
        assert 0 < seen[box].size <= most
        seen[box] += 1
    assert (seen == 1).all()


# evaluate: what is refused ------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Good files, to be spoilt one at a time, and a gradient from an earlier run."""
    np.save(tmp_path / "grad.npy", np.ones(3))
    return store(tmp_path, *sample((20, 5), -1))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


SPOILT = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "not a .npy file"),
    "text": (lambda path: path.write_text("0.1 0.2\n"), "not a .npy file"),
    "an archive": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), "not a .npy file"),
    "cut in the header": (lambda path: cut(path, 40), "cut short"),
    "cut in the data": (lambda path: cut(path, 200), "cut short"),
    "a header of nonsense": (
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x08\x00{'a': 1}"),
        "cut short",
    ),
    "objects": (lambda path: np.save(path, np.array([{}, {}], dtype=object)), "objects"),
    "strings": (lambda path: np.save(path, np.full((20, 5), "a")), "dtype <U1"),
    "complex": (lambda path: np.save(path, np.ones((20, 5), dtype=complex)), "dtype complex128"),
    "records": (lambda path: np.save(path, np.ones((20, 5), dtype="f4,f4")), "dtype"),
    "a number": (lambda path: np.save(path, np.float64(1)), ""),
    "too few": (lambda path: np.save(path, np.ones((19, 5))), "does not fit"),
    "too many axes": (lambda path: np.save(path, np.ones((20, 5, 1, 1))), "does not fit"),
}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("how", SPOILT)
def test_evaluate_refuses_a_bad_file_in_one_line(refused, files, tmp_path, how, which):
    spoil, words = SPOILT[how]
    spoil(files[which])
    message = refused("evaluate", *files, "--grad", tmp_path / "grad.npy")
    assert str(files[which].name) in message
    assert words in message


def test_evaluate_refuses_floats_as_class_indices(refused, files):
    np.save(files[1], np.ones(20))
    assert "dtype float64: class indices are integers" in refused("evaluate", *files)


def test_evaluate_refuses_logits_without_a_class(refused, tmp_path):
    assert "no class" in refused("evaluate", *store(tmp_path, np.ones((3, 0)), np.ones(3, dtype=int)))


def test_evaluate_refuses_an_axis_that_is_not_there(refused, files):
    assert "--axis 2" in refused("evaluate", *files, "--axis", 2)


def test_evaluate_refuses_an_ignored_index_beside_a_distribution(refused, tmp_path):
    files = store(tmp_path, np.ones((3, 2)), np.ones((3, 2)))
    assert "distribution" in refused("evaluate", *files, "--ignore-index", 0)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("bad", [-1, 7, 127])
def test_evaluate_names_the_place_of_a_bad_label_in_the_whole_file(refused, tmp_path, monkeypatch, order, bad):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", 24)
    logits, labels = sample((4, 7, 5, 6), 1)
    labels[2, 4, 3] = bad
    files = store(tmp_path, logits, labels.astype(np.int8), order)
    message = refused("evaluate", *files, "--axis", 1, "--ignore-index", -100, "--grad", tmp_path / "grad.npy")
    assert f"labels.npy: labels[2, 4, 3] is {bad}: not a class in [0, 7)" in message


def test_evaluate_names_a_bad_label_of_a_single_sample(refused, tmp_path):
    files = store(tmp_path, np.ones(3), np.array(3))
    assert "labels[()] is 3: not a class in [0, 3)" in refused("evaluate", *files)


@pytest.mark.parametrize("which", [0, 1])
def test_evaluate_refuses_to_overwrite_what_it_reads(refused, files, tmp_path, which):
    assert "overwrite" in refused("evaluate", *files, "--grad", tmp_path / "." / files[which].name)


def test_evaluate_refuses_an_output_that_is_no_file_or_in_no_folder(refused, files, tmp_path):
    assert "not a regular file" in refused("evaluate", *files, "--grad", tmp_path)
    assert "cannot be written" in refused("evaluate", *files, "--grad", tmp_path / "nowhere" / "grad.npy")
    assert "cannot be written" in refused("evaluate", *files, "--grad", files[0] / "grad.npy")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError("SOFTXENT_ISA"), ValueError("no")])
def test_evaluate_leaves_nothing_behind_when_it_is_stopped(run, files, tmp_path, monkeypatch, error):
    monkeypatch.setattr(evaluate, "BLOCK_BYTES", 100)
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


# evaluate: as a program ---------------------------------------------------------------------------


def test_evaluate_reads_a_file_larger_than_a_block(tmp_path):
    logits, labels = sample((60_000, 100), -1, dtype=np.float32)
    files = store(tmp_path, logits, labels)
    assert files[0].stat().st_size > evaluate.BLOCK_BYTES
    result = shell("evaluate", *files, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == pytest.approx(expected(logits, labels)[0], rel=1e-6)


@posix
@pytest.mark.parametrize("rich", [True, False])
def test_evaluate_shows_its_progress_on_a_terminal_and_keeps_stdout_clean(files, rich):
    import pty

    if rich:
        pytest.importorskip("rich")
    code = "import sys;" + ("" if rich else "sys.modules['rich'] = None;")
    code += "from softxent._cli.main import main; sys.exit(main())"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", code, "evaluate", *files, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while b"100%" not in shown and (more := os.read(ours, 4096)):  # fails when the program ends without
            shown += more
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert json.loads(out)["samples"] == 20
    assert b"evaluating" in shown


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
    assert "usage: python -m softxent" in err
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
    assert err.startswith("usage: python -m softxent")
    assert err.splitlines()[-1].startswith("softxent: error: ")


def test_importing_the_library_does_not_import_the_command_line():
    names = {
        "softxent._cli",
        "rich",
        "matplotlib",
    }
    code = f"import sys, softxent; sys.exit(bool({names} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
