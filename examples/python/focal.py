"""Focal loss: cross-entropy that counts easy samples for less.

    FL = (1 - p)^gamma L,    L = -log p,    p the probability of the label's class

T.-Y. Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), equation 4. By the chain rule its gradient is
that of cross-entropy, times a number for each sample:

    dFL/dL = (1 - p)^gamma (1 + gamma p L / (1 - p))

The recipe: a loss that is a function of each sample's cross-entropy needs these losses (``reduction="none"``), and then
one gradient, with ``grad_output=``. And 1 - p comes from ``-expm1(-L)``: the difference has few digits for a confident
sample, and is 0 for a very confident one. The weights alpha of equation 5 are ``class_weight=`` in the second call, and
``alpha[labels]`` times the losses.
"""

import numpy as np
from gradcheck import central_differences, confident_samples, plain_softmax

import softxent


def focal_loss_and_grad(logits, labels, gamma=2.0, out=None):
    """The loss of each sample, and the gradient of their sum; nan where the loss is infinite."""
    loss = softxent.cross_entropy(logits, labels, reduction="none")
    p, q = np.exp(-loss), -np.expm1(-loss)  # q is 1 - p
    ratio = np.divide(loss, q, out=np.ones_like(loss), where=q > 0)  # L / (1 - p), which tends to 1
    factor = q**gamma * (1 + gamma * p * ratio)
    _, grad = softxent.cross_entropy_and_grad(logits, labels, grad_output=factor, reduction="none", out=out)
    return q**gamma * loss, grad


def check(gamma):
    def by_definition(z):
        p = plain_softmax(z)[np.arange(len(z)), labels]
        return (1 - p) ** gamma * -np.log(p)

    random = np.random.default_rng(0)
    logits, labels = 2 * random.standard_normal((500, 10)), random.integers(0, 10, 500)
    loss, grad = focal_loss_and_grad(logits, labels, gamma)
    np.testing.assert_allclose(loss, by_definition(logits), rtol=1e-11)
    np.testing.assert_allclose(grad, central_differences(by_definition, logits), rtol=0, atol=5e-9)

    confident, labels, q = confident_samples(label=3)
    loss, grad = focal_loss_and_grad(confident, labels, gamma)
    ce = -np.log1p(-q)
    np.testing.assert_allclose(loss, q**gamma * ce, rtol=1e-5)
    np.testing.assert_allclose(grad[:, 3], -(q**gamma) * (q + gamma * (1 - q) * ce), rtol=1e-5)
    return loss[-1]


if __name__ == "__main__":
    for gamma in (0.0, 0.5, 1.0):
        check(gamma)
    print(f"focal loss of a float32 sample whose class leads by 27: {check(gamma=2.0):.5g}")
