"""The promises of `evaluate` for files that are wrong: one line says what is wrong and what to do."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from command_line import cut, sample, store
from softxent._cli import pair

SPOILT = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_text("0.1 0.2\n"), "not a .npy"),
    "an archive": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), "not a readable .npz file, or cut short"),
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
    monkeypatch.setattr(pair, "BLOCK_BYTES", 24)
    logits, labels = sample((4, 7, 5, 6), 1)
    labels[2, 4, 3] = bad
    files = store(tmp_path, logits, labels.astype(np.int8), order)
    message = refused("evaluate", *files, "--axis", 1, "--ignore-index", -100, "--grad", tmp_path / "grad.npy")
    assert f"labels.npy: labels[2, 4, 3] is {bad}: not a class in [0, 7)" in message


def test_evaluate_names_a_bad_label_of_a_single_sample(refused, tmp_path):
    files = store(tmp_path, np.ones(3), np.array(3))
    assert "labels[()] is 3: not a class in [0, 3)" in refused("evaluate", *files)


# What was probably meant --------------------------------------------------------------------------


def advice(message):
    """The end of an error's line, after the last semicolon."""
    return message.rpartition("; ")[2].rstrip("\n")


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.ones((5, 20)), np.ones(20, int), "the labels fit --axis 0"),
        (np.ones((4, 6, 5, 9)), np.ones((4, 5, 9), int), "the labels fit --axis 1"),
        (np.ones((4, 4, 5)), np.ones((4, 5), int), "the labels fit --axis 0 and --axis 1"),
        (np.ones(20, int), np.ones((20, 5)), "the files seem to be swapped: the logits come first"),
        (np.ones((20, 5)), np.ones((5, 20)), "the labels seem to be transposed: save labels.T"),
        (np.ones((20, 5)), np.ones((20, 1), int), "there are as many labels as samples: save labels[:, 0]"),
        (np.ones((20, 5)), np.ones((1, 20), int), "there are as many labels as samples: save labels.reshape(20,)"),
        (np.ones((20, 5)), np.ones((4, 5), int), "there are as many labels as samples: save labels.reshape(20,)"),
        (
            np.ones((4, 9, 5)),
            np.ones((4, 8), int),
            "labels that are shifted already want logits without the last; --shift takes labels of full length",
        ),
    ],
)
def test_shapes_that_do_not_fit_say_what_would(refused, tmp_path, logits, labels, words):
    message = refused("evaluate", *store(tmp_path, logits, labels))
    assert f"shape {labels.shape} does not fit" in message
    assert message.endswith(f"; {words}\n")


def test_shapes_that_nothing_fits_get_no_advice(refused, tmp_path):
    message = refused("evaluate", *store(tmp_path, np.ones((20, 5)), np.ones((7, 3), int)))
    assert message.endswith("class indices would be (20,) (axis 1), a distribution (20, 5)\n")


@pytest.mark.parametrize("block", [8, 1 << 24])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 2, 5, 3], "the labels go from 1 to 5: they seem to count from 1: save labels - 1"),
        ([0, 2, -100, 3], "-100 marks what PyTorch ignores: use --ignore-index -100"),
        ([0, 9, -100, 3], "-100 marks what PyTorch ignores: use --ignore-index -100"),
        ([0, 2, 255, 255], "it is the only such value: --ignore-index 255 leaves these samples out"),
    ],
)
def test_labels_that_are_no_class_say_what_was_probably_meant(refused, tmp_path, monkeypatch, block, labels, words):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    message = refused("evaluate", *store(tmp_path, np.ones((4, 5)), np.array(labels)))
    assert ": not a class in [0, 5)" in message
    assert advice(message) == words


def test_labels_that_are_no_class_for_no_known_reason_get_no_advice(refused, tmp_path):
    message = refused("evaluate", *store(tmp_path, np.ones((4, 5)), np.array([0, 7, 9, 3])))
    assert message.endswith("labels[1] is 7: not a class in [0, 5)\n")


def test_one_based_labels_are_known_beside_ignored_ones(refused, tmp_path):
    files = store(tmp_path, np.ones((4, 5)), np.array([1, -100, 5, 3]))
    message = refused("evaluate", *files, "--ignore-index", -100)
    assert "labels[2] is 5: not a class in [0, 5), nor the ignored -100; the labels go from 1 to 5" in message


@pytest.mark.parametrize("dtype", ["f4", "f8", "?"])
def test_whole_numbers_in_another_dtype_are_told_how_to_be_class_indices(refused, tmp_path, dtype):
    files = store(tmp_path, np.ones((4, 2)), np.array([0, 1, 1, 0], dtype))
    message = refused("evaluate", *files)
    assert "class indices are integers; these seem to be whole numbers: save labels.astype(int)" in message


def test_fractions_are_not_told_to_be_class_indices(refused, tmp_path):
    message = refused("evaluate", *store(tmp_path, np.ones((4, 2)), np.array([0, 0.5, 1, 0])))
    assert message.endswith("dtype float64: class indices are integers\n")


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("block", [48, 1 << 24])
def test_an_entry_that_no_distribution_has_is_named(refused, tmp_path, monkeypatch, swapped, block):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 5))
    logits = p if swapped else 2 + p
    labels = p.copy()
    labels[2, 3, 1] = -0.5
    message = refused("evaluate", *store(tmp_path, logits, labels))
    words = "labels[2, 3, 1] is -0.5: a distribution's entries are at least 0"
    assert words + ("; the files seem to be swapped: the logits come first\n" if swapped else "\n") in message


# What is measured, with a note --------------------------------------------------------------------


@pytest.fixture
def noted(run):
    """Evaluate files that can be measured. Return the note, without the name of the file of logits."""

    def noted(files, *options):
        status, out, err = run("evaluate", *files, *options, "--json")
        assert status == 0
        assert json.loads(out)["samples"] > 0
        assert err == "" or re.fullmatch(r"softxent: note: .*\n", err)
        return err.removeprefix(f"softxent: note: {files[0]}: ").rstrip("\n")

    return noted


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("block", [100, 1 << 24])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_loss_that_is_no_number_is_traced_to_its_logit(noted, tmp_path, monkeypatch, axis, order, block, dtype):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    logits, labels = sample((6, 7, 8), axis, dtype=dtype)
    place = [4, 3, 2]
    logits[tuple(place)] = math.nan
    found = noted(store(tmp_path, logits, labels, order), "--axis", axis)
    assert found == f"of {labels.size} losses 1 is nan, the first because logits[4, 3, 2] is nan"


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([[1, 2], [math.inf, 0], [math.nan, 1]], [0, 0, 0], "2 are nan, the first because logits[1, 0] is inf"),
        (
            [[1, 2], [0, -math.inf]],
            [0, 1],
            "1 is inf, the first because logits[1, 1] is -inf, and its class is the label's",
        ),
        ([[1, 2], [-math.inf] * 2], [0, 1], "1 is nan, the first because logits[1, :] are all -inf"),
        (
            [[3e38, -3e38], [math.nan, 0]],
            [1, 0],
            "1 is nan and 1 is inf, the first because logits[0, :] are too far apart",
        ),
    ],
)
def test_every_reason_for_a_loss_that_is_no_number_is_told(noted, tmp_path, logits, labels, words):
    found = noted(store(tmp_path, np.array(logits, np.float32), np.array(labels)))
    assert found.startswith(f"of {len(labels)} losses {words}")


def test_the_class_that_a_distribution_wants_is_named(noted, tmp_path):
    files = store(tmp_path, [[0, -math.inf, -math.inf]], [[0.5, 0, 0.5]])
    assert "1 is inf, the first because logits[0, 2] is -inf, and its class is the label's" in noted(files)


def test_label_smoothing_wants_every_class(noted, tmp_path):
    files = store(tmp_path, [[1.0, 2, 0], [0, 1, -math.inf]], np.array([0, 1]))
    assert noted(files) == ""
    found = noted(files, "--label-smoothing", 0.1)
    assert found.endswith("1 is inf, the first because logits[1, 2] is -inf, and label smoothing wants every class")


def test_a_nan_in_an_ignored_sample_is_nobodys_concern(noted, tmp_path):
    files = store(tmp_path, [[math.nan, 0.0], [1.0, 0.0]], np.array([-100, 0]))
    assert noted(files, "--ignore-index", -100) == ""


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("block", [100, 1 << 24])
def test_probabilities_are_noted(noted, tmp_path, monkeypatch, dtype, block):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    p = np.random.default_rng(0).dirichlet(np.ones(1000), size=20)
    files = store(tmp_path, p.astype(dtype), np.zeros(20, int))
    found = noted(files)
    assert found.startswith("these look like probabilities: all are in [0, 1], and each sample's sum is 1.")
    assert found.endswith("Save np.log of them instead: log-probabilities are fine as logits")


@pytest.mark.parametrize("block", [100, 1 << 24])
def test_what_only_starts_like_probabilities_is_not_noted(noted, tmp_path, monkeypatch, block):
    monkeypatch.setattr(pair, "BLOCK_BYTES", block)
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=20)
    p[-1] *= 2
    assert noted(store(tmp_path, p, np.zeros(20, int))) == ""
    assert noted(store(tmp_path, np.log(p), np.zeros(20, int))) == ""
    assert noted(store(tmp_path, np.ones((20, 1)), np.zeros(20, int))) == ""  # with one class nothing can be told


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(4), "holds float64 of shape (4,): one real number for each of the 5 classes is wanted"),
        (np.ones((5, 1)), "one real number for each of the 5 classes is wanted"),
        (np.ones(5, complex), "holds complex128 of shape (5,)"),
        (np.array([1, 1, -1, 1, -2.0]), "the weight of class 2 is -1.0: it must be at least 0"),
        (np.array([1, 1, 1, math.nan, 1]), "the weight of class 3 is nan: it must be at least 0"),
    ],
)
def test_class_weights_that_are_none_are_refused(refused, files, tmp_path, weights, words):
    np.save(tmp_path / "w.npy", weights)
    message = refused("evaluate", *files, "--class-weight", tmp_path / "w.npy")
    assert message.startswith(f"softxent: error: --class-weight {tmp_path / 'w.npy'}: ")
    assert words in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature", "0"], "argument --temperature: 0 is not a number above 0"),
        (["--temperature", "nan"], "argument --temperature: nan is not a number above 0"),
        (["--temperature", "hot"], "argument --temperature: invalid number value: 'hot'"),
        (["--label-smoothing", "1.5"], "argument --label-smoothing: 1.5 is not in [0, 1]"),
        (["--dtype", "float16"], "argument --dtype: invalid choice: 'float16'"),
    ],
)
def test_options_out_of_range_are_refused_before_any_file_is_read(run, arguments, words):
    status, out, err = run("evaluate", "a.npy", "b.npy", *arguments)
    assert (status, out) == (2, "")
    assert words in err.splitlines()[-1]
