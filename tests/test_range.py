"""Results that are ordinary numbers are right where what they are made of is not: with upstream gradients,
temperatures, weights and counts that leave the range of the dtype. The truth is mpmath's."""

import itertools

import mpmath
import numpy as np
import pytest

import softxent

F32, F64 = np.float32, np.float64
# Few classes go in lanes, and many in rows. With a temperature both go through the general kernel.
CLASSES = [2, 10, 70]
GENERAL = {"temperature": 1.0000001}


def row(n_classes, lead, dtype):
    """Logits of one sample. Class 0 leads all others, which are equal."""
    return np.append(dtype(0), np.full(n_classes - 1, -lead, dtype))


def layouts(z):
    """The samples as rows, and with their classes apart in memory."""
    return [np.repeat(z[np.newaxis], 9, 0), np.asfortranarray(np.repeat(z[np.newaxis], 9, 0))]


def assert_close(got, exact, dtype, lead):
    """Compare within the promised bound. Below the smallest normal number 0 is right too, and beyond the largest one
    inf is.
    """
    info = np.finfo(dtype)
    for x in np.asarray(got, float).ravel():
        if abs(exact) < float(info.tiny):
            assert abs(x) <= info.tiny
        elif abs(exact) > float(info.max):
            assert np.isinf(x)
        else:
            assert abs(x - exact) <= 4 * float(info.eps) * (1 + lead) * abs(exact), (x, exact)


def probabilities(n_classes, lead, temperature=1.0):
    """1 minus the probability of the leading class, and the probability of each other class."""
    with mpmath.workprec(200):
        e = mpmath.exp(-mpmath.mpf(float(lead)) / temperature)
        p = e / (1 + (n_classes - 1) * e)
        return (n_classes - 1) * p, p


LARGE_UPSTREAM = [
    (F32, 97, 65536.0),
    (F32, 103, 2.0**30),
    (F32, 104.5, 2.0**30),
    (F32, 140, 2.0**80),
    (F32, 120, 1e39),
    (F64, 720, 65536.0),
    (F64, 745, 2.0**60),
    (F64, 1000, 2.0**500),
]


@pytest.mark.parametrize("options", [{}, GENERAL], ids=["plain", "general"])
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize(("dtype", "lead", "upstream"), LARGE_UPSTREAM)
def test_a_large_upstream_gradient_brings_back_probabilities_below_the_range(
    dtype, lead, upstream, n_classes, options, isa
):
    z = row(n_classes, lead, dtype)
    rest, p = probabilities(n_classes, z[0] - z[1], **options)
    scale = mpmath.mpf(upstream) / options.get("temperature", 1.0)
    for logits in layouts(z):
        _, grad = softxent.cross_entropy_and_grad(
            logits, np.zeros(9, int), grad_output=upstream, reduction="sum", **options
        )
        assert_close(grad[:, 0], -rest * scale, dtype, lead)
        assert_close(grad[:, 1:], p * scale, dtype, lead)


@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize(("dtype", "lead", "upstream"), [case for case in LARGE_UPSTREAM if case[2] < 3e38])
def test_upstream_gradients_of_samples_have_ranges_of_their_own(dtype, lead, upstream, n_classes, isa):
    z = row(n_classes, lead, dtype)
    rest, p = probabilities(n_classes, z[0] - z[1])
    for logits, labels_are_smooth in itertools.product(layouts(z), [False, True]):
        grad_output = np.where(np.arange(9) % 2, upstream, 1e-3).astype(dtype)
        labels = np.zeros_like(logits) if labels_are_smooth else np.zeros(9, int)
        if labels_are_smooth:
            labels[:, 0] = 1
        _, grad = softxent.cross_entropy_and_grad(logits, labels, grad_output=grad_output, reduction="none")
        for i, g in enumerate(grad_output):
            assert_close(grad[i, 0], -rest * float(g), dtype, lead)
            assert_close(grad[i, 1:], p * float(g), dtype, lead)


@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize(("dtype", "lead", "upstream"), LARGE_UPSTREAM)
def test_the_hessian_has_its_top_entry_with_a_large_normalizer(dtype, lead, upstream, n_classes, isa):
    z = row(n_classes, lead, dtype)
    rest, p = probabilities(n_classes, z[0] - z[1])
    for logits in layouts(z):
        _, _, hess = softxent.cross_entropy_grad_hess(logits, np.zeros(9, int), normalizer=1 / upstream)
        assert_close(hess[:, 0], rest * (1 - rest) * mpmath.mpf(upstream), dtype, lead)
        assert_close(hess[:, 1:], p * (1 - p) * mpmath.mpf(upstream), dtype, lead)


def test_nothing_is_not_nan_where_the_upstream_gradient_is_beyond_the_range(isa):
    for n_classes in CLASSES:
        for logits in layouts(row(n_classes, 400, F32)):
            loss, grad = softxent.cross_entropy_and_grad(logits, np.zeros(9, int), grad_output=1e39)
            assert loss == 0
            assert np.all(grad == 0)


def test_a_small_temperature_has_a_curvature(isa):
    """1 / T^2 is out of range, but the entries are not."""
    z = np.array([[1, 1, 0], [1, 2, 3]], F32)
    for temperature in (2.0**-60, 2.0**-64, 2.0**-100):
        loss, grad, hess = softxent.cross_entropy_grad_hess(z, [0, 2], temperature=temperature, reduction="none")
        product = softxent.cross_entropy_hvp(z, [0, 2], np.array([[1, 1, 0]] * 2, F32), temperature=temperature)
        np.testing.assert_allclose(loss, [np.log(2), 0], rtol=1e-6)
        np.testing.assert_allclose(grad[0], np.array([-0.5, 0.5, 0]) / temperature, rtol=1e-6)
        assert np.all(grad[1] == 0)
        exact = 0.25 / temperature**2
        np.testing.assert_allclose(hess[0], [exact if exact < 3e38 else np.inf] * 2 + [0], rtol=1e-6)
        assert np.all(hess[1] == 0)
        assert np.all(product == 0)  # two classes share the probability, and have the same direction


def test_a_difference_of_logits_beyond_the_range_is_divided_by_the_temperature(isa):
    z = np.array([[3e38, -3e38]], F32)
    for temperature in (1.9, 2.0, 3.0, 2.0**100):
        exact = 2 * float(z[0, 0]) / temperature
        for labels in ([1], np.array([[0, 1.0]], F32)):
            assert softxent.cross_entropy(z, labels, temperature=temperature) == pytest.approx(exact, rel=1e-6)
        log_p = softxent.log_softmax(z, temperature=temperature)
        np.testing.assert_allclose(log_p, [[0, -exact]], rtol=1e-6)
    assert softxent.cross_entropy(z, [1]) == np.inf


def test_a_z_loss_beyond_the_range_times_little_is_a_number(isa):
    z = np.array([[-1, -0.459]], F32)  # a sample whose logsumexp is near 0
    wide = z.astype(F64)
    for z_loss in (1e38, 1e39, 1e45):
        loss, grad = softxent.cross_entropy_and_grad(z, [0], z_loss=z_loss)
        exact_loss, exact_grad = softxent.cross_entropy_and_grad(wide, [0], z_loss=z_loss)
        assert loss == pytest.approx(exact_loss, rel=0.1)  # lse is some 1e-4, rounded to some 1e-8
        np.testing.assert_allclose(
            grad, np.where(np.abs(exact_grad) < 3e38, exact_grad, np.sign(exact_grad) * np.inf), rtol=0.1
        )
    assert np.all(softxent.cross_entropy_and_grad(np.zeros((1, 1), F32), [0], z_loss=1e39)[1] == 0)


# ----------------------------------------------------------------------------------------------------------------------
# There are more classes than a lane of float32 can count.


@pytest.mark.parametrize("n_classes", [2**24 + 1, 2**25])
def test_maxima_are_counted_beyond_the_integers_of_float32(n_classes, isa):
    for z in (np.zeros((1, n_classes), F32), np.broadcast_to(F32(0), (1, n_classes))):
        assert softxent.cross_entropy(z, [0]) == pytest.approx(np.log(n_classes), rel=1e-7)
        assert softxent.logsumexp(z)[0] == F32(np.log(n_classes))


def test_a_softmax_over_more_classes_than_float32_counts_sums_to_1(isa):
    n_classes = 2**24 + 2**20
    for z in (np.zeros(n_classes, F32), np.broadcast_to(F32(0), n_classes)):
        assert softxent.softmax(z).sum(dtype=F64) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("option", ["class_weight", "sample_weight"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_mean_does_not_mind_weights_below_the_normal_numbers(label_smoothing, option, dtype, isa):
    z = np.array([[0, 1, 2], [3, 1, -1]], dtype)
    weights = np.array([1, 2, 3][: 3 if option == "class_weight" else 2], dtype)
    tiny = weights * np.finfo(dtype).smallest_subnormal * 16
    assert np.all(tiny > 0)
    for reading in (softxent.cross_entropy_and_grad, softxent.cross_entropy_grad_hess):
        got = reading(z, [0, 1], label_smoothing=label_smoothing, **{option: tiny})
        exact = reading(z, [0, 1], label_smoothing=label_smoothing, **{option: weights})
        for a, b in zip(got, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=8 * np.finfo(dtype).eps)
