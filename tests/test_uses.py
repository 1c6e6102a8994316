"""A real use of each derivative: the optimiser, the boosting library or the chain rule that it is there for.

Newton's method with the Hessian-vector product, gradient boosting with the Hessian's diagonal, and the softmax's
Jacobian forwards, backwards and as a matrix. The data are the handwritten digits that the package brings along. What is
compared with is always another way to the same numbers: another optimiser, the library's own objective, differences.
"""

import importlib.resources
import json

import numpy as np
import pytest

import softxent

N_CLASSES = 10


@pytest.fixture(scope="module")
def digits():
    """The pixels in [0, 1], a row for each image, and the labels."""
    with (importlib.resources.files("softxent.data") / "digits.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        images, labels = arrays["images"], arrays["labels"]
    return images.reshape(len(images), -1) / 16, labels.astype(np.int64)


# --- Newton's method: cross_entropy_hvp ----------------------------------------------------------------------


class SoftmaxRegression:
    """L2-regularised softmax regression of flat weights, in the form that scipy.optimize asks for."""

    def __init__(self, x, labels, l2=0.01):
        self.x, self.labels, self.l2 = np.column_stack([x, np.ones(len(x))]), labels, l2
        self.shape = (self.x.shape[1], N_CLASSES)

    def objective_and_gradient(self, flat):
        weights = flat.reshape(self.shape)
        loss, grad = softxent.cross_entropy_and_grad(self.x @ weights, self.labels)
        return loss + self.l2 / 2 * (flat @ flat), (self.x.T @ grad).ravel() + self.l2 * flat

    def hessian_times(self, flat, direction):
        # Logits are linear in the weights. So the Hessian of the weights is that of the logits, between two products by
        # x.
        logits, along = self.x @ flat.reshape(self.shape), self.x @ direction.reshape(self.shape)
        return (self.x.T @ softxent.cross_entropy_hvp(logits, self.labels, along)).ravel() + self.l2 * direction


def test_newtons_method_finds_the_optimum_that_l_bfgs_finds(digits, isa):
    optimize = pytest.importorskip("scipy.optimize")
    problem = SoftmaxRegression(digits[0][::3], digits[1][::3])
    start = np.zeros(problem.shape).ravel()
    newton = optimize.minimize(
        problem.objective_and_gradient,
        start,
        jac=True,
        hessp=problem.hessian_times,
        method="newton-cg",
        options={"xtol": 1e-8},
    )
    quasi_newton = optimize.minimize(
        problem.objective_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-8, "maxiter": 1000},
    )
    assert newton.success
    assert newton.nhev > 0
    assert newton.fun == pytest.approx(quasi_newton.fun, rel=1e-10)
    # The objective curves by at least l2 in every direction: a gradient this small is this close to the optimum.
    distance = (np.linalg.norm(newton.jac) + np.linalg.norm(quasi_newton.jac)) / problem.l2
    assert distance < 1e-4
    np.testing.assert_allclose(newton.x, quasi_newton.x, rtol=0, atol=distance)
    # Few steps are enough because Newton's method uses the curvature.
    assert newton.nit < quasi_newton.nit / 2


def test_the_hessian_vector_product_is_the_change_of_the_gradient(digits, isa, rng):
    problem = SoftmaxRegression(*digits)
    weights, direction = rng.normal(size=(2, np.prod(problem.shape)))
    h = 1e-5  # the error of a central difference is h^2 times the fourth derivative, and eps / h of the gradient
    _, ahead = problem.objective_and_gradient(weights + h * direction)
    _, behind = problem.objective_and_gradient(weights - h * direction)
    product = problem.hessian_times(weights, direction)
    np.testing.assert_allclose(product, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7 * np.abs(product).max())


def test_the_hessian_is_symmetric_and_curves_upwards(digits, isa, rng):
    problem = SoftmaxRegression(*digits)
    weights, a, b = rng.normal(size=(3, np.prod(problem.shape)))
    h_a, h_b = problem.hessian_times(weights, a), problem.hessian_times(weights, b)
    assert a @ h_b == pytest.approx(b @ h_a, rel=1e-10)
    assert a @ h_a > problem.l2 * (a @ a)


# --- Gradient boosting: cross_entropy_grad_hess --------------------------------------------------------------

N_ROUNDS = 10


@pytest.fixture(params=[False, True], ids=["no weights", "sample weights"])
def weights(request, digits, rng):
    return rng.uniform(0.5, 2, len(digits[1])) if request.param else None


def objective_of_kind(kind, labels, weights):
    """An objective as both libraries call it: from scores of shape (n, classes) to gradients and Hessians of that
    shape.
    """

    def objective(scores, data):
        _, grad, hess = softxent.cross_entropy_grad_hess(
            scores, labels, sample_weight=weights, reduction="sum", kind=kind
        )
        return grad, hess

    return objective


def mean_loss(scores, labels, weights):
    return softxent.cross_entropy(scores.astype(np.float64), labels, sample_weight=weights)


def test_lightgbm_trains_as_with_its_own_multiclass_objective(digits, weights):
    lightgbm = pytest.importorskip("lightgbm", minversion="4.0")
    x, labels = digits
    parameters = {
        "num_class": N_CLASSES,
        "num_leaves": 8,
        "learning_rate": 0.3,
        "boost_from_average": False,  # its own objective would begin with the classes' frequencies, ours with 0
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }

    def losses_in_training(**options):
        data = lightgbm.Dataset(x, labels, weight=weights, params={"verbosity": -1})
        history = {}
        record = lightgbm.record_evaluation(history)
        feval = options.pop("feval", None)
        lightgbm.train(
            parameters | options,
            data,
            N_ROUNDS,
            valid_sets=[data],
            valid_names=["digits"],
            feval=feval,
            callbacks=[record],
        )
        return history["digits"]["multi_logloss"]

    expected = losses_in_training(objective="multiclass", metric="multi_logloss")
    # With a custom objective, scores are not turned into probabilities, but the library's metric expects those.
    losses = losses_in_training(
        objective=objective_of_kind("lightgbm", labels, weights),
        metric="None",
        feval=lambda scores, data: ("multi_logloss", mean_loss(scores, labels, weights), False),
    )
    assert len(losses) == N_ROUNDS
    assert losses[-1] < 0.1
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-6)


def test_xgboost_trains_as_with_its_own_multiclass_objective(digits, weights):
    xgboost = pytest.importorskip("xgboost", minversion="2.1")
    x, labels = digits
    data = xgboost.DMatrix(x, labels, weight=weights)
    parameters = {
        "num_class": N_CLASSES,
        "max_depth": 3,
        "eta": 0.3,
        "tree_method": "hist",
        "nthread": 1,
        "base_score": 0.0,  # both begin with this score; each objective has its own default
    }
    history, losses = {}, []
    own = xgboost.train(
        parameters | {"objective": "multi:softprob", "eval_metric": "mlogloss"},
        data,
        N_ROUNDS,
        evals=[(data, "digits")],
        evals_result=history,
        verbose_eval=False,
    )
    # A root's cover is the sum of its samples' Hessians; in the first tree p = 1 / C everywhere. Releases whose own
    # objective has another one than max(2 p (1 - p), 1e-16), as dmlc/xgboost #12537 proposes, train differently.
    cover = json.loads(own.get_dump(with_stats=True, dump_format="json")[0])["cover"]
    total = len(labels) if weights is None else weights.sum()
    if cover != pytest.approx(total * 2 * 0.1 * 0.9, rel=1e-4):
        pytest.skip(f"XGBoost {xgboost.__version__} has another Hessian in its own multiclass objective")

    def metric(scores, _):
        losses.append(mean_loss(scores, labels, weights))  # the library keeps six decimals of this only
        return "mlogloss", losses[-1]

    xgboost.train(
        parameters | {"disable_default_eval_metric": True},
        data,
        N_ROUNDS,
        obj=objective_of_kind("xgboost", labels, weights),
        custom_metric=metric,
        evals=[(data, "digits")],
        verbose_eval=False,
    )
    assert len(losses) == N_ROUNDS
    assert losses[-1] < 0.3
    np.testing.assert_allclose(losses, history["digits"]["mlogloss"], rtol=0, atol=1e-6)


# --- The softmax's own derivatives ---------------------------------------------------------------------------


def test_forward_mode_tells_how_probabilities_answer_to_a_change_of_the_image(digits, isa, rng):
    # The model is linear in the pixels. Each image is made a little brighter on its left half.
    x, weights = digits[0][:50], rng.normal(size=(64, N_CLASSES))
    change = np.where(np.arange(64) % 8 < 4, 1.0, 0.0) * np.ones_like(x)
    sensitivity = softxent.softmax_jvp(x @ weights, change @ weights)

    h = 1e-6
    ahead, behind = (softxent.softmax((x + step * change) @ weights) for step in (h, -h))
    np.testing.assert_allclose(sensitivity, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)
    # Probability is moved between classes. None is created.
    np.testing.assert_allclose(sensitivity.sum(axis=1), 0, atol=1e-13)


def attention(q, k, v):
    """Attention, as in a transformer's layer: for each query the mean of the values, weighted by how well keys fit the
    query.
    """
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    return scores, softxent.softmax(scores) @ v


def test_backpropagation_through_attention(dtype, isa, rng):
    # There are two heads, 7 queries and 40 keys. The gradient is that of a random linear function of the output.
    q, k, v, upstream = (rng.normal(size=(2, n, 8)).astype(dtype) for n in (7, 40, 40, 7))
    scores, _ = attention(q, k, v)
    grad_scores = softxent.softmax_vjp(scores, upstream @ v.swapaxes(-1, -2))
    assert grad_scores.dtype == dtype
    grad_q = grad_scores @ k * 8**-0.5
    grad_k = grad_scores.swapaxes(-1, -2) @ q * 8**-0.5

    def objective(q, k):
        return (upstream.astype(np.float64) * attention(q, k, v.astype(np.float64))[1]).sum()

    h = 1e-5
    q, k = q.astype(np.float64), k.astype(np.float64)
    tolerance = 1e-7 if dtype == np.float64 else 1e-5
    for grad, argument, function in [(grad_q, q, lambda q: objective(q, k)), (grad_k, k, lambda k: objective(q, k))]:
        for _ in range(5):
            direction = rng.normal(size=argument.shape)
            difference = function(argument + h * direction) - function(argument - h * direction)
            assert (grad * direction).sum() == pytest.approx(difference / (2 * h), rel=tolerance, abs=tolerance)


def test_the_covariance_of_probabilities_by_the_delta_method(isa, rng):
    # Logits with a covariance S, as from a Laplace approximation, give probabilities of covariance J S J^T.
    logits = rng.normal(size=(5, N_CLASSES))
    root = rng.normal(size=(5, N_CLASSES, 3)) / 100
    jacobian = softxent.softmax_jacobian(logits)
    covariance = jacobian @ root @ root.swapaxes(-1, -2) @ jacobian.swapaxes(-1, -2)

    # The same covariance without a matrix: each column of S's root goes through the softmax.
    moved = np.stack([softxent.softmax_jvp(logits, root[..., i]) for i in range(3)], axis=-1)
    np.testing.assert_allclose(covariance, moved @ moved.swapaxes(-1, -2), rtol=1e-9, atol=1e-18)
    # The total probability does not vary.
    np.testing.assert_allclose(covariance.sum(axis=-1), 0, atol=1e-18)

    # Random draws confirm the covariance. The linear approximation is off by the second derivative times S, and the
    # draws by 1 / sqrt(n).
    draws = logits + np.einsum("nki,mni->mnk", root, rng.normal(size=(20_000, 5, 3)))
    deviations = softxent.softmax(draws) - softxent.softmax(logits)
    sampled = np.einsum("mnk,mnl->nkl", deviations, deviations) / len(draws)
    scale = np.sqrt(np.einsum("nkk,nll->nkl", covariance, covariance))
    assert np.all(np.abs(sampled - covariance) < 0.05 * scale)


def test_the_columns_of_the_jacobian_are_what_forward_and_backward_mode_give(dtype, isa, rng):
    logits = rng.normal(size=(4, N_CLASSES)).astype(dtype)
    jacobian = softxent.softmax_jacobian(logits)
    for k, unit in enumerate(np.eye(N_CLASSES, dtype=dtype)):
        unit = np.broadcast_to(unit, logits.shape)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(softxent.softmax_jvp(logits, unit), jacobian[..., k], rtol=60 * eps, atol=4 * eps)
        np.testing.assert_allclose(softxent.softmax_vjp(logits, unit), jacobian[..., k, :], rtol=60 * eps, atol=4 * eps)
