"""The divergence from probabilities or from a teacher's logits, and its gradient: exact also where both are nearly the
same, never negative, for any shape, axis, layout, dtype and option, with the same bits for any thread count and place.

Their derivatives are held against finite differences in test_reference.py.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import exact
import softxent
from layouts import LAYOUTS, SHAPES, laid_out
from softxent import reference

INF, NAN = np.inf, np.nan
N_CLASSES = (1, 2, 3, 10, 64, 65, 100, 1000, 4097, 50257, 128256)
PROBLEMS = {
    "few classes": ((50, 10), 1),
    "rows": ((20, 70), 1),
    "long rows": ((5, 701), 1),
    "class axis first": ((70, 23), 0),
    "class axis between": ((2, 40, 9), 1),
}
KINDS = {"probabilities": False, "a teacher's logits": True}


@pytest.fixture(params=PROBLEMS)
def shape_and_axis(request):
    return PROBLEMS[request.param]


@pytest.fixture(params=KINDS)
def is_logits(request):
    return KINDS[request.param]


def target_of(shape, axis, is_logits, rng):
    """Probabilities, a tenth of them 0, or logits."""
    t = rng.normal(size=shape) * 3
    return t if is_logits else reference.softmax(t, axis, where=rng.random(shape) < 0.9)


@pytest.fixture
def problem(shape_and_axis, is_logits, dtype, rng):
    """Logits, target, options."""
    shape, axis = shape_and_axis
    z, target = rng.normal(size=shape) * 3, target_of(shape, axis, is_logits, rng)
    return z.astype(dtype), target.astype(dtype), {"axis": axis, "target_logits": is_logits}


def close(dtype, scale=1.0):
    eps = float(np.finfo(dtype).eps)
    return {"rtol": 120 * eps, "atol": 16 * eps * scale}


def assert_same_bits(got, want):
    assert np.asarray(got).dtype == np.asarray(want).dtype
    assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


# ----------------------------------------------------------------------------------------------------------------------
# Accuracy.


def noise_of(rng, n_classes, scale):
    """Of few distinct numbers where there are many classes."""
    row = rng.normal(size=n_classes)
    return (np.round(row * 8) / 8 if n_classes > 100 else row) * scale


def pairs_of(n_classes, dtype):
    """A teacher's logits and a student's: the same, near, far, confident, and shifted."""
    rng = np.random.default_rng(n_classes)
    for distance in (0, 1e-6, 1e-3, 0.1, 1, 8):
        teacher = noise_of(rng, n_classes, 2).astype(dtype)
        student = teacher + noise_of(rng, n_classes, distance)
        yield teacher, student
        yield teacher, student + 3.0
    for lead in (5, 30, 60):
        teacher = np.zeros(n_classes)
        teacher[n_classes // 2] = lead
        yield teacher, teacher + noise_of(rng, n_classes, 1e-6)
        yield teacher, teacher + noise_of(rng, n_classes, 0.5)
        yield teacher, np.zeros(n_classes)
        yield np.zeros(n_classes), teacher


@cache
def pairs_and_truths(n_classes, dtype, temperature, is_logits):
    teachers, students = (np.array(rows).astype(dtype) for rows in zip(*pairs_of(n_classes, dtype), strict=True))
    if n_classes > 1000:
        teachers, students = teachers[[2, 7, 13]], students[[2, 7, 13]]
    if not is_logits:
        teachers = reference.softmax(teachers, temperature=temperature).astype(dtype)
    truths = [exact.divergence(z, t, temperature, is_logits) for z, t in zip(students, teachers, strict=True)]
    return students, teachers, truths


@pytest.mark.parametrize(
    ("n_classes", "temperature"),
    [*((c, 1.0) for c in N_CLASSES), *((c, t) for c in (3, 65, 1000) for t in (0.375, 4.0))],
)
def test_divergences_and_their_gradients_are_within_their_bounds(n_classes, temperature, is_logits, dtype, isa):
    """From a teacher within a few eps, also where the student is within 1e-6 of it; from probabilities, of which a
    rounding is itself a divergence, within c eps (KL + sqrt(KL) + eps)."""
    students, targets, truths = pairs_and_truths(n_classes, dtype, temperature, is_logits)
    options = {"target_logits": is_logits, "temperature": temperature, "reduction": "none"}
    got, grad = softxent.kl_divergence_and_grad(students, targets, **options)
    assert got.dtype == grad.dtype == dtype
    for kl, g, truth in zip(got, grad, truths, strict=True):
        assert truth.error(kl) <= 1
        assert truth.grad_error(g) <= 1
    assert_same_bits(softxent.kl_divergence(students, targets, **options), got)


@pytest.mark.parametrize("n_classes", [3, 65, 1000])
@pytest.mark.parametrize("layout", ["Fortran", "every second", "reversed"])
def test_the_bounds_hold_for_every_layout(n_classes, layout, is_logits, dtype, isa):
    students, targets, truths = pairs_and_truths(n_classes, dtype, 1.0, is_logits)
    got, grad = softxent.kl_divergence_and_grad(
        laid_out(students, layout), laid_out(targets, layout), target_logits=is_logits, reduction="none"
    )
    for kl, g, truth in zip(got, grad, truths, strict=True):
        assert truth.error(kl) <= 1
        assert truth.grad_error(g) <= 1


def test_the_bounds_are_of_the_promised_size(dtype):
    """From a teacher they are a few eps of the divergence, also of one of 1e-13; from probabilities they are c eps."""
    eps = float(np.finfo(dtype).eps)
    for n_classes in (3, 65, 1000):
        for truth in pairs_and_truths(n_classes, dtype, 1.0, True)[2][:12]:
            assert truth.bound <= 1000 * eps * float(truth.value) + max(np.finfo(dtype).tiny, 1e-100)
        for truth in pairs_and_truths(n_classes, dtype, 1.0, False)[2][:12]:
            kl = float(truth.value)
            assert truth.bound <= 100 * eps * (kl + np.sqrt(kl) + 100 * eps)


def test_a_teacher_diverges_from_itself_by_nothing(shape_and_axis, dtype, isa, rng):
    shape, axis = shape_and_axis
    z = (rng.normal(size=shape) * 5).astype(dtype)
    for options in ({}, {"temperature": 3.0}, {"where": rng.random(shape) < 0.8}):
        options |= {"axis": axis, "target_logits": True, "reduction": "none"}
        kl, grad = softxent.kl_divergence_and_grad(z, z, **options)
        np.testing.assert_array_equal(kl[np.isfinite(kl)], 0)
        np.testing.assert_array_equal(grad, 0)
        # What a teacher and its student have in common costs nothing: 4.0 is added without rounding.
        z = np.round(z * 256) / 256
        kl, grad = softxent.kl_divergence_and_grad(z + dtype(4), z, **options)
        assert np.nanmax(kl) <= 64 * np.finfo(dtype).eps ** 2
        assert np.abs(grad).max() <= 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("n_classes", [2, 4, 33])
def test_rounded_probabilities_never_diverge_by_less_than_nothing(n_classes, dtype, isa):
    """Of half a million rows, each against its own softmax as it is rounded, one step beside that, and another's."""
    rng = np.random.default_rng(7)
    n = 500_000 if n_classes == 4 else 20_000
    z = (rng.standard_normal((n, n_classes), np.float32) * 3).astype(dtype)
    t = softxent.softmax(z)
    for target in (t, np.nextafter(t, dtype(0)), np.nextafter(t, dtype(1))):
        kl = softxent.kl_divergence(z, target, reduction="none")
        assert kl.min() >= 0
        assert kl.max() <= 1e3 * np.finfo(dtype).eps ** 2
    with np.errstate(divide="ignore"):
        assert softxent.kl_divergence(np.log(t), t, reduction="none").min() >= 0
    shuffled = softxent.kl_divergence(z[::-1], t, reduction="none")
    assert shuffled.min() >= 0


def test_cross_entropy_is_divergence_and_entropy(dtype, isa, rng):
    z, t = rng.normal(size=(40, 70)).astype(dtype), rng.dirichlet(np.ones(70), 40).astype(dtype)
    of_target = softxent.entropy(np.log(t))
    expected = softxent.cross_entropy(z, t, reduction="none") - of_target
    np.testing.assert_allclose(softxent.kl_divergence(z, t, reduction="none"), expected, **close(dtype, 4))
    grad = softxent.cross_entropy_and_grad(z, t)[1]
    np.testing.assert_allclose(softxent.kl_divergence_and_grad(z, t)[1], grad, **close(dtype, 1 / 40))


def test_masses_that_do_not_sum_to_one_diverge_by_what_is_left_too(dtype, isa):
    """1 - sum t of a target that is not normalised: nothing less than 0, and 1 of no mass at all."""
    z = np.zeros((3, 4), dtype)
    t = np.array([[0, 0, 0, 0], [0.5, 0, 0, 0], [1, 1, 1, 1]], dtype)
    kl, grad = softxent.kl_divergence_and_grad(z, t, reduction="none")
    expected = [1, 0.5 * np.log(2) + 0.5, 4 * np.log(4) - 3]
    np.testing.assert_allclose(kl, expected, rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(grad, [[0] * 4, [-0.375, 0.125, 0.125, 0.125], [0] * 4], atol=np.finfo(dtype).eps)


# ----------------------------------------------------------------------------------------------------------------------
# Shapes, layouts, dtypes.


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_values(shape, axis, layout, is_logits, dtype, isa, rng):
    z = laid_out(rng.normal(size=shape) * 3, layout, dtype)
    target = laid_out(target_of(shape, axis, is_logits, rng), layout, dtype)
    upstream = laid_out(rng.normal(size=tuple(np.delete(shape, axis))), layout, dtype)
    options = {"axis": axis, "target_logits": is_logits}
    for more in ({"reduction": "none", "grad_output": upstream}, {}, {"reduction": "sum"}):
        want, want_grad = reference.kl_divergence_and_grad(z, target, **options, **more)
        out = laid_out(np.full(shape, 9), layout, dtype)
        got, grad = softxent.kl_divergence_and_grad(z, target, out=out, **options, **more)
        assert grad is out
        np.testing.assert_allclose(got, want, **close(dtype))
        np.testing.assert_allclose(grad, want_grad, **close(dtype, max(1, np.abs(want_grad).max())))
        more.pop("grad_output", None)
        np.testing.assert_array_equal(softxent.kl_divergence(z, target, **options, **more), got)
        assert type(got) is float or (got.dtype == dtype and got.shape == tuple(np.delete(shape, axis)))


def test_arrays_of_different_layouts_go_together(is_logits, dtype, isa, rng):
    shape = (3, 40, 5)
    z, target = rng.normal(size=shape).astype(dtype), target_of(shape, 1, is_logits, rng).astype(dtype)
    weight, where = rng.random((3, 5)), rng.random(shape) < 0.8
    options = {"axis": 1, "target_logits": is_logits}
    want, want_grad = reference.kl_divergence_and_grad(z, target, sample_weight=weight, where=where, **options)
    for i, layout in enumerate(LAYOUTS):
        a, b, c = (LAYOUTS[(i + k) % len(LAYOUTS)] for k in (1, 2, 3))
        got, grad = softxent.kl_divergence_and_grad(
            laid_out(z, layout),
            laid_out(target, a),
            sample_weight=laid_out(weight, b),
            where=laid_out(where, c),
            out=laid_out(np.zeros(shape), b, dtype),
            **options,
        )
        np.testing.assert_allclose(got, want, **close(dtype))
        np.testing.assert_allclose(grad, want_grad, **close(dtype))


@pytest.mark.parametrize("code", ["f2", "bfloat16", ">f2", ">f4", ">f8", "f8", "f4", "i2", "?"])
def test_logits_and_targets_of_every_real_dtype_are_taken(code, is_logits, dtype, isa, rng):
    other = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if code == "bfloat16" else np.dtype(code)
    shape = (6, 40, 3)
    values, target = rng.normal(size=shape) * 2, target_of(shape, 1, is_logits, rng)
    if other.kind in "bi" and not is_logits:
        target = np.moveaxis(np.eye(40)[rng.integers(0, 40, (6, 3))], -1, 1)  # one-hot, as for every loss
    options = {"axis": 1, "target_logits": is_logits, "reduction": "none"}
    # The target in the other dtype, then the logits.
    z, t = values.astype(dtype), target.astype(other)
    want, want_grad = reference.kl_divergence_and_grad(z, t.astype(np.float64), **options)
    got, grad = softxent.kl_divergence_and_grad(z, t, **options)
    assert got.dtype == grad.dtype == dtype
    np.testing.assert_allclose(got, want, **close(dtype, 4))
    np.testing.assert_allclose(grad, want_grad, **close(dtype, 4))
    z, t = values.astype(other), target.astype(dtype)
    result = np.dtype(np.float64) if other.kind in "bi" else other.newbyteorder("=")
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(result.name) or np.finfo(result).eps
    want, want_grad = reference.kl_divergence_and_grad(z.astype(np.float64), t, **options)
    got, grad = softxent.kl_divergence_and_grad(z, t, **options)
    assert got.dtype == grad.dtype == result
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=100 * max(eps / 100, 2e-7), atol=100 * eps**1.5)
    np.testing.assert_allclose(grad.astype(np.float64), want_grad, rtol=eps + 1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_are_those_of_float32_rounded(name, is_logits, isa, rng):
    half = np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if name == "bfloat16" else np.dtype(name)
    for shape in ((50, 10), (20, 70), (5, 701)):
        z, t = (rng.normal(size=shape) * 3).astype(half), target_of(shape, 1, is_logits, rng).astype(half)
        for order in "CF":
            z, t = np.asarray(z, order=order), np.asarray(t, order=order)
            options = {"target_logits": is_logits, "reduction": "none"}
            got = softxent.kl_divergence_and_grad(z, t, **options)
            wide = softxent.kl_divergence_and_grad(z.astype(np.float32), t.astype(np.float32), **options)
            for a, b in zip(got, wide, strict=True):
                assert a.dtype == half
                assert np.mean(a != b.astype(half)) <= 0.02 + 1 / a.size  # float32's own last bit may differ
            in_float32 = np.zeros(shape, np.float32)
            assert softxent.kl_divergence_and_grad(z, t, out=in_float32, **options)[1] is in_float32


def test_gradients_may_overwrite_the_logits(problem, isa, rng):
    z, target, options = problem
    samples = np.delete(z.shape, options["axis"])
    where = rng.random(z.shape) < 0.8
    for more in ({}, {"temperature": 0.7, "where": where, "sample_weight": rng.random(samples)}):
        loss, grad = softxent.kl_divergence_and_grad(z, target, **options, **more)
        for layout in LAYOUTS:
            in_place = laid_out(z, layout)
            got, same = softxent.kl_divergence_and_grad(in_place, target, out=in_place, **options, **more)
            assert same is in_place
            np.testing.assert_allclose(got, loss, **close(z.dtype))
            np.testing.assert_allclose(in_place, grad, **close(z.dtype))
        in_place = z.copy(order="K")
        got, _ = softxent.kl_divergence_and_grad(in_place, target, out=in_place, **options, **more)
        assert got == loss
        np.testing.assert_array_equal(in_place, grad)


def test_gradients_are_added_to_what_is_there(problem, isa, rng):
    z, target, options = problem
    start = rng.normal(size=z.shape).astype(z.dtype)
    for layout in LAYOUTS:
        out = laid_out(start, layout)
        loss, same = softxent.kl_divergence_and_grad(z, target, out=out, accumulate=True, **options)
        assert same is out
        want, grad = softxent.kl_divergence_and_grad(z, target, **options)
        np.testing.assert_allclose(loss, want, **close(z.dtype))
        np.testing.assert_allclose(out, start + grad, **close(z.dtype, 4))


def test_inputs_are_never_written(problem, isa, rng):
    z, target, options = problem
    samples = np.delete(z.shape, options["axis"])
    arrays = z, target, rng.random(z.shape) < 0.8, rng.random(samples), rng.normal(size=samples)
    before = [a.copy() for a in arrays]
    softxent.kl_divergence_and_grad(
        z, target, where=arrays[2], sample_weight=arrays[3], grad_output=arrays[4], reduction="none", **options
    )
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


# ----------------------------------------------------------------------------------------------------------------------
# Options.

OPTIONS = {
    "none": lambda shape, samples, rng: {},
    "temperature": lambda shape, samples, rng: {"temperature": 1.7},
    "low temperature": lambda shape, samples, rng: {"temperature": 0.3},
    "where": lambda shape, samples, rng: {"where": rng.random(shape) < 0.7},
    "sample_weight": lambda shape, samples, rng: {"sample_weight": rng.random(samples) * 3},
    "sample_weight, some 0": lambda shape, samples, rng: {"sample_weight": rng.integers(0, 3, samples)},
    "normalizer": lambda shape, samples, rng: {"normalizer": 7.5},
    "grad_output": lambda shape, samples, rng: {"grad_output": -3.0},
}


def every_option(shape, samples, rng):
    together = {}
    for make in OPTIONS.values():
        together |= make(shape, samples, rng)
    return together


@pytest.mark.parametrize("name", [*OPTIONS, "all"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_option_gives_the_reference_values(name, reduction, problem, isa, rng):
    z, target, options = problem
    samples = tuple(np.delete(z.shape, options["axis"]))
    options |= (every_option if name == "all" else OPTIONS[name])(z.shape, samples, rng) | {"reduction": reduction}
    want, want_grad = reference.kl_divergence_and_grad(z, target, **options)
    got, grad = softxent.kl_divergence_and_grad(z, target, **options)
    np.testing.assert_allclose(got, want, **close(z.dtype))
    np.testing.assert_allclose(grad, want_grad, **close(z.dtype, np.abs(want_grad).max()))
    options.pop("grad_output", None)
    np.testing.assert_array_equal(softxent.kl_divergence(z, target, **options), got)


def test_the_mean_is_over_the_weights(is_logits, isa, rng):
    z, target = rng.normal(size=(30, 5)), target_of((30, 5), 1, is_logits, rng)
    s = rng.random(30)
    each = softxent.kl_divergence(z, target, target_logits=is_logits, reduction="none")
    for options, want in (
        ({}, each.mean()),
        ({"sample_weight": s}, (s * each).sum() / s.sum()),
        ({"sample_weight": s, "normalizer": 4.0}, (s * each).sum() / 4),
        ({"sample_weight": s, "reduction": "sum"}, (s * each).sum()),
    ):
        got = softxent.kl_divergence(z, target, target_logits=is_logits, **options)
        assert type(got) is float
        assert got == pytest.approx(want, rel=1e-14)


def test_removed_classes_are_as_good_as_absent(problem, isa):
    """In the logits and in the teacher's, and a target's mass there is no part of the sum."""
    z, target, options = problem
    axis, dtype = options["axis"], z.dtype.type
    kept = np.arange(z.shape[axis]) % 4 != 2
    where = np.broadcast_to(np.expand_dims(kept, tuple(range(1, z.ndim - axis))), z.shape)
    few, few_grad = softxent.kl_divergence_and_grad(
        np.compress(kept, z, axis), np.compress(kept, target, axis), **options
    )
    for hole in (NAN, INF, -INF, 1e30):
        holes = np.where(where, target, dtype(hole)) if options["target_logits"] else target
        kl, grad = softxent.kl_divergence_and_grad(np.where(where, z, dtype(hole)), holes, where=where, **options)
        np.testing.assert_allclose(kl, few, **close(dtype))
        np.testing.assert_allclose(np.compress(kept, grad, axis), few_grad, **close(dtype))
        np.testing.assert_array_equal(grad[~where], 0)


def test_nothing_of_a_sample_without_weight_is_looked_at(problem, isa, rng):
    z, target, options = problem
    axis, samples = options["axis"], tuple(np.delete(z.shape, options["axis"]))
    s = rng.integers(0, 2, samples)
    s.flat[0], s.flat[-1] = 0, 1
    broken = np.broadcast_to(np.expand_dims(s == 0, axis), z.shape)
    clean = softxent.kl_divergence_and_grad(z, target, sample_weight=s, **options)
    for hole in (NAN, INF, -INF, -1.0):
        bad_z, bad_target = (np.where(broken, a.dtype.type(hole), a) for a in (z, target))
        loss, grad = softxent.kl_divergence_and_grad(bad_z, bad_target, sample_weight=s, **options)
        assert loss == clean[0]
        np.testing.assert_array_equal(grad, clean[1])
        np.testing.assert_array_equal(grad[broken], 0)
        each = softxent.kl_divergence(bad_z, bad_target, sample_weight=s, reduction="none", **options)
        np.testing.assert_array_equal(each[s == 0], 0)
        out = np.full_like(z, 3)
        softxent.kl_divergence_and_grad(bad_z, bad_target, sample_weight=s, out=out, accumulate=True, **options)
        np.testing.assert_array_equal(out[broken], 3)


# ----------------------------------------------------------------------------------------------------------------------
# Values at the edges: logits, target, whether that is of logits, divergence, gradient.

LOG2 = float(np.log(2))
EDGES = {
    "a class at -inf without mass": ([0, -INF, 0], [0.5, 0, 0.5], False, 0, [0, 0, 0]),
    "a class at -inf with mass": ([0, -INF, 0], [0.5, 0.5, 0], False, INF, [0, -0.5, 0.5]),
    "a class without mass": ([0, 0, -INF], [1, 0, 0], False, LOG2, [-0.5, 0.5, 0]),
    "all at -inf": ([-INF] * 3, [0.5, 0.5, 0], False, NAN, [NAN] * 3),
    "a nan": ([0, NAN, 0], [0.5, 0, 0.5], False, NAN, [NAN] * 3),
    "a +inf": ([0, INF, 0], [0.5, 0, 0.5], False, NAN, [NAN] * 3),
    "absent from both": ([0, -INF, 0], [1, -INF, 1], True, 0, [0, 0, 0]),
    "absent from the student": ([0, -INF, 0], [0, 0, -INF], True, INF, [0, -0.5, 0.5]),
    "absent from the teacher": ([0, 0, -INF], [5, -INF, -INF], True, LOG2, [-0.5, 0.5, 0]),
    "an absent student": ([-INF] * 3, [0, 0, 0], True, NAN, [NAN] * 3),
    "an absent teacher": ([0, 0, 0], [-INF] * 3, True, NAN, [NAN] * 3),
    "a teacher's nan": ([0, 0, 0], [0, NAN, 0], True, NAN, [NAN] * 3),
    "a teacher's +inf": ([0, 0, 0], [0, INF, 0], True, NAN, [NAN] * 3),
    "a student's nan": ([0, NAN, 0], [0, 0, 0], True, NAN, [NAN] * 3),
    "a student's +inf": ([INF, 0, 0], [0, 0, 0], True, NAN, [NAN] * 3),
    "+inf in both": ([INF, 0, 0], [INF, 0, 0], True, NAN, [NAN] * 3),
    "as far apart as can be": ([0, -1e4, -INF], [-1e4, 0, -INF], True, 1e4, [1, -1, 0]),
    "nearly certain of both": ([0, -1e4, -INF], [0, -2e4, -INF], True, 0, [0, 0, 0]),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("n_removed", [0, 40, 700])
def test_values_at_the_edges_concern_their_own_sample_only(edge, n_removed, dtype, isa):
    """Among few classes, and among many of which all others are removed."""
    row, target_row, is_logits, value, gradient = EDGES[edge]
    z, where = np.full((9, 3 + n_removed), 2.0, dtype), np.arange(3 + n_removed) < 3
    target = np.full(z.shape, 0.0, dtype)
    z[:, :3], target[:, :3] = [1, 2, 4], [0.25, 0.25, 0.5]
    options = {"target_logits": is_logits, "reduction": "none"} | ({"where": where} if n_removed else {})
    sound = softxent.kl_divergence_and_grad(z, target, **options)
    z[4, :3], target[4, :3] = row, target_row
    others = np.arange(9) != 4
    for order in "CF":
        a, b = np.asarray(z, order=order), np.asarray(target, order=order)
        kl, grad = softxent.kl_divergence_and_grad(a, b, **options)
        np.testing.assert_allclose(kl[4], value, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
        np.testing.assert_allclose(grad[4, :3], gradient, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
        np.testing.assert_array_equal(grad[4, 3:], 0)
        np.testing.assert_allclose(kl[others], sound[0][others], **close(dtype))
        np.testing.assert_allclose(grad[others], sound[1][others], **close(dtype))
        np.testing.assert_array_equal(softxent.kl_divergence(a, b, **options), kl)


def test_nothing_left_is_no_distribution(is_logits, dtype, isa):
    z, where = np.zeros((2, 4), dtype), np.array([[True] * 4, [False] * 4])
    target = np.full((2, 4), 0.25, dtype)
    options = {"where": where, "target_logits": is_logits, "reduction": "none"}
    kl, grad = softxent.kl_divergence_and_grad(z, target, **options)
    assert np.isnan(kl).tolist() == [False, True]
    np.testing.assert_array_equal(grad, 0)


def test_one_class_diverges_from_nothing(is_logits, dtype, isa):
    for value in (0.0, -5.0, 1e30):
        z, target = np.full((3, 1), value, dtype), np.ones((3, 1), dtype)
        kl, grad = softxent.kl_divergence_and_grad(z, target, target_logits=is_logits, reduction="none")
        np.testing.assert_array_equal(kl, 0)
        np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize(("shape", "axis"), [((0, 5), 1), ((5, 0), 0), ((2, 5, 0), 1)])
def test_the_mean_of_nothing_is_nan_and_its_gradient_nothing(shape, axis, is_logits, dtype, isa):
    z, options = np.zeros(shape, dtype), {"axis": axis, "target_logits": is_logits}
    loss, grad = softxent.kl_divergence_and_grad(z, z, **options)
    assert np.isnan(loss)
    assert grad.shape == shape
    assert softxent.kl_divergence(z, z, reduction="sum", **options) == 0
    assert softxent.kl_divergence(z, z, normalizer=3.0, **options) == 0
    assert softxent.kl_divergence(z, z, normalizer=0, **options) == 0
    assert softxent.kl_divergence(z, z, reduction="none", **options).shape == tuple(np.delete(shape, axis))
    z, s = np.zeros((2, 5), dtype), np.zeros(2)
    loss, grad = softxent.kl_divergence_and_grad(z, z, sample_weight=s, target_logits=is_logits)
    assert np.isnan(loss)
    np.testing.assert_array_equal(grad, 0)


# ----------------------------------------------------------------------------------------------------------------------
# Same bits.


@pytest.mark.parametrize(("shape", "axis"), [((3000, 33), 1), ((9001, 10), 1), ((3, 21, 50, 60), 1), ((5, 50257), 1)])
def test_same_bits_for_any_thread_count(shape, axis, is_logits, dtype, isa, rng):
    z, target = (rng.normal(size=shape) * 4).astype(dtype), target_of(shape, axis, is_logits, rng).astype(dtype)
    for options in ({}, {"where": rng.random(shape) < 0.9, "temperature": 1.7}, {"reduction": "none"}):
        options |= {"axis": axis, "target_logits": is_logits}
        loss, grad = softxent.kl_divergence_and_grad(z, target, n_threads=1, **options)
        for n in (2, 3, 7):
            got, got_grad = softxent.kl_divergence_and_grad(z, target, n_threads=n, **options)
            assert_same_bits(got, loss)
            assert_same_bits(got_grad, grad)
            assert_same_bits(softxent.kl_divergence(z, target, n_threads=n, **options), loss)


@pytest.mark.parametrize("n_classes", [1, 10, 33, 64, 65, 600, 1001])
@pytest.mark.parametrize("order", ["C", "F"])
def test_same_bits_in_any_batch_and_place(n_classes, order, is_logits, dtype, isa, rng):
    z = np.asarray(rng.normal(size=(67, n_classes)) * 4, dtype, order=order)
    target = np.asarray(target_of(z.shape, 1, is_logits, rng), dtype, order=order)
    every = {"where": rng.random(z.shape) < 0.9, "sample_weight": rng.random(67).astype(dtype)}
    for options in ({}, {"temperature": 1.7}, every):
        fixed = {"target_logits": is_logits, "reduction": "none"}
        kl, grad = softxent.kl_divergence_and_grad(z, target, **options, **fixed)
        for index in (slice(0, 1), slice(66, None), slice(5, 14), slice(1, None), slice(None, None, -1)):
            some = {k: v[index] if isinstance(v, np.ndarray) else v for k, v in options.items()} | fixed
            got, got_grad = softxent.kl_divergence_and_grad(z[index], target[index], **some)
            assert_same_bits(got, kl[index])
            assert_same_bits(got_grad, grad[index])


@pytest.mark.parametrize("n_classes", [10, 33, 600])
def test_same_bits_at_any_alignment(n_classes, is_logits, dtype, isa, rng):
    z = (rng.normal(size=(11, n_classes)) * 4).astype(dtype)
    target = target_of(z.shape, 1, is_logits, rng).astype(dtype)
    options = {"target_logits": is_logits, "reduction": "none"}
    kl, grad = softxent.kl_divergence_and_grad(z, target, **options)
    for shift in range(1, 64 // z.itemsize, 2):
        moved, moved_target, out = (
            np.zeros(z.size + 64, dtype)[s : s + z.size].reshape(z.shape) for s in (shift, 64 - shift, shift // 2)
        )
        moved[...], moved_target[...] = z, target
        got, _ = softxent.kl_divergence_and_grad(moved, moved_target, out=out, **options)
        assert_same_bits(got, kl)
        assert_same_bits(out, grad)
