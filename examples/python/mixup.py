"""Mixup and CutMix: samples made of two, with both their labels.

    L = lam CE(z, y_1) + (1 - lam) CE(z, y_2)

It is the cross-entropy of the mixed distribution lam e_(y_1) + (1 - lam) e_(y_2), as this is linear in the target.
H. Zhang et al., "mixup: Beyond Empirical Risk Minimization" (ICLR 2018), section 1: the inputs are mixed as the labels
are, and lam is drawn from Beta(alpha, alpha). S. Yun et al., "CutMix: Regularization Strategy to Train Strong
Classifiers with Localizable Features" (ICCV 2019), equation 1: a box of one image is from another, and 1 - lam is the
box's part of the area.

The recipe: two losses of class indices, with lam as sample weights, and one gradient, to which the second call adds. No
array of distributions is made. ``normalizer=`` is the number of samples: by default each mean is divided by the sum of
its own weights.
"""

import numpy as np
from gradcheck import central_differences, plain_softmax

import softxent


def mixed_loss_and_grad(logits, first, second, lam, out=None):
    """The mean loss and its gradient; first, second and lam have one entry for each sample."""
    n = len(logits)
    loss, grad = softxent.cross_entropy_and_grad(logits, first, sample_weight=lam, normalizer=n, out=out)
    more, _ = softxent.cross_entropy_and_grad(
        logits, second, sample_weight=1 - lam, normalizer=n, out=grad, accumulate=True
    )
    return loss + more, grad


def check(lam, first, second, n_classes=10):
    n = len(lam)
    logits = 2 * np.random.default_rng(1).standard_normal((n, n_classes))
    loss, grad = mixed_loss_and_grad(logits, first, second, lam)

    mixed = lam[:, None] * np.eye(n_classes)[first] + (1 - lam)[:, None] * np.eye(n_classes)[second]
    of_mixed, grad_of_mixed = softxent.cross_entropy_and_grad(logits, mixed)
    np.testing.assert_allclose(loss, of_mixed, rtol=1e-13)
    np.testing.assert_allclose(grad, grad_of_mixed, rtol=0, atol=1e-17)

    def by_definition(z):
        return -(mixed * np.log(plain_softmax(z))).sum(axis=1)

    np.testing.assert_allclose(loss, by_definition(logits).mean(), rtol=1e-13)
    np.testing.assert_allclose(n * grad, central_differences(by_definition, logits), rtol=0, atol=5e-9)
    return loss


if __name__ == "__main__":
    random = np.random.default_rng(0)
    labels, partner = random.integers(0, 10, 500), random.permutation(500)
    check(np.full(500, random.beta(0.2, 0.2)), labels, labels[partner])  # mixup: one lam for the batch
    height, width = random.integers(0, 33, (2, 500))  # CutMix: boxes in images of 32 x 32, one for each sample
    loss = check(1 - height * width / 32**2, labels, labels[partner])
    print(f"mean loss of 500 samples of two labels each: {loss:.5f}")
