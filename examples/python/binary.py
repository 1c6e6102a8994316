"""Binary cross-entropy of logits: two classes, and the logit of the first is 0.

    L = -y log s - (1 - y) log(1 - s),    s = 1 / (1 + exp(-z)),    dL/dz = s - y

C. Bishop, *Pattern Recognition and Machine Learning* (Springer, 2006), equations 4.90 and 4.91. The softmax of (0, z)
is (1 - s, s): so this is the cross-entropy of these two, and the gradient is its second half.

The recipe: the class axis comes first, so that the two halves lie one after the other, and the gradient is a view of
the second. ``pos_weight``, which multiplies the samples of y = 1, is a class weight (1, pos_weight). PyTorch's
``BCEWithLogitsLoss`` divides its mean by the number of samples all the same: that is ``normalizer=z.size``. A y between
0 and 1 is the distribution (1 - y, y).
"""

import numpy as np
from gradcheck import central_differences

import softxent


def binary_cross_entropy_and_grad(z, y, pos_weight=1.0):
    """The mean loss and its gradient; z and y of any one shape, y integers, 0 or 1, or floats from 0 to 1."""
    logits = np.stack([np.zeros_like(z), z])
    labels = y if y.dtype.kind in "iu" else np.stack([1 - y, y])
    loss, grad = softxent.cross_entropy_and_grad(
        logits, labels, axis=0, class_weight=[1.0, pos_weight], normalizer=z.size, out=logits
    )
    return loss, grad[1]


def by_definition(z, y, pos_weight):
    """The loss of each sample; -log s is log1p(exp(-z)), or log1p(exp(z)) - z, whichever does not overflow."""
    positive, negative = (np.log1p(np.exp(-np.abs(z))) + np.maximum(against, 0) for against in (-z, z))
    return pos_weight * y * positive + (1 - y) * negative


def check(y, pos_weight):
    z = 3 * np.random.default_rng(1).standard_normal(y.shape)
    loss, grad = binary_cross_entropy_and_grad(z, y, pos_weight)
    np.testing.assert_allclose(loss, by_definition(z, y, pos_weight).mean(), rtol=1e-13)
    differences = central_differences(
        lambda column: by_definition(column[:, 0], y.ravel(), pos_weight), z.reshape(-1, 1)
    )
    np.testing.assert_allclose(z.size * grad, differences.reshape(z.shape), rtol=0, atol=2e-8)


def check_extreme_logits():
    """Each by itself, in float32: nothing overflows, and a small loss or gradient is not 0."""
    for z in np.float32([[-3e38], [-1e4], [-80], [-20], [-1], [0], [1], [20], [80], [1e4], [3e38]]):
        for y in (0, 1):
            loss, grad = binary_cross_entropy_and_grad(z, np.array([y]))
            exact = z.astype(np.float64)
            np.testing.assert_allclose(loss, by_definition(exact, y, 1.0)[0], rtol=1e-5)
            s = np.exp(-by_definition(exact, 1, 1.0))
            np.testing.assert_allclose(grad, s if y == 0 else -np.exp(-by_definition(exact, 0, 1.0)), rtol=1e-5)


if __name__ == "__main__":
    random = np.random.default_rng(0)
    for y in (random.integers(0, 2, 500), random.integers(0, 2, (20, 30)), random.random((20, 30))):
        for pos_weight in (1.0, 0.3, 7.0):
            check(y, pos_weight)
    check_extreme_logits()
    loss, _ = binary_cross_entropy_and_grad(np.float32([20, -20, 80]), np.array([1, 0, 1]))
    print(f"mean loss of three confident and right float32 logits: {loss:.5g}")
