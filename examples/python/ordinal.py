"""Expected cost: for classes in an order, where a near miss costs less than a far one.

    E = sum_k p_k cost[y, k],    for instance cost[y, k] = |k - y|,    p = softmax(z)

C. Bishop, *Pattern Recognition and Machine Learning* (Springer, 2006), section 1.5.2, where the cost is a loss matrix:
here it is expected of a guess that is drawn from p. The gradient with respect to p is the row of the cost; that with
respect to the logits follows by the softmax's Jacobian (equation 4.106):

    dE/dz_k = p_k (cost[y, k] - E)

The recipe: ``softmax_vjp`` with the rows as the upstream gradient. Costs of 0 and 1 give E = 1 - p_y, which is counted
from the other classes, and not by a difference.
"""

import numpy as np
from gradcheck import central_differences, confident_samples, plain_softmax

import softxent


def expected_cost_and_grad(logits, labels, cost):
    """The expected cost of each sample, and the gradient of their sum; cost is (C, C), by label and guess."""
    rows = cost[labels]
    return np.vecdot(softxent.softmax(logits), rows), softxent.softmax_vjp(logits, rows)


def check(cost):
    def by_definition(z):
        return (plain_softmax(z) * cost[labels]).sum(axis=1)

    n_classes = len(cost)
    random = np.random.default_rng(0)
    logits, labels = 2 * random.standard_normal((500, n_classes)), random.integers(0, n_classes, 500)
    expected, grad = expected_cost_and_grad(logits, labels, cost)
    np.testing.assert_allclose(expected, by_definition(logits), rtol=1e-12)
    np.testing.assert_allclose(grad, central_differences(by_definition, logits), rtol=0, atol=5e-8)

    confident, labels, q = confident_samples(label=3, n_classes=n_classes)
    expected, grad = expected_cost_and_grad(confident, labels, cost)
    exact = q * cost[3].sum() / (n_classes - 1)
    np.testing.assert_allclose(expected, exact, rtol=1e-5)
    np.testing.assert_allclose(grad[:, 3], -(1 - q) * exact, rtol=1e-5)
    return expected[0]


if __name__ == "__main__":
    distance = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    check(distance > 0)
    check(distance**2)
    print(f"expected distance from the label, which leads by 5: {check(distance):.5f}")
