"""A sample's loss and gradient are the same bits for any thread count, batch, place in it and memory alignment; and so
are the sums over samples, for any thread count."""

import numpy as np
import pytest

import softxent

# Rows and few classes; the class axis last and first; large enough for many parts and several threads.
PROBLEMS = [
    ((3000, 33), 1),
    ((700, 1001), 1),
    ((9001, 10), 1),
    ((100, 1, 777), 0),
    ((3, 21, 50, 60), 1),
    ((5, 50257), 1),
]


def make(shape, axis, dtype, rng):
    z = (rng.normal(size=shape) * 4).astype(dtype)
    labels = rng.integers(0, shape[axis], tuple(np.delete(shape, axis)))
    return z, labels


@pytest.mark.parametrize(("shape", "axis"), PROBLEMS)
@pytest.mark.parametrize("target", [False, True])
def test_same_bits_for_any_thread_count(shape, axis, target, dtype, isa, rng):
    z, labels = make(shape, axis, dtype, rng)
    if target:
        labels = rng.random(shape).astype(dtype)
    for reduction in ("mean", "sum", "none"):
        options = {"axis": axis, "reduction": reduction}
        loss, grad = softxent.cross_entropy_and_grad(z, labels, n_threads=1, **options)
        for n in (2, 3, 7):
            other_loss, other_grad = softxent.cross_entropy_and_grad(z, labels, n_threads=n, **options)
            np.testing.assert_array_equal(other_loss, loss)
            np.testing.assert_array_equal(other_grad, grad)
            np.testing.assert_array_equal(softxent.cross_entropy(z, labels, n_threads=n, **options), loss)
    for function in (softxent.softmax, softxent.log_softmax, softxent.logsumexp):
        one = function(z, axis, n_threads=1)
        for n in (2, 3, 7):
            np.testing.assert_array_equal(function(z, axis, n_threads=n), one)


@pytest.mark.parametrize("n_classes", [1, 2, 10, 32, 33, 100, 1001])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_in_any_batch_and_place(n_classes, order, dtype, isa, rng):
    z, labels = make((67, n_classes), 1, dtype, rng)
    z = np.asarray(z, order=order)
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    probability = softxent.softmax(z)
    for begin, end in [(i, i + 1) for i in range(0, 67, 5)] + [(1, 67), (3, 20), (16, 33), (50, 67), (0, 15)]:
        some_losses, some_grad = softxent.cross_entropy_and_grad(z[begin:end], labels[begin:end], reduction="none")
        np.testing.assert_array_equal(some_losses, losses[begin:end])
        np.testing.assert_array_equal(some_grad, grad[begin:end])
        np.testing.assert_array_equal(softxent.softmax(z[begin:end]), probability[begin:end])
    _, backwards = softxent.cross_entropy_and_grad(z[::-1], labels[::-1], reduction="none")
    np.testing.assert_array_equal(backwards[::-1], grad)


@pytest.mark.parametrize("n_classes", [10, 33, 1001])
def test_same_bits_at_any_alignment(n_classes, dtype, isa, rng):
    z, labels = make((19, n_classes), 1, dtype, rng)
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    for shift in range(0, 64 // z.itemsize):
        memory = np.zeros(z.size + 64, dtype)
        moved = memory[shift : shift + z.size].reshape(z.shape)
        moved[...] = z
        out = np.zeros(z.size + 64, dtype)[64 - shift : 64 - shift + z.size].reshape(z.shape)
        moved_losses, _ = softxent.cross_entropy_and_grad(moved, labels, reduction="none", out=out)
        np.testing.assert_array_equal(moved_losses, losses)
        np.testing.assert_array_equal(out, grad)


@pytest.mark.parametrize("n_classes", [10, 100])
def test_same_bits_beside_other_samples(n_classes, dtype, isa, rng):
    z, labels = make((40, n_classes), 1, dtype, rng)
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    odd = np.arange(40) % 2 == 1
    for neighbour in (np.nan, np.inf, -np.inf, 1e30):
        beside = z.copy()
        beside[odd] = neighbour
        some_losses, some_grad = softxent.cross_entropy_and_grad(beside, labels, reduction="none")
        np.testing.assert_array_equal(some_losses[~odd], losses[~odd])
        np.testing.assert_array_equal(some_grad[~odd], grad[~odd])


@pytest.mark.parametrize("n_classes", [3, 10, 32])
def test_few_classes_have_the_same_bits_in_every_layout(n_classes, dtype, isa, rng):
    z, labels = make((50, n_classes), 1, dtype, rng)
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    for other in (np.asfortranarray(z), np.repeat(z, 2, axis=1)[:, ::2], z[:, ::-1].copy()[:, ::-1]):
        other_losses, other_grad = softxent.cross_entropy_and_grad(other, labels, reduction="none")
        np.testing.assert_array_equal(other_losses, losses)
        np.testing.assert_array_equal(other_grad, grad)


@pytest.mark.parametrize("code", ["f2", ">f4", ">f8", "i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_where_the_logits_are_converted_in_pieces(code, order, isa, rng):
    """66 samples of 1000 classes are one piece and a bit: the last piece is of one sample."""
    z = np.asarray(rng.normal(size=(66, 1000)) * 4, code, order=order)
    labels = rng.integers(0, 1000, 66)
    losses, grad = softxent.cross_entropy_and_grad(z, labels, reduction="none")
    for shift in (1, 20, 65):
        place = np.roll(np.arange(66), shift)
        moved_losses, moved = softxent.cross_entropy_and_grad(
            np.asarray(z[place], order=order), labels[place], reduction="none"
        )
        np.testing.assert_array_equal(moved_losses, losses[place])
        np.testing.assert_array_equal(moved, grad[place])
