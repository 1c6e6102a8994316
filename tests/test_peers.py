"""What the peers compute, computed here: PyTorch's loss and autograd, SciPy's softmax, scikit-learn's multinomial loss.

Each peer that is installed is run on the same numbers; one that is not takes only its own tests with it. What a peer
has no option for is written as a formula in its own words and left to its autograd.

The gradient is a difference, `p W - q` with `q_k = class_weight_k t_k` and `W = sum_k q_k`. Where its terms cancel,
their rounding is all that is left to compare. So beside the relative tolerance that is promised, RTOL, each entry is
allowed a few eps of its own q, and a loss a few eps of the q that it adds up. Nothing is measured by the size of the
largest entry: where q is 0 the relative tolerance is the only one.

A result in float32 is compared twice: with what the peer computes in float64 from the same numbers, and with what it
computes in float32, where its own rounding of a log-sum-exp, eps times the size of the logits, may be the larger error.
"""

import itertools
import math

import numpy as np
import pytest

import softxent
from softxent._options import Options

RTOL = {np.float32: 2e-5, np.float64: 1e-11}


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="module")
def autograd(torch):
    """PyTorch's value of a function of the logits, and the gradient of `value * upstream`, as arrays."""

    def value_and_grad(function, logits, upstream=1.0):
        z = torch.tensor(logits, requires_grad=True)
        value = function(z)
        (value * torch.as_tensor(upstream, dtype=z.dtype)).sum().backward()
        return value.detach().numpy(), z.grad.numpy()

    return value_and_grad


@pytest.fixture(scope="module")
def special():
    return pytest.importorskip("scipy.special")


@pytest.fixture(scope="module")
def multinomial_loss():
    """scikit-learn's loss of its multinomial regression and gradient boosting."""
    return pytest.importorskip("sklearn._loss.loss").HalfMultinomialLoss


def assert_close(actual, expected, rtol, atol=0.0):
    """Like NumPy's assert_allclose, but with an absolute tolerance for each entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    error, bound = np.abs(actual - expected), rtol * np.abs(expected) + atol
    worst = np.argmax(error - bound) if error.size else None
    assert np.all(error <= bound), f"{actual.flat[worst]} should be {expected.flat[worst]}"


def few_eps(dtype):
    return 4 * np.finfo(dtype).eps


# --- PyTorch: all that its cross_entropy has an option for --------------------------------------------------

# Few classes and many take different kernels, and so do class axes that are last and that are not.
SHAPES = {
    "one sample": ((10,), 0),
    "2 classes": ((13, 2), 1),
    "10 classes": ((13, 10), 1),
    "64 classes": ((13, 64), 1),
    "65 classes": ((13, 65), 1),
    "100 classes": ((13, 100), 1),
    "signals": ((3, 10, 7), 1),
    "signals of 65 classes": ((2, 65, 9), 1),
    "images": ((2, 10, 3, 5), 1),
}


def as_it_is(array, axis):
    return array


def class_axis_last_in_memory(array, axis):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, axis, -1)), -1, axis)


def first_axis_fastest(array, axis):
    return np.asfortranarray(array)


def every_other_entry(array, axis):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


@pytest.fixture(params=["indices", "distributions"])
def problem(request, shape_and_axis, dtype, rng):
    """Draw logits, labels of either kind, and class weights, of which the first is 0."""
    shape, axis = shape_and_axis
    sample_axes = shape[:axis] + shape[axis + 1 :]
    logits = rng.normal(scale=2, size=shape).astype(dtype)
    if request.param == "indices":
        # The label of a single sample has a weight that is not 0, because a mean over no weight has its own test.
        labels = rng.integers(0, shape[axis], sample_axes) if sample_axes else np.asarray(3)
    else:
        labels = np.moveaxis(rng.dirichlet(np.full(shape[axis], 0.5), sample_axes), -1, axis).astype(dtype)
    class_weight = rng.uniform(0.25, 4, shape[axis]).astype(dtype)
    class_weight[0] = 0
    return logits, labels, class_weight


def cells(labels, class_weight):
    """Go through the options. Each cell has labels, some of them ignored, and the keyword arguments to pass."""
    # The label to ignore may be a class or no class. A single sample is not ignored.
    for ignore_index in (None, -100, 0) if labels.dtype.kind == "i" else (None,):
        given = labels
        if ignore_index is not None and labels.ndim:
            given = np.where(np.indices(labels.shape).sum(axis=0) % 3 == 1, ignore_index, labels)
        for weights, smoothing in itertools.product((None, class_weight), (0.0, 0.1, 1.0)):
            yield given, {"class_weight": weights, "label_smoothing": smoothing, "ignore_index": ignore_index}


def target_mass(labels, logits, axis, *, class_weight=None, label_smoothing=0.0, ignore_index=None, reduction="mean"):
    """The q of each entry, as PyTorch's documentation defines it, divided by the number that the mean divides by."""
    n_classes = logits.shape[axis]
    weights = np.ones(n_classes) if class_weight is None else class_weight.astype(np.float64)
    if labels.ndim < logits.ndim:
        t = labels[..., None] == np.arange(n_classes)
        kept = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
        normalizer = weights[labels[kept]].sum()
    else:
        t = np.moveaxis(labels, axis, -1)
        kept = np.ones(t.shape[:-1], bool)
        normalizer = kept.sum()
    q = kept[..., None] * weights * ((1 - label_smoothing) * t + label_smoothing / n_classes)
    return np.moveaxis(q / normalizer if reduction == "mean" else q, -1, axis)


def pytorchs_loss(torch, labels, dtype, *, class_weight=None, ignore_index=None, **options):
    """PyTorch's cross_entropy as a function of the logits alone."""
    target = torch.tensor(labels.astype(dtype if labels.dtype.kind == "f" else np.int64))
    weight = None if class_weight is None else torch.tensor(class_weight.astype(dtype))
    ignore_index = -100 if ignore_index is None else ignore_index  # -100 is PyTorch's default, and no class
    return lambda z: torch.nn.functional.cross_entropy(z, target, weight, ignore_index=ignore_index, **options)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape_and_axis", SHAPES.values(), ids=SHAPES)
def test_losses_and_gradients_are_pytorchs(problem, shape_and_axis, reduction, torch, autograd, dtype, isa, rng):
    logits, all_labels, class_weight = problem
    _, axis = shape_and_axis
    are_indices = all_labels.ndim < logits.ndim
    upstream = rng.normal(size=np.delete(logits.shape, axis)) if reduction == "none" else 0.75
    upstream_of_entries = np.abs(np.expand_dims(upstream, axis)) if reduction == "none" else upstream
    peers = {dtype: 4 + np.abs(logits).max(), np.float64: 4}  # the eps of q that an entry may be off the peer's
    # Each cell is run in C order and in one of these layouts, and with int64 labels and one of these types.
    layouts = itertools.cycle([class_axis_last_in_memory, first_axis_fastest, every_other_entry])
    label_dtypes = itertools.cycle([np.int32, np.uint8])

    for labels, options in cells(all_labels, class_weight):
        options["reduction"] = reduction
        q = target_mass(labels, logits, axis, **options)
        results = [
            (autograd(pytorchs_loss(torch, labels, wide, **options), logits.astype(wide), upstream), n_eps)
            for wide, n_eps in peers.items()
        ]
        label_dtype = next(label_dtypes) if labels.min() >= 0 else np.int32
        for lay_out, index_dtype in ((as_it_is, np.int64), (next(layouts), label_dtype)):
            given = labels.astype(index_dtype) if are_indices else lay_out(labels, axis)
            loss, grad = softxent.cross_entropy_and_grad(
                lay_out(logits, axis), given, axis=axis, grad_output=upstream, **options
            )
            assert grad.dtype == dtype
            for (expected_loss, expected_grad), n_eps in results:
                atol = n_eps * np.finfo(dtype).eps * q
                summed = atol.sum(axis=axis) if reduction == "none" else atol.sum()
                assert_close(loss, expected_loss, RTOL[dtype], summed)
                assert_close(grad, expected_grad, RTOL[dtype], atol * upstream_of_entries)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_where_all_is_ignored_the_loss_is_pytorchs(label_smoothing, reduction, torch, autograd, dtype, isa, rng):
    logits, labels = rng.normal(size=(6, 10)).astype(dtype), np.full(6, -100)
    options = {"label_smoothing": label_smoothing, "reduction": reduction, "ignore_index": -100}
    expected, _ = autograd(pytorchs_loss(torch, labels, dtype, **options), logits)
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, **options)
    np.testing.assert_array_equal(loss, expected)
    assert not grad.any()


@pytest.mark.parametrize("broken", [-math.inf, math.inf, math.nan])
def test_a_broken_sample_that_is_ignored_leaves_the_others_as_pytorch_has_them(
    broken, torch, autograd, dtype, isa, rng
):
    logits, labels = rng.normal(size=(6, 10)).astype(dtype), rng.integers(0, 10, 6)
    others = np.arange(6) != 2
    expected = autograd(pytorchs_loss(torch, labels[others], np.float64), logits[others].astype(np.float64))
    logits[2], labels[2] = broken, -100
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, ignore_index=-100)
    assert_close(loss, expected[0], RTOL[dtype])
    assert_close(grad[others], expected[1], RTOL[dtype])
    assert not grad[2].any()


# --- PyTorch: what it has no option for ---------------------------------------------------------------------

N_SAMPLES = 12


@pytest.fixture(params=[10, 65], ids=["10 classes", "65 classes"])
def options_problem(request, dtype, rng):
    """Draw logits, index labels, and a value for every option that concerns single samples."""
    shape = (N_SAMPLES, request.param)
    labels = rng.integers(0, request.param, N_SAMPLES)
    where = rng.random(shape) < 0.7
    np.put_along_axis(where, labels[:, None], True, axis=1)
    options = {
        "class_weight": rng.uniform(0.25, 4, request.param).astype(dtype),
        "sample_weight": rng.uniform(0.25, 4, N_SAMPLES).astype(dtype),
        "where": where,
        "label_smoothing": 0.2,
        "temperature": 1.7,
        "softcap": 4.0,
        "z_loss": 0.3,
        "base": 2.0,
    }
    return rng.normal(scale=2, size=shape).astype(dtype), labels, options


OPTIONS = [*Options._fields]


def losses_in_torch(
    torch,
    z,
    target,
    *,
    class_weight=1.0,
    sample_weight=1.0,
    where=True,
    label_smoothing=0.0,
    temperature=1.0,
    softcap=None,
    z_loss=0.0,
    base=math.e,
):
    """The formula of the losses with each option, in operations that autograd follows. The class axis is last."""
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = z / temperature
    removed = ~torch.as_tensor(where).expand(z.shape)
    lse = torch.logsumexp(z.masked_fill(removed, -math.inf), dim=-1)
    minus_log_p = (lse[..., None] - z).masked_fill(removed, 0)
    n_allowed = (~removed).sum(dim=-1, keepdim=True).to(z.dtype)  # a number over integers would be float32
    t = (1 - label_smoothing) * torch.as_tensor(target) + label_smoothing / n_allowed
    cross_entropies = (torch.as_tensor(class_weight) * t * minus_log_p).sum(dim=-1) / math.log(base)
    return torch.as_tensor(sample_weight) * (cross_entropies + z_loss * lse**2)


@pytest.mark.parametrize("as_indices", [True, False], ids=["indices", "distributions"])
@pytest.mark.parametrize("names", [[name] for name in OPTIONS] + [OPTIONS], ids=[*OPTIONS, "all options"])
def test_every_option_is_its_formula_under_autograd(
    options_problem, names, as_indices, torch, autograd, dtype, isa, rng
):
    logits, labels, options = options_problem
    options = {name: options[name] for name in names}
    target = np.eye(logits.shape[1])[labels]
    if not as_indices:
        target = 0.5 * target + 0.5 * rng.dirichlet(np.ones(logits.shape[1]), N_SAMPLES).astype(dtype)
        target *= options.get("where", True)  # the loss is infinite if the target has mass in a removed class
        target = target.astype(dtype).astype(np.float64)

    class_weight = np.ones(logits.shape[1]) * options.get("class_weight", 1)
    sample_weight = np.ones(N_SAMPLES) * options.get("sample_weight", 1)
    smoothing = options.get("label_smoothing", 0)
    q = sample_weight[:, None] * class_weight * ((1 - smoothing) * target + smoothing / logits.shape[1])
    normalizer = (sample_weight * class_weight[labels]).sum() if as_indices else sample_weight.sum()

    wide_logits, upstream = logits.astype(np.float64), rng.normal(size=N_SAMPLES)
    for reduction, scale in [("none", upstream), ("sum", 1.0), ("mean", 1 / normalizer)]:
        losses, expected_grad = autograd(lambda z: losses_in_torch(torch, z, target, **options), wide_logits, scale)
        loss, grad = softxent.cross_entropy_and_grad(
            logits,
            labels if as_indices else target,
            reduction=reduction,
            grad_output=upstream if reduction == "none" else None,
            **options,
        )
        atol = few_eps(dtype) * q
        if reduction == "none":
            assert_close(loss, losses, RTOL[dtype], atol.sum(axis=1))
        else:
            assert_close(loss, losses.sum() * scale, RTOL[dtype], atol.sum() * scale)
        assert_close(grad, expected_grad, RTOL[dtype], atol * np.abs(np.reshape(scale, (-1, 1))))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_removed_class_is_a_class_that_pytorch_is_not_shown(
    weighted, label_smoothing, options_problem, torch, autograd, dtype, isa
):
    logits, labels, options = options_problem
    where, class_weight = options["where"], options["class_weight"] if weighted else None
    loss, grad = softxent.cross_entropy_and_grad(
        logits, labels, where=where, class_weight=class_weight, label_smoothing=label_smoothing, reduction="none"
    )
    for z, y, allowed, sample_loss, sample_grad in zip(logits, labels, where, loss, grad, strict=True):
        index = np.count_nonzero(allowed[:y])  # the lead of the label over the classes that are left
        peer_options = {"class_weight": class_weight[allowed] if weighted else None, "label_smoothing": label_smoothing}
        q = target_mass(np.asarray(index), z[allowed], 0, reduction="sum", **peer_options)
        function = pytorchs_loss(torch, np.asarray(index), np.float64, reduction="sum", **peer_options)
        expected = autograd(function, z[allowed].astype(np.float64))
        assert_close(sample_loss, expected[0], RTOL[dtype], few_eps(dtype) * q.sum())
        assert_close(sample_grad[allowed], expected[1], RTOL[dtype], few_eps(dtype) * q)
        assert not sample_grad[~allowed].any()


def test_removing_classes_is_masking_their_logits_with_minus_infinity(options_problem, torch, autograd, dtype, isa):
    logits, labels, options = options_problem
    where = options["where"]
    loss_of = pytorchs_loss(torch, labels, np.float64)
    expected = autograd(lambda z: loss_of(z.masked_fill(torch.tensor(~where), -math.inf)), logits.astype(np.float64))
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, where=where)
    q = target_mass(labels, logits, 1)
    assert_close(loss, expected[0], RTOL[dtype], few_eps(dtype))
    assert_close(grad, expected[1], RTOL[dtype], few_eps(dtype) * q)


# --- PyTorch: the softmax family and the derivatives ---------------------------------------------------------

FAMILY_SHAPES = [(7,), (5, 40), (3, 10, 6), (2, 5, 3, 65)]


def peer_dtypes(dtype):
    """The dtypes that a peer computes in: that of the logits, and a wider one."""
    return {dtype, np.float64}


def rounding_of_lse(logits, dtype):
    """The error of log-probabilities if a log-sum-exp is rounded to that dtype and then subtracted."""
    return few_eps(dtype) * np.abs(logits).max()


@pytest.mark.parametrize("shape", FAMILY_SHAPES, ids=str)
def test_the_softmax_family_is_pytorchs(shape, torch, dtype, isa, rng):
    logits = rng.normal(scale=3, size=shape).astype(dtype)
    where = rng.random(shape) < 0.8
    for axis, wide in itertools.product(range(len(shape)), peer_dtypes(dtype)):
        where_here = np.array(where)
        np.moveaxis(where_here, axis, -1)[..., 0] = True  # at least one class is left
        for options in ({}, {"temperature": 0.6}, {"where": where_here}):
            z = torch.tensor(logits.astype(wide)) / options.get("temperature", 1)
            if "where" in options:
                z = z.masked_fill(torch.tensor(~where_here), -math.inf)
            atol = rounding_of_lse(z[torch.isfinite(z)].numpy(), wide)
            p, log_p = torch.softmax(z, axis).numpy(), torch.log_softmax(z, axis).numpy()
            assert_close(softxent.softmax(logits, axis, **options), p, RTOL[dtype])
            kept = np.isfinite(log_p)
            ours = softxent.log_softmax(logits, axis, **options)
            assert_close(ours[kept], log_p[kept], RTOL[dtype], atol)
            assert np.all(ours[~kept] == -math.inf)
            assert_close(
                softxent.logsumexp(logits, axis, **options), torch.logsumexp(z, axis).numpy(), RTOL[dtype], atol
            )


@pytest.mark.parametrize("shape", FAMILY_SHAPES, ids=str)
def test_the_softmaxs_products_with_vectors_are_autograds(shape, torch, dtype, isa, rng):
    logits, v = rng.normal(scale=2, size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    z, wide_v = torch.tensor(logits.astype(np.float64)), torch.tensor(v.astype(np.float64))
    for axis in range(len(shape)):
        p = torch.softmax(z, axis).numpy()
        # The product is p (v - p.v), a difference. Its terms are rounded, so the bound is on them.
        atol = few_eps(dtype) * p * (np.abs(v) + (p * np.abs(v)).sum(axis=axis, keepdims=True))
        _, jvp = torch.autograd.functional.jvp(lambda z, axis=axis: torch.softmax(z, axis), z, wide_v)
        _, vjp = torch.autograd.functional.vjp(lambda z, axis=axis: torch.softmax(z, axis), z, wide_v)
        for ours, expected in [(softxent.softmax_jvp, jvp), (softxent.softmax_vjp, vjp)]:
            product = ours(logits, v, axis)
            assert product.dtype == dtype
            assert_close(product, expected.numpy(), RTOL[dtype], atol)


@pytest.mark.parametrize("shape", FAMILY_SHAPES, ids=str)
def test_the_log_softmaxs_products_with_vectors_are_autograds(shape, torch, dtype, isa, rng):
    logits, v = rng.normal(scale=2, size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    z, wide_v = torch.tensor(logits.astype(np.float64)), torch.tensor(v.astype(np.float64))
    for axis, temperature in itertools.product(range(len(shape)), (1.0, 0.6)):
        p = torch.softmax(z / temperature, axis).numpy()

        def log_softmax(z, axis=axis, temperature=temperature):
            return torch.log_softmax(z / temperature, axis)

        _, jvp = torch.autograd.functional.jvp(log_softmax, z, wide_v)
        _, vjp = torch.autograd.functional.vjp(log_softmax, z, wide_v)
        # Both are differences, v - p.v and g - p sum(g). Their terms are rounded, so the bound is on them.
        size, largest = np.abs(v), np.abs(v).max(axis=axis, keepdims=True)
        of_terms = few_eps(dtype) / temperature
        product = softxent.log_softmax_jvp(logits, v, axis, temperature=temperature)
        assert_close(product, jvp.numpy(), RTOL[dtype], of_terms * (size + largest))
        product = softxent.log_softmax_vjp(logits, v, axis, temperature=temperature)
        sums = np.abs(v).sum(axis=axis, keepdims=True)
        assert_close(product, vjp.numpy(), RTOL[dtype], of_terms * (size + 4 * p * sums))


@pytest.mark.parametrize("shape", FAMILY_SHAPES, ids=str)
def test_the_entropy_is_pytorchs(shape, torch, autograd, dtype, isa, rng):
    logits = rng.normal(scale=3, size=shape).astype(dtype)
    for axis, temperature in itertools.product(range(len(shape)), (1.0, 0.6)):

        def entropy(z, axis=axis, temperature=temperature):
            last = torch.movedim(z, axis, -1) / temperature
            return torch.distributions.Categorical(logits=last, validate_args=False).entropy()

        expected, expected_grad = autograd(entropy, logits.astype(np.float64))
        h, grad = softxent.entropy_and_grad(logits, axis, temperature=temperature)
        rounding = rounding_of_lse(logits / temperature, np.float64)
        assert_close(h, expected, RTOL[dtype], rounding)
        # The gradient is p (depth - mean depth): the bound is on its terms, of which none is above p max depth / T.
        p = softxent.softmax(logits.astype(np.float64), axis, temperature=temperature)
        depth = np.ptp(logits, axis=axis, keepdims=True) / temperature
        of_terms = few_eps(dtype) * p * depth * (1 + depth)
        assert_close(grad, expected_grad, RTOL[dtype], (of_terms + rounding) / temperature)


@pytest.mark.parametrize("is_logits", [False, True], ids=["probabilities", "a teacher's logits"])
@pytest.mark.parametrize("shape", FAMILY_SHAPES, ids=str)
def test_the_divergence_is_pytorchs(shape, is_logits, torch, autograd, dtype, isa, rng):
    logits, teacher = (rng.normal(scale=2, size=shape).astype(dtype) for _ in range(2))
    for axis, temperature in itertools.product(range(len(shape)), (1.0, 2.0)):
        t = softxent.softmax(teacher.astype(np.float64), axis, temperature=temperature)
        target = teacher if is_logits else t.astype(dtype)
        t = t if is_logits else target.astype(np.float64)

        def divergence(z, axis=axis, temperature=temperature, t=t):
            log_p = torch.log_softmax(z / temperature, axis)
            return torch.nn.functional.kl_div(log_p, torch.tensor(t), reduction="none").sum(axis)

        options = {"axis": axis, "temperature": temperature, "target_logits": is_logits}
        expected, expected_grad = autograd(divergence, logits.astype(np.float64))
        kl, grad = softxent.kl_divergence_and_grad(logits, target, reduction="none", **options)
        # Ours has 1 - sum(t) beside, which is not quite 0 of rounded probabilities.
        assert_close(kl, expected + 1 - t.sum(axis=axis), RTOL[dtype], few_eps(dtype))
        assert_close(grad, expected_grad, RTOL[dtype], few_eps(dtype) * t)
        # "batchmean" divides by the number of samples along the first axis alone.
        if len(shape) == 2 and axis == 1:
            log_p = torch.log_softmax(torch.tensor(logits.astype(np.float64)) / temperature, axis)
            mean = torch.nn.functional.kl_div(log_p, torch.tensor(t), reduction="batchmean").item()
            assert_close(softxent.kl_divergence(logits, target, **options), mean, 10 * RTOL[dtype])


@pytest.mark.parametrize("n_classes", [2, 10, 65])
def test_the_softmaxs_jacobian_is_autograds(n_classes, torch, dtype, isa, rng):
    logits = rng.normal(scale=2, size=(2, n_classes, 3)).astype(dtype)
    jacobian = softxent.softmax_jacobian(logits, axis=1)
    assert jacobian.dtype == dtype
    assert jacobian.shape == (2, 3, n_classes, n_classes)
    for i, j in np.ndindex(2, 3):
        z = torch.tensor(logits[i, :, j].astype(np.float64))
        expected = torch.autograd.functional.jacobian(lambda z: torch.softmax(z, 0), z).numpy()
        # PyTorch's p - p p is off by eps p if p is close to 1. Our diagonal, and all other entries, are off by less.
        assert_close(jacobian[i, j], expected, RTOL[dtype], few_eps(np.float64) * np.diag(torch.softmax(z, 0).numpy()))


CURVED = {
    "plain": {},
    "class_weight": {"class_weight": np.linspace(0, 3, 10)},
    "smoothing": {"label_smoothing": 0.1},
    "all": {"class_weight": np.linspace(0, 3, 10), "label_smoothing": 0.1, "ignore_index": -100},
}


@pytest.fixture(params=["rows", "signals"])
def curved_problem(request, dtype, rng):
    shape = (6, 10) if request.param == "rows" else (2, 10, 3)
    labels = rng.integers(1, 10, np.delete(shape, 1))
    return rng.normal(scale=2, size=shape).astype(dtype), labels, rng.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("options", CURVED.values(), ids=CURVED)
def test_the_hessian_times_a_vector_is_autograds(options, reduction, curved_problem, torch, dtype, isa):
    logits, labels, v = curved_problem
    options = options | {"reduction": reduction}
    if "ignore_index" in options:
        labels.flat[2] = -100
    z, wide_v = torch.tensor(logits.astype(np.float64)), torch.tensor(v.astype(np.float64))
    function = pytorchs_loss(torch, labels, np.float64, **options)
    _, expected = torch.autograd.functional.hvp(function, z, wide_v)
    p, w = torch.softmax(z, 1).numpy(), target_mass(labels, logits, 1, **options).sum(axis=1, keepdims=True)
    atol = few_eps(dtype) * w * p * (np.abs(v) + (p * np.abs(v)).sum(axis=1, keepdims=True))
    product = softxent.cross_entropy_hvp(logits, labels, v, axis=1, **options)
    assert product.dtype == dtype
    assert_close(product, expected.numpy(), RTOL[dtype], atol)


@pytest.mark.parametrize("options", CURVED.values(), ids=CURVED)
def test_the_exact_second_derivatives_are_autograds(options, curved_problem, torch, dtype, isa):
    logits, labels, _ = curved_problem
    if "ignore_index" in options:
        labels.flat[2] = -100
    function = pytorchs_loss(torch, labels, np.float64, **options)
    hessian = torch.autograd.functional.hessian(function, torch.tensor(logits.astype(np.float64))).numpy()
    expected = np.diagonal(hessian.reshape(logits.size, logits.size)).reshape(logits.shape)
    loss, grad, hess_diag = softxent.cross_entropy_grad_hess(logits, labels, axis=1, **options)
    # If a probability is close to 1, PyTorch is off by a few eps of the weight.
    assert_close(hess_diag, expected, RTOL[dtype], few_eps(np.float64))
    expected_loss, expected_grad = softxent.cross_entropy_and_grad(logits, labels, axis=1, **options)
    assert_close(loss, expected_loss, RTOL[dtype])
    assert_close(grad, expected_grad, RTOL[dtype])


WITH_A_HESSIAN = [name for name in OPTIONS if name not in ("softcap", "z_loss")]


@pytest.mark.parametrize("names", [[name] for name in WITH_A_HESSIAN] + [WITH_A_HESSIAN], ids=[*WITH_A_HESSIAN, "all"])
def test_the_hessian_knows_every_option_as_autograd_does(names, options_problem, torch, dtype, isa, rng):
    logits, labels, options = options_problem
    options = {name: options[name] for name in names}
    v, target = rng.normal(size=logits.shape).astype(dtype), np.eye(logits.shape[1])[labels]
    z, wide_v = torch.tensor(logits.astype(np.float64)), torch.tensor(v.astype(np.float64))
    _, expected = torch.autograd.functional.hvp(lambda z: losses_in_torch(torch, z, target, **options).sum(), z, wide_v)
    product = softxent.cross_entropy_hvp(logits, labels, v, reduction="sum", **options)

    # Each term of the Hessian has the factor p. Weights are at most 4, and 1 / T^2 and 1 / ln(base) are less than 2.
    p = softxent.softmax(logits, where=options.get("where"), temperature=options.get("temperature", 1.0))
    atol = few_eps(dtype) * 32 * p * (np.abs(v) + (p * np.abs(v)).sum(axis=1, keepdims=True))
    assert_close(product, expected.numpy(), RTOL[dtype], atol)

    # An entry of the diagonal is the product with the class's unit vector, at that class.
    _, _, hess_diag = softxent.cross_entropy_grad_hess(logits, labels, reduction="sum", **options)
    for k, unit in enumerate(np.eye(logits.shape[1], dtype=dtype)):
        product = softxent.cross_entropy_hvp(logits, labels, unit * np.ones_like(v), reduction="sum", **options)
        assert_close(hess_diag[:, k], product[:, k], RTOL[dtype])


# --- PyTorch: half precision ---------------------------------------------------------------------------------


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    return np.dtype(np.float16 if request.param == "float16" else pytest.importorskip("ml_dtypes").bfloat16)


def ulps_apart(a, b):
    """The number of steps of their 16-bit dtype from the entries of a to those of b."""

    def rank(x):
        bits = np.ascontiguousarray(x).view(np.int16).astype(np.int32)
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    return np.abs(rank(a) - rank(b))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("n_classes", [2, 10, 33, 100])
@pytest.mark.parametrize("as_indices", [True, False], ids=["indices", "distributions"])
def test_half_precision_is_pytorchs_float32_rounded(as_indices, n_classes, reduction, half, torch, autograd, isa, rng):
    logits = rng.normal(scale=2, size=(30, n_classes)).astype(half)
    indices, target = rng.integers(0, n_classes, 30), rng.dirichlet(np.ones(n_classes), 30).astype(np.float32)
    labels = indices if as_indices else target
    weighted = {"label_smoothing": 0.1, "class_weight": rng.uniform(0.25, 4, n_classes).astype(np.float32)}
    for options in ({"reduction": reduction}, {"reduction": reduction, **weighted}):
        expected = autograd(pytorchs_loss(torch, labels, np.float32, **options), logits.astype(np.float32))
        loss, grad = softxent.cross_entropy_and_grad(logits, labels, **options)
        assert grad.dtype == half
        assert np.all(ulps_apart(grad, expected[1].astype(half)) <= 1)
        if reduction == "none":
            assert loss.dtype == half
            assert np.all(ulps_apart(loss, expected[0].astype(half)) <= 1)
        else:  # a float, so that nothing is rounded away
            assert_close(loss, expected[0], RTOL[np.float32])


def test_half_precision_labels_are_numbers_like_others(half, torch, autograd, isa, rng):
    logits, target = rng.normal(size=(30, 10)).astype(half), rng.dirichlet(np.ones(10), 30).astype(half)
    wide = target.astype(np.float32)
    expected = autograd(pytorchs_loss(torch, wide, np.float32), logits.astype(np.float32))
    loss, grad = softxent.cross_entropy_and_grad(logits, target)
    assert np.all(ulps_apart(grad, expected[1].astype(half)) <= 1)
    assert_close(loss, expected[0], RTOL[np.float32])


# --- SciPy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", FAMILY_SHAPES, ids=str)
def test_the_softmax_family_is_scipys(shape, special, dtype, isa, rng):
    logits = rng.normal(scale=3, size=shape).astype(dtype)
    logits[rng.random(shape) < 0.05] = -math.inf
    finite = logits[np.isfinite(logits)]
    for axis, wide in itertools.product(range(-len(shape), len(shape)), peer_dtypes(dtype)):
        np.moveaxis(logits, axis, -1)[..., 0] = 1.0  # every sample has a finite logit
        z, atol = logits.astype(wide), rounding_of_lse(finite, wide)
        assert_close(softxent.softmax(logits, axis), special.softmax(z, axis), RTOL[dtype])
        assert_close(softxent.logsumexp(logits, axis), special.logsumexp(z, axis), RTOL[dtype], atol)
        ours, expected = softxent.log_softmax(logits, axis), special.log_softmax(z, axis)
        kept = np.isfinite(expected)
        assert_close(ours[kept], expected[kept], RTOL[dtype], atol)
        np.testing.assert_array_equal(ours[~kept], expected[~kept])


@pytest.mark.parametrize("n_classes", [2, 10, 65])
def test_entropy_and_divergence_are_scipys(n_classes, special, dtype, isa, rng):
    logits = rng.normal(scale=2, size=(20, n_classes)).astype(dtype)
    p = special.softmax(logits.astype(np.float64), axis=1)
    assert_close(softxent.entropy(logits), special.entr(p).sum(axis=1), RTOL[dtype])
    t = rng.dirichlet(np.ones(n_classes), 20).astype(dtype)
    t[rng.random(t.shape) < 0.1] = 0
    # SciPy's kl_div has the terms t log(t / p) - t + p, which are our terms.
    expected = special.kl_div(t.astype(np.float64), p).sum(axis=1)
    assert_close(softxent.kl_divergence(logits, t, reduction="none"), expected, RTOL[dtype], few_eps(dtype))


def test_the_logsumexp_of_infinities_is_scipys(special, dtype, isa):
    for n_classes in (1, 10, 40, 100):
        logits = np.full((4, n_classes), -math.inf, dtype)
        logits[1, -1], logits[2] = math.inf, math.inf
        logits[3, : n_classes // 2], logits[3, -1] = 3, math.inf
        np.testing.assert_array_equal(softxent.logsumexp(logits), special.logsumexp(logits, axis=1))


# --- scikit-learn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["no weights", "sample weights"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n_classes", [3, 10, 65])
def test_loss_gradient_and_hessian_are_scikit_learns(n_classes, order, weighted, multinomial_loss, dtype, isa, rng):
    peer = multinomial_loss(n_classes=n_classes)
    logits = np.asarray(rng.normal(scale=2, size=(30, n_classes)).astype(dtype), order=order)
    labels = rng.integers(0, n_classes, 30)
    sample_weight = rng.uniform(0.25, 4, 30).astype(dtype) if weighted else None
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, sample_weight=sample_weight, reduction="none")
    _, same_grad, hess_diag = softxent.cross_entropy_grad_hess(
        logits, labels, sample_weight=sample_weight, reduction="none", kind="exact"
    )
    weights = np.ones(30) if sample_weight is None else sample_weight
    q = weights[:, None] * np.eye(n_classes)[labels]

    for wide in peer_dtypes(dtype):
        arguments = {
            "y_true": labels.astype(wide),  # as floats of the logits' dtype, because the peer takes nothing else
            "raw_prediction": np.asarray(logits.astype(wide), order=order),
            "sample_weight": None if sample_weight is None else sample_weight.astype(wide),
        }
        # The peer subtracts the label's logit from the log-sum-exp, and computes 1 - p as a difference.
        rounding = rounding_of_lse(logits, wide)
        expected_loss, expected_grad = peer.loss_gradient(**arguments)
        assert_close(loss, expected_loss, RTOL[dtype], rounding * weights)
        assert_close(peer.loss(**arguments), loss, RTOL[dtype], rounding * weights)
        assert_close(grad, expected_grad, RTOL[dtype], few_eps(wide) * q)
        # The peer's Hessian is the diagonal of the true one, one entry for each class, without a factor.
        expected_grad, expected_hess = peer.gradient_hessian(**arguments)
        assert_close(same_grad, expected_grad, RTOL[dtype], few_eps(wide) * q)
        assert_close(hess_diag, expected_hess, RTOL[dtype], few_eps(wide) * weights[:, None])

        total = peer(arguments["y_true"], arguments["raw_prediction"], sample_weight=arguments["sample_weight"])
        mean = softxent.cross_entropy(logits, labels, sample_weight=sample_weight)
        assert mean == pytest.approx(total, rel=RTOL[dtype])


@pytest.mark.parametrize("weighted", [False, True], ids=["no weights", "sample weights"])
def test_the_loss_is_scikit_learns_log_loss_of_the_probabilities(weighted, dtype, isa, rng):
    log_loss = pytest.importorskip("sklearn.metrics").log_loss
    for n_classes in (2, 10, 65):
        logits, labels = rng.normal(size=(40, n_classes)).astype(dtype), rng.integers(0, n_classes, 40)
        sample_weight = rng.uniform(0.25, 4, 40) if weighted else None
        p = softxent.softmax(logits.astype(np.float64))
        for reduction, normalize in [("mean", True), ("sum", False)]:
            loss = softxent.cross_entropy(logits, labels, sample_weight=sample_weight, reduction=reduction)
            expected = log_loss(labels, p, labels=range(n_classes), sample_weight=sample_weight, normalize=normalize)
            assert loss == pytest.approx(expected, rel=RTOL[dtype])
