"""Any shape, axis, strides, dtype and byte order gives the values of the reference, without a copy of the logits."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest

import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import reference


def tolerance(dtype):
    return {"rtol": 30 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, dtype, isa, rng):
    values = rng.normal(size=shape) * 3
    z = laid_out(values.astype(dtype), layout)
    samples = np.delete(shape, axis)
    labels = laid_out(rng.integers(0, shape[axis], tuple(samples)), layout)
    target = laid_out(rng.random(shape), layout, dtype)
    upstream = laid_out(rng.normal(size=tuple(samples)), layout, dtype)
    for y in (labels, target):
        options = {"axis": axis, "reduction": "none"}
        expected = reference.cross_entropy_and_grad(z, y, grad_output=upstream.astype(float), **options)
        out = laid_out(np.full(shape, 9), layout, dtype)
        losses, grad = softxent.cross_entropy_and_grad(z, y, grad_output=upstream, out=out, **options)
        assert grad is out
        np.testing.assert_allclose(losses, expected[0], **tolerance(dtype))
        np.testing.assert_allclose(grad, expected[1], **tolerance(dtype))
        for reduction in ("mean", "sum"):
            loss, grad = softxent.cross_entropy_and_grad(z, y, axis=axis, reduction=reduction)
            expected = reference.cross_entropy_and_grad(z, y, axis=axis, reduction=reduction)
            assert type(loss) is float
            np.testing.assert_allclose(loss, expected[0], **tolerance(dtype))
            np.testing.assert_allclose(grad, expected[1], **tolerance(dtype))
            assert loss == softxent.cross_entropy(z, y, axis=axis, reduction=reduction)
    for name in ("softmax", "log_softmax", "logsumexp"):
        expected = getattr(reference, name)(z, axis)
        got = getattr(softxent, name)(z, axis)
        np.testing.assert_allclose(got, expected, **tolerance(dtype))
        out = laid_out(np.zeros(expected.shape), layout, dtype)
        assert getattr(softxent, name)(z, axis, out=out) is out
        np.testing.assert_array_equal(out, got)


@pytest.mark.parametrize("n_classes", [5, 70])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_output_of_another_layout_has_the_same_bits(n_classes, order, dtype, isa, rng):
    z = np.asarray(rng.normal(size=(19, n_classes)), dtype, order=order)
    labels, target = rng.integers(0, n_classes, 19), rng.random((19, n_classes)).astype(dtype)
    for y in (labels, target):
        _, expected = softxent.cross_entropy_and_grad(z, y)
        for layout in LAYOUTS:
            _, grad = softxent.cross_entropy_and_grad(z, y, out=laid_out(np.zeros(z.shape), layout, dtype))
            np.testing.assert_array_equal(grad, expected)


@pytest.mark.parametrize("n_classes", [3, 100])
def test_labels_of_every_integer_dtype_are_taken(n_classes, dtype, isa, rng):
    z, labels = rng.normal(size=(40, n_classes)).astype(dtype), rng.integers(0, n_classes, 40)
    expected = softxent.cross_entropy_and_grad(z, labels)
    for code in np.typecodes["AllInteger"]:
        for order in "<>":
            loss, grad = softxent.cross_entropy_and_grad(z, labels.astype(np.dtype(code).newbyteorder(order)))
            assert loss == expected[0]
            np.testing.assert_array_equal(grad, expected[1])
    loss, grad = softxent.cross_entropy_and_grad(z.tolist(), labels.tolist())
    assert grad.dtype == np.float64


@pytest.mark.parametrize("code", ["?", "b", "u4", "i8", "e", ">f4", ">f8", "f8", "f4"])
def test_distributions_of_every_real_dtype_are_taken(code, dtype, isa, rng):
    z = rng.normal(size=(40, 7)).astype(dtype)
    one_hot = np.eye(7)[rng.integers(0, 7, 40)].astype(code)
    losses, grad = softxent.cross_entropy_and_grad(z, one_hot, reduction="none")
    expected = softxent.cross_entropy_and_grad(z, one_hot.astype(dtype), reduction="none")
    np.testing.assert_array_equal(losses, expected[0])
    np.testing.assert_array_equal(grad, expected[1])


@pytest.mark.parametrize("code", ["?", "i1", "u8", "f2", ">f4", ">f8"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_logits_of_every_real_dtype_are_taken(code, axis, isa, rng):
    z = (rng.normal(size=(5, 60, 4)) * 3).clip(0).astype(code)
    labels = rng.integers(0, z.shape[axis], tuple(np.delete(z.shape, axis)))
    result = {"f2": np.float16, ">f4": np.float32}.get(code, np.float64)
    computed = np.float32 if np.dtype(result).itemsize < 8 else np.float64
    losses, grad = softxent.cross_entropy_and_grad(z, labels, axis=axis, reduction="none")
    expected = softxent.cross_entropy_and_grad(z.astype(computed), labels, axis=axis, reduction="none")
    assert losses.dtype == grad.dtype == result
    few_eps = {"rtol": 8 * np.finfo(result).eps, "atol": np.finfo(result).tiny}  # the copy may have another layout
    np.testing.assert_allclose(losses, expected[0].astype(result), **few_eps)
    np.testing.assert_allclose(grad, expected[1].astype(result), **few_eps)
    out = np.zeros(z.shape, result)
    assert softxent.cross_entropy_and_grad(z, labels, axis=axis, reduction="none", out=out)[1] is out
    np.testing.assert_array_equal(out, grad)
    assert softxent.softmax(z, axis).dtype == softxent.logsumexp(z, axis).dtype == result


def test_unaligned_arrays_and_odd_strides_are_taken(dtype, isa, rng):
    labels = rng.integers(0, 60, 30)
    record = np.zeros((30, 60), [("tag", "u1"), ("z", dtype)])
    record["z"] = rng.normal(size=(30, 60))
    z = record["z"]
    assert not z.flags.aligned
    expected = softxent.cross_entropy_and_grad(z.copy(), labels)
    loss, grad = softxent.cross_entropy_and_grad(z, labels)
    assert loss == expected[0]
    np.testing.assert_array_equal(grad, expected[1])
    softxent.cross_entropy_and_grad(z, labels, out=z)
    np.testing.assert_array_equal(record["z"], expected[1])
    assert np.all(record["tag"] == 0)


def test_strides_of_zero_are_read(dtype, isa, rng):
    row = rng.normal(size=50).astype(dtype)
    z = np.broadcast_to(row, (20, 50))
    losses = softxent.cross_entropy(z, np.broadcast_to(np.int64(3), 20), reduction="none")
    np.testing.assert_array_equal(losses, softxent.cross_entropy(row, 3))


@pytest.mark.parametrize("n_classes", [1, 10, 100])
def test_no_entry_outside_the_views_is_written(n_classes, dtype, isa, rng):
    for shape, axis in (((6, n_classes), 1), ((n_classes, 6), 0)):
        for layout in ("every second", "padded"):
            out = laid_out(np.zeros(shape), layout, dtype)
            whole = out.base
            whole[...] = 7
            z = rng.normal(size=shape).astype(dtype)
            softxent.cross_entropy_and_grad(z, rng.integers(0, n_classes, 6), axis=axis, out=out)
            out[...] = 7
            assert np.all(whole == 7)


CALLS = {
    "plain": lambda z, y, out: softxent.cross_entropy_and_grad(z, y, out=out),
    "loss": lambda z, y, out: softxent.cross_entropy(z, y),
    "ignore_index": lambda z, y, out: softxent.cross_entropy_and_grad(z, y, ignore_index=0, out=out),
    "accumulate": lambda z, y, out: softxent.cross_entropy_and_grad(z, y, accumulate=True, out=out),
    "softmax": lambda z, y, out: softxent.softmax(z, out=out),
    "one-hot of bool": lambda z, y, out: softxent.cross_entropy_and_grad(z, y[:, None] == np.arange(2000), out=out),
    "labels of float64": lambda z, y, out: softxent.cross_entropy_and_grad(z, Z64[: len(z)], out=out),
}
Z64 = np.zeros((4096, 2000))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["C", "Fortran", "every second", "float16", "big-endian"])
def test_no_temporary_of_the_size_of_the_logits_is_made(name, kind):
    code = {"float16": "f2", "big-endian": ">f4"}.get(kind, "f4")
    z = laid_out(np.zeros((2048, 2000)), kind if kind in LAYOUTS else "C", code)
    out = np.zeros(z.shape, np.float16 if code == "f2" else np.float32)
    labels = np.zeros(2048, int)
    extra = z.size if name == "one-hot of bool" else 0  # the caller's own array
    tracemalloc.start()
    CALLS[name](z, labels, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - extra < 2**20


def test_every_pair_of_layouts_of_logits_and_target_is_right(dtype, isa, rng):
    values, target = rng.normal(size=(3, 40, 5)), rng.random((3, 40, 5))
    expected = reference.cross_entropy_and_grad(values.astype(dtype), target.astype(dtype), axis=1)
    for a, b in itertools.product(LAYOUTS, LAYOUTS):
        loss, grad = softxent.cross_entropy_and_grad(laid_out(values, a, dtype), laid_out(target, b, dtype), axis=1)
        np.testing.assert_allclose(loss, expected[0], **tolerance(dtype))
        np.testing.assert_allclose(grad, expected[1], **tolerance(dtype))


class Subclass(np.ndarray):
    pass


def test_outputs_of_a_subclass_are_written_as_arrays(dtype, isa, rng):
    z, labels = rng.normal(size=(40, 50)).astype(dtype), rng.integers(0, 50, 40)
    expected = softxent.cross_entropy_and_grad(z, labels)[1]
    for out in (np.zeros_like(z).view(Subclass), np.zeros_like(z).view(np.recarray)):
        assert softxent.cross_entropy_and_grad(z, labels, out=out)[1] is out
        np.testing.assert_array_equal(np.asarray(out), expected)
        assert softxent.softmax(z, out=out) is out


@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((3, 40, 50, 30), 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("code", ["f4", ">f8", "f2"])
@pytest.mark.parametrize("call", ["loss", "mean of those not ignored", "weighted", "with its gradient in out"])
def test_the_bad_label_is_named_by_its_place_in_every_layout(shape, axis, layout, code, call, rng):
    z = laid_out(rng.normal(size=shape), layout, code)
    n_classes = shape[axis]
    samples = np.delete(shape, axis)
    place = tuple(int(rng.integers(n)) for n in samples)
    labels = rng.integers(0, n_classes, samples)
    labels[place] = n_classes + 7
    labels = laid_out(labels, layout)
    function, options = softxent.cross_entropy, {"axis": axis}
    if call == "with its gradient in out":
        function, options["out"] = softxent.cross_entropy_and_grad, np.empty_like(z)
    if call == "mean of those not ignored":
        options["ignore_index"] = -1
    if call == "weighted":
        options["sample_weight"] = np.ones(samples, code)
    name = f"labels[{', '.join(map(str, place))}] is {n_classes + 7}," if place else f"labels is {n_classes + 7},"
    with pytest.raises(IndexError, match=re.escape(name)):
        function(z, labels, **options)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("code", ["f4", ">f8"])
def test_the_bad_entry_of_a_target_is_named_by_its_place_in_every_layout(shape, axis, layout, code, rng):
    target = np.full(shape, 0.5)
    place = tuple(int(rng.integers(n)) for n in shape)
    target[place] = -1
    with pytest.raises(ValueError, match=re.escape(f"labels[{', '.join(map(str, place))}] is -1.0;")):
        softxent.cross_entropy(laid_out(np.zeros(shape), layout, code), laid_out(target, layout, code), axis=axis)
