"""A sample's loss and gradient are the same bits for any thread count, batch, place in it and memory alignment; and so
are the sums over samples, for any thread count."""

import numpy as np
import pytest

import softxent
from softxent._options import Options

# The shapes cover rows and few classes, and the class axis last and first. They are large enough for many parts and
# several threads.
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
    """66 samples of 1000 classes are more than one piece: the last piece is one sample."""
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


# ----------------------------------------------------------------------------------------------------------------------
# With options and derivatives: everything that goes through the general kernel.

SOME_PROBLEMS = [((1500, 33), 1), ((6001, 10), 1), ((3, 21, 40, 20), 1), ((12, 5003), 1), ((300, 150), 0)]


def option_makers(dtype):
    return {
        "class_weight": lambda n, c, rng: {"class_weight": rng.random(c).astype(dtype)},
        "sample_weight": lambda n, c, rng: {"sample_weight": rng.random(n).astype(dtype)},
        "sample_weight of another dtype": lambda n, c, rng: {"sample_weight": rng.integers(0, 5, n)},
        "where": lambda n, c, rng: {"where": rng.random((n, c)) < 0.8},
        "label_smoothing": lambda n, c, rng: {"label_smoothing": 0.1},
        "temperature": lambda n, c, rng: {"temperature": 1.7},
        "softcap": lambda n, c, rng: {"softcap": 5.0},
        "z_loss": lambda n, c, rng: {"z_loss": 0.01},
        "base": lambda n, c, rng: {"base": 2},
        "grad_output": lambda n, c, rng: {"grad_output": rng.normal(size=n)},
    }


assert {*Options._fields} <= {*option_makers(float)}  # a new one has its value here
PER_SAMPLE = ("sample_weight", "where", "grad_output")


def results_of(z, labels, v, options, **more):
    """The results of every function that takes the options, with the sample axis first."""
    yield from softxent.cross_entropy_and_grad(z, labels, reduction="none", **options, **more)
    family = {name: options[name] for name in ("where", "temperature") if name in options}
    yield softxent.softmax(z, **family, **more)
    yield softxent.logsumexp(z, **family, **more)
    if not options.keys() & {"softcap", "z_loss", "grad_output"}:
        yield from softxent.cross_entropy_grad_hess(z, labels, reduction="none", **options, **more)
        yield softxent.cross_entropy_hvp(z, labels, v, reduction="none", **options, **more)
    if not options:
        yield softxent.softmax_jvp(z, v, **more)
        yield softxent.softmax_jacobian(z[:, :50], **more)


@pytest.mark.parametrize(("shape", "axis"), SOME_PROBLEMS)
@pytest.mark.parametrize("target", [False, True])
def test_same_bits_for_any_thread_count_with_options(shape, axis, target, dtype, isa, rng):
    z, labels = make(shape, axis, dtype, rng)
    samples = labels.shape
    if target:
        labels = rng.random(shape).astype(dtype)
    every = {
        "class_weight": rng.random(shape[axis]),
        "sample_weight": rng.random(samples).astype(dtype),
        "where": rng.random(shape) < 0.9,
        "label_smoothing": 0.1,
        "temperature": 1.7,
        "base": 2,
        "axis": axis,
    }
    for more in ({}, {"sample_weight": rng.random(samples), "normalizer": 3.0}, {"reduction": "none"}):

        def results(n, options=every | more):
            yield from softxent.cross_entropy_and_grad(z, labels, softcap=5.0, z_loss=0.1, n_threads=n, **options)
            yield from softxent.cross_entropy_grad_hess(z, labels, n_threads=n, **options)
            yield softxent.cross_entropy_hvp(z, labels, z, n_threads=n, **options)

        one = list(results(1))
        for n in (2, 3, 7):
            for got, want in zip(results(n), one, strict=True):
                np.testing.assert_array_equal(got, want)
    family = {"where": every["where"], "temperature": 1.7}
    for function in (softxent.softmax, softxent.log_softmax, softxent.logsumexp):
        one = function(z, axis, n_threads=1, **family)
        for n in (2, 3, 7):
            np.testing.assert_array_equal(function(z, axis, n_threads=n, **family), one)


@pytest.mark.parametrize("name", ["none", *option_makers(np.float32)])
@pytest.mark.parametrize("n_classes", [10, 33, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_in_any_batch_and_place_with_options(name, n_classes, order, dtype, isa, rng):
    z, labels = make((37, n_classes), 1, dtype, rng)
    z, v = np.asarray(z, order=order), np.asarray(rng.normal(size=z.shape), dtype, order=order)
    options = {} if name == "none" else option_makers(dtype)[name](37, n_classes, rng)
    for y in (labels, np.asarray(rng.random(z.shape), dtype, order=order)):
        whole = list(results_of(z, y, v, options))
        for index in (
            slice(0, 1),
            slice(36, None),
            slice(5, 14),
            slice(1, None),
            slice(None, None, -1),
            slice(2, None, 3),
        ):
            some = {key: value[index] if key in PER_SAMPLE else value for key, value in options.items()}
            for got, want in zip(results_of(z[index], y[index], v[index], some), whole, strict=True):
                np.testing.assert_array_equal(got, want[index])


@pytest.mark.parametrize("name", ["none", "where", "label_smoothing", "temperature", "softcap"])
@pytest.mark.parametrize("n_classes", [10, 33, 600])
def test_same_bits_at_any_alignment_with_options(name, n_classes, dtype, isa, rng):
    z, labels = make((11, n_classes), 1, dtype, rng)
    v = rng.normal(size=z.shape).astype(dtype)
    options = {} if name == "none" else option_makers(dtype)[name](11, n_classes, rng)
    expected = list(results_of(z, labels, v, options))
    for shift in range(1, 64 // z.itemsize, 2):
        moved, moved_v = (np.zeros(z.size + 64, dtype)[s : s + z.size].reshape(z.shape) for s in (shift, 64 - shift))
        moved[...], moved_v[...] = z, v
        for got, want in zip(results_of(moved, labels, moved_v, options), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        out = np.zeros(z.size + 64, dtype)[64 - shift : 64 - shift + z.size].reshape(z.shape)
        softxent.cross_entropy_and_grad(moved, labels, reduction="none", out=out, **options)
        np.testing.assert_array_equal(out, expected[1])


@pytest.mark.parametrize("n_classes", [10, 33, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_beside_other_samples_with_options(n_classes, order, dtype, isa, rng):
    """The other samples may hold anything, be ignored, or have no class left."""
    z, labels = make((40, n_classes), 1, dtype, rng)
    z, v = np.asarray(z, order=order), np.asarray(rng.normal(size=z.shape), dtype, order=order)
    odd, where = np.arange(40) % 2 == 1, rng.random(z.shape) < 0.9
    options = {"where": where, "label_smoothing": 0.1, "sample_weight": rng.random(40).astype(dtype)}
    expected = list(results_of(z, labels, v, options))
    for neighbour in (np.nan, np.inf, -np.inf, 1e30, "ignored", "removed", "weightless"):
        beside, y, others = z.copy(order="K"), labels.copy(), {**options, "where": where.copy()}
        if neighbour == "ignored":
            y[odd] = -1
        elif neighbour == "removed":
            others["where"][odd] = False
        elif neighbour == "weightless":
            others["sample_weight"] = np.where(odd, 0, options["sample_weight"])
        else:
            beside[odd] = neighbour
        if neighbour == "ignored":
            got = softxent.cross_entropy_and_grad(beside, y, reduction="none", ignore_index=-1, **others)
            want = expected[:2]
        else:
            got, want = list(results_of(beside, y, v, others)), expected
        for values, wanted in zip(got, want, strict=True):
            np.testing.assert_array_equal(values[~odd], wanted[~odd])


@pytest.mark.parametrize("n_classes", [10, 40, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_of_half_precision_in_any_batch_and_place(n_classes, order, isa, rng):
    z = np.asarray(rng.normal(size=(37, n_classes)) * 4, np.float16, order=order)
    labels, v = rng.integers(0, n_classes, 37), np.asarray(rng.normal(size=z.shape), np.float16, order=order)
    for options in ({}, {"label_smoothing": 0.1, "temperature": 1.7}):
        whole = list(results_of(z, labels, v, options))
        for n in (2, 7):
            for got, want in zip(results_of(z, labels, v, options, n_threads=n), whole, strict=True):
                np.testing.assert_array_equal(got, want)
        for index in (slice(0, 1), slice(36, None), slice(5, 14), slice(None, None, -1)):
            for got, want in zip(results_of(z[index], labels[index], v[index], options), whole, strict=True):
                np.testing.assert_array_equal(got, want[index])


@pytest.mark.parametrize("n_classes", [3, 10, 32])
def test_few_classes_have_the_same_bits_in_every_layout_with_options(n_classes, dtype, isa, rng):
    z, labels = make((50, n_classes), 1, dtype, rng)
    v = rng.normal(size=z.shape).astype(dtype)
    options = {"where": rng.random(z.shape) < 0.9, "label_smoothing": 0.1, "temperature": 1.7}
    expected = list(results_of(z, labels, v, options))
    for other in (np.asfortranarray(z), np.repeat(z, 2, axis=1)[:, ::2], z[:, ::-1].copy()[:, ::-1]):
        for got, want in zip(results_of(other, labels, v, options), expected, strict=True):
            np.testing.assert_array_equal(got, want)


# ----------------------------------------------------------------------------------------------------------------------
# Halves that the kernels cannot read or write in place.


def unaligned(array):
    """The same numbers at an odd address."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    copy = memory[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert not copy.flags.aligned or array.dtype.alignment == 1
    return copy


def other_byte_order(array):
    return array.astype(array.dtype.newbyteorder())


CONVERSIONS = [("float16", unaligned), ("float16", other_byte_order), ("bfloat16", unaligned)]
CALLS_ON_HALVES = {
    "plain": {},
    "mean of weighted samples": {"sample_weight": "samples", "reduction": "mean"},
    "smoothed": {"label_smoothing": 0.1},
    "dense": {"label_smoothing": 0.1, "class_weight": "classes"},
    "general": {"temperature": 0.7},
}


@pytest.mark.parametrize(("name", "convert"), CONVERSIONS)
@pytest.mark.parametrize("shape", [(24000, 3), (1100, 64), (1100, 65), (4, 70, 257), (15, 5000)])
def test_same_bits_of_halves_that_must_be_converted(name, convert, shape, isa, rng):
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name)) if name == "bfloat16" else np.dtype(name)
    z, labels = (rng.normal(size=shape) * 4).astype(dtype), rng.integers(0, shape[-1], shape[:-1])
    arrays = {"samples": rng.random(shape[:-1]), "classes": rng.random(shape[-1])}
    for options in CALLS_ON_HALVES.values():
        given = {"reduction": "sum", **{key: arrays.get(value, value) for key, value in options.items()}}
        loss, grad = softxent.cross_entropy_and_grad(z, labels, **given)
        losses = softxent.cross_entropy(z, labels, **given | {"reduction": "none"})
        for logits, old in ((convert(z), None), (z, convert(z)), (convert(z), convert(z))):
            got = softxent.cross_entropy_and_grad(logits, labels, **given, out=old)
            assert got[0] == loss == softxent.cross_entropy(logits, labels, **given)
            np.testing.assert_array_equal(got[1].astype(dtype).view(np.uint16), grad.view(np.uint16))
        got = softxent.cross_entropy(convert(z), labels, **given | {"reduction": "none"}, out=convert(losses))
        np.testing.assert_array_equal(got.astype(dtype).view(np.uint16), losses.view(np.uint16))
    p = softxent.softmax(z)
    np.testing.assert_array_equal(softxent.softmax(convert(z)).view(np.uint16), p.view(np.uint16))
    t = softxent.cross_entropy_and_grad(z, p, reduction="sum")
    got = softxent.cross_entropy_and_grad(convert(z), convert(p), reduction="sum")
    assert got[0] == t[0]
    np.testing.assert_array_equal(got[1].view(np.uint16), t[1].view(np.uint16))


@pytest.mark.parametrize("code", [">f4", ">f8"])
@pytest.mark.parametrize("shape", [(9000, 10), (40, 30, 70), (5, 3, 7, 700)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_sum_of_logits_in_the_other_byte_order(code, shape, order, isa, rng):
    """These logits are computed in pieces, and the sum of the losses must not depend on that."""
    z = np.asarray(rng.normal(size=shape) * 4, code, order=order)
    z = np.moveaxis(z, 0, -1) if order == "F" else z  # the classes lie side by side
    labels = rng.integers(0, z.shape[-1], z.shape[:-1])
    native = z.astype(z.dtype.newbyteorder("="), order="K")
    for options in ({"sample_weight": rng.random(labels.shape).astype(native.dtype)}, {"reduction": "sum"}):
        assert softxent.cross_entropy(z, labels, **options) == softxent.cross_entropy(native, labels, **options)
