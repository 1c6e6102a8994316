"""What `evaluate` promises of its numbers: they are those of plain NumPy on the whole array, for files of any size.

What the kernels compute is tested elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import softxent
from command_line import expected, numbers, posix, sample, shell, store
from softxent._cli import pair


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
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    logits, labels = sample(shape, axis)
    if ignore_index is not None and labels.ndim > 0:
        labels[labels == 1] = ignore_index
    files = store(tmp_path, logits, labels, order)
    options = ["--ignore-index", ignore_index] if ignore_index is not None else []
    out = tmp_path / "grad.npy"
    status, stdout, stderr = run("evaluate", *files, "--axis", axis, *options, "--grad", out, "--json")
    assert (status, stderr) == (0, "")
    report, gradient = expected(logits, labels, axis, ignore_index)
    assert numbers(stdout) == pytest.approx(report, rel=1e-12, nan_ok=True)
    found = np.load(out)
    assert (found.dtype, found.flags.f_contiguous) == (np.float64, np.load(files[0]).flags.f_contiguous)
    np.testing.assert_allclose(found, gradient, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("block", [100, 1 << 24])
@pytest.mark.parametrize(
    ("dtype", "found_dtype", "tolerance"),
    [
        ("f2", "f4", 1e-5),
        ("f4", "f4", 1e-5),
        (">f4", ">f4", 1e-5),
        (">f8", ">f8", 1e-12),
        ("i2", "f8", 1e-12),
    ],
)
@pytest.mark.parametrize("label_dtype", ["i8", ">i4", "u1", "u8"])
def test_evaluate_takes_every_real_dtype(run, tmp_path, monkeypatch, block, dtype, found_dtype, tolerance, label_dtype):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    logits, labels = sample((40, 6), -1, dtype=dtype)
    files = store(tmp_path, logits, labels.astype(label_dtype))
    out = tmp_path / "grad.npy"
    _, stdout, stderr = run("evaluate", *files, "--ignore-index", -1, "--grad", out, "--json")
    assert stderr == ""
    report, gradient = expected(logits, labels)
    assert numbers(stdout) == pytest.approx(report, rel=tolerance, nan_ok=True)
    assert np.load(out).dtype == np.dtype(found_dtype)
    np.testing.assert_allclose(np.load(out), gradient, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("block", [1, 300, 1 << 24])
def test_evaluate_takes_a_distribution_and_ranks_its_largest(run, tmp_path, monkeypatch, axis, block):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    logits, _ = sample((6, 7, 8), axis)
    target = np.random.default_rng(1).random(logits.shape)
    target /= target.sum(axis=axis, keepdims=True)
    files = store(tmp_path, logits, target)
    _, stdout, _ = run("evaluate", *files, "--axis", axis, "--grad", tmp_path / "grad.npy", "--json")
    report, gradient = expected(logits, target, axis)
    assert numbers(stdout) == pytest.approx(report, rel=1e-12, nan_ok=True)
    np.testing.assert_allclose(np.load(tmp_path / "grad.npy"), gradient, rtol=1e-11, atol=1e-17)


def test_evaluate_writes_the_gradient_that_the_library_gives_for_the_whole_array(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pair, "BLOCK_BYTES", 1000)
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
    report = json.loads(run("evaluate", *files, "--json", "--calibration")[1])
    assert (report["top1_accuracy"], report["top5_accuracy"]) == (0.25, 0.25)
    assert report["loss"] is report["perplexity"] is report["bits"] is report["standard_error"] is None
    assert report["calibration_error"] == pytest.approx(1 / (1 + math.e), rel=1e-3)  # of one sample


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
        *("samples", "ignored", "loss", "standard error", "perplexity", "bits", "top-1 accuracy", "top-5 accuracy")
    ]
    assert f"{report['loss']:.9g} nats" in out
    assert f"{report['top5_accuracy']:.2%}" in out


def test_evaluate_never_holds_more_than_a_few_blocks(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pair, "BLOCK_BYTES", 1 << 18)
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
    for box in pair.boxes(shape, most):
        assert 0 < seen[box].size <= most
        seen[box] += 1
    assert (seen == 1).all()


def test_evaluate_reads_a_file_larger_than_a_block(tmp_path):
    logits = np.random.default_rng(0).standard_normal((120_000, 150), np.float32)
    labels = np.arange(120_000) % 150
    files = store(tmp_path, logits, labels)
    assert files[0].stat().st_size > pair.BLOCK_BYTES
    result = shell("evaluate", *files, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    at_label = logits[np.arange(len(labels)), labels]
    loss = np.mean(np.log(np.exp(logits).sum(axis=-1)) - at_label, dtype=np.float64)
    assert json.loads(result.stdout)["loss"] == pytest.approx(loss, rel=1e-6)
    assert json.loads(result.stdout)["top1_accuracy"] == np.mean(logits.max(axis=-1) == at_label)


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


# Options ------------------------------------------------------------------------------------------


OPTIONS = {
    "temperature": (["--temperature", 2.5], {"temperature": 2.5}),
    "label smoothing": (["--label-smoothing", 0.1], {"label_smoothing": 0.1}),
    "class weights": (["--class-weight", "weights.npy"], {"class_weight": [0.5, 3, 0, 1, 2, 7]}),
    "all": (
        ["--temperature", 0.5, "--label-smoothing", 0.3, "--class-weight", "weights.npy"],
        {"temperature": 0.5, "label_smoothing": 0.3, "class_weight": [0.5, 3, 0, 1, 2, 7]},
    ),
}


@pytest.mark.parametrize("block", [100, 1 << 24])
@pytest.mark.parametrize("kind", ["indices", "some ignored", "distribution"])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_mean_what_they_mean_in_the_library(run, tmp_path, monkeypatch, option, kind, block):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    monkeypatch.chdir(tmp_path)
    logits, labels = sample((90, 6), -1)
    if kind == "distribution":
        labels = np.random.default_rng(1).dirichlet(np.ones(6), size=90)
    elif kind == "some ignored":
        labels[::4] = -100
    arguments, meaning = OPTIONS[option]
    ignore_index = -100 if kind == "some ignored" else None
    files = store(tmp_path, logits, labels)
    np.save("weights.npy", meaning.get("class_weight", [0]))
    if ignore_index is not None:
        arguments = [*arguments, "--ignore-index", ignore_index]
    _, out, err = run("evaluate", *files, *arguments, "--grad", "grad.npy", "--json")
    report, gradient = expected(logits, labels, ignore_index=ignore_index, **meaning)
    assert err == ""
    assert numbers(out) == pytest.approx(report, rel=1e-11)
    np.testing.assert_allclose(np.load("grad.npy"), gradient, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("block", [1, 500, 1 << 24])
@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 8, 6), -1), ((5, 6, 8), 1), ((6, 5, 8), 0), ((8, 6), -1), ((6, 8), 0)]
)
@pytest.mark.parametrize("distribution", [False, True])
def test_shift_measures_logits_against_the_next_label(
    run, tmp_path, monkeypatch, order, block, shape, axis, distribution
):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    logits, labels = sample(shape, axis)
    if distribution:
        labels = np.abs(np.random.default_rng(1).standard_normal(shape))
    files = store(tmp_path, logits, labels, order)
    outputs = tmp_path / "grad.npy", tmp_path / "losses.npy"
    arguments = ["--axis", axis, "--shift", "--grad", outputs[0], "--per-sample", outputs[1], "--json"]
    _, out, err = run("evaluate", *files, *arguments)
    z, t = np.moveaxis(logits, axis, -1), np.moveaxis(labels, axis, -1) if distribution else labels
    z, t = z[..., :-1, :], t[..., 1:, :] if distribution else t[..., 1:]
    report, gradient = expected(z, t)
    assert err == ""
    assert numbers(out) == pytest.approx(report, rel=1e-11)
    found = np.moveaxis(np.load(outputs[0]), axis, -1)
    assert not found[..., -1, :].any()
    np.testing.assert_allclose(found[..., :-1, :], gradient, rtol=1e-10, atol=1e-16)
    assert np.load(outputs[1]).shape == z.shape[:-1]
    assert np.load(outputs[1]).mean() == pytest.approx(report["loss"])


def test_shift_names_the_places_of_both_files(run, refused, tmp_path):
    logits, labels = sample((4, 8, 6), -1)
    labels[2, 5] = 6
    message = refused("evaluate", *store(tmp_path, logits, labels), "--shift")
    assert "labels[2, 5] is 6: not a class in [0, 6)" in message
    labels[2, 5] = 0
    logits[1, 3, 2] = math.nan
    _, _, err = run("evaluate", *store(tmp_path, logits, labels), "--shift")
    assert "of 28 losses 1 is nan, the first because logits[1, 3, 2] is nan" in err


def test_shift_needs_an_axis_to_shift_along(refused, tmp_path):
    assert "no axis to shift along" in refused("evaluate", *store(tmp_path, np.ones(3), 1), "--shift")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_per_sample_losses_are_those_of_the_library(run, tmp_path, monkeypatch, dtype, order):
    monkeypatch.setattr(pair, "BLOCK_BYTES", 300)
    logits, labels = sample((6, 5, 9), 1, dtype=dtype)
    labels[0, 0] = -1
    files = store(tmp_path, logits, labels, order)
    run("evaluate", *files, "--axis", 1, "--ignore-index", -1, "--per-sample", tmp_path / "losses.npy")
    found = np.load(tmp_path / "losses.npy")
    z = logits.astype(np.float32) if dtype == "f2" else logits
    losses = softxent.cross_entropy(z, labels, axis=1, ignore_index=-1, reduction="none")
    assert found.dtype == losses.dtype
    np.testing.assert_allclose(found, losses, rtol=1e-6 if found.dtype == np.float32 else 1e-14)


def test_gradients_of_half_precision_do_not_underflow(run, tmp_path):
    logits = np.random.default_rng(0).standard_normal((3000, 1000)).astype(np.float16)
    files = store(tmp_path, logits, np.zeros(3000, int))
    run("evaluate", *files, "--grad", tmp_path / "grad.npy")
    found = np.load(tmp_path / "grad.npy")
    assert found.dtype == np.float32
    assert (found != 0).all()
    np.testing.assert_allclose(found, expected(logits, np.zeros(3000, int))[1], rtol=1e-5)


@pytest.mark.parametrize("block", [300, 1 << 24])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_calibration_error_is_that_of_its_definition(run, tmp_path, monkeypatch, block, dtype, temperature):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    logits, labels = sample((400, 6), -1, dtype=dtype)
    labels[::3] = logits[::3].argmax(axis=-1)
    labels[5] = -1
    files = store(tmp_path, logits, labels)
    options = ["--temperature", temperature, "--ignore-index", -1, "--label-smoothing", 0.1]
    _, out, _ = run("evaluate", *files, *options, "--calibration", "--json")
    z = np.delete(logits, 5, axis=0).astype(np.float64) / temperature
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    right, confidence = p.argmax(axis=-1) == np.delete(labels, 5), p.max(axis=-1)
    error = 0.0
    for k in range(15):
        inside = (k / 15 < confidence) & (confidence <= (k + 1) / 15)
        error += abs(right[inside].sum() - confidence[inside].sum()) / len(z)
    assert error > 0.05
    assert json.loads(out)["calibration_error"] == pytest.approx(error, rel=1e-5)
    assert f"{error:.4g} (ECE, 15 bins)" in run("evaluate", *files, *options, "--calibration")[1]


def test_calibration_of_certain_answers_is_exact(run, tmp_path):
    files = store(tmp_path, 1e4 * np.eye(3), np.array([0, 1, 0]))
    _, out, _ = run("evaluate", *files, "--calibration", "--json")
    assert json.loads(out)["calibration_error"] == pytest.approx(1 / 3, rel=1e-15)
    files = store(tmp_path, np.full((3, 2), math.nan), np.zeros(3, int))
    _, out, _ = run("evaluate", *files, "--calibration", "--json")
    assert json.loads(out)["calibration_error"] is None


def test_reliability_diagram_is_drawn_as_png(run, tmp_path):
    pytest.importorskip("matplotlib")
    files = store(tmp_path, *sample((50, 4), -1))
    _, out, _ = run("evaluate", *files, "--plot", tmp_path / "plot.png", "--json")
    assert "calibration_error" in json.loads(out)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_standard_error_is_how_much_the_loss_varies_between_draws(run, tmp_path):
    rng = np.random.default_rng(0)
    logits, weights = rng.standard_normal((40_000, 5)), np.array([1.0, 2, 3, 4, 0.1])
    labels = rng.integers(5, size=40_000)
    np.save(tmp_path / "w.npy", weights)
    losses = softxent.cross_entropy(logits, labels, class_weight=weights, reduction="none").reshape(400, 100)
    means = losses.sum(axis=1) / weights[labels].reshape(400, 100).sum(axis=1)
    files = store(tmp_path, logits[:10_000], labels[:10_000])
    _, out, _ = run("evaluate", *files, "--class-weight", tmp_path / "w.npy", "--json")
    assert json.loads(out)["standard_error"] == pytest.approx(means.std() / 10, rel=0.15)


def test_ranks_of_ties_and_nans_are_numpys(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pair, "BLOCK_BYTES", 5000)
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 6, size=(2000, 40)).astype(np.float32)  # some six or seven of each
    logits[rng.random(2000) < 0.1, rng.integers(40)] = math.nan
    logits[rng.random(2000) < 0.1, rng.integers(40)] = -math.inf
    labels = rng.integers(40, size=2000)
    valid = ~np.isnan(logits).any(axis=-1)
    labels[::2] = np.argsort(-logits, axis=-1, kind="stable")[np.arange(0, 2000, 2), rng.integers(8, size=1000)]
    place = (np.argsort(-logits, axis=-1, kind="stable") == labels[:, np.newaxis]).argmax(axis=-1)
    report = json.loads(run("evaluate", *store(tmp_path, logits, labels), "--json")[1])
    assert report["top1_accuracy"] == (valid & (place == 0)).mean()
    assert report["top5_accuracy"] == (valid & (place < 5)).mean()
    assert 0 < report["top1_accuracy"] < report["top5_accuracy"] < valid.mean() < 1
