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
    with softxent.set_num_threads(1):
        curve = train(z.astype(np.float32), y, 5, 0.1)
    softxent.set_num_threads(None)
    mean = of_any_reduction(z, y, "mean")
    print(loss + total + float(losses.sum()) + curve[-1], mean)


if __name__ == "__main__":
    main()
