"""How to check a loss and its gradient: by definition in plain NumPy, by differences, and where the answer is known.

    dL/dz_k = (L(z + h e_k) - L(z - h e_k)) / 2h + O(h^2),    to which the rounding of L adds eps L / h

W. Press et al., *Numerical Recipes* (third edition, Cambridge University Press, 2007), section 5.7: h is near the cube
root of eps. So 10 of float64's 16 digits are left; float32 has not enough of them. Its results are better checked on
confident samples, where formulas as they are written lose digits, and the exact answer has a short form. The other
programs of this folder are checked in these ways.
"""

import numpy as np

import softxent


def central_differences(losses, logits, h=6e-6):
    """The gradient of ``losses``, a function from logits (n, C) to one loss for each sample (n,).

    A sample's loss depends on its own logits alone. So one class is changed for all samples at once.
    """
    steps = h * np.eye(logits.shape[1])
    return np.stack([(losses(logits + step) - losses(logits - step)) / (2 * h) for step in steps], axis=1)


def plain_softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def confident_samples(label, n_classes=10):
    """Logits in float32, where the label's leads all others by d = 5, 6, ... 27; the labels; and 1 - p in float64.

    With s = (C - 1) exp(-d) it is 1 - p = s / (1 + s), which the others share alike.
    """
    lead = np.arange(5, 28)
    logits = np.zeros((len(lead), n_classes), np.float32)
    logits[:, label] = lead
    s = (n_classes - 1) * np.exp(-lead.astype(np.float64))
    return logits, np.full(len(lead), label), s / (1 + s)


if __name__ == "__main__":
    random = np.random.default_rng(0)
    logits, labels = 2 * random.standard_normal((500, 10)), random.integers(0, 10, 500)
    loss, grad = softxent.cross_entropy_and_grad(logits, labels, reduction="none")
    differences = central_differences(lambda z: -np.log(plain_softmax(z)[np.arange(500), labels]), logits)
    np.testing.assert_allclose(grad, differences, rtol=0, atol=5e-9)

    confident, labels, q = confident_samples(label=3)
    loss, grad_there = softxent.cross_entropy_and_grad(confident, labels, reduction="none")
    np.testing.assert_allclose(loss, -np.log1p(-q), rtol=1e-5)
    np.testing.assert_allclose(grad_there[:, 3], -q, rtol=1e-5)
    print(f"gradient and central differences of 500 samples differ by {np.abs(grad - differences).max():.0e} at most")
