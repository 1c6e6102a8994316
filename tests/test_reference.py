"""What the reference promises, held against truths that share no code with it.

Those are arithmetic with hundreds of digits (mpmath), SciPy's softmax family, finite differences, and numbers
worked out from the formula of the option at hand. Nothing here touches the compiled kernels.
"""

import doctest
import math

import mpmath
import numpy as np
import pytest

import exact
from softxent import reference
from softxent._options import Options

EPS = 2.0**-52
INF = math.inf
NAN = math.nan

# Every option has a value that changes the result, for five classes and six samples.
OPTIONS = {
    "class_weight": [0.5, 1.0, 2.0, 0.25, 1.5],
    "sample_weight": [1.0, 0.5, 2.0, 0.0, 3.0, 1.25],
    "label_smoothing": 0.2,
    "temperature": 1.7,
    "softcap": 4.0,
    "z_loss": 0.3,
    "base": 2.0,
    "normalizer": 3.5,
}
assert {*Options._fields} - {"where"} <= {*OPTIONS}  # a new one has its value here


@pytest.fixture
def special():
    return pytest.importorskip("scipy.special")


def random_problem(seed, *, without=()):
    """Draw logits, labels, and a random combination of the options that is valid for them."""
    rng = np.random.default_rng(seed)
    shape, axis = [((4,), -1), ((5, 3), -1), ((3, 4), 0), ((2, 5, 3), 1), ((2, 1, 3, 4), -1)][seed % 5]
    n_classes, sample_axes = shape[axis], tuple(np.delete(shape, axis))
    logits = rng.normal(scale=2, size=shape)
    options = {"axis": axis}

    kind = rng.choice(["indices", "distributions", "sparse"])
    if kind == "indices":
        labels = rng.integers(n_classes, size=sample_axes)
        if rng.random() < 0.5:
            labels = np.where(rng.random(sample_axes) < 0.3, -100, labels)
            options["ignore_index"] = -100
        labels = np.asarray(labels)
        target = np.moveaxis(np.arange(n_classes) == labels[..., None], -1, axis)
    elif kind == "distributions":
        labels = target = np.moveaxis(rng.dirichlet(np.ones(n_classes), size=sample_axes), -1, axis)
    else:
        indices = rng.integers(-1, n_classes, size=(*sample_axes, 3))
        labels = reference.SparseTarget(indices, rng.random(indices.shape))
        target = np.moveaxis((np.arange(n_classes) == indices[..., None]).any(axis=-2), -1, axis)

    if rng.random() < 0.5:
        where = rng.random(shape) < 0.7
        if kind == "distributions":  # no target where there is no class: the loss would be infinite
            labels = labels * where
        options["where"] = where if kind == "distributions" else where | target
        # At least one class is left everywhere.
        np.moveaxis(options["where"], axis, -1)[..., 0] |= ~options["where"].any(axis=axis)
    draws = {
        "class_weight": rng.uniform(0.1, 2, n_classes),
        "sample_weight": rng.uniform(0.1, 2, sample_axes) * (rng.random(sample_axes) < 0.8 if sample_axes else 1),
        "label_smoothing": rng.uniform(0, 1),
        "temperature": rng.uniform(0.5, 2, sample_axes if rng.random() < 0.5 else ()),
        "softcap": rng.uniform(1, 5),
        "z_loss": rng.uniform(0, 1),
        "base": rng.choice([0.5, 2, 10]),
        "reduction": rng.choice(["none", "sum", "mean"]),
        "normalizer": rng.uniform(1, 5),
    }
    options |= {name: value for name, value in draws.items() if rng.random() < 0.5}
    return rng, logits, labels, {name: value for name, value in options.items() if name not in without}


def differences(function, x, h=1e-5):
    """Return how `function` changes with each entry of `x`, by central differences: one more leading axis."""
    return np.array(
        [
            (np.asarray(function(x + h * e)) - np.asarray(function(x - h * e))) / (2 * h)
            for e in np.eye(x.size).reshape(-1, *x.shape)
        ]
    )


# --- Digits ------------------------------------------------------------------------------------------------

ROWS = {
    "one class": ([3.0], 0),
    "two classes": ([0.3, -1.2], 1),
    "tie": ([2.0, 2.0, 2.0], 1),
    "leads by 5": ([1.0, 6.0, 0.5, 0.25], 1),
    "leads by 40": ([0.0, 40.0, 0.5], 1),
    "leads by 700": ([0.0, 700.0, 0.5], 1),
    "trails by 40": ([0.0, 40.0, 0.5], 0),
    "trails by 1e5": ([0.0, 1e5, 0.5], 0),
    "offset of 1e8": ([1e8, 1e8 + 1, 1e8 - 2], 1),
    "offset of 1e8, confident": ([1e8 + 35, 1e8, 1e8], 0),
    "offset of -1e8": ([-1e8, -1e8 + 1, -1e8 - 2], 0),
    "overflowing exp": ([800.0, 810.0, 790.0], 0),
    "many classes": (np.linspace(-8, 8, 3001), 2400),
}


def by_the_textbook(logits, label):
    """Return the softmax, the logsumexp, the loss and its gradient, by the formulas of the textbook.

    The differences in them lose as many digits as a label's lead has: 304 of 400 where it leads by 700.
    """
    with mpmath.workdps(400):
        z = [mpmath.mpf(float(logit)) for logit in logits]
        exps = [mpmath.exp(z_k) for z_k in z]
        total = mpmath.fsum(exps)
        lse = mpmath.log(total)
        p = [e / total for e in exps]
        grad = [p_k - (k == label) for k, p_k in enumerate(p)]
        return np.array(p, float), float(lse), float(lse - z[label]), np.array(grad, float)


@pytest.mark.parametrize("row", ROWS)
def test_every_digit_promised_is_there(row):
    logits, label = ROWS[row]
    logits = np.array(logits)
    p, lse, loss, grad = by_the_textbook(logits, label)
    # The contract's bounds: the rounding of z - max, and at the label that of its lead.
    of_classes = 4 * EPS * (1 + logits.max() - logits)
    others = np.delete(logits, label)
    lead = max(0.0, logits[label] - others.max()) if others.size else 0.0
    of_label = 4 * EPS * (1 + lead)
    tiny = np.finfo(float).tiny
    assert np.all(np.abs(reference.softmax(logits) - p) <= of_classes * p + tiny)
    assert abs(reference.logsumexp(logits) - lse) <= 4 * EPS * abs(lse)
    got_loss, got_grad = reference.cross_entropy_and_grad(logits, label)
    assert abs(got_loss - loss) <= of_label * loss
    bounds = np.where(np.arange(logits.size) == label, of_label, of_classes)
    assert np.all(np.abs(got_grad - grad) <= bounds * np.abs(grad) + tiny)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("temperature", [1.0, 0.375])
def test_every_digit_promised_of_the_entropy_is_there(row, temperature):
    logits = np.array(ROWS[row][0])
    truth = exact.entropy(logits, temperature)
    h, grad = reference.entropy_and_grad(logits, temperature=temperature)
    assert truth.error(h) <= 1
    assert truth.grad_error(grad) <= 1
    assert reference.entropy(logits, temperature=temperature) == h


@pytest.mark.parametrize("distance", [0, 1e-12, 1e-6, 1e-3, 1, 30])
@pytest.mark.parametrize("n_classes", [1, 2, 10, 300])
@pytest.mark.parametrize("offset", [0, 1e4, 1e8])
def test_every_digit_promised_of_a_divergence_is_there(distance, n_classes, offset):
    rng = np.random.default_rng(n_classes)
    teacher = rng.normal(size=n_classes) * 3
    student = teacher + rng.normal(size=n_classes) * distance + offset
    for target, is_logits in ((teacher, True), (reference.softmax(teacher, temperature=0.375), False)):
        truth = exact.divergence(student, target, 0.375, is_logits)
        kl, grad = reference.kl_divergence_and_grad(student, target, target_logits=is_logits, temperature=0.375)
        assert kl >= 0
        assert truth.error(kl) <= 1
        assert truth.grad_error(grad) <= 1


@pytest.mark.parametrize("n_classes", [2, 3, 1000])
def test_confident_loss_is_not_rounded_to_zero(n_classes):
    logits = np.zeros(n_classes)
    logits[1] = 40
    left = math.exp(-40) * (n_classes - 1)  # the others' part; their sum of 1 + 4e-18 (C - 1) rounds to 1
    loss, grad = reference.cross_entropy_and_grad(logits, 1)
    assert loss == pytest.approx(left, rel=1e-13, abs=0)
    assert grad[1] == pytest.approx(-left, rel=1e-13, abs=0)
    assert grad[0] == pytest.approx(math.exp(-40), rel=1e-13, abs=0)
    assert reference.log_softmax(logits)[1] == pytest.approx(-left, rel=1e-13, abs=0)


def test_confident_gradient_keeps_its_digits_as_a_distribution_and_under_weights():
    loss, grad = reference.cross_entropy_and_grad(
        [0.0, 40.0, 0.0], [0.0, 1.0, 0.0], class_weight=[3.0, 0.5, 2.0], sample_weight=4.0, reduction="sum"
    )
    assert loss == pytest.approx(4 * math.exp(-40), rel=1e-13, abs=0)
    np.testing.assert_allclose(grad, np.array([2, -4, 2]) * math.exp(-40), rtol=1e-13)


def test_confident_curvature_is_not_rounded_to_zero():
    logits, q = [0.0, 40.0], math.exp(-40)
    _, _, hess_diag = reference.cross_entropy_grad_hess(logits, 1)
    np.testing.assert_allclose(hess_diag, [q, q], rtol=1e-13)
    np.testing.assert_allclose(reference.cross_entropy_hvp(logits, 1, [1, 1e3]), [-999 * q, 999 * q], rtol=1e-13)
    np.testing.assert_allclose(reference.softmax_jvp(logits, [1, 1e3]), [-999 * q, 999 * q], rtol=1e-13)
    np.testing.assert_allclose(reference.softmax_jacobian(logits), [[q, -q], [-q, q]], rtol=1e-13)


@pytest.mark.parametrize("offset", [1e8, -1e8, 1e15, 1e300])
def test_equal_logits_have_loss_log_c_whatever_their_offset(offset):
    loss, grad = reference.cross_entropy_and_grad([offset] * 4, 2)
    assert loss == pytest.approx(math.log(4), rel=2 * EPS, abs=0)
    assert grad.tolist() == [0.25, 0.25, -0.75, 0.25]


def test_temperature_does_not_round_a_common_offset_into_the_loss():
    # 1e8 / 3 is not a double: dividing first would be wrong in the ninth digit.
    near = reference.cross_entropy([0.0, 1.0, -2.0], 2, temperature=3.0)
    assert reference.cross_entropy([1e8, 1e8 + 1, 1e8 - 2], 2, temperature=3.0) == near


def test_a_saturated_softcap_still_has_its_slope():
    # tanh(25) rounds to 1, but 1 - tanh(25)^2 = 4 exp(-50) (1 + 2e-22)
    _, grad = reference.cross_entropy_and_grad([100.0, 0.0], 1, softcap=4.0)
    p = 1 / (1 + math.exp(-4))
    assert grad[0] == pytest.approx(p * 4 * math.exp(-50), rel=1e-13, abs=0)
    assert grad[1] == pytest.approx(-p, rel=1e-13, abs=0)


@pytest.mark.skipif(np.finfo(np.longdouble).eps >= EPS, reason="longdouble is float64 here")
def test_longdouble_goes_in_and_comes_out_and_is_wider():
    logits, label = [0.1, -1.7, 2.9, 0.4], 1
    options = {"label_smoothing": 0.3, "temperature": 0.7, "base": 3.0, "z_loss": 0.1}
    with mpmath.workdps(40):
        z = [mpmath.mpf(logit) / 0.7 for logit in logits]
        t = [(1 - mpmath.mpf(0.3)) * (k == label) + mpmath.mpf(0.3) / 4 for k in range(4)]
        lse = mpmath.log(mpmath.fsum(map(mpmath.exp, z)))
        p = [mpmath.exp(z_k - lse) for z_k in z]
        loss = mpmath.fsum(t_k * (lse - z_k) for t_k, z_k in zip(t, z, strict=True)) / mpmath.log(3)
        loss += mpmath.mpf(0.1) * lse**2
        grad = [
            ((p_k - t_k) / mpmath.log(3) + 2 * mpmath.mpf(0.1) * lse * p_k) / 0.7 for p_k, t_k in zip(p, t, strict=True)
        ]
        # A longdouble is the sum of two doubles.
        truth = [np.longdouble(float(x)) + np.longdouble(float(x - float(x))) for x in [loss, *grad]]
    got_loss, got_grad = reference.cross_entropy_and_grad(np.array(logits, np.longdouble), label, **options)
    assert got_loss.dtype == got_grad.dtype == np.longdouble
    np.testing.assert_allclose([got_loss, *got_grad], truth, rtol=16 * float(np.finfo(np.longdouble).eps))
    assert reference.softmax(np.array(logits, np.longdouble)).dtype == np.longdouble


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8", np.int64, np.bool_])
def test_anything_narrower_is_computed_in_float64(dtype):
    logits = np.array([[1, 0, 1], [0, 0, 1]], dtype=dtype)
    loss, grad = reference.cross_entropy_and_grad(logits, [0, 1])
    want_loss, want_grad = reference.cross_entropy_and_grad(logits.astype(np.float64), [0, 1])
    assert type(loss) is float
    assert loss == want_loss
    assert grad.dtype == np.float64
    assert grad.dtype.isnative
    np.testing.assert_array_equal(grad, want_grad)


# --- The softmax family ------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_the_softmax_family_agrees_with_scipy(axis, special):
    logits = np.random.default_rng(1).normal(scale=5, size=(3, 4, 5))
    for ours, scipys in [
        (reference.softmax, special.softmax),
        (reference.log_softmax, special.log_softmax),
        (reference.logsumexp, special.logsumexp),
    ]:
        np.testing.assert_allclose(ours(logits, axis), scipys(logits, axis), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(
            ours(logits, axis, temperature=2.5), scipys(logits / 2.5, axis), rtol=1e-13, atol=1e-14
        )


def test_a_class_outside_where_is_as_good_as_absent():
    logits = np.random.default_rng(2).normal(size=(3, 5))
    where = np.array([True, False, True, True, False])
    logits[:, ~where] = NAN  # a removed logit is not looked at
    kept = logits[:, where]
    p, log_p = reference.softmax(logits, where=where), reference.log_softmax(logits, where=where)
    np.testing.assert_array_equal(p[:, where], reference.softmax(kept))
    assert not p[:, ~where].any()
    np.testing.assert_array_equal(log_p[:, where], reference.log_softmax(kept))
    assert np.all(log_p[:, ~where] == -INF)
    np.testing.assert_array_equal(reference.logsumexp(logits, where=where), reference.logsumexp(kept))


def test_softmax_where_nothing_is_allowed_is_all_zeros():
    assert reference.softmax([1.0, NAN], where=False).tolist() == [0, 0]
    assert reference.log_softmax([1.0, NAN], where=False).tolist() == [-INF, -INF]
    assert reference.logsumexp([1.0, NAN], where=False) == -INF


@pytest.mark.parametrize("broken", [[NAN, 1.0], [1.0, INF], [INF, -INF], [NAN, INF], [INF], [NAN]])
def test_nan_and_infinity_concern_their_own_sample_only(broken):
    logits = np.array([broken, [0.0] * len(broken)])
    for function in [reference.softmax, reference.log_softmax]:
        got = function(logits)
        assert np.all(np.isnan(got[0]))
        assert np.all(np.isfinite(got[1]))
    with np.errstate(all="ignore"):
        expected = np.logaddexp.reduce(logits, axis=1)
    np.testing.assert_array_equal(reference.logsumexp(logits), expected)


def test_the_softmax_family_of_minus_infinity():
    nothing = [-INF, -INF]
    assert np.all(np.isnan(reference.softmax(nothing)))
    assert np.all(np.isnan(reference.log_softmax(nothing)))
    assert reference.logsumexp(nothing) == -INF
    assert reference.softmax([0.0, -INF, 0.0]).tolist() == [0.5, 0, 0.5]
    assert reference.log_softmax([0.0, -INF]).tolist() == [0, -INF]
    assert reference.logsumexp([0.5, -INF]) == 0.5


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_jacobian_is_how_the_softmax_changes(axis):
    rng = np.random.default_rng(3)
    logits, v = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    jacobian = reference.softmax_jacobian(logits, axis)
    last = np.moveaxis(logits, axis, -1)
    assert jacobian.shape == (*last.shape, last.shape[-1])
    for sample in np.ndindex(last.shape[:-1]):
        want = differences(reference.softmax, last[sample]).T
        np.testing.assert_allclose(jacobian[sample], want, atol=1e-9)
    product = np.moveaxis(np.einsum("...ij,...j->...i", jacobian, np.moveaxis(v, axis, -1)), -1, axis)
    np.testing.assert_allclose(reference.softmax_jvp(logits, v, axis), product, atol=1e-15)
    np.testing.assert_allclose(reference.softmax_vjp(logits, v, axis), product, atol=1e-15)


def test_jacobian_products_of_a_broken_sample_are_nan_there_only():
    logits, v = [[NAN, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]
    for function in [reference.softmax_jvp, reference.softmax_vjp]:
        assert np.isnan(function(logits, v)).tolist() == [[True, True], [False, False]]
    assert np.isnan(reference.softmax_jacobian(logits)).any(axis=(1, 2)).tolist() == [True, False]


# --- Derivatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_the_gradient_is_the_derivative_of_the_loss_under_any_options(seed):
    rng, logits, labels, options = random_problem(seed)
    loss, grad = reference.cross_entropy_and_grad(logits, labels, **options)
    np.testing.assert_array_equal(loss, reference.cross_entropy(logits, labels, **options))
    change = differences(lambda z: reference.cross_entropy(z, labels, **options), logits)
    change = change.reshape(logits.size, -1).sum(axis=1).reshape(logits.shape)
    np.testing.assert_allclose(grad, change, rtol=1e-7, atol=1e-8)

    # The upstream gradient enters by the chain rule.
    upstream = rng.normal(size=np.shape(loss))
    _, grad = reference.cross_entropy_and_grad(logits, labels, **options, grad_output=upstream)
    change = differences(lambda z: upstream * reference.cross_entropy(z, labels, **options), logits)
    change = change.reshape(logits.size, -1).sum(axis=1).reshape(logits.shape)
    np.testing.assert_allclose(grad, change, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("seed", range(60))
def test_the_derivative_by_the_temperature_is_that_of_the_loss_under_any_options(seed):
    rng, logits, labels, options = random_problem(seed, without=("temperature",))
    samples = tuple(np.delete(logits.shape, options["axis"]))
    upstream = rng.normal(size=samples if options.get("reduction") == "none" else ())
    for temperature in (1.3, rng.uniform(0.5, 2, samples)):

        def loss(t):
            return upstream * reference.cross_entropy(logits, labels, temperature=t, **options)

        got = reference.cross_entropy_and_grad(
            logits, labels, temperature=temperature, grad_output=upstream, wrt_temperature=True, **options
        )
        want = reference.cross_entropy_and_grad(
            logits, labels, temperature=temperature, grad_output=upstream, **options
        )
        for a, b in zip(got[:2], want, strict=True):
            np.testing.assert_array_equal(a, b)
        change = differences(loss, np.asarray(temperature))
        if np.shape(temperature) == samples:  # of one sample's temperature only its own loss changes
            change = change.reshape(change.shape[0], -1).sum(axis=1).reshape(samples)
        elif options.get("reduction") != "none":
            assert type(got[2]) is float
        np.testing.assert_allclose(got[2], np.reshape(change, np.shape(got[2])), rtol=1e-7, atol=1e-8)


# Of each operation on logits alone, or on logits and an array like them: a value, of each sample or of each class, and
# its gradient or the products of its Jacobian.
GRADIENTS = {
    "entropy": (
        lambda z, t, **options: reference.entropy(z, **options),
        lambda z, t, **options: reference.entropy_and_grad(z, **options)[1],
    ),
    "divergence from probabilities": (
        lambda z, t, **options: reference.kl_divergence(z, np.abs(t), reduction="none", **options),
        lambda z, t, **options: reference.kl_divergence_and_grad(z, np.abs(t), reduction="none", **options)[1],
    ),
    "divergence from a teacher": (
        lambda z, t, **options: reference.kl_divergence(z, t, target_logits=True, reduction="none", **options),
        lambda z, t, **options: reference.kl_divergence_and_grad(z, t, target_logits=True, reduction="none", **options)[
            1
        ],
    ),
    "softmax": (
        lambda z, t, **options: (reference.softmax(z, **options) * t).sum(axis=options["axis"]),
        lambda z, t, **options: reference.softmax_vjp(z, t, **options),
    ),
    "log_softmax": (
        lambda z, t, where=True, **options: (reference.log_softmax(z, where=where, **options) * t).sum(
            axis=options["axis"], where=where
        ),
        lambda z, t, **options: reference.log_softmax_vjp(z, t, **options),
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("seed", range(10))
def test_gradients_are_derivatives_of_their_values(name, seed):
    value, gradient = GRADIENTS[name]
    rng = np.random.default_rng(seed)
    shape, axis = [((4,), -1), ((5, 3), 1), ((3, 4), 0), ((2, 5, 3), 1)][seed % 4]
    z, t = rng.normal(size=shape) * 2, rng.normal(size=shape)
    options = {"axis": axis, "temperature": rng.uniform(0.5, 2)}
    if seed % 2:
        options["where"] = rng.random(shape) < 0.7
        np.moveaxis(options["where"], axis, -1)[..., 0] = True
    change = differences(lambda x: np.sum(value(x, t, **options)), z).reshape(shape)
    np.testing.assert_allclose(gradient(z, t, **options), change, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("name", "of"), [("softmax_jvp", "softmax"), ("log_softmax_jvp", "log_softmax")])
@pytest.mark.parametrize("seed", range(10))
def test_products_are_changes_in_a_direction(name, of, seed):
    rng = np.random.default_rng(seed)
    z, v, where = rng.normal(size=(3, 4)) * 2, rng.normal(size=(3, 4)), rng.random((3, 4)) < 0.7
    options = {"axis": seed % 2, "temperature": rng.uniform(0.5, 2), "where": where}
    function, h = getattr(reference, of), 1e-5
    with np.errstate(invalid="ignore"):  # -inf - -inf, of what is removed
        change = (function(z + h * v, **options) - function(z - h * v, **options)) / (2 * h)
    product = getattr(reference, name)(z, v, **options)
    np.testing.assert_allclose(product[where], change[where], rtol=1e-7, atol=1e-8)
    assert not product[~where].any()


@pytest.mark.parametrize("seed", range(60))
def test_second_derivatives_are_those_of_the_gradient_under_any_options(seed):
    rng, logits, labels, options = random_problem(seed, without=("softcap", "z_loss"))
    hessian = differences(lambda z: reference.cross_entropy_and_grad(z, labels, **options)[1], logits)
    hessian = hessian.reshape(logits.size, logits.size)
    v = rng.normal(size=logits.shape)
    hv = reference.cross_entropy_hvp(logits, labels, v, **options)
    np.testing.assert_allclose(hv.ravel(), hessian @ v.ravel(), rtol=1e-7, atol=1e-8)

    loss, grad, hess_diag = reference.cross_entropy_grad_hess(logits, labels, **options)
    np.testing.assert_allclose(hess_diag.ravel(), np.diag(hessian), rtol=1e-7, atol=1e-8)
    want_loss, want_grad = reference.cross_entropy_and_grad(logits, labels, **options)
    np.testing.assert_array_equal(loss, want_loss)
    np.testing.assert_array_equal(grad, want_grad)


def test_hessian_kinds_differ_as_the_boosting_libraries_do():
    logits = np.log([[1.0, 1.0, 2.0], [3.0, 4.0, 1.0]])
    p = np.array([[1, 1, 2], [1.5, 2, 0.5]]) / 4
    w = np.array([2.0, 0.5])[:, None]
    arguments = {"sample_weight": w[:, 0], "reduction": "sum"}
    for kind, want in {
        "exact": w * p * (1 - p),
        "xgboost": 2 * w * p * (1 - p),
        "lightgbm": 3 / 2 * w * p * (1 - p),
    }.items():
        _, _, hess_diag = reference.cross_entropy_grad_hess(logits, [0, 2], kind=kind, **arguments)
        np.testing.assert_allclose(hess_diag, want, rtol=1e-14)


def test_xgboost_curvature_has_a_floor_which_ignored_samples_do_not_get():
    logits, labels = [[0.0, 80.0], [0.0, 80.0], [0.0, NAN]], [0, -1, 0]
    _, _, hess_diag = reference.cross_entropy_grad_hess(logits, labels, ignore_index=-1, kind="xgboost")
    assert hess_diag[0].tolist() == [1e-16, 1e-16]
    assert hess_diag[1].tolist() == [0, 0]
    assert np.all(np.isnan(hess_diag[2]))


def test_one_class_has_no_curvature_of_any_kind():
    for kind, want in {"exact": 0, "xgboost": 1e-16, "lightgbm": 0}.items():
        assert reference.cross_entropy_grad_hess([[3.0]], [0], kind=kind)[2].tolist() == [[want]]
    assert reference.cross_entropy_hvp([[3.0]], [0], [[5.0]]).tolist() == [[0]]


# --- Options -----------------------------------------------------------------------------------------------


def six_samples():
    rng = np.random.default_rng(4)
    return rng.normal(scale=3, size=(6, 5)), rng.integers(5, size=6)


def test_the_gradient_is_the_numpy_idiom(special):
    logits, labels = six_samples()
    delta = special.softmax(logits, axis=1)
    loss = -np.log(delta[range(6), labels]).mean()
    delta[range(6), labels] -= 1
    delta /= 6
    got_loss, got_grad = reference.cross_entropy_and_grad(logits, labels)
    assert got_loss == pytest.approx(loss, rel=1e-13, abs=0)
    np.testing.assert_allclose(got_grad, delta, rtol=1e-12)


def test_index_labels_and_their_one_hot_distribution_agree_to_the_bit():
    logits, labels = six_samples()
    options = OPTIONS | {"reduction": "none"}
    loss, grad = reference.cross_entropy_and_grad(logits, labels, **options)
    for dtype in [bool, np.int8, np.float32, np.float64]:
        one_hot = np.eye(5, dtype=dtype)[labels]
        same_loss, same_grad = reference.cross_entropy_and_grad(logits, one_hot, **options)
        np.testing.assert_array_equal(loss, same_loss)
        np.testing.assert_array_equal(grad, same_grad)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, ">i4", np.uint32, np.int64, np.uint64])
def test_index_labels_may_be_of_any_integer_dtype(dtype):
    logits, labels = six_samples()
    want = reference.cross_entropy(logits, labels)
    assert reference.cross_entropy(logits, labels.astype(dtype)) == want
    # also for dtypes that cannot hold the value to ignore
    assert reference.cross_entropy(logits, labels.astype(dtype), ignore_index=-100) == want


def test_a_distribution_that_does_not_sum_to_one_scales_p(special):
    z, t = np.array([0.2, -1.0, 0.7]), np.array([0.5, 2.0, 0.25])
    p = special.softmax(z)
    loss, grad = reference.cross_entropy_and_grad(z, t)
    assert loss == pytest.approx(-(t * np.log(p)).sum(), rel=1e-14, abs=0)
    np.testing.assert_allclose(grad, p * 2.75 - t, rtol=1e-14)


def test_any_axis_may_hold_the_classes():
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(2, 3, 5)), rng.integers(5, size=(2, 3))
    weights = rng.uniform(size=(2, 3))
    options = {"sample_weight": weights, "reduction": "none"}
    loss, grad = reference.cross_entropy_and_grad(logits, labels, **options)
    for axis in [0, 1, 2, -1, -2, -3]:
        moved = np.moveaxis(logits, -1, axis)
        got_loss, got_grad = reference.cross_entropy_and_grad(moved, labels, axis=axis, **options)
        np.testing.assert_array_equal(got_loss, loss)
        np.testing.assert_array_equal(got_grad, np.moveaxis(grad, -1, axis))


def test_class_weights_under_label_smoothing_are_pytorchs_formula(special):
    logits = np.array([[1.0, -0.5, 0.25], [0.0, 2.0, -1.0], [0.5, 0.5, 3.0], [9.0, 9.0, 9.0]])
    labels, w, e = np.array([0, 2, 1, -100]), np.array([0.2, 1.0, 3.0]), 0.1
    nll = -special.log_softmax(logits[:3], axis=1)
    rows = np.arange(3)
    per_sample = (1 - e) * w[labels[:3]] * nll[rows, labels[:3]] + e / 3 * (w * nll).sum(axis=1)
    options = {"class_weight": w, "label_smoothing": e, "ignore_index": -100}
    got = reference.cross_entropy(logits, labels, reduction="none", **options)
    np.testing.assert_allclose(got, [*per_sample, 0], rtol=1e-14)
    mean, grad = reference.cross_entropy_and_grad(logits, labels, **options)
    assert mean == pytest.approx(per_sample.sum() / (0.2 + 3 + 1), rel=1e-14, abs=0)
    # These are the results of torch 2.13 for these numbers in float64.
    assert mean == pytest.approx(2.7851754730175395, rel=1e-14, abs=0)
    torch_grad = [
        [0.000492520405598425, 0.00209028422706649, -0.0025828046326649102],
        [0.07563040466323372, 0.5626294553794453, -0.6382598600426791],
        [0.015872183909758707, -0.2047627367251619, 0.18889055281540318],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(grad, torch_grad, rtol=1e-12)


def test_smoothing_mass_goes_to_allowed_classes_only():
    logits, where = np.array([0.3, NAN, -1.0, 2.0]), np.array([True, False, True, True])
    loss, grad = reference.cross_entropy_and_grad(logits, 3, label_smoothing=0.3, where=where)
    want_loss, want_grad = reference.cross_entropy_and_grad(logits[where], 2, label_smoothing=0.3)
    assert loss == want_loss
    assert grad[where].tolist() == want_grad.tolist()
    assert grad[1] == 0


def test_a_target_where_no_class_is_allowed_makes_the_loss_infinite_and_no_gradient_there():
    loss, grad = reference.cross_entropy_and_grad([0.0, 5.0, 0.0], 1, where=[True, False, True])
    assert loss == INF
    assert grad.tolist() == [0.5, 0, 0.5]


def test_where_broadcasts_to_the_logits():
    logits, labels = six_samples()
    where = np.ones((6, 5), bool)
    where[2] = False
    where[2, labels[2]] = True
    column = np.array([True, True, True, True, False])
    for mask, full in [(where, where), (column, np.tile(column, (6, 1))), (True, np.ones((6, 5), bool))]:
        got = reference.cross_entropy_and_grad(logits, labels % 4, where=mask, reduction="none")
        want = reference.cross_entropy_and_grad(np.where(full, logits, -INF), labels % 4, reduction="none")
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_allclose(got[1], np.where(full, want[1], 0), rtol=0, atol=0)


def test_softcap_comes_before_temperature():
    logits, labels = six_samples()
    capped = 4 * np.tanh(logits / 4)
    got = reference.cross_entropy(logits, labels, softcap=4.0, temperature=2.0)
    assert got == pytest.approx(reference.cross_entropy(capped / 2, labels), rel=1e-14, abs=0)


def test_z_loss_is_weighted_by_samples_but_not_by_classes_nor_by_base(special):
    logits, labels = six_samples()
    weights = {
        "sample_weight": OPTIONS["sample_weight"],
        "class_weight": OPTIONS["class_weight"],
        "base": 2.0,
    }
    weights |= {"softcap": 4.0, "temperature": 1.7, "reduction": "none"}
    lse = special.logsumexp(4 * np.tanh(logits / 4) / 1.7, axis=1)
    with_it = reference.cross_entropy(logits, labels, z_loss=0.3, **weights)
    without = reference.cross_entropy(logits, labels, **weights)
    np.testing.assert_allclose(with_it - without, np.array(OPTIONS["sample_weight"]) * 0.3 * lse**2, atol=1e-14)


@pytest.mark.parametrize("base", [2.0, 10.0, 0.5, math.e])
def test_base_divides_loss_and_gradient_by_its_logarithm(base):
    logits, labels = six_samples()
    loss, grad = reference.cross_entropy_and_grad(logits, labels)
    got_loss, got_grad = reference.cross_entropy_and_grad(logits, labels, base=base)
    assert got_loss == pytest.approx(loss / math.log(base), rel=1e-14, abs=0)
    np.testing.assert_allclose(got_grad, grad / math.log(base), rtol=1e-14)


def test_a_fair_coin_costs_one_bit():
    assert reference.cross_entropy([0.0, 0.0], 0, base=2) == pytest.approx(1, rel=2 * EPS)


@pytest.mark.parametrize("ignore_index", [None, -100, 3])
def test_the_mean_of_index_labels_is_over_the_weights_of_their_classes(ignore_index, special):
    logits, _ = six_samples()
    labels = np.array([0, 3, 1, -100 if ignore_index == -100 else 3, 4, 2])
    s, w = np.array(OPTIONS["sample_weight"]), np.array(OPTIONS["class_weight"])
    kept = labels != ignore_index
    nll = -special.log_softmax(logits, axis=1)[np.arange(6), labels % 5]
    total = (s * w[labels % 5] * nll)[kept].sum()
    options = {"sample_weight": s, "class_weight": w, "ignore_index": ignore_index}
    assert reference.cross_entropy(logits, labels, reduction="sum", **options) == pytest.approx(total)
    got = reference.cross_entropy(logits, labels, **options)
    assert got == pytest.approx(total / (s * w[labels % 5])[kept].sum(), rel=1e-14, abs=0)
    got = reference.cross_entropy(logits, labels, normalizer=7.0, **options)
    assert got == pytest.approx(total / 7, rel=1e-14, abs=0)


def test_the_mean_of_distributions_is_over_the_sample_weights(special):
    logits, _ = six_samples()
    t = np.random.default_rng(6).dirichlet(np.ones(5), size=6)
    s, w = np.array(OPTIONS["sample_weight"]), np.array(OPTIONS["class_weight"])
    total = (s * (w * t * -special.log_softmax(logits, axis=1)).sum(axis=1)).sum()
    got = reference.cross_entropy(logits, t, sample_weight=s, class_weight=w)
    assert got == pytest.approx(total / s.sum(), rel=1e-14, abs=0)


def test_micro_batches_with_a_common_normalizer_add_up_to_the_whole():
    logits, labels = six_samples()
    loss, grad = reference.cross_entropy_and_grad(logits, labels)
    first = reference.cross_entropy_and_grad(logits[:2], labels[:2], normalizer=6.0)
    second = reference.cross_entropy_and_grad(logits[2:], labels[2:], normalizer=6.0)
    assert first[0] + second[0] == pytest.approx(loss, rel=1e-14, abs=0)
    np.testing.assert_allclose(np.concatenate([first[1], second[1]]), grad, rtol=1e-14)


def test_one_sample_is_a_vector():
    loss = reference.cross_entropy([1.0, 2.0], 0, reduction="none")
    assert isinstance(loss, np.ndarray)
    assert loss.shape == ()
    assert reference.logsumexp([1.0, 2.0]).shape == ()
    assert reference.cross_entropy_and_grad([1.0, 2.0], 0, sample_weight=3.0)[1].shape == (2,)


def test_ignored_samples_may_hold_anything():
    logits, labels = six_samples()
    labels[[1, 4]] = -100
    kept = labels != -100
    where, grad_output, weights = np.ones((6, 5), bool), np.ones(6), np.array(OPTIONS["sample_weight"])
    logits[1], logits[4], where[4], grad_output[4], weights[1] = NAN, -INF, False, NAN, NAN
    per_sample = {"sample_weight": weights, "where": where, "grad_output": grad_output}
    options = OPTIONS | {"ignore_index": -100, "reduction": "none"}
    loss, grad = reference.cross_entropy_and_grad(logits, labels, **(options | per_sample))
    kept_arguments = options | {name: value[kept] for name, value in per_sample.items()}
    want_loss, want_grad = reference.cross_entropy_and_grad(logits[kept], labels[kept], **kept_arguments)
    np.testing.assert_array_equal(loss[kept], want_loss)
    np.testing.assert_array_equal(grad[kept], want_grad)
    assert not loss[~kept].any()
    assert not grad[~kept].any()

    v = np.where(kept[:, None], 1.0, NAN)
    assert not reference.cross_entropy_hvp(logits, labels, v, ignore_index=-100, where=where)[~kept].any()


def test_inputs_are_never_written():
    logits, labels = six_samples()
    arguments = {"labels": labels, "v": logits.copy()} | {
        name: np.array(OPTIONS[name]) for name in ["class_weight", "sample_weight"]
    }
    arguments |= {"where": np.arange(5) < 9}
    for array in [logits, *arguments.values()]:
        array.setflags(write=False)
    reference.cross_entropy_hvp(logits, **arguments)
    del arguments["v"]
    reference.cross_entropy_and_grad(logits, **arguments, label_smoothing=0.1, softcap=3.0)
    reference.cross_entropy_grad_hess(logits, **arguments)


# --- Values at the edges -----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_distribution", [False, True])
def test_a_class_at_minus_infinity_without_target_is_as_if_absent(as_distribution):
    target = [0.0, 1.0] if as_distribution else 1
    loss, grad = reference.cross_entropy_and_grad([0.5, 2.0], target)
    target = [0.0, 0.0, 1.0] if as_distribution else 2
    got_loss, got_grad = reference.cross_entropy_and_grad([-INF, 0.5, 2.0], target)
    assert got_loss == loss
    assert got_grad.tolist() == [0, *grad]


def test_minus_infinity_stays_absent_under_softcap_and_temperature():
    options = {"softcap": 3.0, "temperature": 0.5}
    loss, grad = reference.cross_entropy_and_grad([0.5, 2.0], 1, **options)
    got_loss, got_grad = reference.cross_entropy_and_grad([-INF, 0.5, 2.0], 2, **options)
    assert got_loss == loss
    assert got_grad.tolist() == [0, *grad]


def test_a_target_at_minus_infinity_has_an_infinite_loss_and_a_finite_gradient():
    loss, grad = reference.cross_entropy_and_grad([-INF, 0.0, 0.0], 0)
    assert loss == INF
    assert grad.tolist() == [-1, 0.5, 0.5]
    loss, grad = reference.cross_entropy_and_grad([-INF, 0.0, 0.0], [0.25, 0.75, 0.0])
    assert loss == INF
    assert grad.tolist() == [-0.25, -0.25, 0.5]


def test_a_weight_of_zero_takes_away_an_infinite_loss_too():
    logits = [-INF, 0.0, 0.0]
    for weights in [{"sample_weight": 0.0}, {"class_weight": [0.0, 1.0, 1.0]}]:
        loss, grad = reference.cross_entropy_and_grad(logits, 0, reduction="sum", **weights)
        assert loss == 0
        assert grad.tolist() == [0, 0, 0]


BROKEN = {
    "every logit -inf": [-INF] * 5,
    "a nan": [0.0, NAN, 0.0, 1.0, 2.0],
    "a +inf": [0.0, INF, 0.0, 1.0, 2.0],
    "+inf at the label": [INF, 0.0, 0.0, 1.0, 2.0],
    "+inf and -inf": [INF, -INF, 0.0, 1.0, 2.0],
    "all +inf": [INF] * 5,
    "nan and +inf": [NAN, INF, 0.0, 1.0, 2.0],
}


@pytest.mark.parametrize("option", [None, *OPTIONS])
@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_sample_is_nan_and_breaks_no_other(row, option):
    options = {} if option is None else {option: OPTIONS[option]}
    logits, labels = six_samples()
    want_loss, want_grad = reference.cross_entropy_and_grad(logits, labels, reduction="none", **options)
    logits[4], labels[4] = BROKEN[row], 0
    loss, grad = reference.cross_entropy_and_grad(logits, labels, reduction="none", **options)
    assert np.isnan(loss).tolist() == [n == 4 for n in range(6)]
    assert np.all(np.isnan(grad[4]))
    sound = np.arange(6) != 4
    np.testing.assert_array_equal(loss[sound], want_loss[sound])
    np.testing.assert_array_equal(grad[sound], want_grad[sound])
    assert math.isnan(reference.cross_entropy(logits, labels, **options))


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_sample_that_is_ignored_is_nothing(row):
    loss, grad = reference.cross_entropy_and_grad(
        [BROKEN[row], [0.0] * 5], [-100, 2], ignore_index=-100, reduction="none", softcap=3.0
    )
    assert loss.tolist() == [0, pytest.approx(math.log(5))]
    assert grad[0].tolist() == [0] * 5
    mean = reference.cross_entropy([BROKEN[row], [0.0] * 5], [-100, 2], ignore_index=-100)
    assert mean == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(np.zeros((0, 3)), np.zeros(0, int)), (np.full((2, 3), NAN), np.full(2, -100)), (np.zeros(3), -100)],
    ids=["no sample", "all ignored", "the one ignored"],
)
def test_the_mean_of_nothing_is_nan_and_its_gradient_zero(logits, labels):
    def loss_and_grad(**options):
        loss, grad = reference.cross_entropy_and_grad(logits, labels, ignore_index=-100, **options)
        assert grad.shape == logits.shape
        assert grad.tolist() == np.zeros_like(logits).tolist()
        return loss

    assert math.isnan(loss_and_grad())
    assert loss_and_grad(normalizer=8.0) == 0
    assert loss_and_grad(reduction="sum") == 0
    assert loss_and_grad(reduction="none").tolist() == np.zeros(logits.shape[:-1]).tolist()
    _, _, hess_diag = reference.cross_entropy_grad_hess(logits, labels, ignore_index=-100)
    assert hess_diag.tolist() == np.zeros_like(logits).tolist()
    hv = reference.cross_entropy_hvp(logits, labels, logits, ignore_index=-100)
    assert hv.tolist() == np.zeros_like(logits).tolist()


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_sample_without_weight_is_nothing(row):
    target = np.array([[NAN, -1.0, INF, 0, 0], [0, 0, 1, 0, 0]])
    sparse = reference.SparseTarget([[0, 1], [2, -1]], [[NAN, -1.0], [1, NAN]])
    for labels in ([3, 2], target, sparse):
        options = {"sample_weight": [0, 1], "softcap": 3.0, "z_loss": 0.0}
        loss, grad = reference.cross_entropy_and_grad([BROKEN[row], [0.0] * 5], labels, reduction="none", **options)
        assert loss.tolist() == [0, pytest.approx(math.log(5))]
        assert grad[0].tolist() == [0] * 5
        mean, rank, top = reference.cross_entropy_and_rank([BROKEN[row], [0.0] * 5], labels, **options)
        assert mean == pytest.approx(math.log(5))
        assert rank.tolist() == [-1, 2]
        assert top.tolist() == [-1, 0]
    kl, grad = reference.kl_divergence_and_grad(
        [BROKEN[row], [0.0] * 5], target, sample_weight=[0, 1], reduction="none"
    )
    assert kl.tolist() == [0, pytest.approx(math.log(5))]
    assert grad[0].tolist() == [0] * 5


def test_bad_entries_of_a_sparse_target_are_refused():
    for index in (-2, 5):
        with pytest.raises(IndexError, match=rf"indices\[1, 0\] is {index}"):
            reference.cross_entropy(np.zeros((2, 5)), reference.SparseTarget([[0, 1], [index, 1]], np.ones((2, 2))))
    for value in (-0.5, NAN):
        with pytest.raises(ValueError, match=rf"values\[0, 1\] is {value}"):
            reference.cross_entropy(np.zeros((1, 5)), reference.SparseTarget([[1, 1]], [[1.0, value]]))


def test_the_mean_over_weights_that_are_all_zero_is_a_mean_of_nothing():
    loss, grad = reference.cross_entropy_and_grad([[1.0, 2.0]] * 2, [0, 1], sample_weight=[0.0, 0.0])
    assert math.isnan(loss)
    assert grad.tolist() == [[0, 0]] * 2


def test_no_class_allowed_is_a_broken_sample_without_a_gradient():
    loss, grad = reference.cross_entropy_and_grad([1.0, 2.0], 0, where=False)
    assert math.isnan(loss)
    assert grad.tolist() == [0, 0]


@pytest.mark.parametrize("logit", [0.0, 5.0, -1e8, 1e300])
def test_one_class_costs_nothing(logit):
    loss, grad = reference.cross_entropy_and_grad([[logit]], [0], label_smoothing=0.5, class_weight=[3.0])
    assert loss == 0
    assert grad.tolist() == [[0]]


def test_nothing_is_raised_or_warned_however_numpy_is_set():
    logits = np.array([*BROKEN.values(), [0.0, 1e5, -1e300, 1e300, 5e-324], [-INF, 0.0, 0.0, 1e8, 3.0]])
    labels = np.zeros(len(logits), int)
    with np.errstate(all="raise"):
        for options in [{}, {"softcap": 2.0, "z_loss": 1e300, "label_smoothing": 0.5, "temperature": 1e-300}]:
            reference.cross_entropy(logits, labels, **options)
            reference.cross_entropy_and_grad(logits, labels, normalizer=0.0, ignore_index=0, **options)
        reference.cross_entropy_grad_hess(logits, labels, sample_weight=labels)
        reference.cross_entropy_hvp(logits, labels, np.full_like(logits, 1e300))
        for function in [reference.softmax, reference.log_softmax, reference.logsumexp, reference.entropy_and_grad]:
            function(logits, temperature=1e-300)
        reference.kl_divergence_and_grad(logits, np.abs(np.nan_to_num(logits)))
        reference.kl_divergence_and_grad(logits, logits[::-1], target_logits=True)
        reference.softmax_jacobian(logits)
        for product in [reference.softmax_jvp, reference.softmax_vjp]:
            product(logits, logits)
        for product in [reference.log_softmax_jvp, reference.log_softmax_vjp]:
            product(logits, logits)
        reference.cross_entropy_and_grad(logits, labels, temperature=np.full(len(logits), 1e-300), wrt_temperature=True)


def test_the_examples_in_the_docstrings_run():
    results = doctest.testmod(reference)
    assert results.attempted > 30
    assert results.failed == 0
