"""Errors that help: an argument that other libraries take, or that was mixed up, gets a message with what to do.

The tests then do that, and it works.
"""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import softxent
from losses import LOSSES, REFERENCES

Z = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 0])


@pytest.fixture(params=[*LOSSES.values(), *REFERENCES.values()], ids=[*LOSSES, *(f"reference {n}" for n in REFERENCES)])
def any_call(request):
    return request.param


def says(error, *words):
    return pytest.raises(error, match=".*".join(map(re.escape, words)))


# ----------------------------------------------------------------------------------------------------------------------
# Labels.


@pytest.mark.parametrize(
    ("z", "labels", "axis", "hint"),
    [
        (Z, Y[:, None], -1, "use labels[:, 0]"),
        (Z, Y[None], -1, "use labels[0]"),
        (Z.T, Y[:, None], 0, "use labels[:, 0]"),
        (np.zeros((2, 3, 5)), np.zeros((2, 3, 1), int), -1, "use labels[:, :, 0]"),
        (Z, [0, 1, 2], -1, "axis=0 fits"),
        (Z, Y, 0, "axis=1 fits"),
        (np.zeros((2, 5, 3)), np.zeros((2, 3), int), -1, "axis=1 fits"),
        (np.zeros((2, 5, 3, 4)), np.zeros((2, 3, 4), int), -1, "axis=1 fits"),
        (Y, Z, -1, "the logits come first, then the labels"),
    ],
)
def test_labels_of_a_shape_that_nearly_fits_are_told_what_would(z, labels, axis, hint, call):
    with says(ValueError, "labels", "; " + hint):
        call(z, labels, axis=axis)


def test_the_hints_about_shapes_do(call):
    softxent.cross_entropy(Z, Y[:, None][:, 0])
    call(np.zeros((2, 5, 3)), np.zeros((2, 3), int), axis=1)


@pytest.mark.parametrize("labels", [np.arange(7), np.zeros((4, 4)), np.zeros((3, 4)), np.zeros((4, 3, 2)), 0])
def test_labels_of_a_shape_that_does_not_nearly_fit_get_no_hint(labels, call):
    with pytest.raises(ValueError, match=r"got \([^)]*\)$"):
        call(Z, labels)


@pytest.mark.parametrize("code", ["f4", "f8", "f2", ">f4", "?"])
def test_whole_numbers_in_floats_are_told_to_become_integers(code, call):
    labels = np.array([0, 1, 1, 0], code)
    with says(TypeError, f"integer dtype; got {labels.dtype}; use labels.astype(int)"):
        call(Z, labels)
    call(Z, labels.astype(int))


@pytest.mark.parametrize("labels", [[0.5, 1, 2, 0], [np.nan, 1, 2, 0], [np.inf, 1, 2, 0], [0, 1, 2, 1e-300]])
def test_other_floats_are_not(labels, call):
    with pytest.raises(TypeError, match=r"integer dtype; got float64$"):
        call(Z, np.array(labels))


@pytest.mark.parametrize("code", ["i8", "u1", ">i4", ">u8"])
@pytest.mark.parametrize("options", [{}, {"ignore_index": 0}, {"ignore_index": -1}, {"reduction": "none"}])
def test_labels_from_one_to_c_are_told_to_count_from_zero(code, options, call):
    labels = np.array([1, 2, 3, 1], code)
    with says(IndexError, "labels[2] is 3, which is not a class in [0, 3); they seem to count from 1: use labels - 1"):
        call(Z, labels, **options)
    call(Z, labels - 1)


@pytest.mark.parametrize("labels", [[0, 1, 3, 1], [1, 2, 4, 1], [-1, 1, 3, 1]])
def test_other_labels_are_told_of_ignore_index(labels, call):
    with pytest.raises(IndexError, match=r"; ignore_index=-?\d+ would leave such samples out$"):
        call(Z, np.array(labels))


# ----------------------------------------------------------------------------------------------------------------------
# Targets of integers.

CODES = ["i1", "i8", "u1", "u8", ">i4", ">u2", "?"]


@pytest.mark.parametrize("code", CODES)
def test_an_integer_target_that_is_one_hot_is_its_index(code, any_call):
    expected = any_call(Z, Y)
    for axis in (0, 1):
        one_hot = np.moveaxis(np.eye(3)[Y], 1, axis).astype(code)
        for result, other in zip(
            *map(as_tuple, (any_call(np.moveaxis(Z, 1, axis), one_hot, axis=axis), expected)), strict=True
        ):
            if np.ndim(result) == 2:
                result = np.moveaxis(result, axis, 1)
            np.testing.assert_allclose(result, other, rtol=1e-12)


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("row", [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
def test_an_integer_target_that_is_not_one_hot_is_refused(code, row, any_call):
    target = np.eye(3, dtype=code)[Y]
    target[2] = row
    dtype, saw = target.dtype.name, f"sums to {sum(row)}"
    with says(ValueError, f"labels of dtype {dtype}", f"; labels[2] {saw}; give class indices, or floats"):
        any_call(Z, target)
    with says(ValueError, f"labels of dtype {dtype}", f"; labels[:, 2] {saw}; "):
        any_call(Z.T, target.T, axis=0)
    any_call(Z, target / np.maximum(target.sum(axis=1, keepdims=True), 1))


@pytest.mark.parametrize("code", [code for code in CODES if code != "?"])
def test_counts_are_no_distribution(code, any_call):
    with says(ValueError, "; labels[0] sums to 3; "):
        any_call(Z, (3 * np.eye(3)[Y]).astype(code))


@pytest.mark.parametrize("code", ["i1", "i8", ">i4"])
def test_a_negative_integer_in_a_target_is_named_by_its_place(code, any_call):
    target = np.eye(3, dtype=code)[Y]
    target[2] = [1, -1, 1]
    with says(ValueError, "; labels[2, 1] is -1; "):
        any_call(Z, target)
    with says(ValueError, "; labels[1, 2] is -1; "):
        any_call(Z.T, target.T, axis=0)


def test_sums_that_wrap_around_do_not_pass(any_call):
    target = np.zeros((4, 3), np.uint64)
    target[:] = [2**64 - 1, 2, 0]
    with says(ValueError, "labels[0] sums to 18446744073709551616"):
        any_call(Z, target)


@pytest.mark.parametrize("code", CODES)
def test_binary_labels_of_binary_margins_are_told_of_two_classes(code, any_call):
    margins, labels = np.array([0.5, -1.0, 2.0, 3.0]), np.array([1, 0, 1, 1], code)
    with says(ValueError, "labels sums to 3", "numpy.stack([numpy.zeros_like(logits), logits], axis=-1) as logits"):
        any_call(margins, labels)
    two = np.stack([np.zeros_like(margins), margins], axis=-1)
    losses = softxent.cross_entropy(two, labels.astype(int), reduction="none")
    np.testing.assert_allclose(losses, np.log1p(np.exp(np.where(labels, -margins, margins))), rtol=1e-13)


def test_binary_labels_of_one_column_are_told_of_two_classes(any_call):
    with says(ValueError, "tell nothing: give the logits with zeros before them in the class axis, and class indices"):
        any_call(np.array([[0.5], [-1.0]]), np.array([[1], [0]]))


def test_binary_labels_as_indices_are_told_of_two_classes():
    with says(
        IndexError, "is 1, which is not a class in [0, 1); logits of one class tell nothing: give the logits with"
    ):
        softxent.cross_entropy(np.array([[0.5], [-1.0]]), np.array([1, 0]))


def test_float_targets_need_not_sum_to_one(any_call):
    any_call(Z, np.full((4, 3), 2.0))
    any_call(Z, np.zeros((4, 3)))
    any_call(np.array([0.5, -1.0, 2.0, 3.0]), np.array([1.0, 0, 1, 1]))


def test_an_integer_target_of_many_pieces_is_looked_at_to_its_end():
    z, target = np.zeros((200_000, 2), np.float32), np.zeros((200_000, 2), np.int8)
    target[:, 1] = 1
    assert softxent.cross_entropy(z, target) == pytest.approx(np.log(2), rel=1e-6)
    target[199_999, 0] = 1
    with says(ValueError, "labels[199999] sums to 2"):
        softxent.cross_entropy(z, target)


# ----------------------------------------------------------------------------------------------------------------------
# Weights.


def test_balanced_class_weights_are_told_their_formula(call):
    with says(
        TypeError, "class_weight", "'balanced'", "len(labels) / (C * numpy.bincount(labels, minlength=C)) with C = 3"
    ):
        call(Z, Y, class_weight="balanced")
    weights = len(Y) / (3 * np.bincount(Y, minlength=3))
    np.testing.assert_allclose(weights, [2 / 3, 4 / 3, 4 / 3])
    call(Z, Y, class_weight=weights)


def test_a_dict_of_class_weights_is_told_its_list(call):
    class_weight = {0: 2.0, 2: 3.0}
    with says(TypeError, "class_weight", "got dict: give [class_weight.get(k, 1.0) for k in range(3)]"):
        call(Z, Y, class_weight=class_weight)
    call(Z, Y, class_weight=[class_weight.get(k, 1.0) for k in range(3)])


@pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
def test_no_weights_are_told_to_be_none(name, call):
    for empty in ([], np.zeros(0), np.zeros((0, 3), np.float32)):
        with says(ValueError, name, "; None stands for no weights"):
            call(Z, Y, **{name: empty})
    call(Z, Y, **{name: None})


def test_sample_weights_of_one_column_are_told_to_lose_an_axis(call):
    with says(ValueError, "sample_weight", "; use sample_weight[:, 0]"):
        call(Z, Y, sample_weight=np.ones((4, 1)))


# ----------------------------------------------------------------------------------------------------------------------
# Others' words.


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("weight", "class_weight= or sample_weight="),
        ("weights", "class_weight= or sample_weight="),
        ("input", "logits="),
        ("target", "labels="),
        ("y_true", "labels="),
        ("dim", "axis="),
        ("num_threads", "n_threads="),
        ("mask", "where="),
        ("ignore_class", "ignore_index="),
        ("label_smothing", "label_smoothing="),
        ("smoothing", "label_smoothing="),
        ("tau", "temperature="),
    ],
)
def test_anothers_keyword_is_told_ours(theirs, ours, call):
    with says(TypeError, f"got an unexpected keyword argument {theirs!r}; here it is {ours}"):
        call(Z, Y, **{theirs: None})


def test_from_logits_is_told_that_logits_are_what_is_taken(call):
    for value in (True, False):
        with says(TypeError, "'from_logits'; logits are what it takes; for probabilities p give numpy.log(p)"):
            call(Z, Y, from_logits=value)


def test_anothers_names_in_place_of_ours_are_told_ours(call):
    with says(TypeError, "missing", "'logits' and 'labels'"):
        softxent.cross_entropy(input=Z, target=Y)
    with says(TypeError, "missing", "'labels'"):
        softxent.cross_entropy_and_rank(Z, target=Y)


FAMILY = [name for name in softxent.__all__ if "softmax" in name or name.startswith(("logsumexp", "entropy"))]


@pytest.mark.parametrize("name", FAMILY)
def test_the_softmax_family_is_told_too(name):
    function = getattr(softxent, name)
    arguments = [Z] * (2 if {"v", "g"} & set(inspect.signature(function).parameters) else 1)
    with says(TypeError, f"{name}() got an unexpected keyword argument 'dim'; here it is axis="):
        function(*arguments, dim=-1)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'never_heard_of'$"):
        function(*arguments, never_heard_of=1)
    with says(TypeError, "'dtype'; the result has the logits' dtype"):
        function(*arguments, dtype=np.float32)


@pytest.mark.parametrize("function", [softxent.kl_divergence, softxent.kl_divergence_and_grad])
def test_the_divergence_is_told_too(function):
    t = np.full(Z.shape, 1 / 3)
    for theirs, ours in (("input", "logits="), ("teacher", "target="), ("q", "target="), ("y_true", "target=")):
        with says(TypeError, f"got an unexpected keyword argument {theirs!r}; here it is {ours}"):
            function(Z, t, **{theirs: None})
    with says(TypeError, "'log_target'; for log-probabilities give target_logits=True"):
        function(Z, np.log(t), log_target=True)
    of_logits, of_probabilities = function(Z, np.log(t), target_logits=True), function(Z, t)
    np.testing.assert_allclose(as_tuple(of_logits)[0], as_tuple(of_probabilities)[0], rtol=1e-12)


def test_scipys_weights_are_told_their_logarithm():
    with says(TypeError, "'b'; for weights of the classes add numpy.log(b) to the logits"):
        softxent.logsumexp(Z, b=[1, 2, 3])
    np.testing.assert_allclose(softxent.logsumexp(Z + np.log([1, 2, 3])), np.log((np.exp(Z) * [1, 2, 3]).sum(axis=1)))


def test_every_word_that_is_named_is_a_parameter():
    """Every keyword in the list of words exists."""
    from softxent._options import OUR_WORDS

    functions = [f for name in softxent.__all__ if callable(f := getattr(softxent, name))]
    known = {name for f in functions for name in inspect.signature(f).parameters}
    assert set(OUR_WORDS) <= known
    ours_elsewhere = {"v", "grad_output", "labels", "target"}  # one function's word for what another calls otherwise
    assert not {word for words in OUR_WORDS.values() for word in words.split()} & (known - ours_elsewhere)
