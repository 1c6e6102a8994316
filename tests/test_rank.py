"""Ranks and top classes: what sorting says, for every kernel, layout, dtype and option; and the loss to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import softxent
from softxent import reference

# The numbers of classes cover lanes (kept in the cache or not, if their stride is not 1) and rows: every rest, and more
# than one tile.
CLASSES = (1, 2, 10, 64, 65, 97, 128, 131, 300, 1100)
DTYPES = ("float32", "float64", "float16", "bfloat16")
OPTIONS = {
    "plain": {},
    "temperature": {"temperature": 2.0},
    "softcap": {"softcap": 0.5},
    "smoothing and class weights": {"label_smoothing": 0.1, "class_weight": True},
    "sample weights": {"sample_weight": True},
    "where": {"where": True},
}


@pytest.fixture(params=DTYPES)
def dtype(request):
    if request.param == "bfloat16":
        return pytest.importorskip("ml_dtypes").bfloat16
    return np.dtype(request.param)


def by_sorting(logits, labels, where, ignore_index, weight=None):
    """The order of the classes that take part, found by a stable sort; classes last. A sample of weight 0 has none."""
    ranks, tops = np.full(logits.shape[:-1], -1), np.full(logits.shape[:-1], -1)
    for index in np.ndindex(*ranks.shape):
        classes = np.flatnonzero(where[index])
        z = logits[index].astype(np.float64)[classes]
        label = int(np.argmax(labels[index])) if labels.ndim == logits.ndim else int(labels[index])
        if (labels.ndim < logits.ndim and label == ignore_index) or np.isnan(z).any() or not z.size:
            continue
        if weight is not None and weight[index] == 0:
            continue
        order = classes[np.argsort(-z, kind="stable")].tolist()
        ranks[index], tops[index] = order.index(label) if label in order else len(order), order[0]
    return ranks, tops


def draw(rng, kind, n, c, dtype):
    z = rng.normal(size=(n, c)) * 3
    if kind in ("ties", "nan", "inf", "absent"):
        z = np.floor(z)
    if kind == "equal":
        z[:] = rng.integers(-1, 2)
    if kind == "nan":
        z[rng.random((n, c)) < 1 / c] = np.nan
    if kind == "inf":
        z[rng.random((n, c)) < 2 / c] = np.inf
    if kind == "absent":
        z[rng.random((n, c)) < 0.5] = -np.inf
        z[0] = -np.inf
    return z.astype(dtype)


def laid_out(z, layout):
    if layout == "classes apart":
        return np.asfortranarray(z)
    if layout == "backward":
        return np.ascontiguousarray(z[:, ::-1])[:, ::-1]
    if layout == "padded":
        wide = np.zeros((z.shape[0], z.shape[1] + 3), z.dtype)
        wide[:, : z.shape[1]] = z
        return wide[:, : z.shape[1]]
    return z


def options_of(rng, name, n, c):
    options = dict(OPTIONS[name])
    if "class_weight" in options:
        options["class_weight"] = rng.random(c)
    if "sample_weight" in options:
        options["sample_weight"] = np.where(rng.random(n) < 0.3, 0, rng.random(n))
    if "where" in options:
        options["where"] = rng.random((n, c)) < 0.7
        options["where"][n // 2] = False
    return options


@pytest.mark.parametrize("kind", ["many", "ties", "equal", "nan", "inf", "absent"])
def test_ranks_are_those_of_a_stable_sort(isa, dtype, kind):
    rng = np.random.default_rng(len(kind))
    for c in CLASSES:
        for layout in ("rows", "classes apart", "backward", "padded"):
            for name in OPTIONS:
                n = 19 if c < 200 else 3
                z = laid_out(draw(rng, kind, n, c, dtype), layout)
                options = options_of(rng, name, n, c)
                labels = rng.integers(0, c, n)
                if name != "smoothing and class weights" and rng.random() < 0.3:
                    labels[rng.random(n) < 0.3] = -7
                where = options.get("where", np.ones((n, c), bool))
                expected = by_sorting(z, labels, where, -7, options.get("sample_weight"))
                options |= {"ignore_index": -7, "reduction": "none"}
                loss, rank, top = softxent.cross_entropy_and_rank(z, labels, **options)
                about = f"{c} classes, {layout}, {name}"
                assert rank.dtype == top.dtype == np.int64
                np.testing.assert_array_equal(rank, expected[0], about)
                np.testing.assert_array_equal(top, expected[1], about)
                assert loss.tobytes() == softxent.cross_entropy(z, labels, **options).tobytes(), about


def test_label_of_a_distribution_is_its_first_largest_entry(isa, dtype):
    rng = np.random.default_rng(1)
    for c in CLASSES:
        for layout in ("rows", "classes apart"):
            for options in ({}, {"temperature": 0.5}, {"label_smoothing": 0.3, "class_weight": rng.random(c)}):
                z = laid_out(draw(rng, "ties", 19, c, dtype), layout)
                target = rng.integers(0, 4, (19, c)).astype(dtype)
                expected = by_sorting(z, target, np.ones(z.shape, bool), None)
                loss, rank, top = softxent.cross_entropy_and_rank(z, target, reduction="none", **options)
                np.testing.assert_array_equal(rank, expected[0])
                np.testing.assert_array_equal(top, expected[1])
                assert loss.tobytes() == softxent.cross_entropy(z, target, reduction="none", **options).tobytes()


def test_ranks_of_any_axes_byte_order_and_conversion(isa):
    rng = np.random.default_rng(2)
    z = np.floor(rng.normal(size=(3, 70, 4, 5)) * 2)
    labels = rng.integers(0, 70, (3, 4, 5))
    where = rng.random((70, 1, 5)) < 0.8
    full = np.moveaxis(np.broadcast_to(where, z.shape), 1, -1)
    expected = by_sorting(np.moveaxis(z, 1, -1), labels, full, None)
    for dtype in (">f4", "<f8", ">f2", np.int8):
        for some_labels in (labels, labels.astype(np.uint8), labels.astype(">i8")):
            _, rank, top = softxent.cross_entropy_and_rank(z.astype(dtype), some_labels, axis=1, where=where)
            np.testing.assert_array_equal(rank, expected[0])
            np.testing.assert_array_equal(top, expected[1])


def test_reference_is_the_same_definition():
    rng = np.random.default_rng(3)
    for kind in ("many", "ties", "nan", "inf", "absent"):
        z = draw(rng, kind, 40, 12, np.float64)
        where = rng.random(z.shape) < 0.6
        where[3] = False
        labels = rng.integers(-1, 12, 40)
        for mask in (None, where):
            expected = by_sorting(z, labels, np.ones(z.shape, bool) if mask is None else where, -1)
            _, rank, top = reference.cross_entropy_and_rank(z, labels, where=mask, ignore_index=-1)
            np.testing.assert_array_equal(rank, expected[0])
            np.testing.assert_array_equal(top, expected[1])


def test_same_ranks_and_sums_for_any_thread_count():
    rng = np.random.default_rng(4)
    z, labels = draw(rng, "ties", 5000, 70, np.float32), rng.integers(0, 70, 5000)
    one = softxent.cross_entropy_and_rank(z, labels, n_threads=1)
    assert one[0] == softxent.cross_entropy(z, labels)
    for n_threads in (2, 3, 7):
        loss, rank, top = softxent.cross_entropy_and_rank(z, labels, n_threads=n_threads)
        assert loss == one[0]
        np.testing.assert_array_equal(rank, one[1])
        np.testing.assert_array_equal(top, one[2])


def test_losses_go_into_out():
    z, labels, out = np.eye(4, dtype=np.float32), np.arange(4), np.empty(4, np.float32)
    loss, rank, top = softxent.cross_entropy_and_rank(z, labels, reduction="none", out=out)
    assert loss is out
    assert rank.tolist() == [0, 0, 0, 0]
    assert top.tolist() == [0, 1, 2, 3]


def test_nothing_to_rank_is_no_error():
    loss, rank, top = softxent.cross_entropy_and_rank(np.zeros((0, 5)), np.zeros(0, int))
    assert np.isnan(loss)
    assert rank.shape == top.shape == (0,)
    loss, rank, top = softxent.cross_entropy_and_rank(np.zeros((2, 5)), [9, 9], ignore_index=9, reduction="sum")
    assert loss == 0
    assert rank.tolist() == top.tolist() == [-1, -1]


def test_bad_label_is_named():
    with pytest.raises(IndexError, match=r"labels\[1\] is 5"):
        softxent.cross_entropy_and_rank(np.zeros((2, 5)), [0, 5])


def test_one_sample_has_a_rank_of_no_axes():
    _, rank, top = softxent.cross_entropy_and_rank([1.0, 3.0, 3.0], 2)
    assert rank.shape == top.shape == ()
    assert (int(rank), int(top)) == (1, 1)
