"""A small program of a user's, for type checkers: test_types.py checks it, and runs it."""

from typing import Any, Literal, assert_type

import numpy as np
import numpy.typing as npt

import softxent

Array = npt.NDArray[Any]


def train(x: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], n_classes: int, rate: float) -> list[float]:
    weight = np.zeros((x.shape[1], n_classes), np.float32)
    grad = np.empty((x.shape[0], n_classes), np.float32)
    curve: list[float] = []
    for _ in range(3):
        loss, grad = softxent.cross_entropy_and_grad(x @ weight, labels, out=grad)
        weight -= rate * (x.T @ grad)
        curve.append(loss)
    return curve


def of_any_reduction(z: Array, y: Array, reduction: Literal["mean", "sum", "none"]) -> float | Array:
    return softxent.cross_entropy(z, y, reduction=reduction)


def fit_temperature(z: Array, y: Array) -> None:
    each = np.full(len(z), 1.5)
    assert_type(softxent.cross_entropy_and_grad(z, y, wrt_temperature=False), tuple[float, Array])
    assert_type(softxent.cross_entropy_and_grad(z, y, wrt_temperature=True), tuple[float, Array, float | Array])
    _, _, slopes = softxent.cross_entropy_and_grad(z, y, reduction="none", temperature=each, wrt_temperature=True)
    assert_type(slopes, Array)


def distil(student: Array, teacher: Array) -> None:
    top = softxent.SparseTarget(np.argsort(teacher)[:, -2:], [[0.25, 0.75]] * len(teacher))
    assert_type(softxent.cross_entropy(student, top), float)
    assert_type(softxent.cross_entropy_and_grad(student, top, reduction="none"), tuple[Array, Array])
    assert_type(softxent.kl_divergence(student, teacher, target_logits=True, temperature=2), float)
    assert_type(softxent.kl_divergence(student, teacher, target_logits=True, reduction="none"), Array)
    assert_type(softxent.kl_divergence_and_grad(student, teacher, target_logits=True), tuple[float, Array])
    p = softxent.softmax(teacher)
    assert_type(softxent.kl_divergence_and_grad(student, p, reduction="none", out=student), tuple[Array, Array])


def main() -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(20, 5)), rng.integers(0, 5, 20)
    loss: float = softxent.cross_entropy(z, y)
    total: float = softxent.cross_entropy([[0.0, 1.0]], [1], reduction="sum", class_weight=[1, 2], axis=-1)
    losses: Array = softxent.cross_entropy(z, y, reduction="none", out=np.empty(20), temperature=2, where=z < 9)
    assert_type(softxent.cross_entropy(z, y, ignore_index=None, label_smoothing=0.1), float)
    assert_type(softxent.cross_entropy_and_grad(z, y, normalizer=3.0), tuple[float, Array])
    assert_type(softxent.cross_entropy_and_grad(z, y, reduction="none", grad_output=y), tuple[Array, Array])
    assert_type(softxent.cross_entropy_and_rank(z, y, reduction="mean"), tuple[float, Array, Array])
    assert_type(softxent.cross_entropy_and_rank(z, y, reduction="none", softcap=3.0), tuple[Array, Array, Array])
    assert_type(softxent.cross_entropy_grad_hess(z, y, kind="xgboost", out=(z, None)), tuple[float, Array, Array])
    assert_type(softxent.cross_entropy_grad_hess(z, y, reduction="none", base=2), tuple[Array, Array, Array])
    assert_type(softxent.cross_entropy_hvp(z, y, z, reduction="none", sample_weight=losses), Array)
    assert_type(softxent.softmax(z, 0, temperature=2.0, n_threads=1), Array)
    assert_type(softxent.logsumexp(z, where=[True] * 5), Array)
    assert_type(softxent.entropy(z, (0, 1), keepdims=True), Array)
    assert_type(softxent.entropy_and_grad(z, temperature=0.5), tuple[Array, Array])
    assert_type(softxent.log_softmax_vjp(z, z, where=z < 9), Array)
    fit_temperature(z, y)
    distil(z, z[::-1])
    with softxent.set_num_threads(1):
        curve = train(z.astype(np.float32), y, 5, 0.1)
    softxent.set_num_threads(None)
    mean = of_any_reduction(z, y, "mean")
    print(loss + total + float(losses.sum()) + curve[-1], mean)


if __name__ == "__main__":
    main()
