"""The accuracy promise of the kernels, as bounds in eps: 4 eps (1 + |z_k - m|) for probabilities and gradient entries,
4 eps (1 + d) for losses and the gradient at the label, where d is how far the label leads the next class.

The truth is softxent.reference, in float64 for float32 inputs and in long double for float64 ones; it is itself held
against mpmath in test_reference.py, and here once more for the kernels.
"""

import mpmath as mp
import numpy as np
import pytest

import softxent
from softxent import reference

N_CLASSES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 1000, 1001, 32000, 50257, 128256]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}


def needs_wider(dtype):
    if np.finfo(WIDER[dtype]).eps >= np.finfo(dtype).eps / 100:
        pytest.skip("long double is no wider than float64 here; the mpmath tests remain")


def rows_of_many_kinds(rng, n_classes, dtype):
    """Logits and labels: spread narrow and wide, offset, tied, confident by little and much, right and wrong, and the
    rows where a rounded z - m costs most: nearly all the mass at one distance of 8 to 12 below the maximum."""
    rows, labels = [], []

    def add(row, label):
        rows.append(np.asarray(row, dtype))
        labels.append(label)

    def noise(scale):
        return rng.normal(size=n_classes) * scale

    def random_label():
        return int(rng.integers(n_classes))

    for scale in (1e-3, 0.3, 1, 4, 20):
        for offset in (0, 3.7, -30.3, 200.1, -1e4):
            add(noise(scale) + offset, random_label())
    for lead in (1e-6, 1e-3, 0.1, 1, 5, 12, 30, 60):
        row, label = noise(0.5), random_label()
        others = np.delete(row, label)
        row[label] = lead + (others.max() if others.size else 0)
        add(row, label)
        add(row, random_label())
    for distance in (8.2, 9.71, 11.9):
        for m in (0.1234567, 5.4321, -3.3333, 70.7):
            row, label = np.full(n_classes, m - distance), random_label()
            row[label] = m
            add(row, label)
            add(row, random_label())
    tied = noise(2)
    tied[rng.integers(n_classes, size=2)] = 9.87
    add(tied, int(np.argmax(tied)))
    add(np.full(n_classes, 0.37), random_label())
    add(np.full(n_classes, 1e8), random_label())
    return np.array(rows), np.array(labels)


def in_eps(got, true, dtype):
    """Relative error in eps; results below the normal numbers may be 0."""
    info = np.finfo(dtype)
    error = np.abs(got.astype(true.dtype) - true)
    small = np.abs(true) < info.tiny
    scale = np.where(true == 0, 1, np.abs(true))
    return np.where(small & (error <= info.tiny), 0, error / scale / info.eps).astype(np.float64)


def leads(z, labels):
    """How far each label's logit leads the next class; 0 where it does not lead."""
    if z.shape[1] == 1:
        return np.zeros(len(z))
    index = np.arange(len(z))
    others = z.astype(np.float64)
    at_label = others[index, labels]
    others[index, labels] = -np.inf
    return np.maximum(at_label - others.max(axis=1), 0)


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_losses_and_gradients_are_within_their_bounds(n_classes, dtype, isa, rng):
    needs_wider(dtype)
    z, labels = rows_of_many_kinds(rng, n_classes, dtype)
    for begin in range(0, len(z), 16):  # the reference in long double needs much memory
        rows, y = z[begin : begin + 16], labels[begin : begin + 16]
        check_bounds(rows, y, dtype)


def check_bounds(z, labels, dtype):
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    true_losses, true_grad = reference.cross_entropy_and_grad(z.astype(WIDER[dtype]), labels, reduction="none")
    lead, index = leads(z, labels), np.arange(len(z))
    assert np.all(in_eps(losses, true_losses, dtype) <= 4 * (1 + lead))
    error = in_eps(grad, true_grad, dtype)
    assert np.all(error[index, labels] <= 4 * (1 + lead))
    distance = z.max(axis=1, keepdims=True).astype(np.float64) - z
    error[index, labels] = 0
    assert np.all(error <= 4 * (1 + distance))
    np.testing.assert_array_equal(softxent.cross_entropy(z, labels, reduction="none"), losses)
    probability = softxent.softmax(z)
    assert np.all(in_eps(probability, reference.softmax(z.astype(WIDER[dtype])), dtype) <= 4 * (1 + distance))


@pytest.mark.parametrize("n_classes", [1, 3, 10, 33, 1001])
@pytest.mark.parametrize("layout", ["class axis first", "every third", "backwards"])
def test_the_bounds_hold_for_every_layout(n_classes, layout, dtype, isa, rng):
    needs_wider(dtype)
    z, labels = rows_of_many_kinds(rng, n_classes, dtype)
    if layout == "class axis first":
        z = np.asfortranarray(z)
    elif layout == "every third":
        wide = np.full((len(z), 3 * n_classes), np.nan, dtype)
        wide[:, ::3] = z
        z = wide[:, ::3]
    else:
        z = np.ascontiguousarray(z[:, ::-1])[:, ::-1]
    check_bounds(z, labels, dtype)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_the_bounds_hold_against_mpmath(n_classes, dtype, isa, rng):
    z, labels = rows_of_many_kinds(rng, n_classes, dtype)
    eps, lead = float(np.finfo(dtype).eps), leads(z, labels)
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    with mp.workdps(60):
        for i, (row, y) in enumerate(zip(z, labels, strict=True)):
            terms = [mp.exp(mp.mpf(float(x)) - mp.mpf(float(row[y]))) for x in row]
            others = mp.fsum(terms[:y] + terms[y + 1 :])
            true_loss, true_grad = mp.log1p(others), -others / (1 + others)
            assert abs(float(losses[i]) / true_loss - 1) <= 4 * eps * (1 + lead[i])
            assert abs(float(grad[i, y]) / true_grad - 1) <= 4 * eps * (1 + lead[i])


@pytest.mark.parametrize("n_classes", [2, 10, 33, 1000])
def test_a_one_hot_target_is_as_exact_as_its_index(n_classes, dtype, isa, rng):
    z, labels = rows_of_many_kinds(rng, n_classes, dtype)
    target = np.eye(n_classes, dtype=dtype)[labels]
    losses, grad = softxent.cross_entropy_and_grad(z, target, reduction="none")
    true_losses, true_grad = reference.cross_entropy_and_grad(z.astype(np.float64), labels, reduction="none")
    lead, index = leads(z, labels), np.arange(len(z))
    # For float64 the tolerance is two bounds, because the truth here has the same precision.
    bound = 4 if dtype == np.float32 else 8
    assert np.all(in_eps(losses, true_losses, dtype) <= bound * (1 + lead))
    unique_top = (z == z.max(axis=1, keepdims=True)).sum(axis=1) == 1
    top = unique_top & (z.argmax(axis=1) == labels)
    assert np.all(in_eps(grad, true_grad, dtype)[index, labels][top] <= bound * (1 + lead)[top])


@pytest.mark.parametrize("n_classes", [2, 10, 33, 1000, 50257])
def test_losses_against_distributions_are_within_a_few_eps(n_classes, dtype, isa, rng):
    needs_wider(dtype)
    z, _ = rows_of_many_kinds(rng, n_classes, dtype)
    target = rng.dirichlet(np.full(n_classes, 0.3), len(z)).astype(dtype)
    for rows, t in zip(np.array_split(z, 8), np.array_split(target, 8), strict=True):
        losses, grad = softxent.cross_entropy_and_grad(rows, t, reduction="none")
        wide = WIDER[dtype]
        true_losses, true_grad = reference.cross_entropy_and_grad(rows.astype(wide), t.astype(wide), reduction="none")
        assert np.all(in_eps(losses, true_losses, dtype) <= 4)
        # p - t may cancel, so the bound is on the sizes of p and t.
        p = reference.softmax(rows.astype(wide))
        distance = rows.max(axis=1, keepdims=True).astype(np.float64) - rows
        bound = 4 * np.finfo(dtype).eps * ((1 + distance) * p + t) + np.finfo(dtype).tiny
        assert np.all(np.abs(grad - true_grad) <= bound)


@pytest.mark.parametrize("n_classes", [1, 2, 10, 33, 1000])
def test_log_softmax_and_logsumexp_agree_with_the_loss(n_classes, dtype, isa, rng):
    needs_wider(dtype)
    z, labels = rows_of_many_kinds(rng, n_classes, dtype)
    log_p = softxent.log_softmax(z)
    true = reference.log_softmax(z.astype(WIDER[dtype]))
    lead = leads(z, z.argmax(axis=1))[:, None]
    assert np.all(in_eps(log_p, true, dtype) <= 4 * (1 + lead))
    lse, true_lse = softxent.logsumexp(z), reference.logsumexp(z.astype(WIDER[dtype]))
    bound = 4 * np.finfo(dtype).eps * (1 + np.abs(z).max(axis=1))
    assert np.all(np.abs(lse - true_lse) <= bound)
    np.testing.assert_array_equal(
        -log_p[np.arange(len(z)), labels], softxent.cross_entropy(z, labels, reduction="none")
    )


def test_round_numbers_come_out_round(dtype, isa):
    for n_classes in (1, 2, 4, 8, 64):
        for value in (0.0, 0.3, 1.0, -17.2, 1e8):
            p = softxent.softmax(np.full(n_classes, value, dtype))
            np.testing.assert_array_equal(p, 1 / n_classes)


def test_a_confident_right_prediction_has_its_small_loss(isa):
    z = np.zeros((1, 10), np.float32)
    z[0, 3] = 30
    loss, grad = softxent.cross_entropy_and_grad(z, np.array([3]))
    assert loss == pytest.approx(8.4218608e-13, rel=4e-6, abs=0)
    assert grad[0, 3] == pytest.approx(-8.4218608e-13, rel=4e-6, abs=0)


def test_equal_logits_near_1e8_have_loss_log_2(isa):
    assert softxent.cross_entropy(np.array([[1e8, 1e8]], np.float32), [0]) == pytest.approx(np.log(2), rel=1e-7)


# ----------------------------------------------------------------------------------------------------------------------
# The same tests with options. Distances and leads are those after the temperature, among the classes that are left.

SOME_N_CLASSES = [2, 9, 33, 100, 513, 1001, 32000]
# Each factor (a weight, 1 / T, 1 / ln(base), or their product) is rounded to the logits' dtype, half an eps. The
# product with it is rounded once more.
FACTORS = 2


def some_rows(rng, n_classes, dtype, temperature=1.0):
    """Logits of rows_of_many_kinds after the temperature. For very many classes only a part, because the reference is
    slow.
    """
    z, labels = rows_of_many_kinds(rng, n_classes, np.float64)
    part = slice(None) if n_classes < 10000 else slice(None, None, 8)
    return (z[part] * temperature).astype(dtype), labels[part]


def check_bounds_with(z, labels, dtype, factors, **options):
    temperature, where = options.get("temperature", 1.0), options.get("where", np.True_)
    left = np.where(where, z, -np.inf).astype(dtype)
    lead, index = leads(left, labels) / temperature, np.arange(len(z))
    distance = (left.max(axis=1, keepdims=True).astype(np.float64) - left) / temperature
    wide = z.astype(WIDER[dtype])
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none", **options)
    true_losses, true_grad = reference.cross_entropy_and_grad(wide, labels, reduction="none", **options)
    assert np.all(in_eps(losses, true_losses, dtype) <= 4 * (1 + lead) + factors)
    error = in_eps(grad, true_grad, dtype)
    assert np.all(error[index, labels] <= 4 * (1 + lead) + factors)
    error[index, labels] = 0
    assert np.all(error <= 4 * (1 + distance) + factors)
    np.testing.assert_array_equal(softxent.cross_entropy(z, labels, reduction="none", **options), losses)


OF_LOSSES = {
    "nothing": lambda n, c, rng: {"normalizer": 1.0, "where": np.True_},
    "class_weight": lambda n, c, rng: {"class_weight": rng.uniform(0.1, 3, c).astype(np.float32)},
    "sample_weight": lambda n, c, rng: {"sample_weight": rng.uniform(0.1, 3, n).astype(np.float32)},
    "base": lambda n, c, rng: {"base": 2},
    "a base below 1": lambda n, c, rng: {"base": 0.3},
    "all of them": lambda n, c, rng: {
        "class_weight": rng.uniform(0.1, 3, c).astype(np.float32),
        "sample_weight": rng.uniform(0.1, 3, n).astype(np.float32),
        "base": 10,
    },
}


@pytest.mark.parametrize("n_classes", SOME_N_CLASSES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_weights_and_base_cost_a_rounding_or_two(n_classes, order, dtype, isa, rng):
    needs_wider(dtype)
    z, labels = some_rows(rng, n_classes, dtype)
    z = np.asarray(z, order=order)
    for name, make in OF_LOSSES.items():
        if n_classes > 10000 and name not in ("nothing", "all of them"):
            continue
        options = make(len(z), n_classes, rng)
        check_bounds_with(z, labels, dtype, 0 if name == "nothing" else FACTORS, **options)


@pytest.mark.parametrize("n_classes", SOME_N_CLASSES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 10.0])
def test_the_bounds_hold_at_any_temperature(n_classes, temperature, dtype, isa, rng):
    needs_wider(dtype)
    z, labels = some_rows(rng, n_classes, dtype, temperature)
    for order in "CF" if n_classes < 10000 else "C":
        z = np.asarray(z, order=order)
        options = {"temperature": temperature, "where": np.True_}  # The general kernel handles even T = 1.
        check_bounds_with(z, labels, dtype, FACTORS, **options)
        distance = (z.max(axis=1, keepdims=True).astype(np.float64) - z) / temperature
        true = reference.softmax(z.astype(WIDER[dtype]), temperature=temperature)
        assert np.all(in_eps(softxent.softmax(z, **options), true, dtype) <= 4 * (1 + distance))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 10.0])
@pytest.mark.parametrize("n_classes", [100, 1001])
def test_the_bounds_hold_where_all_the_mass_lies_far_below_the_maximum(n_classes, temperature, dtype, isa, rng):
    """Nearly all the mass is at distances of 8 to 12 after the temperature, so that an error of z - m or of 1 / T
    shows.
    """
    needs_wider(dtype)
    n = 60
    m = rng.uniform(-50, 50, n)
    z = np.repeat(m[:, None], n_classes, axis=1) - rng.uniform(8, 12, (n, 1)) * temperature
    labels = rng.integers(0, n_classes, n)
    z[np.arange(n), labels] = m
    z = z.astype(dtype)
    labels = np.where(np.arange(n) % 2, labels, (labels + 1) % n_classes)
    for order in "CF":
        z = np.asarray(z, order=order)
        for options in ({}, {"where": np.True_}, {"sample_weight": np.ones(n)}):
            options |= {"temperature": temperature}
            check_bounds_with(z, labels, dtype, FACTORS, **options)
        distance = (z.max(axis=1, keepdims=True).astype(np.float64) - z) / temperature
        true = reference.softmax(z.astype(WIDER[dtype]), temperature=temperature)
        for options in ({}, {"where": np.True_}):
            probability = softxent.softmax(z, temperature=temperature, **options)
            assert np.all(in_eps(probability, true, dtype) <= 4 * (1 + distance))


@pytest.mark.parametrize("n_classes", SOME_N_CLASSES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_bounds_hold_among_the_classes_that_are_left(n_classes, order, dtype, isa, rng):
    needs_wider(dtype)
    z, labels = some_rows(rng, n_classes, dtype)
    z = np.asarray(z, order=order)
    for share in (0.1, 0.8):
        where = rng.random(z.shape) < share
        where[np.arange(len(z)), labels] = True
        check_bounds_with(z, labels, dtype, 0, where=where)
        left = np.where(where, z, -np.inf).astype(dtype)
        distance = left.max(axis=1, keepdims=True).astype(np.float64) - left
        true = reference.softmax(z.astype(WIDER[dtype]), where=where)
        assert np.all(in_eps(softxent.softmax(z, where=where), true, dtype) <= 4 * (1 + distance))


@pytest.mark.parametrize("n_classes", [2, 9, 33, 100, 1001])
@pytest.mark.parametrize("order", ["C", "F"])
def test_everything_at_once_is_within_the_bounds_and_the_factors(n_classes, order, dtype, isa, rng):
    needs_wider(dtype)
    for temperature in (0.3, 1.7):
        z, labels = some_rows(rng, n_classes, dtype, temperature)
        z = np.asarray(z, order=order)
        where = rng.random(z.shape) < 0.7
        where[np.arange(len(z)), labels] = True
        options = OF_LOSSES["all of them"](len(z), n_classes, rng)
        check_bounds_with(z, labels, dtype, FACTORS, where=where, temperature=temperature, **options)


@pytest.mark.parametrize("n_classes", [2, 9, 33, 100, 1001])
@pytest.mark.parametrize("smoothing", [1e-3, 0.1, 1.0])
def test_smoothed_losses_are_within_a_few_eps(n_classes, smoothing, dtype, isa, rng):
    """All terms of the loss are positive. In the gradient p W - q may cancel, so the bound is on the sizes of p W and
    q.
    """
    needs_wider(dtype)
    z, labels = some_rows(rng, n_classes, dtype)
    weight = rng.uniform(0.1, 3, n_classes).astype(np.float32)
    info, wide = np.finfo(dtype), z.astype(WIDER[dtype])
    for order in "CF":
        z = np.asarray(z, order=order)
        for options in ({}, {"class_weight": weight}):
            options |= {"label_smoothing": smoothing, "reduction": "none"}
            losses, grad = softxent.cross_entropy_and_grad(z, labels, **options)
            true_losses, true_grad = reference.cross_entropy_and_grad(wide, labels, **options)
            assert np.all(in_eps(losses, true_losses, dtype) <= 4 + 2 * FACTORS)
            w = options.get("class_weight", np.ones(n_classes))
            q = w * (smoothing / n_classes + (1 - smoothing) * np.eye(n_classes)[labels])
            distance = z.max(axis=1, keepdims=True).astype(np.float64) - z
            subtracted = (4 * (1 + distance) + FACTORS) * reference.softmax(wide) * q.sum(axis=1, keepdims=True)
            assert np.all(np.abs(grad - true_grad) <= info.eps * (subtracted + 2 * q) + info.tiny)


@pytest.mark.parametrize("n_classes", [2, 9, 33, 100, 1001])
@pytest.mark.parametrize("temperature", [0.3, 1.7])
def test_log_softmax_and_logsumexp_are_within_their_bounds_at_any_temperature(n_classes, temperature, dtype, isa, rng):
    needs_wider(dtype)
    z, _ = some_rows(rng, n_classes, dtype, temperature)
    wide, options = z.astype(WIDER[dtype]), {"temperature": temperature}
    for order in "CF":
        z = np.asarray(z, order=order)
        lead = leads(z, z.argmax(axis=1))[:, None] / temperature
        log_p = softxent.log_softmax(z, **options)
        assert np.all(in_eps(log_p, reference.log_softmax(wide, **options), dtype) <= 4 * (1 + lead) + FACTORS)
        bound = 4 * np.finfo(dtype).eps * (1 + np.abs(z).max(axis=1) / temperature)
        lse = softxent.logsumexp(z, **options)
        assert np.all(np.abs(lse - reference.logsumexp(wide, **options)) <= bound)
