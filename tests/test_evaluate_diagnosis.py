"""What `evaluate` promises of files that are not right: one line that says what is the matter, and what would do."""

from __future__ import annotations

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
