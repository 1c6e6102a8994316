"""PolyLoss: cross-entropy with another weight for the first term of its series in 1 - p.

    L_Poly-1 = L + epsilon (1 - p),    L = -log p = (1 - p) + (1 - p)^2 / 2 + ...,    p that of the label's class

Z. Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions" (ICLR 2022), the loss
that is named Poly-1 there; epsilon is at least -1. With dp/dL = -p it is

    dL_Poly-1/dL = 1 + epsilon p = (1 + epsilon) - epsilon (1 - p)

The recipe is that of focal.py: a factor for each sample, as ``grad_output=``. The second form of the factor keeps its
digits also for epsilon = -1, where it is nearly 0 for a confident sample. The loss is then a difference of nearly equal
numbers, and keeps fewer; the gradient does not depend on it.
"""

import numpy as np
from gradcheck import central_differences, confident_samples, plain_softmax

import softxent


def poly_loss_and_grad(logits, labels, epsilon=1.0, out=None):
    """The loss of each sample, and the gradient of their sum."""
    loss = softxent.cross_entropy(logits, labels, reduction="none")
    q = -np.expm1(-loss)  # 1 - p
    factor = (1 + epsilon) - epsilon * q
    _, grad = softxent.cross_entropy_and_grad(logits, labels, grad_output=factor, reduction="none", out=out)
    return loss + epsilon * q, grad


def check(epsilon):
    def by_definition(z):
        p = plain_softmax(z)[np.arange(len(z)), labels]
        return -np.log(p) + epsilon * (1 - p)

    random = np.random.default_rng(0)
    logits, labels = 2 * random.standard_normal((500, 10)), random.integers(0, 10, 500)
    loss, grad = poly_loss_and_grad(logits, labels, epsilon)
    np.testing.assert_allclose(loss, by_definition(logits), rtol=0, atol=1e-14)
    np.testing.assert_allclose(grad, central_differences(by_definition, logits), rtol=0, atol=5e-9)

    confident, labels, q = confident_samples(label=3)
    loss, grad = poly_loss_and_grad(confident, labels, epsilon)
    np.testing.assert_allclose((loss + np.log1p(-q) - epsilon * q) / q, 0, atol=1e-5)
    np.testing.assert_allclose(grad[:, 3], -q * (1 + epsilon - epsilon * q), rtol=1e-5)
    return grad[-1, 3]


if __name__ == "__main__":
    for epsilon in (0.0, 0.5, 2.0):
        check(epsilon)
    print(f"its gradient with epsilon -1, of a float32 sample whose class leads by 27: {check(epsilon=-1.0):.5g}")
