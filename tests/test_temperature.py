"""A temperature for each sample, in every loss, and the derivative of the loss with respect to the temperature."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import SparseTarget, reference

INF, NAN = np.inf, np.nan
PROBLEMS = {
    "few classes": ((50, 10), 1),
    "rows": ((20, 70), 1),
    "long rows": ((5, 701), 1),
    "class axis first": ((70, 23), 0),
    "class axis between": ((2, 40, 9), 1),
}
KINDS = ("indices", "distributions", "sparse")
REDUCTIONS = ("none", "mean", "sum")


@pytest.fixture(params=PROBLEMS)
def problem(request, dtype, rng):
    """Logits, the class axis, a temperature for each sample."""
    shape, axis = PROBLEMS[request.param]
    samples = tuple(int(n) for n in np.delete(shape, axis))
    return (rng.normal(size=shape) * 3).astype(dtype), axis, rng.uniform(0.3, 3, samples).astype(dtype)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def labels_of(kind, shape, axis, rng):
    samples = tuple(int(n) for n in np.delete(shape, axis))
    if kind == "indices":
        return rng.integers(0, shape[axis], samples)
    if kind == "distributions":
        return reference.softmax(rng.normal(size=shape), axis)
    return SparseTarget(rng.integers(-1, shape[axis], (*samples, 3)), rng.random((*samples, 3)))


def close(dtype, scale=1.0):
    eps = float(np.finfo(dtype).eps)
    return {"rtol": 100 * eps, "atol": 32 * eps * max(float(scale), float(np.finfo(dtype).tiny))}


def assert_close(results, expected, dtype):
    for got, want in zip(results, expected, strict=True):
        assert np.shape(got) == np.shape(want)
        assert (type(got) is float) == (type(want) is float)
        if np.asarray(want).dtype == np.int64:
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, **close(dtype, np.nanmax(np.abs(want), initial=0)))


def results_of(module, z, labels, v, options):
    """Of every loss that takes these options."""
    yield from module.cross_entropy_and_grad(z, labels, **options)
    yield module.cross_entropy(z, labels, **options)
    yield from module.cross_entropy_and_rank(z, labels, **options)
    if not options.keys() & {"softcap", "z_loss"}:
        yield from module.cross_entropy_grad_hess(z, labels, **options)
        yield module.cross_entropy_hvp(z, labels, v, **options)


# ----------------------------------------------------------------------------------------------------------------------
# One for each sample.

OPTIONS = {
    "none": lambda shape, axis, samples, rng: {},
    "class_weight": lambda shape, axis, samples, rng: {"class_weight": rng.random(shape[axis]) * 3},
    "sample_weight": lambda shape, axis, samples, rng: {"sample_weight": rng.random(samples) * 3},
    "sample_weight, some 0": lambda shape, axis, samples, rng: {"sample_weight": rng.integers(0, 3, samples)},
    "label_smoothing": lambda shape, axis, samples, rng: {"label_smoothing": 0.2},
    "softcap": lambda shape, axis, samples, rng: {"softcap": 5.0},
    "z_loss": lambda shape, axis, samples, rng: {"z_loss": 0.1},
    "base": lambda shape, axis, samples, rng: {"base": 2},
    "normalizer": lambda shape, axis, samples, rng: {"normalizer": 7.0},
    "where": lambda shape, axis, samples, rng: {"where": rng.random(shape) < 0.8},
}
TOGETHER = (
    ("where", "label_smoothing", "class_weight", "sample_weight", "base"),
    ("softcap", "z_loss", "class_weight", "sample_weight", "label_smoothing", "where", "base", "normalizer"),
)
EVERY = [*((name,) for name in OPTIONS), *TOGETHER]


def options_of(names, shape, axis, labels, rng):
    """No mass is on a class that is removed: the loss would be infinite."""
    options = {}
    for name in names:
        options |= OPTIONS[name](shape, axis, tuple(int(n) for n in np.delete(shape, axis)), rng)
    if "where" in options:
        where = np.moveaxis(options["where"], axis, -1)
        if isinstance(labels, SparseTarget):
            np.put_along_axis(where, np.maximum(labels.indices, 0), True, -1)
            where[..., -1] = True
        elif labels.ndim < len(shape):
            np.put_along_axis(where, labels[..., None], True, -1)
        else:
            where[...] |= np.moveaxis(labels, axis, -1) > 0
    return options


@pytest.mark.parametrize("names", EVERY, ids="+".join)
def test_every_loss_gives_the_reference_values(names, kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    options = options_of(names, z.shape, axis, labels, rng) | {"axis": axis, "temperature": temperature}
    for reduction in REDUCTIONS:
        fixed = options | {"reduction": reduction}
        assert_close(results_of(softxent, z, labels, z, fixed), results_of(reference, z, labels, z, fixed), z.dtype)


def test_each_sample_is_as_with_its_own_number(kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    for name in ("none", "label_smoothing", "softcap", "z_loss"):
        options = {"axis": axis, "reduction": "none"} | OPTIONS[name](z.shape, axis, temperature.shape, rng)
        got = list(results_of(softxent, z, labels, z, options | {"temperature": temperature}))
        for value in np.unique(temperature)[:5]:
            alone = results_of(softxent, z, labels, z, options | {"temperature": float(value)})
            for a, b in zip(got, alone, strict=True):
                at = temperature == value
                if a.shape == z.shape:
                    a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
                np.testing.assert_allclose(a[at], b[at], **close(z.dtype, np.max(np.abs(b[at]))))


def test_all_the_same_are_one(kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    for value in (1.0, 0.5):
        each = np.full(temperature.shape, value)
        got = results_of(softxent, z, labels, z, {"axis": axis, "temperature": each})
        assert_close(got, results_of(softxent, z, labels, z, {"axis": axis, "temperature": value}), z.dtype)


@pytest.mark.parametrize("lead", [5, 12, 30])
def test_a_confident_and_right_sample_keeps_its_digits(lead, dtype, isa):
    """A lead of 30 at a temperature of 0.5 is one of 60: 1e-26, of which no digit stands beside one."""
    for n_classes in (3, 64, 1000):
        z = np.zeros((4, n_classes), dtype)
        z[:, 1] = lead
        temperature = np.array([0.5, 1, 2, 4], dtype)
        exps = np.exp(-lead / temperature.astype(np.float64))
        left = (n_classes - 1) * exps
        near = (4 * (1 + lead / temperature.min()) + 8) * np.finfo(dtype).eps
        losses, grad = softxent.cross_entropy_and_grad(z, [1] * 4, temperature=temperature, reduction="none")
        np.testing.assert_allclose(losses, np.log1p(left), rtol=near)
        np.testing.assert_allclose(grad[:, 1], -left / (1 + left) / temperature, rtol=near)
        np.testing.assert_allclose(grad[:, 0], exps / (1 + left) / temperature, rtol=near)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, dtype, isa, rng):
    z = laid_out(rng.normal(size=shape) * 3, layout, dtype)
    samples = tuple(int(n) for n in np.delete(shape, axis))
    temperature = laid_out(rng.uniform(0.3, 3, samples), layout, dtype)
    for kind in KINDS:
        labels = labels_of(kind, shape, axis, rng)
        options = {"axis": axis, "temperature": temperature, "reduction": "none", "wrt_temperature": True}
        out = laid_out(np.full(shape, 9), layout, dtype)
        got = softxent.cross_entropy_and_grad(z, labels, out=out, **options)
        assert got[1] is out
        assert_close(got, reference.cross_entropy_and_grad(z, labels, **options), dtype)


@pytest.mark.parametrize("code", ["f2", "f4", "f8", ">f4", ">f8", "i4", "u1"])
def test_temperatures_of_every_real_dtype_are_taken(code, dtype, isa, rng):
    z, labels = rng.normal(size=(30, 40)).astype(dtype), rng.integers(0, 40, 30)
    temperature = (rng.integers(4, 12, 30) / (4 if np.dtype(code).kind == "f" else 1)).astype(code)
    want = softxent.cross_entropy_and_grad(z, labels, temperature=temperature.astype(dtype), reduction="none")
    for given in (temperature, temperature.tolist()):
        got = softxent.cross_entropy_and_grad(z, labels, temperature=given, reduction="none")
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("code", ["f2", "bfloat16", ">f4", ">f8", "i2", ">f2"])
def test_logits_of_other_dtypes_are_taken(code, kind, isa, rng):
    other = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if code == "bfloat16" else np.dtype(code)
    z = (rng.normal(size=(6, 40, 3)) * 3).astype(other)
    labels, temperature = labels_of(kind, z.shape, 1, rng), rng.integers(2, 9, (6, 3)) / 4
    result = np.dtype(np.float64) if other.kind == "i" else other.newbyteorder("=")
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(result.name) or np.finfo(result).eps
    options = {"axis": 1, "temperature": temperature, "reduction": "none", "wrt_temperature": True}
    got = softxent.cross_entropy_and_grad(z, labels, **options)
    for a, b in zip(got, reference.cross_entropy_and_grad(z.astype(np.float64), labels, **options), strict=True):
        assert a.dtype == result
        np.testing.assert_allclose(
            a.astype(np.float64), b, rtol=30 * min(eps, 1e-4) + eps, atol=1e-4 * min(1, 1e3 * eps)
        )


def test_gradients_may_overwrite_the_logits_and_be_added(kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    options = {"axis": axis, "temperature": temperature, "wrt_temperature": True}
    loss, grad, of_temperature = softxent.cross_entropy_and_grad(z, labels, **options)
    in_place = z.copy(order="K")
    got = softxent.cross_entropy_and_grad(in_place, labels, out=in_place, **options)
    assert got[1] is in_place
    assert got[0] == loss
    np.testing.assert_array_equal(in_place, grad)
    np.testing.assert_array_equal(got[2], of_temperature)
    start = rng.normal(size=z.shape).astype(z.dtype)
    out = start.copy()
    got = softxent.cross_entropy_and_grad(z, labels, out=out, accumulate=True, **options)
    np.testing.assert_allclose(out, start + grad, **close(z.dtype, 4))
    np.testing.assert_array_equal(got[2], of_temperature)  # it is not added to anything


def test_inputs_are_never_written(kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    arrays = z, temperature, *(labels if isinstance(labels, tuple) else (labels,))
    before = [a.copy() for a in arrays]
    softxent.cross_entropy_and_grad(z, labels, axis=axis, temperature=temperature, wrt_temperature=True)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------------------------------------
# The derivative with respect to it.


@pytest.mark.parametrize("names", EVERY, ids="+".join)
@pytest.mark.parametrize("is_each", [False, True])
def test_derivatives_are_the_reference_values(names, is_each, kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    options = options_of(names, z.shape, axis, labels, rng) | {"axis": axis}
    options["temperature"] = temperature if is_each else 1.25
    for reduction in REDUCTIONS:
        upstream = rng.normal(size=temperature.shape) if reduction == "none" else -2.5
        for grad_output in (None, upstream):
            fixed = options | {"reduction": reduction, "grad_output": grad_output, "wrt_temperature": True}
            got = softxent.cross_entropy_and_grad(z, labels, **fixed)
            want = reference.cross_entropy_and_grad(z, labels, **fixed)
            assert_close(got[:2], want[:2], z.dtype)
            # Terms of a sample's derivative, and in a sum the samples, may cancel.
            each = reference.cross_entropy_and_grad(z, labels, **options, reduction="none", wrt_temperature=True)[2]
            scale = (
                np.abs(each).sum() * np.max(np.abs(1 if grad_output is None else grad_output)) + z.shape[axis] ** 0.5
            )
            np.testing.assert_allclose(got[2], want[2], **close(z.dtype, scale))
            assert np.shape(got[2]) == (temperature.shape if is_each or reduction == "none" else ())
            if is_each or reduction == "none":
                assert got[2].dtype == z.dtype
            else:
                assert type(got[2]) is float


def test_loss_and_gradient_beside_it_are_those_without(kind, problem, isa, rng):
    z, axis, temperature = problem
    labels = labels_of(kind, z.shape, axis, rng)
    for options in ({}, {"temperature": 0.7}, {"temperature": temperature}, {"reduction": "none", "z_loss": 0.1}):
        want = softxent.cross_entropy_and_grad(z, labels, axis=axis, **options)
        assert len(want) == 2
        got = softxent.cross_entropy_and_grad(z, labels, axis=axis, wrt_temperature=True, **options)
        assert len(got) == 3
        assert_close(got[:2], want, z.dtype)


def exact_derivative(row, label, temperature):
    """sum_k p_k (z_label - z_k) / T^2, with 60 digits."""
    with mp.workdps(60):
        z = [mp.mpf(float(x)) for x in row]
        T = mp.mpf(float(temperature))
        exps = [mp.exp((x - max(z)) / T) for x in z]
        terms = [e * (z[label] - x) for e, x in zip(exps, z, strict=True)]
        return float(mp.fsum(terms) / mp.fsum(exps) / T**2), float(mp.fsum(map(abs, terms)) / mp.fsum(exps) / T**2)


@pytest.mark.parametrize("n_classes", [2, 3, 10, 64, 65, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_derivatives_are_exact_also_where_a_sample_is_confident_or_far_away(n_classes, order, dtype, isa, rng):
    """A lead of 30 leaves 30 e^-30, and an offset of 1000 that all logits have in common leaves nothing."""
    rows = [rng.normal(size=n_classes) * 3, rng.normal(size=n_classes) * 0.01, np.zeros(n_classes)]
    for lead in (5, 12, 30):
        rows.append(np.zeros(n_classes))
        rows[-1][n_classes - 1] = lead
    rows = np.concatenate([rows, np.array(rows) + 1000])
    z = np.asarray(rows, dtype, order=order)
    labels, temperature = rows.argmax(axis=1), np.linspace(0.5, 2, len(rows)).astype(dtype)
    got = softxent.cross_entropy_and_grad(z, labels, temperature=temperature, reduction="none", wrt_temperature=True)[2]
    for value, row, label, T in zip(got, z, labels, temperature, strict=True):
        want, size = exact_derivative(row, label, T)
        spread = float(row.max() - row.min()) / T
        assert abs(float(value) - want) <= (8 * (1 + spread) + 8) * np.finfo(dtype).eps * size


def test_a_fitted_temperature_has_no_derivative(isa):
    """Where it is 0, the loss of logits that are too confident by 2 is least: at a temperature of 2."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=(4000, 10))
    t = softxent.softmax(z)
    loss, _, derivative = softxent.cross_entropy_and_grad(2 * z, t, temperature=2.0, wrt_temperature=True)
    assert abs(derivative) < 1e-15
    for temperature, sign in ((1.9, -1), (2.1, 1)):
        other = softxent.cross_entropy_and_grad(2 * z, t, temperature=temperature, wrt_temperature=True)
        assert other[0] > loss
        assert np.sign(other[2]) == sign


def test_a_descent_finds_the_temperature(isa):
    """Newton's way to the temperature of Guo et al. (2017), by secants."""
    rng = np.random.default_rng(6)
    z = rng.normal(size=(20000, 8)) * 2
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)

    def slope(temperature):
        return softxent.cross_entropy_and_grad(3 * z, labels, temperature=temperature, wrt_temperature=True)[2]

    a, b = 2.0, 4.0
    while b - a > 1e-9:
        middle = (a + b) / 2
        a, b = (middle, b) if slope(middle) < 0 else (a, middle)
    assert 2.85 < a < 3.15
    assert softxent.cross_entropy(3 * z, labels, temperature=a) < softxent.cross_entropy(3 * z, labels)


# ----------------------------------------------------------------------------------------------------------------------
# Values at the edges.


def test_edges_concern_their_own_sample_only(dtype, isa):
    rows = [[0, 1, 2], [0, NAN, 1], [0, INF, 1], [-INF] * 3, [-INF, 1, 2], [0, 1, 2]]
    labels = [2, 0, 0, 0, 2, 1]
    temperature = np.array([1, 2, 0.5, 1, 4, 2], dtype)
    for order in "CF":
        z = np.asarray(rows, dtype, order=order)
        for options in ({"reduction": "none"}, {"reduction": "sum"}):
            options |= {"temperature": temperature, "wrt_temperature": True}
            got = softxent.cross_entropy_and_grad(z, labels, **options)
            want = reference.cross_entropy_and_grad(z, labels, **options)
            assert np.isnan(got[2]).tolist() == [False, True, True, True, False, False]
            for a, b in zip(got, want, strict=True):
                np.testing.assert_allclose(a, b, **close(dtype, 4))


def test_samples_that_are_left_out_have_no_derivative(kind, dtype, isa, rng):
    z, temperature = rng.normal(size=(6, 5)).astype(dtype), np.linspace(0.5, 2, 6)
    labels, s = labels_of(kind, z.shape, 1, rng), np.array([1, 0, 1, 0, 1, 1])
    clean = softxent.cross_entropy_and_grad(z, labels, temperature=temperature, sample_weight=s, wrt_temperature=True)
    for hole in (NAN, INF, -INF):
        bad = np.where(s[:, None] == 0, dtype(hole), z)
        got = softxent.cross_entropy_and_grad(
            bad, labels, temperature=temperature, sample_weight=s, wrt_temperature=True
        )
        for a, b in zip(got, clean, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(got[2][s == 0], 0)
        number = softxent.cross_entropy_and_grad(bad, labels, temperature=2.0, sample_weight=s, wrt_temperature=True)
        assert np.isfinite(number[2])
    if kind == "indices":
        ignoring = np.where(s == 0, -1, labels)
        got = softxent.cross_entropy_and_grad(
            bad, ignoring, temperature=temperature, ignore_index=-1, wrt_temperature=True
        )
        np.testing.assert_array_equal(got[2], clean[2])


@pytest.mark.parametrize(("shape", "axis"), [((0, 5), 1), ((5, 0), 0), ((2, 5, 0), 1)])
def test_no_samples_have_no_derivative(shape, axis, dtype, isa):
    samples = tuple(int(n) for n in np.delete(shape, axis))
    z, labels = np.zeros(shape, dtype), np.zeros(samples, int)
    for reduction in REDUCTIONS:
        options = {"axis": axis, "reduction": reduction, "wrt_temperature": True}
        got = softxent.cross_entropy_and_grad(z, labels, temperature=np.ones(samples), **options)
        assert got[2].shape == samples
        if reduction != "none":
            assert softxent.cross_entropy_and_grad(z, labels, temperature=2.0, **options)[2] == 0


def test_one_class_has_no_derivative(dtype, isa):
    got = softxent.cross_entropy_and_grad(
        np.ones((3, 1), dtype), [0, 0, 0], temperature=[1.0, 2.0, 3.0], wrt_temperature=True
    )
    np.testing.assert_array_equal(got[2], 0)


def test_one_sample_alone_has_a_number(dtype, isa):
    z = np.array([0, 1, 2], dtype)
    each = softxent.cross_entropy_and_grad(z, 2, temperature=2.0, reduction="none", wrt_temperature=True)
    assert each[2].shape == ()
    whole = softxent.cross_entropy_and_grad(z, 2, temperature=2.0, wrt_temperature=True)
    assert type(whole[2]) is float
    assert whole[2] == pytest.approx(float(each[2]), rel=4 * float(np.finfo(dtype).eps))


# ----------------------------------------------------------------------------------------------------------------------
# Same bits.


@pytest.mark.parametrize(("shape", "axis"), [((3000, 33), 1), ((9001, 10), 1), ((3, 21, 50, 60), 1), ((5, 50257), 1)])
def test_same_bits_for_any_thread_count(shape, axis, kind, dtype, isa, rng):
    z, labels = (rng.normal(size=shape) * 4).astype(dtype), labels_of(kind, shape, axis, rng)
    each = rng.uniform(0.5, 2, np.delete(shape, axis)).astype(dtype)
    for options in ({"temperature": each}, {"temperature": 1.7}, {"temperature": each, "label_smoothing": 0.1}):
        options |= {"axis": axis, "wrt_temperature": True}
        one = softxent.cross_entropy_and_grad(z, labels, n_threads=1, **options)
        for n in (2, 3, 7):
            for a, b in zip(softxent.cross_entropy_and_grad(z, labels, n_threads=n, **options), one, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_classes", [1, 10, 33, 65, 600])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_in_any_batch_and_place(n_classes, order, dtype, isa, rng):
    z = np.asarray(rng.normal(size=(67, n_classes)) * 4, dtype, order=order)
    labels, temperature = rng.integers(0, n_classes, 67), rng.uniform(0.5, 2, 67).astype(dtype)
    fixed = {"reduction": "none", "wrt_temperature": True}
    whole = softxent.cross_entropy_and_grad(z, labels, temperature=temperature, **fixed)
    for index in (slice(0, 1), slice(66, None), slice(5, 14), slice(1, None), slice(None, None, -1)):
        got = softxent.cross_entropy_and_grad(z[index], labels[index], temperature=temperature[index], **fixed)
        for a, b in zip(got, whole, strict=True):
            np.testing.assert_array_equal(a, b[index])


# ----------------------------------------------------------------------------------------------------------------------
# What is refused.

Z, Y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2, 0])


@pytest.mark.parametrize("bad", [0.0, -0.0, -1.0, NAN, INF, -INF, 1e-300, 1e300])
def test_a_temperature_out_of_its_range_is_named(bad, call):
    temperature = np.ones(4)
    temperature[2] = temperature[3] = bad
    with pytest.raises(
        ValueError, match=rf"temperature must be positive.*temperature\[2\] is {bad}".replace("+", r"\+")
    ):
        call(Z, Y, temperature=temperature)


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 1), (1, 4), (4, 3), (0,)])
def test_temperatures_have_the_samples_shape(shape, call):
    with pytest.raises(ValueError, match=r"temperature must .*the samples' shape \(4,\); got \("):
        call(Z, Y, temperature=np.ones(shape))


@pytest.mark.parametrize("code", [complex, object, str, "M8[s]"])
def test_temperatures_are_real_numbers(code, call):
    with pytest.raises(TypeError, match="temperature must "):
        call(Z, Y, temperature=np.ones(4, int).astype(code))


def test_a_masked_temperature_is_refused(call):
    with pytest.raises(TypeError, match=r"temperature .*masked"):
        call(Z, Y, temperature=np.ma.masked_equal([1.0, 2.0, 1.0, 1.0], 2))


def test_the_softmax_family_takes_a_number():
    for function in (softxent.softmax, softxent.log_softmax, softxent.logsumexp, softxent.entropy):
        with pytest.raises(TypeError, match="temperature must be a number; got"):
            function(Z, temperature=np.ones(4))


def test_nothing_is_written_where_a_temperature_is_bad():
    out, before = np.full_like(Z, 7), Z.copy()
    for place in (out, before):
        with pytest.raises(ValueError, match="temperature"):
            softxent.cross_entropy_and_grad(before, Y, temperature=[1, 1, 1, 0], out=place)
    np.testing.assert_array_equal(out, 7)
    np.testing.assert_array_equal(before, Z)


def test_an_output_that_overlaps_the_temperatures_is_refused():
    memory = np.ones((4, 3))
    with pytest.raises(ValueError, match="out overlaps temperature in memory"):
        softxent.cross_entropy_and_grad(Z, Y, temperature=memory[:, 1], out=memory)
    np.testing.assert_array_equal(memory, 1)


def test_temperatures_of_another_dtype_are_not_overwritten():
    """The kernels have a copy of them."""
    z, memory = Z.astype(np.float32), np.ones(4, np.float32)
    with pytest.raises(ValueError, match="out overlaps temperature in memory"):
        softxent.cross_entropy(z, Y, temperature=memory, reduction="none", out=memory)
    np.testing.assert_array_equal(memory, 1)


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_and_rank", "cross_entropy_grad_hess"])
def test_only_the_gradient_has_that_of_the_temperature_beside_it(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrt_temperature'"):
        getattr(softxent, name)(Z, Y, wrt_temperature=True)
