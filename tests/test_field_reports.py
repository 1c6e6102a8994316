"""Reports from the field that are about options, each a test with the number that it has there.

Every test states in NumPy the formula that was missing, doubted or misread, and needs no peer. What the peers compute
is in test_peers.py. Reports about plain losses (offsets of 1e8, confident predictions, labels out of range) are where
their subject is: test_accuracy.py, test_edges.py, test_refusals.py.
"""

import math

import numpy as np
import pytest

import softxent


@pytest.fixture(params=[(40, 10), (40, 100)], ids=["few classes", "rows"])
def logits(request, dtype, rng):
    return rng.normal(scale=2, size=request.param).astype(dtype)


@pytest.fixture
def labels(logits, rng):
    return rng.integers(0, logits.shape[1], len(logits))


@pytest.fixture
def class_weight(logits, dtype, rng):
    return rng.uniform(0.25, 4, logits.shape[1]).astype(dtype)


def close(dtype):
    # The tolerance is relative for sums. It is absolute, for weights up to 4, where terms cancel.
    return {"rtol": 60 * np.finfo(dtype).eps, "atol": 16 * np.finfo(dtype).eps}


def log_probabilities(logits):
    z = logits.astype(np.float64)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def smooth(labels, n_classes, smoothing):
    return (1 - smoothing) * np.eye(n_classes)[labels] + smoothing / n_classes


# --- Class weights under label smoothing: PyTorch #104776, #69339, #72056 -------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_pytorch_104776_each_class_weighs_its_own_term_of_the_smoothed_target(
    reduction, smoothing, logits, labels, class_weight, dtype, isa
):
    # The result is not class_weight[label] times the smoothed loss: smoothed mass takes the weight of the class that it
    # goes to.
    t = smooth(labels, logits.shape[1], smoothing)
    losses = -(class_weight * t * log_probabilities(logits)).sum(axis=1)
    gradients = np.exp(log_probabilities(logits)) * (class_weight * t).sum(axis=1, keepdims=True) - class_weight * t
    # The mean is over the weights of the labels, smoothed or not.
    divisor = class_weight[labels].sum(dtype=np.float64) if reduction == "mean" else 1
    expected = losses if reduction == "none" else losses.sum() / divisor

    options = {"class_weight": class_weight, "label_smoothing": smoothing, "reduction": reduction}
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, **options)
    np.testing.assert_allclose(loss, expected, **close(dtype))
    np.testing.assert_allclose(grad, gradients / divisor, **close(dtype))


def test_pytorch_104776_the_best_prediction_is_the_weighted_target_itself(logits, labels, class_weight, dtype, isa):
    # The report was surprised that class weights move the optimum, to p = w t / sum(w t).
    weighted = class_weight * smooth(labels, logits.shape[1], 0.1)
    best = np.log(weighted).astype(dtype)
    _, grad = softxent.cross_entropy_and_grad(
        best, labels, class_weight=class_weight, label_smoothing=0.1, reduction="none"
    )
    # Rounding log(w t) to the dtype moves p by eps |log(w t)|.
    atol = 8 * np.finfo(dtype).eps * (1 + np.abs(best).max()) * weighted
    assert np.all(np.abs(grad) <= atol)


def test_pytorch_104776_distributions_are_averaged_over_the_samples(logits, class_weight, dtype, isa, rng):
    target = rng.dirichlet(np.ones(logits.shape[1]), len(logits))
    t = 0.9 * target + 0.1 / logits.shape[1]
    losses = -(class_weight * t * log_probabilities(logits)).sum(axis=1)
    loss = softxent.cross_entropy(logits, target.astype(dtype), class_weight=class_weight, label_smoothing=0.1)
    np.testing.assert_allclose(loss, losses.sum() / len(logits), **close(dtype))


@pytest.mark.parametrize("ignored", [-100, -1, 255], ids=["69339: -100", "72056: -1", "255"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_pytorch_69339_72056_ignored_labels_look_up_no_class_weight(
    reduction, ignored, logits, labels, class_weight, dtype, isa
):
    options = {"class_weight": class_weight, "label_smoothing": 0.1, "reduction": reduction}
    kept = np.arange(len(labels)) % 3 != 0
    expected_loss, expected_grad = softxent.cross_entropy_and_grad(logits[kept], labels[kept], **options)
    labels[~kept] = ignored
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, ignore_index=ignored, **options)

    # The result is as if these samples were absent, in the sum and in the number that the mean divides by,
    # sum(class_weight[labels[kept]]).
    if reduction == "none":
        np.testing.assert_array_equal(loss[kept], expected_loss)
        assert not loss[~kept].any()
    else:
        np.testing.assert_allclose(loss, expected_loss, **close(np.float64))
    np.testing.assert_allclose(grad[kept], expected_grad, **close(dtype))
    assert not grad[~kept].any()

    t = smooth(labels[kept], logits.shape[1], 0.1)
    losses = -(class_weight * t * log_probabilities(logits[kept])).sum(axis=1)
    by_formula = {
        "none": losses,
        "sum": losses.sum(),
        "mean": losses.sum() / class_weight[labels[kept]].sum(dtype=np.float64),
    }
    np.testing.assert_allclose(loss[kept] if reduction == "none" else loss, by_formula[reduction], **close(dtype))


# --- What is ignored and what is nothing: PyTorch #11551, #70348 -----------------------------------------------


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}, {"softcap": 5.0}], ids=str)
def test_pytorch_11551_an_ignored_sample_of_minus_infinity_has_no_gradient(options, logits, labels, dtype, isa):
    kept = np.arange(len(labels)) != 7
    expected_loss, expected_grad = softxent.cross_entropy_and_grad(logits[kept], labels[kept], **options)
    logits[7], labels[7] = -math.inf, -100
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, ignore_index=-100, **options)
    np.testing.assert_allclose(loss, expected_loss, **close(np.float64))
    np.testing.assert_allclose(grad[kept], expected_grad, **close(dtype))
    assert not grad[7].any()
    # The gradient with respect to the weights that the logits came from is finite too.
    assert np.all(np.isfinite(np.ones_like(logits).T @ grad))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"class_weight": True}, {"sample_weight": True}])
@pytest.mark.parametrize("n_samples", [0, 5], ids=["no sample", "all ignored"])
def test_pytorch_70348_the_mean_of_nothing_is_nan_and_its_gradient_zero(
    n_samples, options, logits, class_weight, dtype, isa
):
    logits, labels = logits[:n_samples], np.full(n_samples, -100)
    given = {"class_weight": class_weight, "sample_weight": np.ones(n_samples)}
    options = {name: given.get(name, value) for name, value in options.items()} | {"ignore_index": -100}
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, **options)  # a warning would raise an error
    assert math.isnan(loss)  # 0 / 0: the sum of no losses, over no weight
    assert grad.shape == logits.shape
    assert not grad.any()
    # A float normalizer makes this 0, and then the step of an empty batch is no step.
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, normalizer=max(1, n_samples), **options)
    assert loss == 0
    assert not grad.any()


# --- The normalizer under gradient accumulation: transformers #35203 -------------------------------------------


@pytest.fixture
def sequences(labels):
    """Labels, of which the parts of a batch have unequal numbers that are not ignored, and those parts."""
    parts = [slice(0, 8), slice(8, 10), slice(10, 30), slice(30, 40)]
    for part, n_counted in zip(parts, (8, 1, 3, 5), strict=True):
        labels[part][n_counted:] = -100
    return labels, parts


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "class weights and smoothing"])
def test_transformers_35203_micro_batches_add_up_to_the_batch(weighted, sequences, logits, class_weight, dtype, isa):
    labels, parts = sequences
    options = {"ignore_index": -100}
    if weighted:
        options |= {"class_weight": class_weight, "label_smoothing": 0.1}
    expected_loss, expected_grad = softxent.cross_entropy_and_grad(logits, labels, **options)

    # The number that the whole batch divides by is known before the first part: how many labels are not ignored.
    counted = labels[labels != -100]
    total = float(class_weight[counted].sum(dtype=np.float64) if weighted else len(counted))
    loss, grad = 0.0, np.zeros_like(logits)
    for part in parts:
        part_loss, _ = softxent.cross_entropy_and_grad(
            logits[part], labels[part], normalizer=total, out=grad[part], accumulate=True, **options
        )
        loss += part_loss
    np.testing.assert_allclose(loss, expected_loss, **close(np.float64))
    np.testing.assert_allclose(grad, expected_grad, **close(dtype))

    # The report took the mean of the parts' own means, which is another number.
    mean_of_means = np.mean([softxent.cross_entropy(logits[part], labels[part], **options) for part in parts])
    assert mean_of_means != pytest.approx(expected_loss, rel=1e-3)


def test_transformers_35203_what_is_counted_in_turns_accumulates_in_one_gradient(sequences, logits, dtype, isa, rng):
    # All parts have the same logits here, as when a prediction has several targets.
    labels, parts = sequences
    expected_loss, expected_grad = softxent.cross_entropy_and_grad(logits, labels, ignore_index=-100)
    total = float(np.count_nonzero(labels != -100))
    loss, grad = 0.0, np.zeros_like(logits)
    for part in parts:
        labels_of_part = np.full_like(labels, -100)
        labels_of_part[part] = labels[part]
        part_loss, returned = softxent.cross_entropy_and_grad(
            logits, labels_of_part, ignore_index=-100, normalizer=total, out=grad, accumulate=True
        )
        assert returned is grad
        loss += part_loss
    np.testing.assert_allclose(loss, expected_loss, **close(np.float64))
    np.testing.assert_allclose(grad, expected_grad, **close(dtype))


def test_transformers_35203_the_normalizer_is_used_as_it_is(logits, labels, class_weight, dtype, isa, rng):
    # Class weights and sample weights change the losses, and not the number that they are divided by.
    options = {"class_weight": class_weight, "sample_weight": rng.uniform(0, 2, len(labels))}
    total, total_grad = softxent.cross_entropy_and_grad(logits, labels, reduction="sum", **options)
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, normalizer=2048.0, **options)
    np.testing.assert_allclose(loss, total / 2048, rtol=4 * np.finfo(np.float64).eps)
    np.testing.assert_array_equal(grad, total_grad / 2048)  # the factor is a power of two, so this is exact
    # only a mean has a normalizer
    assert softxent.cross_entropy(logits, labels, reduction="sum", normalizer=2048.0, **options) == total
