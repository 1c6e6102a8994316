"""What the options mean: reduction, ignore_index, grad_output, accumulate and out."""

import numpy as np
import pytest

import softxent
from softxent import _kernels, reference
from softxent._options import DEFAULTS, Options


@pytest.fixture(params=[(60, 10), (60, 100)], ids=["few classes", "rows"])
def problem(request, dtype, rng):
    n, c = request.param
    return rng.normal(size=(n, c)).astype(dtype), rng.integers(0, c, n)


def close(dtype):
    return {"rtol": 30 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}


def test_it_is_the_teaching_texts_idiom(problem, dtype, isa):
    z, labels = problem
    n = len(z)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    delta = p.copy()
    delta[range(n), labels] -= 1
    delta /= n
    loss, grad = softxent.cross_entropy_and_grad(z, labels)
    np.testing.assert_allclose(loss, -np.log(p[range(n), labels]).mean(), **close(dtype))
    np.testing.assert_allclose(grad, delta, **close(dtype))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [-100, 0, 255])
def test_ignored_samples_count_for_nothing(reduction, ignored, problem, dtype, isa):
    z, labels = problem
    labels[::3] = ignored
    loss, grad = softxent.cross_entropy_and_grad(z, labels, ignore_index=ignored, reduction=reduction)
    expected = reference.cross_entropy_and_grad(z, labels, ignore_index=ignored, reduction=reduction)
    np.testing.assert_allclose(loss, expected[0], **close(dtype))
    np.testing.assert_allclose(grad, expected[1], **close(dtype))
    assert np.all(grad[labels == ignored] == 0)
    np.testing.assert_array_equal(loss, softxent.cross_entropy(z, labels, ignore_index=ignored, reduction=reduction))


@pytest.mark.parametrize("ignored", [2**64 - 1, 2**63, 2**63 - 1])
def test_a_huge_unsigned_label_can_be_ignored(ignored, problem, dtype, isa):
    z, labels = problem
    expected = softxent.cross_entropy_and_grad(z[::2], labels[::2])
    labels = labels.astype(np.uint64)
    labels[1::2] = ignored
    loss, grad = softxent.cross_entropy_and_grad(z, labels, ignore_index=ignored)
    assert loss == expected[0]
    np.testing.assert_array_equal(grad[::2], expected[1])
    with pytest.raises(IndexError):
        softxent.cross_entropy(z, labels, ignore_index=ignored - 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", [False, True])
def test_a_number_scales_the_gradient_and_not_the_loss(reduction, target, problem, dtype, isa, rng):
    z, labels = problem
    if target:
        labels = rng.random(z.shape).astype(dtype)
    loss, grad = softxent.cross_entropy_and_grad(z, labels, reduction=reduction)
    for scale in (2.0, np.float32(2), np.array(2)):
        scaled_loss, scaled = softxent.cross_entropy_and_grad(z, labels, reduction=reduction, grad_output=scale)
        np.testing.assert_array_equal(scaled_loss, loss)
        np.testing.assert_array_equal(scaled, 2 * grad)


def test_each_sample_may_have_its_own_upstream_gradient(problem, dtype, isa, rng):
    z, labels = problem
    upstream = rng.integers(-3, 4, len(z))
    _, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    for given in (upstream, upstream.astype(dtype), upstream.astype(float), upstream.tolist()):
        _, scaled = softxent.cross_entropy_and_grad(z, labels, reduction="none", grad_output=given)
        np.testing.assert_allclose(scaled, upstream[:, None] * grad, **close(dtype))


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_accumulating_adds_to_what_is_there(target, order, problem, dtype, isa, rng):
    z, labels = problem
    z = np.asarray(z, order=order)
    if target:
        labels = rng.random(z.shape).astype(dtype)
    else:
        labels[::7] = -1
    ignore = None if target else -1
    loss, grad = softxent.cross_entropy_and_grad(z, labels, ignore_index=ignore)
    out = np.zeros_like(z)
    again, returned = softxent.cross_entropy_and_grad(z, labels, ignore_index=ignore, out=out, accumulate=True)
    assert returned is out
    assert again == loss
    np.testing.assert_array_equal(out, grad)
    start = rng.normal(size=z.shape).astype(dtype)
    out = start.copy()
    softxent.cross_entropy_and_grad(z, labels, ignore_index=ignore, out=out, accumulate=True)
    np.testing.assert_allclose(out, start + grad, **close(dtype))
    if not target:
        np.testing.assert_array_equal(out[labels == -1], start[labels == -1])


@pytest.mark.parametrize("code", ["f2", ">f4", ">f8"])
def test_accumulating_adds_to_what_a_converted_array_holds(code, isa, rng):
    z, labels = rng.normal(size=(700, 100)).astype(code), rng.integers(0, 100, 700)  # more than one piece
    start = np.ones_like(z)
    out = start.copy()
    _, grad = softxent.cross_entropy_and_grad(z, labels, reduction="sum")
    softxent.cross_entropy_and_grad(z, labels, reduction="sum", out=out, accumulate=True)
    eps = np.finfo(z.dtype).eps
    np.testing.assert_allclose(out, start + grad, rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_gradient_may_overwrite_the_logits(accumulate, target, order, problem, dtype, isa, rng):
    z, labels = problem
    z = np.asarray(z, order=order)
    if target:
        labels = rng.random(z.shape).astype(dtype)
    options = {"accumulate": True, "out": z.copy(order="K")} if accumulate else {}
    loss, grad = softxent.cross_entropy_and_grad(z, labels, **options)
    same_loss, in_place = softxent.cross_entropy_and_grad(z, labels, out=z, accumulate=accumulate)
    assert in_place is z
    assert same_loss == loss
    np.testing.assert_array_equal(z, grad)


@pytest.mark.parametrize("order", ["C", "F"])
def test_softmax_may_overwrite_the_logits(order, problem, isa):
    z = np.asarray(problem[0], order=order)
    for function in (softxent.softmax, softxent.log_softmax):
        expected = function(z)
        in_place = z.copy(order="K")
        function(in_place, out=in_place)
        np.testing.assert_array_equal(in_place, expected)


def test_losses_go_where_they_are_wanted(problem, isa):
    z, labels = problem
    expected = softxent.cross_entropy(z, labels, reduction="none")
    out = np.zeros(2 * len(z), z.dtype)[::2]
    assert softxent.cross_entropy(z, labels, reduction="none", out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_the_loss_of_the_gradient_call_is_the_loss(problem, isa, rng):
    z, labels = problem
    for y in (labels, rng.random(z.shape)):
        for reduction in ("mean", "sum", "none"):
            loss, _ = softxent.cross_entropy_and_grad(z, y, reduction=reduction)
            np.testing.assert_array_equal(loss, softxent.cross_entropy(z, y, reduction=reduction))


def test_one_sample_alone_is_a_sample(dtype, isa, rng):
    for c in (5, 50):
        z = rng.normal(size=c).astype(dtype)
        loss, grad = softxent.cross_entropy_and_grad(z, 3)
        batch_loss, batch_grad = softxent.cross_entropy_and_grad(z[None], [3])
        assert loss == batch_loss
        np.testing.assert_array_equal(grad, batch_grad[0])
        assert softxent.cross_entropy(z, 3, reduction="none").shape == ()
        assert softxent.logsumexp(z).shape == ()


def test_gradient_rows_sum_to_zero(problem, dtype, isa):
    z, labels = problem
    _, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    assert np.abs(grad.sum(axis=1)).max() < 50 * np.finfo(dtype).eps


# ----------------------------------------------------------------------------------------------------------------------
# Spellings of the plain call, and what is not one.


def test_other_spellings_of_the_plain_call_have_its_bits(problem, dtype, isa):
    z, labels = problem
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    loss, mean_grad = softxent.cross_entropy_and_grad(z, labels)
    for options in (
        {"axis": 1},
        {"normalizer": float(len(z))},
        {"normalizer": len(z)},
        {"temperature": 1},
        {"temperature": np.float64(1)},
        {"label_smoothing": np.float32(0), "z_loss": 0},
        {"sample_weight": np.ones(len(z), dtype)},
        {"class_weight": np.ones(z.shape[1])},
        {"grad_output": 1.0},
        {"grad_output": 1},
    ):
        got = softxent.cross_entropy_and_grad(z, labels, **options)
        assert got[0] == loss
        np.testing.assert_array_equal(got[1], mean_grad)
    for options in (
        {"axis": 1},
        {"axis": np.int8(-1)},
        {"out": np.empty_like(losses)},
        {"sample_weight": [1] * len(z)},
    ):
        np.testing.assert_array_equal(softxent.cross_entropy(z, labels, reduction="none", **options), losses)
    for options in ({"out": np.empty_like(z)}, {"out": z.copy(), "grad_output": np.ones(len(z))}):
        got = softxent.cross_entropy_and_grad(z, labels, reduction="none", **options)
        np.testing.assert_array_equal(got[0], losses)
        np.testing.assert_array_equal(got[1], grad)


def plain(options, defaults=DEFAULTS):
    z, labels = np.zeros((4, 3), np.float32), np.zeros(4, np.int64)
    return _kernels.plain_cross_entropy(
        False, 1, z, labels, -1, None, "mean", None, None, tuple(options), tuple(defaults)
    )


@pytest.mark.parametrize("name", Options._fields)
@pytest.mark.parametrize("value", [0.5, 2, np.float64(1), np.float32(0), True, False, np.ones(3), "1", b"", [0.0]])
def test_the_plain_call_declines_every_option_that_is_not_at_its_default(name, value):
    assert plain(Options()) == pytest.approx(np.log(3))
    assert plain(Options(**{name: value})) is None


def test_the_plain_call_declines_an_option_that_it_has_never_heard_of():
    assert plain((*Options(), None), (*DEFAULTS, None)) is not None
    assert plain((*Options(), 0.0), (*DEFAULTS, 0.0)) is not None
    assert plain((*Options(), 0.25), (*DEFAULTS, 0.0)) is None
    assert plain((*Options(), "margin"), (*DEFAULTS, None)) is None


def test_an_option_that_is_not_handed_down_is_an_error_and_not_left_out():
    assert plain(Options()[:-1]) is None
    for options in (Options()[:-1], (*Options(), 0.5)):
        with pytest.raises(RuntimeError, match=f"{len(options)} options were handed down; Options has {len(DEFAULTS)}"):
            _kernels.not_defaults(options, DEFAULTS)


def test_each_option_has_its_place(rng):
    """The options go to the kernels by position. Here each has a value that no other option could have."""
    z, labels = rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
    options = {
        "class_weight": rng.random(5),
        "sample_weight": rng.random(6),
        "where": np.arange(5) < 5,
        "label_smoothing": 0.125,
        "temperature": 3.0,
        "softcap": 20.0,
        "z_loss": 0.5,
        "base": 2.0,
    }
    assert tuple(options) == Options._fields
    for left_out in (None, *options):
        given = {name: value for name, value in options.items() if name != left_out}
        expected = reference.cross_entropy_and_grad(z, labels, **given)
        got = softxent.cross_entropy_and_grad(z, labels, **given)
        assert softxent.cross_entropy(z, labels, **given) == got[0]
        assert softxent.cross_entropy_and_rank(z, labels, **given)[0] == got[0]
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-13)
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-12, atol=1e-15)
