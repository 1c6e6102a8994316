"""Macro average: the mean over the classes of the mean loss of each class's samples, so that rare ones count as much.

    L = 1/K sum_c 1/n_c sum_(n: y_n = c) L_n,    n_c the samples of class c, K the classes that have any

G. King and L. Zeng, "Logistic Regression in Rare Events Data" (Political Analysis 9, 2001), section 4.2, weigh the
samples of two classes so; scikit-learn's ``class_weight="balanced"`` are the same weights times n / K.

The recipe: ``class_weight=1 / n_c``. The mean divides by the sum of its samples' weights, which is K. Where the samples
come in batches, the n_c are those of them all, and ``normalizer=K``: the batches' losses add up to that of the whole.
With ``label_smoothing`` give ``sample_weight=(1 / n_c)[labels]`` instead: class weights multiply the terms of the
smoothed target, and not the sample.
"""

import numpy as np
from gradcheck import central_differences, plain_softmax

import softxent


def balanced_weights(labels, n_classes):
    """1 / n_c, and 0 for a class without samples."""
    counts = np.bincount(labels, minlength=n_classes)
    return np.divide(1.0, counts, out=np.zeros(n_classes), where=counts > 0)


def macro_loss_and_grad(logits, labels, out=None):
    weights = balanced_weights(labels, logits.shape[1])
    return softxent.cross_entropy_and_grad(logits, labels, class_weight=weights, out=out)


def macro_loss_and_grad_in_batches(logits, labels, batch=64):
    weights = balanced_weights(labels, logits.shape[1])
    loss, grad = 0.0, np.empty_like(logits)
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        loss += softxent.cross_entropy_and_grad(
            logits[part], labels[part], class_weight=weights, normalizer=np.count_nonzero(weights), out=grad[part]
        )[0]
    return loss, grad


def check(logits, labels):
    def by_definition(z):
        """Each sample's part of the average."""
        parts, classes = -np.log(plain_softmax(z)[np.arange(len(z)), labels]), np.unique(labels)
        for c in classes:
            parts[labels == c] /= len(classes) * np.sum(labels == c)
        return parts

    for loss, grad in (macro_loss_and_grad(logits, labels), macro_loss_and_grad_in_batches(logits, labels)):
        np.testing.assert_allclose(loss, by_definition(logits).sum(), rtol=1e-13)
        np.testing.assert_allclose(grad, central_differences(by_definition, logits), rtol=0, atol=5e-9)
    return loss


if __name__ == "__main__":
    random = np.random.default_rng(0)
    labels = np.minimum(random.geometric(0.5, 500) - 1, 8)  # class 0 has half of the samples, class 9 none
    logits = random.standard_normal((500, 10))
    logits[labels == 0, 0] += 3
    loss = check(logits, labels)
    print(f"mean loss of the samples {softxent.cross_entropy(logits, labels):.4f}, of the classes {loss:.4f}")
